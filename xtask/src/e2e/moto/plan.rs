//! Derives a stack on moto from the templates: resources for moto's CloudFormation, which supports
//! neither nested stacks of files nor subscriptions, and the configuration of `lambda-host`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use stack_template::{Stacks, as_text};

use super::Ports;
use crate::e2e::emulator;
use crate::e2e::stack::NAME;
use crate::lambdas::{FUNCTIONS, ROLE};

pub(super) const REGION: &str = "us-east-1";
/// The account of moto.
const ACCOUNT: &str = "123456789012";
/// Two shards, so that shards run in parallel.
const SHARDS: u64 = 2;
/// The view that receives commits through its queue. SNS invokes all others.
const BY_QUEUE: &str = "Statement";
/// The period of schedules: the template's minute would be long for a test. Each run of a sweep makes 64 queries of the
/// catalogue, and moto answers some hundred calls a second.
const SCHEDULE_MS: u64 = 10_000;
/// Logs that each of the four sweeps inspects in a run. Each log costs moto some calls, and it
/// handles about 250 a second.
const LOGS_PER_SWEEP: u64 = 40;
/// How often streams and queues are polled, in milliseconds. Each poll costs moto some calls.
const STREAM_POLL_MS: u64 = 100;
const QUEUE_POLL_MS: u64 = 250;

/// The stack on moto.
pub(super) struct Plan {
    /// A template without references.
    pub(super) resources: Value,
    pub(super) subscriptions: Vec<Subscription>,
    /// The host's configuration.
    pub(super) host: Value,
}

/// A queue that is subscribed to a topic.
pub(super) struct Subscription {
    pub(super) topic: String,
    pub(super) queue: String,
    pub(super) is_raw: bool,
}

/// Plans the stack of this template, with these packages (`<name>/bootstrap`).
pub(super) fn plan(template: &Path, packages: &Path, ports: Ports, logs: &Path) -> Result<Plan> {
    let [direct, queue] = ["direct", "queue"].map(|delivery| evaluated(template, delivery, ports));
    let (direct, queue) = (direct?, queue?);
    let of_view = |id: &str| id.starts_with(BY_QUEUE);
    let mut all: Vec<(String, Value)> =
        direct.resources()?.into_iter().filter(|(id, _)| !of_view(id)).collect();
    all.extend(queue.resources()?.into_iter().filter(|(id, _)| of_view(id)));
    let resources = Resources(all);
    let mut made = Map::new();
    for kind in
        ["AWS::DynamoDB::Table", "AWS::Kinesis::Stream", "AWS::SNS::Topic", "AWS::SQS::Queue"]
    {
        for (id, of) in resources.of(kind) {
            made.insert(id.clone(), json!({ "Type": kind, "Properties": of["Properties"] }));
        }
    }
    let (mut subscriptions, mut by_sns) = (Vec::new(), Map::new());
    for (id, of) in resources.of("AWS::SNS::Subscription") {
        let (of, topic) = (&of["Properties"], as_text(&of["Properties"]["TopicArn"]));
        let endpoint = as_text(&of["Endpoint"]);
        let is_raw = of["RawMessageDelivery"] == true;
        if of["Protocol"] == "sqs" {
            subscriptions.push(Subscription { topic, queue: endpoint, is_raw });
            continue;
        }
        // moto would run the function itself, in Docker, so a queue is subscribed instead.
        let function = last(&endpoint, ':');
        let name = format!("{function}-deliveries");
        let queue = json!({ "Type": "AWS::SQS::Queue", "Properties": { "QueueName": name } });
        made.insert(format!("{id}Deliveries"), queue);
        let delivery = json!({ "url": queue_url(ports, &name), "poll_ms": QUEUE_POLL_MS });
        by_sns.insert(function, delivery);
        subscriptions.push(Subscription { topic, queue: arn("sqs", &name), is_raw: false });
    }
    dead_letters_first(&mut made);
    let mut host = host(&resources, packages, ports)?;
    host["subscriptions"] = Value::Object(by_sns);
    host["logs"] = json!(logs);
    Ok(Plan { resources: json!({ "Resources": made }), subscriptions, host })
}

