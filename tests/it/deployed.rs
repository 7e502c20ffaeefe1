//! Scenarios of a deployed stack: Lambdas fail, and the sweeps repair what they left undone. These
//! break something that other scenarios need, so `cargo xtask e2e` runs them alone.

use std::env;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::World;

/// The views of the ledger, each a Lambda.
const VIEWS: [&str; 3] = ["balances", "statement", "totals"];
/// A dead letter arrives after a few tries, and a sweep, which runs each minute, acts in its second
/// run at the latest.
const PATIENCE: Duration = Duration::from_secs(150);
/// The name of the policy that a scenario puts on a role for a while.
const POLICY: &str = "Broken";

/// The stack behind the API, with its operator's access.
pub(crate) struct Stack {
    name: String,
    aws: String,
    is_direct: bool,
}

impl Stack {
    pub(crate) fn of_environment() -> Self {
        let get = |name| env::var(name).unwrap_or_else(|_| panic!("{name} is set"));
        let is_direct = env::var("FANFOLD_DELIVERY").is_ok_and(|delivery| delivery == "direct");
        Self { name: get("FANFOLD_STACK"), aws: get("FANFOLD_AWS"), is_direct }
    }

    /// The output of `aws`; `null` if there is none.
    #[track_caller]
    fn aws(&self, arguments: &[&str]) -> Value {
        let mut command = Command::new(&self.aws);
        command.args(arguments).args(["--output", "json"]);
        if let Ok(endpoint) = env::var("AWS_ENDPOINT_URL") {
            // `aws sqs` ignores the endpoint in the environment.
            command.args(["--endpoint-url", &endpoint]);
        }
        let output = command.output().expect("aws can be run");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "aws {}: {error}", arguments.join(" "));
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Updates an item of one of the stack's tables. `names` are those of attributes that DynamoDB reserves.
    #[track_caller]
    pub(crate) fn update(
        &self,
        table: &str,
        key: &Value,
        update: &str,
        names: &[(&str, &str)],
        values: &Value,
    ) {
        let table = format!("{}-{table}", self.name);
        let (key, values) = (key.to_string(), values.to_string());
        let mut arguments = vec!["dynamodb", "update-item", "--table-name", &table];
        arguments.extend(["--key", &key, "--update-expression", update]);
        arguments.extend(["--expression-attribute-values", &values]);
        let names: serde_json::Map<String, Value> =
            names.iter().map(|(short, name)| ((*short).to_owned(), json!(name))).collect();
        let json = Value::Object(names.clone()).to_string();
        if !names.is_empty() {
            arguments.extend(["--expression-attribute-names", &json]);
        }
        self.aws(&arguments);
    }

