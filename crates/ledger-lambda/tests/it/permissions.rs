//! The permissions of each Lambda.

use std::collections::{BTreeMap, BTreeSet};

use fanfold::host::canary::Canary;
use serde_json::{Value, json};

use crate::stack::{STACK, Template, as_text};

/// The actions by resource.
type Permissions = BTreeMap<String, BTreeSet<String>>;

const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/k";
const CATALOGUE: &str = "CommandsTable.Arn/index/catalogue";
/// The tables of all views: core names no view.
const VIEW_TABLES: &str =
    "arn:AWS::Partition:dynamodb:AWS::Region:AWS::AccountId:table/shop-view-*";
const ALL_STREAMS: &str = "arn:AWS::Partition:kinesis:AWS::Region:AWS::AccountId:stream/*";

/// The calls that the functions make through the crate `fanfold-aws`: function, resource, actions.
const PERMISSIONS: &[(&str, &str, &str)] = &[
    ("api", "CommandsTable.Arn", "dynamodb: GetItem UpdateItem"),
    ("api", CATALOGUE, "dynamodb: Query"),
    ("api", "JournalTable.Arn", "dynamodb: Query"),
    ("api", "StateTable.Arn", "dynamodb: GetItem"),
    ("api", "ViewsTable.Arn", "dynamodb: Scan"),
    ("api", VIEW_TABLES, "dynamodb: GetItem Query"),
    ("relay", "CommandsTable.StreamArn", "dynamodb: DescribeStream GetRecords GetShardIterator"),
    ("relay", "CommandsTable.Arn/stream/*", "dynamodb: ListStreams"),
    ("relay", "Stream.Arn", "kinesis: DescribeStreamSummary PutRecords"),
    (
        "processor",
        "Stream.Arn",
        // The processor puts nudges for commands that it has parked.
        "kinesis: DescribeStream DescribeStreamSummary GetRecords GetShardIterator ListShards \
         PutRecords",
    ),
    ("processor", ALL_STREAMS, "kinesis: ListStreams"),
    ("processor", "JournalTable.Arn", "dynamodb: PutItem Query"),
    ("processor", "StateTable.Arn", "dynamodb: BatchGetItem GetItem PutItem"),
    ("processor", "ParkedTable.Arn", "dynamodb: DeleteItem PutItem Query"),
    ("processor", "Topic", "sns: Publish PublishBatch"),
    ("sweep", "CommandsTable.Arn", "dynamodb: GetItem UpdateItem"),
    ("sweep", CATALOGUE, "dynamodb: Query"),
    ("sweep", "JournalTable.Arn", "dynamodb: Query"),
    ("sweep", "ParkedTable.Arn", "dynamodb: Query"),
    ("sweep", "StateTable.Arn", "dynamodb: GetItem PutItem"),
    ("sweep", "Stream.Arn", "kinesis: DescribeStreamSummary PutRecords"),
    (
        "operate",
        "CommandsTable.Arn",
        "dynamodb: DescribeContinuousBackups DescribeTable GetItem UpdateItem",
    ),
    ("operate", "JournalTable.Arn", "dynamodb: DescribeContinuousBackups Query Scan"),
    (
        "operate",
        "ParkedTable.Arn",
        "dynamodb: DeleteItem DescribeContinuousBackups PutItem Query Scan",
    ),
    ("operate", "ViewsTable.Arn", "dynamodb: GetItem"),
    (
        "operate",
        "TimelineTable.Arn",
        "dynamodb: DescribeContinuousBackups DescribeTimeToLive PutItem Query",
    ),
    ("operate", "StateTable.Arn", "dynamodb: BatchGetItem GetItem"),
    ("operate", CATALOGUE, "dynamodb: Query"),
    (
        "operate",
        VIEW_TABLES,
        "dynamodb: BatchGetItem ConditionCheckItem DeleteItem GetItem Query UpdateItem",
    ),
    (
        "operate",
        "arn:AWS::Partition:dynamodb:AWS::Region:AWS::AccountId:table/shop-view-*/index/parked",
        "dynamodb: Query",
    ),
    ("operate", "Stream.Arn", "kinesis: DescribeStreamSummary PutRecords"),
];

