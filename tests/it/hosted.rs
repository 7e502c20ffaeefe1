//! What only a stack can show whose Lambda host can be told to fail: `cargo xtask e2e --on moto`.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::World;

/// What a change takes to come to its mapping, at most.
const PATIENCE: Duration = Duration::from_secs(30);

fn control(path: &str) -> String {
    env::var("FANFOLD_CONTROL").expect("FANFOLD_CONTROL is set") + path
}

/// Has the host do something.
#[track_caller]
fn tell(path: &str) {
    let told = ureq::put(control(path)).send_empty();
    assert_eq!(told.unwrap_or_else(|e| panic!("PUT {path}: {e}")).status(), 200);
}

/// Changes that the relay's mapping has passed over.
fn dropped() -> u64 {
    let mut counts = ureq::get(control("/counts")).call().expect("the host answers");
    let counts = counts.body_mut().read_to_string().expect("with a text");
    let counts: Value = serde_json::from_str(&counts).expect("of JSON");
    counts["mappings"]["fanfold-relay"]["dropped"].as_u64().expect("it counts them")
}

/// As if the relay had been down for longer than the table's stream keeps a change.
#[test]
#[ignore = "needs a stack with lambda-host: cargo xtask e2e --on moto"]
fn a_change_that_the_relay_never_gets_is_repaired_from_its_slot() {
    let world = World::new();
    let org = world.name("lost");
    let entry = |seq| format!("/logs/ledger/org:{org}/{seq}");
    world.send("ledger", "open", 1, &org, json!({"account": "cash"})).expect(202);
    world.reach(&entry(1));
    let before = dropped();
    tell("/mappings/fanfold-relay/drop");
    let deposit = json!({"account": "cash", "amount": 5});
    world.send("ledger", "deposit", 2, &org, deposit).expect(202);
    let began = Instant::now();
    while dropped() == before {
        assert!(began.elapsed() < PATIENCE, "no change was passed over");
        thread::sleep(Duration::from_millis(50));
    }
    tell("/mappings/fanfold-relay/on");
    // Nothing more is sent: it is the sweep that finds it.
    assert_eq!(world.reach(&entry(2)).json["status"], "accepted");
}