    fn function(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    fn role(&self, function: &str) -> String {
        let name = self.function(function);
        let found = self.aws(&["lambda", "get-function-configuration", "--function-name", &name]);
        let role = found["Role"].as_str().expect("a function has a role");
        role.rsplit('/').next().expect("it has a name").to_owned()
    }

    fn queue(&self, name: &str) -> String {
        let name = format!("{}-{name}", self.name);
        let found = self.aws(&["sqs", "get-queue-url", "--queue-name", &name]);
        found["QueueUrl"].as_str().expect("a queue has a URL").to_owned()
    }

    /// The number of messages in a queue, visible or not.
    fn messages(&self, queue: &str) -> u64 {
        let names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
        let ask = ["sqs", "get-queue-attributes", "--queue-url", queue, "--attribute-names"];
        let found = self.aws(&[&ask[..], &names].concat());
        let count = |name| found["Attributes"][name].as_str()?.parse::<u64>().ok();
        names.into_iter().map(|name| count(name).expect("a number")).sum()
    }
}

/// Waits until the condition holds.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
#[ignore = "needs a deployed stack: cargo xtask e2e"]
fn sweeps_bring_failed_views_forward_and_deliver_dead_letters() {
    let (world, stack) = (World::new(), Stack::of_environment());
    let org = world.name("acme");
    let rows = |view: &str, seq| format!("/views/{view}/ledger/org:{org}?seq={seq}");
    let letters = VIEWS.map(|view| stack.queue(&format!("{view}-dead-letters")));
    let roles = VIEWS.map(|view| stack.role(view));
    world.send("ledger", "open", 1, &org, json!({"account": "cash"})).expect(202);
    for (view, letters) in VIEWS.iter().zip(&letters) {
        world.reach(&rows(view, 1));
        assert_eq!(stack.messages(letters), 0, "{view} has dead letters from before");
    }

    // Their roles lose the permission to write.
    let deny = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Action": ["dynamodb:PutItem", "dynamodb:UpdateItem"], "Resource": "*",
    }]});
    for role in &roles {
        let put = ["iam", "put-role-policy", "--policy-name", POLICY, "--role-name", role];
        stack.aws(&[&put[..], &["--policy-document", &deny.to_string()]].concat());
    }
    if !stack.is_direct {
        // The template sets six times the Lambda's timeout: minutes.
        for queue in VIEWS.map(|view| stack.queue(view)) {
            let set = ["sqs", "set-queue-attributes", "--queue-url", &queue, "--attributes"];
            stack.aws(&[&set[..], &["VisibilityTimeout=1"]].concat());
        }
    }
    let deposit = json!({"account": "cash", "amount": 5});
    world.send("ledger", "deposit", 2, &org, deposit).expect(202);
    let entry = world.reach(&format!("/logs/ledger/org:{org}/2")).json;
    assert_eq!(entry["status"], "accepted", "the log does not depend on its views");
    if stack.is_direct {
        for view in VIEWS {
            notify_again(&stack, view, &org);
        }
    }
    for (view, letters) in VIEWS.iter().zip(&letters) {
        until(&format!("a dead letter of {view}"), || stack.messages(letters) > 0);
        let pending = world.get(&format!("{}&wait=1", rows(view, 2))).expect(202);
        assert_eq!(pending.json["seq"], 1, "{view} stands still");
    }

    for role in &roles {
        stack.aws(&["iam", "delete-role-policy", "--policy-name", POLICY, "--role-name", role]);
    }
    // No more commands: only the sweeps can bring the views forward and deliver the dead letters.
    for (view, letters) in VIEWS.iter().zip(&letters) {
        until(&format!("{view} has caught up"), || world.get(&rows(view, 2)).status == 200);
        until(&format!("{view} has no dead letter"), || stack.messages(letters) == 0);
    }
    let cash = world.reach(&format!("/views/balances/ledger/org:{org}/cash?seq=2"));
    assert_eq!(cash.json["row"], json!({"balance": 5, "movements": 1}));
    // New commands reach the views again.
    let deposit = json!({"account": "cash", "amount": 1});
    world.send("ledger", "deposit", 3, &org, deposit).expect(202);
    for view in VIEWS {
        world.reach(&rows(view, 3));
    }
}

/// Queues an asynchronous invocation with the notification of the second commit, as SNS does. The
/// emulator's SNS invokes the Lambda only once, and drops failures.
fn notify_again(stack: &Stack, view: &str, org: &str) {
    let log = format!("ledger/org:{org}");
    let message = json!([{
        "specversion": "1.0", "id": format!("{log}@2-2"), "source": "fanfold/ledger",
        "type": "fanfold.commit.v1", "time": "2026-01-01T00:00:00.000Z",
        "datacontenttype": "application/json", "log": log, "seq": "2",
        "data": {"first": 2, "last": 2, "prev": {}, "body": "journal"},
    }]);
    let event = json!({"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": {
        "Type": "Notification", "Message": message.to_string(),
    }}]});
    let function = stack.function(view);
    let invoke = ["lambda", "invoke", "--function-name", &function, "--invocation-type", "Event"];
    // The format of version 1 of the command line, which is the one on PyPI.
    stack.aws(&[&invoke[..], &["--payload", &event.to_string(), "/dev/null"]].concat());
}

#[test]
#[ignore = "needs a deployed stack: cargo xtask e2e"]
fn the_sweep_sends_canaries() {
    let stack = Stack::of_environment();
    let table = format!("{}-journal", stack.name);
    let values = json!({":log": {"S": "canary/user:canary-0"}}).to_string();
    let query = ["dynamodb", "query", "--table-name", &table, "--key-condition-expression"];
    let query = [&query[..], &["pk = :log", "--expression-attribute-values", &values]].concat();
    let entries = || stack.aws(&query)["Count"].as_u64().expect("a number");
    // The first canary may be older than this scenario.
    let before = entries();
    until("a canary in the journal", || entries() > before);
}