/// The calls of each view's function: resource, actions. `{}` is the view's name in logical ids. Core's
/// tables are named by ARN.
const OF_A_VIEW: &[(&str, &str)] = &[
    ("{}Table.Arn", "dynamodb: BatchGetItem GetItem PutItem UpdateItem"),
    (
        "arn:AWS::Partition:dynamodb:AWS::Region:AWS::AccountId:table/shop-views",
        "dynamodb: GetItem PutItem",
    ),
    (
        "arn:AWS::Partition:dynamodb:AWS::Region:AWS::AccountId:table/shop-journal",
        "dynamodb: Query",
    ),
    (
        "arn:AWS::Partition:dynamodb:AWS::Region:AWS::AccountId:table/shop-commands/index/catalogue",
        "dynamodb: Query",
    ),
    ("{}Table.Arn/index/parked", "dynamodb: Query"),
    ("{}DeadLetters.Arn", "sqs: DeleteMessage ReceiveMessage SendMessage"),
];

const VIEWS: [(&str, &str); 3] =
    [("balances", "Balances"), ("statement", "Statement"), ("totals", "Totals")];

#[test]
fn each_function_has_exactly_the_permissions_that_it_needs() {
    let key = [("KmsKeyArn", KEY)];
    for delivery in ["direct", "queue"] {
        for key in [&key[..], &[]] {
            let given = [&[("ViewDelivery", delivery)], key].concat();
            let template = Template::with(&given);
            let mut expected = expected(delivery == "queue", !key.is_empty());
            for (id, function) in template.functions() {
                let name = name_of(&function);
                let expected = expected.remove(&name);
                let actual = granted(&template, &function);
                assert_eq!(Some(actual), expected, "{id} with {given:?}");
            }
            assert_eq!(expected, BTreeMap::new(), "with {given:?}");
        }
    }
}

fn expected(by_queue: bool, with_key: bool) -> BTreeMap<String, Permissions> {
    let mut expected: BTreeMap<String, Permissions> = BTreeMap::new();
    let mut may = |function: &str, resource: &str, actions: &str| {
        let (service, actions) = actions.split_once(": ").expect("a service and its actions");
        let actions = actions.split(' ').map(|action| format!("{service}:{action}")).collect();
        let of_function = expected.entry(function.to_owned()).or_default();
        assert_eq!(of_function.insert(resource.to_owned(), actions), None, "{resource} twice");
    };
    for (function, resource, actions) in PERMISSIONS {
        may(function, resource, actions);
    }
    for (view, id) in VIEWS {
        for (resource, actions) in OF_A_VIEW {
            may(view, &resource.replace("{}", id), actions);
        }
        if by_queue {
            let actions =
                "sqs: ChangeMessageVisibility DeleteMessage GetQueueAttributes ReceiveMessage";
            may(view, &format!("{id}Queue.Arn"), actions);
        }
    }
    let functions =
        ["api", "relay", "processor", "sweep", "operate", "balances", "statement", "totals"];
    for function in functions {
        let logs = format!("{}{}Logs.Arn", function[..1].to_uppercase(), &function[1..]);
        may(function, &logs, "logs: CreateLogStream PutLogEvents");
        if with_key {
            let reads = "kms: Decrypt";
            // A function that sends to a stream, a topic or a queue encrypts.
            let sends = "kms: Decrypt GenerateDataKey";
            may(function, KEY, if function == "api" { reads } else { sends });
        }
    }
    expected
}

/// The function's name without the stack's: `api` of `shop-api`.
fn name_of(function: &Value) -> String {
    let name = as_text(&function["FunctionName"]);
    name.trim_start_matches(STACK).trim_start_matches('-').to_owned()
}

fn granted(template: &Template, function: &Value) -> Permissions {
    let mut permissions = Permissions::new();
    for statement in statements(template, function) {
        assert_eq!(statement["Effect"], "Allow");
        let actions: BTreeSet<_> = listed(&statement["Action"]).into_iter().collect();
        for resource in listed(&statement["Resource"]) {
            permissions.entry(resource).or_default().extend(actions.clone());
        }
    }
    permissions
}

/// The statements of the function's role, which no other function has, and which has only inline
/// policies.
fn statements(template: &Template, function: &Value) -> Vec<Value> {
    let role = as_text(&function["Role"]);
    let role = role.strip_suffix(".Arn").expect("the role is in the template").to_owned();
    assert_eq!(function["Policies"], Value::Null, "policies are in the role");
    let same = template.functions().into_values().filter(|f| f["Role"] == function["Role"]);
    assert_eq!(same.count(), 1, "{role} is the role of one function");
    let role = &template.of_type("AWS::IAM::Role")[&role];
    assert_eq!(role["ManagedPolicyArns"], Value::Null, "a managed policy allows more");
    let trusted = &role["AssumeRolePolicyDocument"]["Statement"];
    assert_eq!(trusted[0]["Principal"], json!({ "Service": "lambda.amazonaws.com" }));
    let policies = role["Policies"].as_array().expect("the role has policies").iter();
    let all = policies.flat_map(|policy| policy["PolicyDocument"]["Statement"].as_array());
    all.flatten().cloned().collect()
}

