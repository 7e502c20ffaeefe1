//! Evaluates the resource policies of the journal and the topics.

use serde_json::Value;

use crate::stack::{Template, as_text, topic_arn};

/// The processor: its role, and a session of the role.
const PROCESSOR: [&str; 2] = [
    "ProcessorRole.Arn",
    "arn:AWS::Partition:sts::AWS::AccountId:assumed-role/ProcessorRole/an-instance",
];
const OTHERS: [&str; 3] =
    ["arn:aws:iam::1:role/Admin", "arn:aws:iam::1:root", "arn:aws:sts::1:assumed-role/ApiRole/x"];

/// Whether a policy denies a call, as IAM evaluates it: a statement with `Deny` matches the principal,
/// the action and the resource, and all of its conditions hold.
fn denies(policy: &Value, principal: &str, action: &str, resource: &str) -> bool {
    let statements = policy["Statement"].as_array().expect("a policy has statements").iter();
    let mut denied = statements.filter(|statement| statement["Effect"] == "Deny");
    denied.any(|statement| {
        assert_eq!(statement["Principal"], "*", "this test supports no other principal");
        let names = |field: &str, wanted: &str| {
            let of = &statement[field];
            let all = of.as_array().map_or_else(|| vec![of.clone()], Clone::clone);
            all.iter().any(|of| matches(&as_text(of), wanted))
        };
        names("Action", action)
            && names("Resource", resource)
            && holds(&statement["Condition"], principal)
    })
}

fn holds(condition: &Value, principal: &str) -> bool {
    let Some(operators) = condition.as_object() else { return true };
    operators.iter().all(|(operator, keys)| {
        assert_eq!(operator, "ArnNotLike", "this test supports no other operator");
        let keys = keys.as_object().expect("an operator has keys");
        keys.iter().all(|(key, patterns)| {
            assert_eq!(key, "aws:PrincipalArn", "this test supports no other key");
            let patterns = patterns.as_array().expect("a list");
            !patterns.iter().any(|pattern| matches(&as_text(pattern), principal))
        })
    })
}

/// Whether a text matches a pattern with at most one `*`.
fn matches(pattern: &str, text: &str) -> bool {
    pattern.split_once('*').map_or(pattern == text, |(begin, end)| {
        text.len() >= begin.len() + end.len() && text.starts_with(begin) && text.ends_with(end)
    })
}

/// The actions that change or delete an item (service authorization reference of DynamoDB). Calls within
/// a transaction need the same actions as single ones. `PutItem` is missing, since the processor needs
/// it, and `PartiQLInsert`, since it replaces no item.
#[test]
fn the_journal_denies_updates_and_deletes_to_all_principals() {
    let table = &Template::with(&[]).of_type("AWS::DynamoDB::Table")["JournalTable"];
    let policy = &table["ResourcePolicy"]["PolicyDocument"];
    let arn = "arn:AWS::Partition:dynamodb:AWS::Region:AWS::AccountId:table/shop-journal";
    assert!(arn.ends_with(&as_text(&table["TableName"])));
    for principal in PROCESSOR.iter().chain(&OTHERS) {
        for action in
            ["UpdateItem", "DeleteItem", "BatchWriteItem", "PartiQLUpdate", "PartiQLDelete"]
        {
            let action = format!("dynamodb:{action}");
            assert!(denies(policy, principal, &action, arn), "{principal}: {action}");
            assert!(!denies(policy, principal, &action, &format!("{arn}2")), "no other table");
        }
        // The calls of the stages, of operators and of CloudFormation. If the policy denied the
        // calls of CloudFormation, the stack could be neither updated nor deleted.
        for action in [
            "PutItem",
            "Query",
            "GetItem",
            "DescribeTable",
            "UpdateTable",
            "DeleteTable",
            "UpdateContinuousBackups",
            "UpdateContributorInsights",
            "GetResourcePolicy",
            "PutResourcePolicy",
            "DeleteResourcePolicy",
        ] {
            let action = format!("dynamodb:{action}");
            assert!(!denies(policy, principal, &action, arn), "{principal}: {action}");
        }
    }
}

#[test]
fn only_the_processor_publishes_and_the_account_subscribes() {
    let template = Template::with(&[]);
    let policy = &template.of_type("AWS::SNS::TopicPolicy")["TopicPolicy"];
    assert_eq!(policy["Topics"], serde_json::json!(["Topic"]));
    let policy = &policy["PolicyDocument"];
    for (principals, denied) in [(&PROCESSOR[..], false), (&OTHERS[..], true)] {
        for principal in principals {
            let publishes = denies(policy, principal, "sns:Publish", "Topic");
            assert_eq!(publishes, denied, "{principal}");
            assert!(!denies(policy, principal, "sns:Subscribe", "Topic"));
            assert!(!denies(policy, principal, "sns:SetTopicAttributes", "Topic"), "allowed");
        }
    }
    let allowed = &policy["Statement"][1];
    assert_eq!(allowed["Effect"], "Allow");
    assert_eq!(allowed["Principal"]["AWS"], "arn:AWS::Partition:iam::AWS::AccountId:root");
    let actions = allowed["Action"].as_array().expect("a list");
    assert!(actions.contains(&"sns:Subscribe".into()) && !actions.contains(&"sns:Publish".into()));
}

/// SNS moves messages there that it cannot deliver to a function or a queue.
#[test]
fn the_topic_may_send_to_the_queues_of_dead_letters() {
    let policies = Template::with(&[]).of_type("AWS::SQS::QueuePolicy");
    for view in ["Balances", "Statement", "Totals"] {
        let policy = &policies[&format!("{view}DeadLettersPolicy")];
        let queue = format!("{view}DeadLetters");
        assert_eq!(policy["Queues"], serde_json::json!([queue]));
        let statement = &policy["PolicyDocument"]["Statement"][0];
        assert_eq!(statement["Resource"], format!("{queue}.Arn"));
        assert_eq!(statement["Principal"], serde_json::json!({ "Service": "sns.amazonaws.com" }));
        assert_eq!(statement["Condition"]["ArnEquals"]["aws:SourceArn"], topic_arn());
    }
}