/// Makes queues with a redrive policy depend on the queues that they may name.
fn dead_letters_first(made: &mut Map<String, Value>) {
    let is_queue = |of: &Value| of["Type"] == "AWS::SQS::Queue";
    let redrives = |of: &Value| !of["Properties"]["RedrivePolicy"].is_null();
    let first = made.iter().filter(|(_, of)| is_queue(of) && !redrives(of));
    let first: Vec<String> = first.map(|(id, _)| id.clone()).collect();
    for of in made.values_mut().filter(|of| redrives(of)) {
        of["DependsOn"] = json!(first);
    }
}

/// Evaluates the templates with the names and ARNs that their resources have on moto.
fn evaluated(template: &Path, delivery: &str, ports: Ports) -> Result<Stacks> {
    let known = [
        ("AWS::StackName", json!(NAME)),
        ("AWS::Region", json!(REGION)),
        ("AWS::AccountId", json!(ACCOUNT)),
        ("AWS::Partition", json!("aws")),
    ];
    let given = [
        ("ApiAuthorization", json!("NONE")),
        ("ViewDelivery", json!(delivery)),
        ("StreamShards", json!(SHARDS)),
        ("LogsPerSweep", json!(LOGS_PER_SWEEP)),
    ];
    let mut stacks = Stacks::read(template, &known, &given)?;
    for (id, of) in stacks.resources()? {
        let name = |property: &str| as_text(&of["Properties"][property]);
        let (kind, reference, own_arn) = match of["Type"].as_str().unwrap_or_default() {
            "AWS::DynamoDB::Table" => {
                let name = name("TableName");
                // moto makes the stream's ARN. The host finds it by the table's name.
                stacks.define(&format!("{id}.StreamArn"), &json!(name));
                ("dynamodb", name.clone(), arn("dynamodb", &format!("table/{name}")))
            }
            "AWS::Kinesis::Stream" => {
                ("kinesis", name("Name"), arn("kinesis", &format!("stream/{}", name("Name"))))
            }
            "AWS::SNS::Topic" => {
                let arn = arn("sns", &name("TopicName"));
                ("sns", arn.clone(), arn)
            }
            "AWS::SQS::Queue" => {
                let name = name("QueueName");
                ("sqs", queue_url(ports, &name), arn("sqs", &name))
            }
            "AWS::Lambda::Function" => {
                let name = name("FunctionName");
                ("lambda", name.clone(), arn("lambda", &format!("function:{name}")))
            }
            _ => continue,
        };
        ensure!(reference != "null", "the template gives {id} no name ({kind})");
        stacks.define(&id, &json!(reference));
        stacks.define(&format!("{id}.Arn"), &json!(own_arn));
    }
    Ok(stacks)
}

/// The resources by their logical ids.
struct Resources(Vec<(String, Value)>);

impl Resources {
    fn of(&self, kind: &str) -> impl Iterator<Item = &(String, Value)> {
        self.0.iter().filter(move |(_, of)| of["Type"] == kind)
    }
}

