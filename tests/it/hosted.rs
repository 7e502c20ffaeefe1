//! Scenarios of a stack whose Lambda host can be made to fail: `cargo xtask e2e --on moto`.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::World;

/// How long a change may take to reach its mapping.
const PATIENCE: Duration = Duration::from_secs(30);

fn control(path: &str) -> String {
    env::var("FANFOLD_CONTROL").expect("FANFOLD_CONTROL is set") + path
}

/// Sends a request to the host's control port.
#[track_caller]
fn put(path: &str) {
    let answer = ureq::put(control(path)).send_empty();
    assert_eq!(answer.unwrap_or_else(|e| panic!("PUT {path}: {e}")).status(), 200);
}

/// The number of changes that the relay's mapping has discarded.
fn dropped() -> u64 {
    let mut counts = ureq::get(control("/counts")).call().expect("the host answers");
    let counts = counts.body_mut().read_to_string().expect("the body is text");
    let counts: Value = serde_json::from_str(&counts).expect("the body is JSON");
    counts["mappings"]["fanfold-relay"]["dropped"].as_u64().expect("the counter is a number")
}

/// The change is lost, as if the relay had been down for longer than the table's stream keeps it.
#[test]
#[ignore = "needs a stack with lambda-host: cargo xtask e2e --on moto"]
fn the_sweep_repairs_a_lost_change_from_its_slot() {
    let world = World::new();
    let org = world.name("lost");
    let entry = |seq| format!("/logs/ledger/org:{org}/{seq}");
    world.send("ledger", "open", 1, &org, json!({"account": "cash"})).expect(202);
    world.reach(&entry(1));
    let before = dropped();
    put("/mappings/fanfold-relay/drop");
    let deposit = json!({"account": "cash", "amount": 5});
    world.send("ledger", "deposit", 2, &org, deposit).expect(202);
    let began = Instant::now();
    while dropped() == before {
        assert!(began.elapsed() < PATIENCE, "no change was discarded");
        thread::sleep(Duration::from_millis(50));
    }
    put("/mappings/fanfold-relay/on");
    // No command follows, so only the sweep can find the lost change.
    assert_eq!(world.reach(&entry(2)).json["status"], "accepted");
}
