//! F7: a command or event that cannot be processed stops no other log.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::World;

#[test]
fn a_command_whose_decision_panics_becomes_a_faulted_entry() {
    let world = World::local();
    let add = |id, org| world.send("counter", "add", id, org, json!({"n": 1})).expect(202).seq();
    add(1, "acme");
    let bad = world.send("counter", "explode", 2, "acme", json!({"why": "so there"})).expect(202);
    assert_eq!(bad.seq(), 2);
    let last = add(3, "acme");
    let other = add(1, "umbrella");

    let faulted = world.get("/logs/counter/org:acme/2?wait=5000").expect(200).json;
    assert_eq!(faulted["status"], "faulted");
    assert_eq!(faulted["message"], "`decide` panicked: so there");
    assert_eq!(faulted["command"], "explode");

    // The log, its view, and other logs go on.
    for (org, seq, count) in [("acme", last, 2), ("umbrella", other, 1)] {
        let row = format!("/views/tally/counter/org:{org}/count?seq={seq}&wait=5000");
        assert_eq!(world.get(&row).expect(200).json["row"], count, "{org}");
    }

    // Its id is used up.
    for (why, status) in [("so there", "duplicate"), ("again", "rejected")] {
        let again = world.send("counter", "explode", 2, "acme", json!({"why": why})).expect(202);
        let entry = format!("/logs/counter/org:acme/{}?wait=5000", again.seq());
        let again = world.get(&entry).expect(200).json;
        assert_eq!((&again["status"], &again["of"]), (&json!(status), &json!(2)), "{why}");
    }
}

#[test]
fn a_view_that_panics_for_one_org_is_parked_for_that_org_only() {
    let world = World::local();
    let add = |id, org| world.send("counter", "add", id, org, json!({"n": 1})).expect(202).seq();
    for org in ["cursed", "blessed"] {
        add(1, org);
        add(2, org);
    }

    // A waiting reader gets the answer that the view is parked long before its wait is over.
    let asked = Instant::now();
    let pending = world.get("/views/fragile/counter/org:cursed?seq=2&wait=25000").expect(202).json;
    assert!(asked.elapsed() < Duration::from_secs(20), "took {:?}", asked.elapsed());
    assert_eq!(pending["status"], "pending");
    assert_eq!(pending["seq"], 0);
    assert_eq!(pending["parked"]["seq"], 1);
    // A reader that does not wait sees it, too.
    let parked = world.get("/views/fragile/counter/org:cursed").expect(200).json;
    assert_eq!(parked["parked"]["seq"], 1);
    let reason = parked["parked"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("entries of this org make the view panic"), "{reason}");
    assert!(parked["parked"]["at"].as_u64() > Some(0), "{parked}");
    assert_eq!(parked["rows"], json!([]));

    // Other orgs in the same view, and other views of the same org, go on, also later.
    for (view, org) in [("fragile", "blessed"), ("tally", "cursed"), ("tally", "blessed")] {
        let row = format!("/views/{view}/counter/org:{org}/count?seq=2&wait=5000");
        assert_eq!(world.get(&row).expect(200).json["row"], 2, "{view} {org}");
    }
    add(3, "cursed");
    add(3, "blessed");
    for (view, org) in [("tally", "cursed"), ("fragile", "blessed")] {
        let row = format!("/views/{view}/counter/org:{org}/count?seq=3&wait=5000");
        assert_eq!(world.get(&row).expect(200).json["row"], 3, "{view} {org}");
    }
    let parked = world.get("/views/fragile/counter/org:cursed?seq=3&wait=1000").expect(202).json;
    assert_eq!(parked["parked"]["seq"], 1);
}
