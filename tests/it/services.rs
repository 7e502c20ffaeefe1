//! Several services in one process, and partitions by user.

use serde_json::json;

use crate::world::World;

#[test]
fn two_services_keep_separate_logs_for_one_org() {
    let world = World::local();
    let org = world.name("acme");
    let add = json!({"n": 5});
    for id in 1..=3 {
        let counted = world.send("counter", "add", id, &org, add.clone()).expect(202);
        assert_eq!(counted.json, json!({"log": format!("counter/org:{org}"), "seq": id}));
    }
    // Ids are per log, so the same id in another log is not a repeat.
    let opened = world.send("ledger", "open", 1, &org, json!({"account": "cash"})).expect(202);
    assert_eq!(opened.json, json!({"log": format!("ledger/org:{org}"), "seq": 1}));

    let opened = world.reach(&format!("/logs/ledger/org:{org}/1")).json;
    assert_eq!(opened["status"], "accepted");
    let counted = world.reach(&format!("/logs/counter/org:{org}/3")).json;
    assert_eq!(counted["status"], "accepted");
    assert_eq!(world.get(&format!("/logs/ledger/org:{org}")).expect(200).json["tail"], 1);

    let tally = world.reach(&format!("/views/tally/counter/org:{org}/count?seq=3"));
    assert_eq!(tally.json["row"], 15);
    let balances = world.reach(&format!("/views/balances/ledger/org:{org}?seq=1"));
    assert_eq!(balances.json["rows"][0]["key"], "cash");
}

#[test]
fn a_user_without_an_org_is_a_partition() {
    let world = World::new();
    let user = world.name("ann");
    let request = json!({
        "type": "ledger", "command": "open", "id": 1, "user": user, "data": {"account": "cash"},
    });
    let receipt = world.post("/command", request.to_string().as_bytes()).expect(202);
    assert_eq!(receipt.json, json!({"log": format!("ledger/user:{user}"), "seq": 1}));
    let entry = world.reach(&format!("/logs/ledger/user:{user}/1"));
    assert_eq!(entry.json["status"], "accepted");
}
