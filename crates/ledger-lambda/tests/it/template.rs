//! Tables, functions, mappings, deliveries and alarms: as the code knows them.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::MetadataCommand;
use fanfold::{Time, View};
use fanfold_aws::names::attribute::{BUCKET, PK, SK, TTL};
use fanfold_aws::names::{
    CANARIES, CATALOGUE_INDEX, DEAD_LETTERS, LOG, LOGS_PER_SWEEP, STREAM, TABLES, TOPICS, Tables,
};
use fanfold_lambda::metrics::{self, Dimensions, Metrics};
use ledger::views::{Balances, Statement, Totals};
use serde_json::{Value, json};

use crate::stack::{STACK, Template, as_text};

const VIEWS: [&str; 3] = [Balances::NAME, Statement::NAME, Totals::NAME];

/// `BalancesTable`, of `balances` and `Table`.
fn id(name: &str, what: &str) -> String {
    format!("{}{}{what}", name[..1].to_uppercase(), &name[1..])
}

/// What a table has to be, beside its name.
#[derive(Debug, PartialEq)]
struct Shape {
    /// Attribute, kind, type.
    keys: Vec<(String, String, String)>,
    stream: Value,
    expires_by: Value,
    index: Vec<(String, String, String)>,
    recoverable: bool,
    protected: bool,
}

fn keys(of: &[(&str, &str)]) -> Vec<(String, String, String)> {
    let kinds = ["HASH", "RANGE"];
    let keys = of.iter().zip(kinds);
    keys.map(|((name, of), kind)| ((*name).into(), kind.into(), (*of).into())).collect()
}

#[test]
fn tables_are_those_that_the_code_reads_and_writes() {
    let names = Tables::new(STACK);
    let shape = |sk: &[(&str, &str)]| Shape {
        keys: keys(&[&[(PK, "S")], sk].concat()),
        stream: Value::Null,
        expires_by: Value::Null,
        index: Vec::new(),
        recoverable: false,
        protected: false,
    };
    let commands = Shape {
        stream: json!("NEW_IMAGE"),
        index: keys(&[(BUCKET, "N"), (PK, "S")]),
        protected: true,
        ..shape(&[])
    };
    let journal = Shape { recoverable: true, protected: true, ..shape(&[(SK, "N")]) };
    let parked = Shape { recoverable: true, protected: true, ..shape(&[(SK, "S")]) };
    let view = || Shape { expires_by: json!(TTL), ..shape(&[(SK, "S")]) };
    let expected = BTreeMap::from([
        (names.commands(), commands),
        (names.journal(), journal),
        (names.state(), shape(&[(SK, "S")])),
        (names.parked(), parked),
        (names.view(Balances::NAME, Balances::VERSION), view()),
        (names.view(Statement::NAME, Statement::VERSION), view()),
        (names.view(Totals::NAME, Totals::VERSION), view()),
    ]);
    let tables = Template::with(&[]).of_type("AWS::DynamoDB::Table");
    let found = tables.values().map(|table| (as_text(&table["TableName"]), shape_of(table)));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
}

fn shape_of(table: &Value) -> Shape {
    assert_eq!(table["BillingMode"], "PAY_PER_REQUEST");
    let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
    let types: BTreeMap<_, _> = list(&table["AttributeDefinitions"])
        .iter()
        .map(|of| (as_text(&of["AttributeName"]), as_text(&of["AttributeType"])))
        .collect();
    let keys = |of: &Value| {
        let key = |key: &Value| {
            let name = as_text(&key["AttributeName"]);
            let kind = as_text(&key["KeyType"]);
            let of = types[&name].clone();
            (name, kind, of)
        };
        list(of).iter().map(key).collect::<Vec<_>>()
    };
    let indexes = list(&table["GlobalSecondaryIndexes"]);
    let index = indexes.first().map(|index| {
        assert_eq!(index["IndexName"], CATALOGUE_INDEX);
        assert_eq!(index["Projection"]["ProjectionType"], "KEYS_ONLY");
        keys(&index["KeySchema"])
    });
    assert!(indexes.len() < 2);
    let is = |of: &Value| of.as_bool().unwrap_or_default();
    let ttl = &table["TimeToLiveSpecification"];
    assert_eq!(is(&ttl["Enabled"]), ttl.is_object());
    Shape {
        keys: keys(&table["KeySchema"]),
        stream: table["StreamSpecification"]["StreamViewType"].clone(),
        expires_by: ttl["AttributeName"].clone(),
        index: index.unwrap_or_default(),
        recoverable: is(&table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]),
        protected: is(&table["DeletionProtectionEnabled"]),
    }
}

