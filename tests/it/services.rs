//! Two services in one process.

use serde_json::json;

use crate::world::World;

#[test]
fn two_services_keep_separate_logs_for_one_org() {
    let world = World::new();
    let add = json!({"n": 5});
    for id in 1..=3 {
        let counted = world.send("counter", "add", id, "acme", add.clone()).expect(202);
        assert_eq!(counted.json, json!({"log": "counter/org:acme", "seq": id}));
    }
    // The same ids of the same user are no repeats: ids are per log.
    let opened = world.send("ledger", "open", 1, "acme", json!({"account": "cash"})).expect(202);
    assert_eq!(opened.json, json!({"log": "ledger/org:acme", "seq": 1}));

    let opened = world.get("/logs/ledger/org:acme/1?wait=5000").expect(200).json;
    assert_eq!(opened["status"], "accepted");
    let counted = world.get("/logs/counter/org:acme/3?wait=5000").expect(200).json;
    assert_eq!(counted["status"], "accepted");
    assert_eq!(world.get("/logs/ledger/org:acme").expect(200).json["tail"], 1);

    let tally = world.get("/views/tally/counter/org:acme/count?seq=3&wait=5000").expect(200);
    assert_eq!(tally.json["row"], 15);
    let balances = world.get("/views/balances/ledger/org:acme?seq=1&wait=5000").expect(200);
    assert_eq!(balances.json["rows"][0]["key"], "cash");
}

#[test]
fn a_user_without_an_org_is_a_partition() {
    let world = World::new();
    let request =
        json!({"type": "counter", "command": "add", "id": 1, "user": "ann", "data": {"n": 1}});
    let receipt = world.post("/command", request.to_string().as_bytes()).expect(202);
    assert_eq!(receipt.json, json!({"log": "counter/user:ann", "seq": 1}));
    let entry = world.get("/logs/counter/user:ann/1?wait=5000").expect(200);
    assert_eq!(entry.json["status"], "accepted");
}
