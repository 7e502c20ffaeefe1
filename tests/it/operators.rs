//! Scenarios of a deployed stack in which something waits for an operator, and the command line mends it. `cargo xtask
//! e2e` runs them on each emulator.

use std::env;
use std::process::Command;

use serde_json::{Value, json};

use crate::deployed::{Stack, until};
use crate::world::World;

/// The lines that `fanfold` prints.
#[track_caller]
fn fanfold(arguments: &[&str]) -> Vec<Value> {
    let program = env::var("FANFOLD_PROGRAM").expect("FANFOLD_PROGRAM is set");
    let output = Command::new(program).args(arguments).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "fanfold {}: {error}", arguments.join(" "));
    let lines = String::from_utf8(output.stdout).expect("text");
    lines.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// What waits of a log, once something does.
#[track_caller]
fn parked(log: &str, view: Option<&str>) -> Vec<Value> {
    let which: Vec<&str> = view.map(|view| ["--view", view]).into_iter().flatten().collect();
    let mut found = Vec::new();
    until(&format!("something of {log} waits"), || {
        found = fanfold(&[&["parked", "--sign", "us-east-1"][..], &which].concat());
        found.retain(|item| item["log"] == log);
        !found.is_empty()
    });
    found
}

#[test]
#[ignore = "needs a deployed stack: cargo xtask e2e"]
fn a_command_that_no_build_can_read_is_listed_and_given_up() {
    let (world, stack) = (World::new(), Stack::of_environment());
    let org = world.name("illegible");
    let log = format!("ledger/org:{org}");
    let entry = |seq| format!("/logs/{log}/{seq}");
    world.send("ledger", "open", 1, &org, json!({"account": "cash"})).expect(202);
    world.reach(&entry(1));
    // A write to the slot by something that is not Fanfold. Version 1 of the command line, which is the one on PyPI, takes
    // bytes as they are. A token has 16.
    let values = json!({
        ":seq": {"N": "2"}, ":n": {"N": "1"}, ":at": {"N": "1800000000000"},
        ":b": {"B": "illegible"}, ":tok": {"B": "0123456789abcdef"},
    });
    stack.update(
        "commands",
        &json!({"pk": {"S": log}}),
        "SET seq = :seq, n = :n, #at = :at, b = :b, tok = :tok",
        &[("#at", "at")],
        &values,
    );
    let [item] = &parked(&log, None)[..] else { panic!("one item waits") };
    assert_eq!((&item["seq"], &item["reason"]), (&json!(2), &json!("undecodable")), "{item}");
    // A command behind it waits for its turn.
    let deposit = json!({"account": "cash", "amount": 5});
    world.send("ledger", "deposit", 3, &org, deposit).expect(202);
    world.get(&format!("{}?wait=1000", entry(3))).expect(202);
    let skip = ["skip", "--sign", "us-east-1", &log, "2", "--reason", "a drill"];
    let done = fanfold(&skip);
    assert_eq!(done[0]["done"], "begun", "{done:?}");
    let lost = world.reach(&entry(2)).json;
    assert_eq!((&lost["status"], &lost["reason"]), (&json!("lost"), &json!("a drill")), "{lost}");
    assert_eq!(world.reach(&entry(3)).json["status"], "accepted");
    let rows = world.reach(&format!("/views/balances/{log}/cash?seq=3"));
    assert_eq!(rows.json["row"], json!({"balance": 5, "movements": 1}));
}

#[test]
#[ignore = "needs a deployed stack: cargo xtask e2e"]
fn a_parked_view_is_listed_and_let_go_on() {
    let (world, stack) = (World::new(), Stack::of_environment());
    let org = world.name("parked");
    let log = format!("ledger/org:{org}");
    park(&world, &stack, &org, None);
    let deposit = json!({"account": "cash", "amount": 5});
    world.send("ledger", "deposit", 2, &org, deposit).expect(202);
    world.reach(&format!("/logs/{log}/2"));
    let rows = format!("/views/balances/{log}/cash?seq=2");
    let waits = world.get(&rows).expect(202).json;
    assert_eq!(waits["parked"]["reason"], "a drill", "{waits}");
    let [item] = &parked(&log, Some("balances"))[..] else { panic!("one item waits") };
    assert_eq!((&item["seq"], &item["cursor"]), (&json!(2), &json!(1)), "{item}");
    let done = fanfold(&["resume", "--sign", "us-east-1", "--view", "balances", &log]);
    assert_eq!(done[0]["done"], "begun", "{done:?}");
    until_it_has(&world, &rows);
}

#[test]
#[ignore = "needs a deployed stack: cargo xtask e2e"]
fn a_view_that_another_build_has_parked_tries_again_by_itself() {
    let (world, stack) = (World::new(), Stack::of_environment());
    let org = world.name("mended");
    park(&world, &stack, &org, Some("the build before"));
    let deposit = json!({"account": "cash", "amount": 5});
    world.send("ledger", "deposit", 2, &org, deposit).expect(202);
    until_it_has(&world, &format!("/views/balances/ledger/org:{org}/cash?seq=2"));
}

/// Opens an account in a new log, and parks the view `balances` behind that entry.
fn park(world: &World, stack: &Stack, org: &str, build: Option<&str>) {
    let log = format!("ledger/org:{org}");
    world.send("ledger", "open", 1, org, json!({"account": "cash"})).expect(202);
    world.reach(&format!("/views/balances/{log}?seq=1"));
    let mut parked = json!({"seq": 2, "reason": "a drill", "at": 1_800_000_000_000_u64});
    if let Some(build) = build {
        parked["build"] = json!(build);
    }
    stack.update(
        "view-balances-v1",
        &json!({"pk": {"S": log}, "sk": {"S": "cursor"}}),
        "SET parked = :parked, h = :h",
        &[],
        &json!({":parked": {"S": parked.to_string()}, ":h": {"N": "7"}}),
    );
}

/// Only the view's sweep brings it there.
#[track_caller]
fn until_it_has(world: &World, rows: &str) {
    until(rows, || world.get(rows).status == 200);
    assert_eq!(world.get(rows).expect(200).json["row"], json!({"balance": 5, "movements": 1}));
}