#[test]
fn protection_can_be_switched_off() {
    let tables = Template::with(&[("DeletionProtection", "false")]).of_type("AWS::DynamoDB::Table");
    let protected = tables.values().filter(|table| shape_of(table).protected);
    assert_eq!(protected.count(), 0);
}

#[test]
fn what_is_stored_or_sent_is_encrypted_with_the_key_that_is_given() {
    let key = "arn:aws:kms:eu-central-1:111122223333:key/k";
    let template = Template::with(&[("KmsKeyArn", key), ("ViewDelivery", "queue")]);
    let all = [
        ("AWS::DynamoDB::Table", "/SSESpecification/KMSMasterKeyId", 7),
        ("AWS::Kinesis::Stream", "/StreamEncryption/KeyId", 1),
        ("AWS::SQS::Queue", "/KmsMasterKeyId", 6),
    ];
    for (kind, place, count) in all {
        let found = template.of_type(kind);
        assert_eq!(found.len(), count, "{kind}");
        for (id, properties) in found {
            assert_eq!(properties.pointer(place), Some(&json!(key)), "{id}");
        }
    }
    assert_eq!(template.of_type("AWS::SNS::Topic")["Topic"]["KmsMasterKeyId"], key);
}

#[test]
fn functions_are_the_bins_with_the_variables_that_they_read() {
    let both = [(TABLES, STACK), (LOG, "info")];
    let logs = (LOGS_PER_SWEEP, "250");
    let own: &[(&str, &[(&str, &str)])] = &[
        ("api", &[]),
        ("relay", &[(STREAM, "Stream")]),
        ("processor", &[(TOPICS, "Topic"), (STREAM, "Stream")]),
        ("sweep", &[(STREAM, "Stream"), (CANARIES, "1"), logs]),
        (Balances::NAME, &[(DEAD_LETTERS, "BalancesDeadLetters"), logs]),
        (Statement::NAME, &[(DEAD_LETTERS, "StatementDeadLetters"), logs]),
        (Totals::NAME, &[(DEAD_LETTERS, "TotalsDeadLetters"), logs]),
    ];
    let variables = |own: &[(&str, &str)]| {
        let all = both.iter().chain(own);
        all.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let expected: BTreeMap<_, _> =
        own.iter().map(|(bin, own)| ((*bin).to_owned(), variables(own))).collect();
    let mut found = BTreeMap::new();
    for function in Template::with(&[]).functions().values() {
        assert_eq!(function["Runtime"], "provided.al2023");
        assert_eq!(function["Handler"], "bootstrap");
        assert_eq!(function["Architectures"], json!(["arm64"]));
        let code = as_text(&function["CodeUri"]);
        let bin = code.strip_prefix("../target/lambda/").and_then(|code| code.strip_suffix('/'));
        let bin = bin.expect("the code is where `cargo xtask lambdas` puts it").to_owned();
        assert_eq!(function["FunctionName"], format!("{STACK}-{bin}"));
        let variables = function["Environment"]["Variables"].as_object().expect("it has variables");
        let variables = variables.iter().map(|(k, v)| (k.clone(), as_text(v)));
        found.insert(bin, variables.collect::<BTreeMap<_, _>>());
    }
    assert_eq!(found, expected);
    assert_eq!(bins(), expected.into_keys().collect());
}

/// The bins of the two packages that have Lambdas.
fn bins() -> BTreeSet<String> {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo knows the workspace");
    let lambdas = ["fanfold-lambda", "ledger-lambda"];
    let packages = metadata.packages.iter().filter(|p| lambdas.contains(&p.name.as_str()));
    let targets = packages.flat_map(|package| &package.targets).filter(|target| target.is_bin());
    targets.map(|target| target.name.clone()).collect()
}

#[test]
fn both_streams_are_read_from_the_beginning_and_tried_for_ever() {
    let functions = Template::with(&[]).functions();
    let all = [
        ("RelayFunction", "DynamoDB", "CommandsTable.StreamArn"),
        ("ProcessorFunction", "Kinesis", "Stream.Arn"),
    ];
    for (function, kind, source) in all {
        let events = functions[function]["Events"].as_object().expect("it has events");
        let mappings: Vec<_> = events.values().filter(|event| event["Type"] == kind).collect();
        assert_eq!((mappings.len(), events.len()), (1, 1), "{function}");
        let mapping = &mappings[0]["Properties"];
        let expected = [
            ("Stream", json!(source)),
            ("StartingPosition", json!("TRIM_HORIZON")),
            ("FunctionResponseTypes", json!(["ReportBatchItemFailures"])),
            ("BisectBatchOnFunctionError", json!(true)),
            ("MaximumRetryAttempts", json!(-1)),
            ("MaximumRecordAgeInSeconds", json!(-1)),
        ];
        for (property, value) in expected {
            assert_eq!(mapping[property], value, "{function}: {property}");
        }
        assert_eq!(mapping["Enabled"], Value::Null, "{function} is always on");
    }
}

#[test]
fn sweeps_run_each_minute() {
    let functions = Template::with(&[]).functions();
    for name in ["sweep"].into_iter().chain(VIEWS) {
        let event = &functions[&id(name, "Function")]["Events"]["EachMinute"];
        assert_eq!(event["Type"], "Schedule", "{name}");
        assert_eq!(event["Properties"], json!({ "Schedule": "rate(1 minute)" }), "{name}");
    }
    let sweep = &functions["SweepFunction"];
    let timeout = sweep["Timeout"].as_u64().expect("it is a number");
    assert!(timeout < 60, "the sweep is done before the next one starts");
    assert_eq!(sweep["EventInvokeConfig"]["MaximumRetryAttempts"], 0, "nor is it tried again then");
}

#[test]
fn sns_calls_each_view() {
    let template = Template::with(&[("ViewDelivery", "direct")]);
    let subscriptions = template.of_type("AWS::SNS::Subscription");
    let permissions = template.of_type("AWS::Lambda::Permission");
    let failures = template.of_type("AWS::Lambda::EventInvokeConfig");
    assert_eq!(subscriptions.len(), VIEWS.len());
    for view in VIEWS {
        let function = id(view, "Function");
        let subscription = json!({
            "TopicArn": "Topic", "Protocol": "lambda", "Endpoint": format!("{function}.Arn"),
        });
        assert_eq!(subscriptions[&id(view, "Subscription")], subscription);
        let permission = json!({
            "FunctionName": function, "Action": "lambda:InvokeFunction",
            "Principal": "sns.amazonaws.com", "SourceArn": "Topic",
        });
        assert_eq!(permissions[&id(view, "Permission")], permission);
        let dead = json!({ "Destination": format!("{}.Arn", id(view, "DeadLetters")) });
        let failures = &failures[&id(view, "Failures")];
        assert_eq!(failures["FunctionName"], function);
        assert_eq!(failures["Qualifier"], "$LATEST");
        assert_eq!(failures["DestinationConfig"]["OnFailure"], dead);
    }
    assert!(template.of_type("AWS::Lambda::EventSourceMapping").is_empty());
    assert_eq!(template.of_type("AWS::SQS::Queue").len(), VIEWS.len(), "dead letters only");
}

#[test]
fn a_queue_of_its_own_feeds_each_view() {
    let seconds = Template::with(&[]).allowed("ViewTimeoutSeconds");
    assert!(seconds.contains(&"60".to_owned()));
    for seconds in &seconds {
        let given = [("ViewDelivery", "queue"), ("ViewTimeoutSeconds", seconds)];
        let template = Template::with(&given);
        let subscriptions = template.of_type("AWS::SNS::Subscription");
        let queues = template.of_type("AWS::SQS::Queue");
        let mappings = template.of_type("AWS::Lambda::EventSourceMapping");
        let policies = template.of_type("AWS::SQS::QueuePolicy");
        assert_eq!(subscriptions.len(), VIEWS.len());
        assert_eq!(mappings.len(), VIEWS.len());
        for view in VIEWS {
            let arn = format!("{}.Arn", id(view, "Queue"));
            let subscription = json!({
                "TopicArn": "Topic", "Protocol": "sqs", "Endpoint": arn, "RawMessageDelivery": true,
            });
            assert_eq!(subscriptions[&id(view, "Subscription")], subscription);
            let statement = &policies[&id(view, "QueuePolicy")]["PolicyDocument"]["Statement"][0];
            assert_eq!(statement["Resource"], arn);
            assert_eq!(statement["Principal"], json!({ "Service": "sns.amazonaws.com" }));
            let only = json!({ "ArnEquals": { "aws:SourceArn": "Topic" } });
            assert_eq!(statement["Condition"], only);
            let mapping = &mappings[&id(view, "Mapping")];
            assert_eq!(mapping["EventSourceArn"], arn);
            assert_eq!(mapping["FunctionName"], id(view, "Function"));
            assert_eq!(mapping["FunctionResponseTypes"], json!(["ReportBatchItemFailures"]));
            assert_eq!(mapping["ScalingConfig"], json!({ "MaximumConcurrency": 10 }));
            let window = mapping["MaximumBatchingWindowInSeconds"].as_u64();
            assert!(window >= Some(1), "SQS takes more than 10 at once only with a window");
            let queue = &queues[&id(view, "Queue")];
            let dead = format!("{}.Arn", id(view, "DeadLetters"));
            assert_eq!(queue["RedrivePolicy"]["deadLetterTargetArn"], dead);
            let hidden = queue["VisibilityTimeout"].as_u64().expect("it is a number");
            let seconds: u64 = seconds.parse().expect("it is a number");
            let longest_window = 300;
            assert_eq!(hidden, seconds * 6 + longest_window, "as SQS advises");
        }
    }
}

#[test]
fn every_route_leads_to_the_api() {
    let template = Template::with(&[]);
    let routes = template.of_type("AWS::ApiGatewayV2::Route");
    let keys: BTreeSet<_> = routes.values().map(|route| as_text(&route["RouteKey"])).collect();
    let expected = [
        "POST /command",
        "POST /commands",
        "GET /logs/{proxy+}",
        "GET /views/{proxy+}",
        "GET /healthz",
        "$default",
    ];
    assert_eq!(keys, expected.map(str::to_owned).into());
    for route in routes.values() {
        assert_eq!(route["ApiId"], "Api");
        assert_eq!(route["Target"], "integrations/ApiIntegration");
    }
    let integration = &template.of_type("AWS::ApiGatewayV2::Integration")["ApiIntegration"];
    assert_eq!(integration["IntegrationUri"], "ApiFunction.Arn");
    assert_eq!(integration["PayloadFormatVersion"], "2.0");
    let permission = &template.of_type("AWS::Lambda::Permission")["ApiPermission"];
    assert_eq!(permission["FunctionName"], "ApiFunction");
    assert_eq!(permission["Principal"], "apigateway.amazonaws.com");
    let from = as_text(&permission["SourceArn"]);
    assert!(from.ends_with(":Api/*"), "of this API only: {from}");
}

/// What the sweeps report of the stack that somebody has to be told of.
const REPORTED: [&str; 8] = [
    metrics::STANDSTILL_MS_MAX,
    metrics::WAITING,
    metrics::FAILED,
    metrics::CANARY_AGE_MS_MAX,
    metrics::VIEW_PARKED,
    metrics::VIEW_FAILED,
    metrics::VIEW_BEHIND,
    metrics::VIEW_UNDELIVERED,
];

#[test]
fn alarms_watch_every_function_every_queue_and_what_the_sweeps_report() {
    for delivery in ["direct", "queue"] {
        let template = Template::with(&[("ViewDelivery", delivery)]);
        let mut expected = BTreeSet::new();
        let mut watch = |namespace: &str, metric: &str, dimension: &str, of: &str| {
            expected.insert([namespace, metric, dimension, of].map(str::to_owned));
        };
        for function in template.functions().keys() {
            watch("AWS/Lambda", "Errors", "FunctionName", function);
            watch("AWS/Lambda", "Throttles", "FunctionName", function);
        }
        watch("AWS/Lambda", "IteratorAge", "FunctionName", "RelayFunction");
        watch("AWS/Lambda", "IteratorAge", "FunctionName", "ProcessorFunction");
        watch("AWS/Lambda", "Invocations", "FunctionName", "SweepFunction");
        watch("AWS/ApiGateway", "5xx", "ApiId", "Api");
        watch("AWS/Kinesis", "WriteProvisionedThroughputExceeded", "StreamName", "Stream");
        watch("AWS/DynamoDB", "WriteThrottleEvents", "TableName", "CommandsTable");
        watch("AWS/DynamoDB", "WriteThrottleEvents", "TableName", "JournalTable");
        for view in VIEWS {
            let queue = |of| format!("{}.QueueName", id(view, of));
            let letters = queue("DeadLetters");
            watch("AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", &letters);
            if delivery == "queue" {
                watch("AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", &queue("Queue"));
            }
        }
        for name in REPORTED {
            watch(metrics::NAMESPACE, name, metrics::STACK, STACK);
        }
        let alarms = template.of_type("AWS::CloudWatch::Alarm");
        let found = alarms.values().map(|alarm| {
            assert_eq!(alarm["AlarmActions"], json!(["Alarms"]));
            let dimension = &alarm["Dimensions"][0];
            let of = ["Namespace", "MetricName"].map(|name| as_text(&alarm[name]));
            let [namespace, metric] = of;
            [namespace, metric, as_text(&dimension["Name"]), as_text(&dimension["Value"])]
        });
        assert_eq!(found.collect::<BTreeSet<_>>(), expected);
        assert_eq!(alarms.len(), expected.len());
    }
}

/// What a view's sweep has received is hidden from the next one no longer than until that begins.
#[test]
fn each_sweep_sees_the_dead_letters() {
    let queues = Template::with(&[]).of_type("AWS::SQS::Queue");
    for view in VIEWS {
        let hidden = queues[&id(view, "DeadLetters")]["VisibilityTimeout"].as_u64();
        assert!(hidden.is_some_and(|seconds| (46..60).contains(&seconds)), "{view}: {hidden:?}");
    }
}

/// A log has its turn once in a walk over the catalogue, which may take an hour.
#[test]
fn what_is_seen_of_a_log_once_in_an_hour_is_enough_for_an_alarm() {
    let alarms = Template::with(&[]).of_type("AWS::CloudWatch::Alarm");
    for name in ["LogsStandStill", "CommandsWait", "ViewsParked"] {
        let alarm = &alarms[name];
        let is = |property: &str| alarm[property].as_u64().expect("it is a number");
        assert_eq!(is("DatapointsToAlarm"), 1, "{name}");
        assert_eq!(is("Period") * is("EvaluationPeriods"), 3_600, "{name}");
    }
    // What fails once may be a hiccup: here it is the same log in two walks.
    for name in ["SweepFails", "ViewsFail"] {
        let alarm = &alarms[name];
        let is = |property: &str| alarm[property].as_u64().expect("it is a number");
        assert_eq!((is("Period"), is("DatapointsToAlarm")), (3_600, 2), "{name}");
    }
}

#[test]
fn the_dashboard_is_json_and_names_what_the_sweeps_report() {
    let template = Template::with(&[]);
    let dashboard = &template.of_type("AWS::CloudWatch::Dashboard")["Dashboard"];
    let body: Value = serde_json::from_str(&as_text(&dashboard["DashboardBody"])).expect("JSON");
    let widgets = body["widgets"].as_array().expect("it has widgets").iter();
    let metrics = widgets.flat_map(|widget| widget["properties"]["metrics"].as_array()).flatten();
    let ours = metrics.filter(|line| line[0] == metrics::NAMESPACE);
    let ours: BTreeSet<_> = ours.map(|line| [1, 2, 3].map(|at| as_text(&line[at]))).collect();
    assert_eq!(ours, REPORTED.map(|name| [name, metrics::STACK, STACK].map(str::to_owned)).into());
}

/// The names above are those that are written: whoever reports one of them writes it like this.
#[test]
fn reports_are_of_the_stack_alone() {
    for name in REPORTED {
        let mut metrics = Metrics::new();
        metrics.of_stack(name, 1.0);
        let of = Dimensions { stack: STACK.to_owned(), service: "sweep".to_owned() };
        let line: Value = serde_json::from_str(&metrics.line(&of, Time(0))).expect("JSON");
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(directive["Namespace"], metrics::NAMESPACE);
        assert_eq!(directive["Dimensions"], json!([[metrics::STACK]]));
        assert_eq!(directive["Metrics"][0]["Name"], name);
        assert_eq!((&line[name], &line[metrics::STACK]), (&json!(1.0), &json!(STACK)));
    }
}

#[test]
fn logs_go_where_the_role_may_write_and_are_kept_for_a_while() {
    let template = Template::with(&[]);
    let groups = template.of_type("AWS::Logs::LogGroup");
    for (id, function) in template.functions() {
        let group = as_text(&function["LoggingConfig"]["LogGroup"]);
        assert_eq!(group, id.replace("Function", "Logs"));
        let group = &groups[&group];
        let name = as_text(&function["FunctionName"]);
        assert_eq!(group["LogGroupName"], format!("/aws/lambda/{name}"));
        assert_eq!(group["RetentionInDays"], 30);
    }
}
