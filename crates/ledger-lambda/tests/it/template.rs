//! The templates' tables, functions, mappings and deliveries are as the code expects them.

use std::collections::{BTreeMap, BTreeSet};

use fanfold::View;
use fanfold_aws::names::attribute::{BUCKET, PK, SK, TTL};
use fanfold_aws::names::{
    ADMISSION_HOURS_MAX, CANARIES, CATALOGUE_INDEX, DEAD_LETTERS, LOG, LOGS_PER_SWEEP,
    PARKED_INDEX, QUEUE, ROLE, STREAM, TABLES, TOPICS, Tables, WAIT_MS_MAX,
};
use ledger::views::{Balances, Statement, Totals};
use serde_json::{Value, json};

use crate::stack::{STACK, Template, as_text, core_arn, topic_arn};

pub(crate) const VIEWS: [&str; 3] = [Balances::NAME, Statement::NAME, Totals::NAME];

/// The logical id of a view's or function's resource: `BalancesTable` of `balances` and `Table`.
pub(crate) fn id(name: &str, what: &str) -> String {
    format!("{}{}{what}", name[..1].to_uppercase(), &name[1..])
}

/// Attribute, kind and type of each key.
type Keys = Vec<(String, String, String)>;

/// The properties of a table.
#[derive(Debug, Clone, PartialEq)]
struct Shape {
    keys: Keys,
    stream: Value,
    expires_by: Value,
    /// Its name and its keys.
    index: Option<(String, Keys)>,
    recoverable: bool,
    protected: bool,
}

fn keys(of: &[(&str, &str)]) -> Keys {
    let kinds = ["HASH", "RANGE"];
    let keys = of.iter().zip(kinds);
    keys.map(|((name, of), kind)| ((*name).into(), kind.into(), (*of).into())).collect()
}