/// The configuration of the host, without subscriptions.
fn host(resources: &Resources, packages: &Path, ports: Ports) -> Result<Value> {
    let mut all = Map::new();
    for (id, of) in resources.of("AWS::Lambda::Function") {
        let of = &of["Properties"];
        let function = function(of, packages, ports).with_context(|| id.clone())?;
        all.insert(as_text(&of["FunctionName"]), function);
    }
    for (id, of) in resources.of("AWS::Lambda::EventInvokeConfig") {
        let of = &of["Properties"];
        let function = all.get_mut(&as_text(&of["FunctionName"]));
        let function = function.with_context(|| format!("{id} is of no function"))?;
        function["on_error"] = on_error(of, ports)?;
    }
    let mut schedules = Map::new();
    for (_, of) in resources.of("AWS::Events::Rule") {
        let targets = of["Properties"]["Targets"].as_array().into_iter().flatten();
        let functions = targets.map(|target| last(&as_text(&target["Arn"]), ':'));
        schedules.extend(functions.map(|function| (function, json!(SCHEDULE_MS))));
    }
    let (mut streams, mut queues) = (Map::new(), Map::new());
    for (_, of) in resources.of("AWS::Lambda::EventSourceMapping") {
        let of = &of["Properties"];
        let (function, source) = (as_text(&of["FunctionName"]), as_text(&of["EventSourceArn"]));
        if source.contains(":sqs:") {
            queues.insert(function, queue(of, &source, ports)?);
        } else if source.contains(":kinesis:") {
            streams.insert(function, stream(of, json!({ "kinesis": last(&source, '/') }))?);
        } else {
            streams.insert(function, stream(of, json!({ "table": source }))?);
        }
    }
    let mut names: Vec<String> = all.keys().map(|name| last(name, '-')).collect();
    names.sort();
    ensure!(names == FUNCTIONS, "the template has other functions: {names:?}");
    ensure!(
        (streams.len(), queues.len(), schedules.len()) == (2, 1, 4),
        "the template has other mappings or schedules: {streams:?} {queues:?} {schedules:?}"
    );
    let named = |id: &str| -> Result<String> {
        let mut functions = resources.of("AWS::Lambda::Function");
        let (_, found) = functions
            .find(|(found, _)| found == id)
            .with_context(|| format!("there is no {id}"))?;
        Ok(as_text(&found["Properties"]["FunctionName"]))
    };
    Ok(json!({
        "endpoint": emulator::url(ports.moto),
        "region": REGION,
        "account": ACCOUNT,
        "control": format!("127.0.0.1:{}", ports.control),
        "front": {
            "listen": format!("127.0.0.1:{}", ports.front),
            "functions": { "/": named("ApiFunction")?, "/ops/": named("OperateFunction")? },
        },
        "functions": all,
        "streams": streams,
        "queues": queues,
        "schedules": schedules,
    }))
}

fn function(of: &Value, packages: &Path, ports: Ports) -> Result<Value> {
    let code = as_text(&of["Code"]);
    let package = last(code.trim_end_matches('/'), '/');
    let variables =
        of["Environment"]["Variables"].as_object().context("a function has no environment")?;
    let mut env: Map<String, Value> =
        variables.iter().map(|(name, value)| (name.clone(), json!(as_text(value)))).collect();
    for (name, value) in emulator::environment(ports.moto) {
        env.insert(name.to_owned(), json!(value));
    }
    // As many in parallel as Lambda would have under this load.
    let workers = match env.get(ROLE).and_then(Value::as_str).unwrap_or_default() {
        "api" => 16,
        "sweep" | "operate" => 1,
        "relay" | "processor" => 4,
        role if role.starts_with("view:") => 4,
        role => bail!("a function has the unknown role `{role}`"),
    };
    Ok(json!({
        "bootstrap": packages.join(&package).join("bootstrap"),
        "env": env,
        "workers": workers,
        "timeout_ms": number(&of["Timeout"])? * 1_000,
        "memory_mb": number(&of["MemorySize"])?,
    }))
}

/// Reads an `EventInvokeConfig`.
fn on_error(of: &Value, ports: Ports) -> Result<Value> {
    let mut out = json!({});
    if !of["MaximumRetryAttempts"].is_null() {
        out["retries"] = json!(number(&of["MaximumRetryAttempts"])?);
    }
    if !of["MaximumEventAgeInSeconds"].is_null() {
        out["age_ms_max"] = json!(number(&of["MaximumEventAgeInSeconds"])? * 1_000);
    }
    if let Some(queue) = of["DestinationConfig"]["OnFailure"]["Destination"].as_str() {
        out["destination"] = json!(queue_url(ports, &last(queue, ':')));
    }
    Ok(out)
}