fn listed(of: &Value) -> Vec<String> {
    of.as_array().map_or_else(|| vec![as_text(of)], |all| all.iter().map(as_text).collect())
}

#[test]
fn no_action_is_a_wildcard_and_no_resource_is_everything() {
    let template = Template::with(&[("ViewDelivery", "queue"), ("KmsKeyArn", KEY)]);
    let policies = template.resources().into_values().flat_map(|resource| {
        let mut found = Vec::new();
        find_statements(&resource, &mut found);
        found
    });
    let mut seen = 0;
    for statement in policies {
        seen += 1;
        let actions = listed(&statement["Action"]);
        assert!(actions.iter().all(|action| !action.contains('*')), "{actions:?}");
        let resources = listed(&statement["Resource"]);
        let trust = actions == ["sts:AssumeRole"];
        assert!(trust || resources.iter().all(|resource| resource != "*"), "{statement}");
        assert_eq!(statement["NotAction"], Value::Null);
        assert_eq!(statement["NotResource"], Value::Null);
    }
    assert!(seen > 7 * 2, "seven roles trust Lambda and allow something, but there are {seen}");
}

fn find_statements(of: &Value, found: &mut Vec<Value>) {
    match of {
        Value::Object(fields) => {
            if let Some(statements) = fields.get("Statement").and_then(Value::as_array) {
                found.extend(statements.iter().cloned());
            }
            fields.values().for_each(|value| find_statements(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| find_statements(value, found)),
        _ => {}
    }
}

#[test]
fn no_function_may_update_or_delete_commits() {
    let changes = ["BatchWriteItem", "DeleteItem", "PartiQLDelete", "PartiQLUpdate", "UpdateItem"];
    let changes: BTreeSet<_> = changes.iter().map(|action| format!("dynamodb:{action}")).collect();
    let template = Template::with(&[]);
    for (id, function) in template.functions() {
        for (resource, actions) in granted(&template, &function) {
            // A resource that is the journal, by name, ARN or pattern.
            let is_journal = resource.to_lowercase().contains("journal") || resource == "*";
            let wrong: Vec<_> = actions.intersection(&changes).collect();
            assert!(!is_journal || wrong.is_empty(), "{id} may {wrong:?} on {resource}");
        }
    }
    let journal = &template.of_type("AWS::DynamoDB::Table")["JournalTable"];
    let denied = &journal["ResourcePolicy"]["PolicyDocument"]["Statement"][0];
    assert_eq!(denied["Effect"], "Deny");
    assert_eq!(denied["Principal"], "*");
    assert_eq!(listed(&denied["Action"]).into_iter().collect::<BTreeSet<_>>(), changes);
    let journal = format!(":table/{}", as_text(&journal["TableName"]));
    assert!(as_text(&denied["Resource"]).ends_with(&journal));
}

#[test]
fn the_sweep_changes_nothing_but_its_position_and_its_canaries() {
    let template = Template::with(&[]);
    let sweep = &template.functions()["SweepFunction"];
    let statements = statements(&template, sweep);
    let writes = |statement: &&Value| {
        let actions = listed(&statement["Action"]);
        actions.iter().any(|a| ["dynamodb:PutItem", "dynamodb:UpdateItem"].contains(&a.as_str()))
    };
    let found =
        statements.iter().filter(writes).map(|s| (as_text(&s["Resource"]), &s["Condition"]));
    let canaries = json!({ "ForAllValues:StringLike": { "dynamodb:LeadingKeys": ["canary/*"] } });
    let position = json!({ "ForAllValues:StringEquals": { "dynamodb:LeadingKeys": ["sweep"] } });
    let expected = [("CommandsTable.Arn", &canaries), ("StateTable.Arn", &position)];
    let expected = expected.map(|(table, only)| (table.to_owned(), only));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected.into());
    let canary = Canary::log(0).expect("there is one");
    assert!(canary.as_str().starts_with("canary/"), "{canary}");
}