#[test]
fn the_tables_are_those_that_the_code_uses() {
    let names = Tables::new(STACK);
    let shape = |sk: &[(&str, &str)]| Shape {
        keys: keys(&[&[(PK, "S")], sk].concat()),
        stream: Value::Null,
        expires_by: Value::Null,
        index: None,
        recoverable: false,
        protected: false,
    };
    let commands = Shape {
        stream: json!("NEW_IMAGE"),
        recoverable: true,
        index: Some((CATALOGUE_INDEX.to_owned(), keys(&[(BUCKET, "N"), (PK, "S")]))),
        protected: true,
        ..shape(&[])
    };
    let journal = Shape { recoverable: true, protected: true, ..shape(&[(SK, "N")]) };
    let parked = Shape { recoverable: true, protected: true, ..shape(&[(SK, "S")]) };
    let timeline = Shape { expires_by: json!(TTL), ..parked.clone() };
    let view = || Shape {
        expires_by: json!(TTL),
        index: Some((PARKED_INDEX.to_owned(), keys(&[(BUCKET, "N"), (PK, "S")]))),
        ..shape(&[(SK, "S")])
    };
    let expected = BTreeMap::from([
        (names.commands(), commands),
        (names.journal(), journal),
        (names.state(), shape(&[(SK, "S")])),
        (names.parked(), parked),
        (names.timeline(), timeline),
        (names.views(), shape(&[])),
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
        assert_eq!(index["Projection"]["ProjectionType"], "KEYS_ONLY");
        (as_text(&index["IndexName"]), keys(&index["KeySchema"]))
    });
    assert!(indexes.len() < 2);
    let is = |of: &Value| of.as_bool().unwrap_or_default();
    let ttl = &table["TimeToLiveSpecification"];
    assert_eq!(is(&ttl["Enabled"]), ttl.is_object());
    Shape {
        keys: keys(&table["KeySchema"]),
        stream: table["StreamSpecification"]["StreamViewType"].clone(),
        expires_by: ttl["AttributeName"].clone(),
        index,
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
fn a_given_key_encrypts_tables_stream_queues_and_topic() {
    let key = "arn:aws:kms:eu-central-1:111122223333:key/k";
    let template = Template::with(&[("KmsKeyArn", key), ("ViewDelivery", "queue")]);
    let all = [
        ("AWS::DynamoDB::Table", "/SSESpecification/KMSMasterKeyId", 9),
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
fn each_function_has_its_role_and_the_variables_that_it_reads() {
    let all = [
        (TABLES, STACK),
        (LOG, "info"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        ("OTEL_EXPORTER_OTLP_HEADERS", ""),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
    ];
    let logs = (LOGS_PER_SWEEP, "250");
    let own: &[(&str, &[(&str, &str)])] = &[
        ("api", &[(WAIT_MS_MAX, "5000"), (ADMISSION_HOURS_MAX, "6"), (CANARIES, "4")]),
        ("relay", &[(STREAM, "Stream")]),
        ("processor", &[(STREAM, "Stream"), (TOPICS, "Topic")]),
        ("sweep", &[(STREAM, "Stream"), (CANARIES, "4"), logs]),
        ("operate", &[(STREAM, "Stream")]),
        (Balances::NAME, &[(DEAD_LETTERS, "BalancesDeadLetters"), logs]),
        (Statement::NAME, &[(DEAD_LETTERS, "StatementDeadLetters"), logs]),
        (Totals::NAME, &[(DEAD_LETTERS, "TotalsDeadLetters"), logs]),
    ];
    let views = ledger::app().expect("the ledger is an app").views().clone();
    let variables = |name: &str, own: &[(&str, &str)]| {
        let role = match views.get(name) {
            Some(_) => format!("view:{name}"),
            None => name.to_owned(),
        };
        let all = all.iter().chain(own).map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        all.chain([(ROLE.to_owned(), role)]).collect::<BTreeMap<_, _>>()
    };
    let expected: BTreeMap<_, _> =
        own.iter().map(|(name, own)| ((*name).to_owned(), variables(name, own))).collect();
    let mut found = BTreeMap::new();
    for function in Template::with(&[]).functions().values() {
        assert_eq!(function["Runtime"], "provided.al2023");
        assert_eq!(function["Handler"], "bootstrap");
        assert_eq!(function["Architectures"], json!(["arm64"]));
        // `cargo xtask lambdas` puts it there.
        assert_eq!(function["Code"], "../target/lambda/ledger-lambda/");
        let name = as_text(&function["FunctionName"]);
        let name =
            name.strip_prefix(&format!("{STACK}-")).expect("it begins with the stack's name");
        let variables = function["Environment"]["Variables"].as_object().expect("it has variables");
        let variables = variables.iter().map(|(k, v)| (k.clone(), as_text(v)));
        found.insert(name.to_owned(), variables.collect::<BTreeMap<_, _>>());
    }
    assert_eq!(found, expected);
}

#[test]
fn both_streams_are_read_from_the_beginning_and_retried_for_ever() {
    let mappings = Template::with(&[]).of_type("AWS::Lambda::EventSourceMapping");
    assert_eq!(mappings.len(), 2);
    let all = [
        ("RelayFunctionChanges", "RelayFunction", "CommandsTable.StreamArn"),
        ("ProcessorFunctionCommands", "ProcessorFunction", "Stream.Arn"),
    ];
    for (id, function, source) in all {
        let mapping = &mappings[id];
        let expected = [
            ("FunctionName", json!(function)),
            ("EventSourceArn", json!(source)),
            ("StartingPosition", json!("TRIM_HORIZON")),
            ("FunctionResponseTypes", json!(["ReportBatchItemFailures"])),
            ("BisectBatchOnFunctionError", json!(true)),
            ("MaximumRetryAttempts", json!(-1)),
            ("MaximumRecordAgeInSeconds", json!(-1)),
            ("MetricsConfig", json!({ "Metrics": ["EventCount"] })),
            // With a tumbling window, Lambda would process each shard with one lane only.
            ("TumblingWindowInSeconds", Value::Null),
            ("DestinationConfig", Value::Null),
        ];
        for (property, value) in expected {
            assert_eq!(mapping[property], value, "{function}: {property}");
        }
        assert_eq!(mapping["Enabled"], Value::Null, "{function} is always on");
        assert!(mapping["ParallelizationFactor"].as_u64() >= Some(1), "{function}");
    }
}

#[test]
fn sweeps_run_each_minute() {
    let template = Template::with(&[]);
    let rules = template.of_type("AWS::Events::Rule");
    assert_eq!(rules.len(), 1 + VIEWS.len());
    for name in ["sweep"].into_iter().chain(VIEWS) {
        let (rule, function) = (id(name, "FunctionEachMinute"), id(name, "Function"));
        assert_eq!(rules[&rule]["ScheduleExpression"], "rate(1 minute)", "{name}");
        let targets = json!([{
            "Id": "EachMinute",
            "Arn": format!("{function}.Arn"),
            "RetryPolicy": { "MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60 },
        }]);
        assert_eq!(rules[&rule]["Targets"], targets, "{name}");
        let permission = json!({
            "FunctionName": function, "Action": "lambda:InvokeFunction",
            "Principal": "events.amazonaws.com", "SourceArn": format!("{rule}.Arn"),
        });
        let permissions = template.of_type("AWS::Lambda::Permission");
        assert_eq!(permissions[&format!("{rule}Permission")], permission, "{name}");
    }
    let timeout = template.functions()["SweepFunction"]["Timeout"].as_u64();
    assert!(timeout < Some(60), "the sweep is done before the next one starts");
    let once = json!({
        "FunctionName": "SweepFunction", "Qualifier": "$LATEST",
        "MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60,
    });
    let configs = template.of_type("AWS::Lambda::EventInvokeConfig");
    assert_eq!(configs["SweepFunctionEventInvokeConfig"], once, "a failed run is not retried");
}

#[test]
fn with_direct_delivery_sns_calls_each_view() {
    let template = Template::with(&[("ViewDelivery", "direct")]);
    let subscriptions = template.of_type("AWS::SNS::Subscription");
    let permissions = template.of_type("AWS::Lambda::Permission");
    let failures = template.of_type("AWS::Lambda::EventInvokeConfig");
    assert_eq!(subscriptions.len(), VIEWS.len());
    for view in VIEWS {
        let function = id(view, "Function");
        let subscription = json!({
            "TopicArn": topic_arn(), "Protocol": "lambda", "Endpoint": format!("{function}.Arn"),
            "RedrivePolicy": { "deadLetterTargetArn": format!("{}.Arn", id(view, "DeadLetters")) },
        });
        assert_eq!(subscriptions[&id(view, "Subscription")], subscription);
        let after = json!(["DeadLettersPolicy", "Permission"]);
        assert_eq!(template.resources()[&id(view, "Subscription")]["DependsOn"], after);
        let permission = json!({
            "FunctionName": function, "Action": "lambda:InvokeFunction",
            "Principal": "sns.amazonaws.com", "SourceArn": topic_arn(),
        });
        assert_eq!(permissions[&id(view, "Permission")], permission);
        let dead = json!({ "Destination": format!("{}.Arn", id(view, "DeadLetters")) });
        let failures = &failures[&id(view, "Failures")];
        assert_eq!(failures["FunctionName"], function);
        assert_eq!(failures["Qualifier"], "$LATEST");
        assert_eq!(failures["DestinationConfig"]["OnFailure"], dead);
        assert_eq!(failures["MaximumEventAgeInSeconds"], 21_600, "Lambda's maximum");
        assert_eq!(failures["MaximumRetryAttempts"], 2);
    }
    assert_eq!(template.of_type("AWS::Lambda::EventSourceMapping").len(), 2, "of both streams");
    assert_eq!(template.of_type("AWS::SQS::Queue").len(), VIEWS.len(), "dead letters only");
}

#[test]
fn with_queues_each_view_has_its_own() {
    let declared = Template::with(&[]).stacks().root().parameters();
    let seconds = declared["ViewTimeoutSeconds"]["AllowedValues"].as_array().expect("a list");
    assert!(seconds.contains(&json!("60")));
    for seconds in seconds.iter().filter_map(Value::as_str) {
        let given = [("ViewDelivery", "queue"), ("ViewTimeoutSeconds", seconds)];
        let template = Template::with(&given);
        let subscriptions = template.of_type("AWS::SNS::Subscription");
        let queues = template.of_type("AWS::SQS::Queue");
        let mappings = template.of_type("AWS::Lambda::EventSourceMapping");
        let policies = template.of_type("AWS::SQS::QueuePolicy");
        assert_eq!(subscriptions.len(), VIEWS.len());
        assert_eq!(mappings.len(), 2 + VIEWS.len());
        for view in VIEWS {
            let arn = format!("{}.Arn", id(view, "Queue"));
            let subscription = json!({
                "TopicArn": topic_arn(), "Protocol": "sqs", "Endpoint": arn, "RawMessageDelivery": true,
                "RedrivePolicy": { "deadLetterTargetArn": format!("{}.Arn", id(view, "DeadLetters")) },
            });
            assert_eq!(subscriptions[&id(view, "QueueSubscription")], subscription);
            let after = json!(["DeadLettersPolicy", "QueuePolicy"]);
            assert_eq!(template.resources()[&id(view, "QueueSubscription")]["DependsOn"], after);
            let variables =
                &template.functions()[&id(view, "Function")]["Environment"]["Variables"];
            assert_eq!(variables[QUEUE], id(view, "Queue"));
            let failures =
                &template.of_type("AWS::Lambda::EventInvokeConfig")[&id(view, "Failures")];
            assert_eq!(failures["MaximumEventAgeInSeconds"], 60, "only the schedule invokes it");
            assert_eq!(failures["MaximumRetryAttempts"], 0);
            let statement = &policies[&id(view, "QueuePolicy")]["PolicyDocument"]["Statement"][0];
            assert_eq!(statement["Resource"], arn);
            assert_eq!(statement["Principal"], json!({ "Service": "sns.amazonaws.com" }));
            let only = json!({ "ArnEquals": { "aws:SourceArn": topic_arn() } });
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
fn every_route_calls_its_function() {
    let template = Template::with(&[]);
    let routes = template.of_type("AWS::ApiGatewayV2::Route");
    let keys: BTreeSet<_> = routes.values().map(|route| as_text(&route["RouteKey"])).collect();
    let expected = [
        "POST /command",
        "POST /commands",
        "GET /logs",
        "GET /logs/{proxy+}",
        "GET /views/{proxy+}",
        "GET /healthz",
        "GET /readyz",
        "ANY /ops/{proxy+}",
        "$default",
    ];
    assert_eq!(keys, expected.map(str::to_owned).into());
    for (id, route) in &routes {
        assert_eq!(route["ApiId"], "Api");
        let function = if id == "OperateRoute" { "Operate" } else { "Api" };
        assert_eq!(route["Target"], format!("integrations/{function}Integration"));
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

/// Views name resources of core by their ARNs.
#[test]
fn the_names_by_which_views_find_core_are_those_of_its_resources() {
    let template = Template::with(&[]);
    let name =
        |kind: &str, id: &str, property: &str| as_text(&template.of_type(kind)[id][property]);
    assert_eq!(topic_arn(), core_arn("sns", &name("AWS::SNS::Topic", "Topic", "TopicName")));
    let alarms = core_arn("sns", &name("AWS::SNS::Topic", "Alarms", "TopicName"));
    for view in VIEWS {
        let alarm = &template.of_type("AWS::CloudWatch::Alarm")[&id(view, "Errors")];
        assert_eq!(alarm["AlarmActions"], json!([alarms]));
    }
    // Those of tables are in the roles, whose test compares them with the code's names.
    for (id, table) in [("CommandsTable", "commands"), ("JournalTable", "journal")] {
        let found = name("AWS::DynamoDB::Table", id, "TableName");
        assert_eq!(found, format!("{STACK}-{table}"));
    }
}

/// Letters that a view's sweep has received must be visible again when the next sweep begins.
#[test]
fn dead_letters_are_visible_again_before_the_next_sweep() {
    let queues = Template::with(&[]).of_type("AWS::SQS::Queue");
    for view in VIEWS {
        let hidden = queues[&id(view, "DeadLetters")]["VisibilityTimeout"].as_u64();
        assert!(hidden.is_some_and(|seconds| (46..60).contains(&seconds)), "{view}: {hidden:?}");
    }
}

#[test]
fn each_function_logs_into_its_own_group_for_30_days() {
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

/// A deployer must choose: leaving out a parameter must not make an API that everyone may call.
#[test]
fn the_authorization_of_the_api_has_no_default() {
    let declared = &Template::with(&[]).stacks().root().parameters()["ApiAuthorization"];
    assert_eq!(declared["Default"], Value::Null, "there is no default");
    assert_eq!(declared["AllowedValues"], json!(["NONE", "AWS_IAM"]));
    for authorization in ["NONE", "AWS_IAM"] {
        let template = Template::with(&[("ApiAuthorization", authorization)]);
        for (id, route) in template.of_type("AWS::ApiGatewayV2::Route") {
            let is_open = ["HealthRoute", "ReadyRoute"].contains(&id.as_str());
            let expected = match id.as_str() {
                // Operators' routes are never open.
                "OperateRoute" => json!("AWS_IAM"),
                _ if is_open => Value::Null,
                _ => json!(authorization),
            };
            assert_eq!(route["AuthorizationType"], expected, "{id}");
        }
    }
    let stage = &Template::with(&[]).of_type("AWS::ApiGatewayV2::Stage")["ApiStage"];
    assert_eq!(stage["AccessLogSettings"]["DestinationArn"], "AccessLog.Arn");
    let format = as_text(&stage["AccessLogSettings"]["Format"]);
    let fields: Value = serde_json::from_str(&format).expect("a line is JSON");
    assert_eq!(fields["status"], "$context.status");
    assert!(!format.contains("context.path"), "paths name organisations and users");
}

#[test]
fn parameters_bound_concurrency_and_writes() {
    let reserved = |given: &[(&str, &str)]| {
        let functions = Template::with(given).functions();
        let of =
            |(id, f): (&String, &Value)| (id.clone(), f["ReservedConcurrentExecutions"].clone());
        functions.iter().map(of).filter(|(_, of)| !of.is_null()).collect::<BTreeMap<_, _>>()
    };
    assert!(reserved(&[]).is_empty(), "an account with a small quota can deploy it");
    for name in ["Api", "Relay", "Processor"] {
        let parameter = format!("{name}ReservedConcurrency");
        let expected = BTreeMap::from([(format!("{name}Function"), json!("7"))]);
        assert_eq!(reserved(&[(&parameter, "7")]), expected);
    }
    for (units, expected) in
        [("4000", json!({ "MaxWriteRequestUnits": "4000" })), ("0", Value::Null)]
    {
        let template = Template::with(&[("CommandWriteUnitsMax", units)]);
        for (id, table) in template.of_type("AWS::DynamoDB::Table") {
            let expected = if id == "CommandsTable" { &expected } else { &Value::Null };
            assert_eq!(table["OnDemandThroughput"], *expected, "{id}: {units}");
        }
    }
}

/// `AUTO` would ignore partition keys. Only on-demand streams have the property.
#[test]
fn the_stream_keeps_the_order_of_a_log() {
    for (mode, strategy) in
        [("ON_DEMAND", json!("USER_PARTITION_KEY")), ("PROVISIONED", Value::Null)]
    {
        let stream =
            &Template::with(&[("StreamMode", mode)]).of_type("AWS::Kinesis::Stream")["Stream"];
        assert_eq!(stream["RecordDistributionStrategy"], strategy, "{mode}");
    }
}