fn queue(of: &Value, arn: &str, ports: Ports) -> Result<Value> {
    Ok(json!({
        "url": queue_url(ports, &last(arn, ':')),
        "batch_size": number(&of["BatchSize"])?,
        "window_ms": number(&of["MaximumBatchingWindowInSeconds"])? * 1_000,
        "concurrency": number(&of["ScalingConfig"]["MaximumConcurrency"])?,
        "report_failures": reports_failures(of),
        "poll_ms": QUEUE_POLL_MS,
    }))
}

fn stream(of: &Value, source: Value) -> Result<Value> {
    Ok(json!({
        "source": source,
        "batch_size": number(&of["BatchSize"])?,
        "window_ms": number(&of["MaximumBatchingWindowInSeconds"])? * 1_000,
        "parallelization": number(&of["ParallelizationFactor"])?,
        "bisect": of["BisectBatchOnFunctionError"] == true,
        "report_failures": reports_failures(of),
        "poll_ms": STREAM_POLL_MS,
    }))
}

fn reports_failures(of: &Value) -> bool {
    of["FunctionResponseTypes"] == json!(["ReportBatchItemFailures"])
}

/// A number, which may be a string.
fn number(of: &Value) -> Result<u64> {
    as_text(of).parse().with_context(|| format!("{of} is not a number"))
}

fn last(text: &str, before: char) -> String {
    text.rsplit(before).next().unwrap_or_default().to_owned()
}

fn arn(service: &str, resource: &str) -> String {
    format!("arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}")
}

fn queue_url(ports: Ports, name: &str) -> String {
    format!("{}/{ACCOUNT}/{name}", emulator::url(ports.moto))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports { moto: 1, front: 2, control: 3 };

    #[test]
    fn the_template_is_planned_without_references() {
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/template.yaml");
        let (packages, logs) = (Path::new("/packages"), Path::new("/logs"));
        let plan = plan(&template, packages, PORTS, logs).expect("it can be planned");
        let resources = plan.resources["Resources"].as_object().expect("there are some");
        let text = plan.resources.to_string() + &plan.host.to_string();
        assert!(!text.contains("\"Ref\"") && !text.contains("Fn::"), "{text}");
        let count = |kind: &str| resources.values().filter(|of| of["Type"] == kind).count();
        assert_eq!(count("AWS::DynamoDB::Table"), 9);
        // Three for dead letters, one of a view, two for deliveries.
        assert_eq!(count("AWS::SQS::Queue"), 6);
        assert_eq!(resources["Stream"]["Properties"]["ShardCount"], 2);
        assert_eq!(plan.subscriptions.len(), 3);
        assert_eq!(plan.subscriptions.iter().filter(|of| of.is_raw).count(), 1);
        let processor = &plan.host["functions"]["fanfold-processor"];
        assert_eq!(processor["bootstrap"], "/packages/ledger-lambda/bootstrap");
        assert_eq!(
            processor["env"]["FANFOLD_TOPICS"],
            "arn:aws:sns:us-east-1:123456789012:fanfold-commits"
        );
        let balances = &plan.host["functions"]["fanfold-balances"];
        let letters = "http://127.0.0.1:1/123456789012/fanfold-balances-dead-letters";
        assert_eq!(balances["env"]["FANFOLD_DEAD_LETTERS"], letters);
        assert_eq!(balances["on_error"]["destination"], letters);
        let commands = &plan.host["streams"]["fanfold-processor"];
        assert_eq!(commands["source"], json!({ "kinesis": "fanfold-commands" }));
        assert_eq!(commands["bisect"], true);
        assert_eq!(plan.host["streams"]["fanfold-relay"]["source"]["table"], "fanfold-commands");
        assert_eq!(plan.host["queues"]["fanfold-statement"]["report_failures"], true);
    }
}
