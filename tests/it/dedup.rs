//! F4: a repeated command is recognised, whenever it arrives.

use std::thread;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::world::World;

/// All entries of a log, once it has one for each of `accepted` commands.
fn entries(world: &World, log: &str, accepted: u64) -> Vec<Value> {
    world.reach(&format!("/logs/{log}/{accepted}"));
    let mut entries = Vec::new();
    let mut next = Some(1);
    while let Some(from) = next {
        let page = world.get(&format!("/logs/{log}?from={from}&limit=1000")).expect(200).json;
        assert_eq!(page["accepted"], accepted);
        entries.extend(page["entries"].as_array().expect("an array").iter().cloned());
        next = page["next"].as_u64();
    }
    let seqs: Vec<_> = entries.iter().filter_map(|entry| entry["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=accepted).collect::<Vec<_>>(), "F1, F3: dense from 1 on");
    entries
}

/// The data of a deposit of 1.
fn one() -> Value {
    json!({"account": "cash", "amount": 1})
}

/// Opens the account with the log's first command, as a user whose ids are separate from ann's.
fn open(world: &World, org: &str) {
    let mut request = world.request("ledger", "open", 1, org, json!({"account": "cash"}));
    request["user"] = json!("bob");
    let receipt = world.post("/command", request.to_string().as_bytes()).expect(202);
    assert_eq!(receipt.seq(), 1);
}

/// The balance of the account, once the view has reached `seq`.
fn cash(world: &World, org: &str, seq: u64) -> Value {
    let row = world.reach(&format!("/views/balances/ledger/org:{org}/cash?seq={seq}"));
    row.json["row"]["balance"].clone()
}

/// Sends deposits with these ids in this order, in batches. Each must get a receipt.
fn send_ids(world: &World, org: &str, ids: &[u64]) {
    for batch in ids.chunks(500) {
        let lines = batch
            .iter()
            .map(|id| format!("{}\n", world.request("ledger", "deposit", *id, org, one())));
        let body: String = lines.collect();
        let answers = world.post("/commands", body.as_bytes()).expect(202).json;
        for result in answers["results"].as_array().expect("an array") {
            assert!(result["seq"].is_u64(), "{result}");
        }
    }
}

#[test]
fn a_repeated_request_becomes_a_duplicate_of_the_first() {
    let world = World::new();
    let org = world.name("acme");
    let send = || world.send("ledger", "open", 7, &org, json!({"account": "cash"})).expect(202);
    assert_eq!((send().seq(), send().seq()), (1, 2));
    let entries = entries(&world, &format!("ledger/org:{org}"), 2);
    assert_eq!(entries[0]["status"], "accepted");
    assert_eq!(entries[1]["status"], "duplicate");
    assert_eq!(entries[1]["of"], 1);
    assert_eq!(entries[1]["id"], 7);
}

#[test]
fn of_a_hundred_parallel_repeats_one_is_accepted() {
    let world = World::new();
    let org = world.name("acme");
    // Another user's command with the same id is another command.
    open(&world, &org);
    thread::scope(|scope| {
        for connection in 0..8 {
            let requests = if connection < 4 { 13 } else { 12 };
            let (world, org) = (&world, &org);
            scope.spawn(move || {
                let caller = world.another_connection();
                for _ in 0..requests {
                    caller.send("ledger", "deposit", 1, org, one()).expect(202);
                }
            });
        }
    });
    // On a stack there may be more: an append's answer can be lost, and another writer come between.
    let log = format!("ledger/org:{org}");
    let last = world.get(&format!("/logs/{log}?limit=1")).expect(200).json["accepted"].clone();
    let last = last.as_u64().expect("a number");
    assert!(if world.is_local() { last == 101 } else { last >= 101 }, "{last}");
    let entries = entries(&world, &log, last);
    let (opened, deposits) = entries.split_first().expect("there are at least 101");
    assert_eq!((&opened["status"], &opened["user"]), (&json!("accepted"), &json!("bob")));
    let accepted: Vec<_> = deposits.iter().filter(|e| e["status"] == "accepted").collect();
    assert_eq!(accepted.len(), 1);
    let first = &accepted[0]["seq"];
    for entry in deposits.iter().filter(|e| e["status"] != "accepted") {
        assert_eq!((&entry["status"], &entry["of"]), (&json!("duplicate"), first));
    }
    assert_eq!(cash(&world, &org, last), 1);
}

#[test]
fn shuffled_ids_are_accepted_once_and_those_below_the_floor_are_stale() {
    const LEFT_OUT: u64 = 42;
    let seed = match std::env::var("SCENARIO_SEED") {
        Ok(seed) => seed.parse().expect("SCENARIO_SEED is a number"),
        Err(_) => rand::rng().random(),
    };
    println!("SCENARIO_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut ids: Vec<u64> = (1..=5_000).filter(|id| *id != LEFT_OUT).collect();
    for block in ids.chunks_mut(1_000) {
        block.shuffle(&mut random);
    }

    let world = World::new();
    let org = world.name("acme");
    open(&world, &org);
    send_ids(&world, &org, &ids);
    let log = format!("ledger/org:{org}");
    let all = entries(&world, &log, 5_000);
    for (entry, id) in all[1..].iter().zip(&ids) {
        assert_eq!((&entry["status"], &entry["id"]), (&json!("accepted"), &json!(id)));
    }

    // A known id: duplicate. An id at or below the floor: stale, seen before or not.
    send_ids(&world, &org, &[4_990, LEFT_OUT, LEFT_OUT - 1]);
    let of = all.iter().find(|entry| entry["id"] == 4_990).expect("it was sent")["seq"].clone();
    let all = entries(&world, &log, 5_003);
    assert_eq!((&all[5_000]["status"], &all[5_000]["of"]), (&json!("duplicate"), &of));
    assert_eq!(all[5_001]["status"], "stale");
    assert_eq!(all[5_002]["status"], "stale");
    assert_eq!(cash(&world, &org, 5_003), 4_999);
}

/// A deposit of one of ann's clients.
fn of_client(world: &World, client: &str, id: u64, org: &str, amount: u64) -> Value {
    let data = json!({"account": "cash", "amount": amount});
    let mut request = world.request("ledger", "deposit", id, org, data);
    request["client"] = json!(client);
    request
}

#[test]
fn clients_of_a_user_have_ids_of_their_own() {
    let world = World::new();
    let org = world.name("acme");
    open(&world, &org);
    let requests = (1..=40).map(|n| {
        let client = ["till 1", "till 2", "büro"][n as usize % 3];
        of_client(&world, client, n / 3 + 1, &org, 1)
    });
    let body: String = requests.map(|request| format!("{request}\n")).collect();
    world.post("/commands", body.as_bytes()).expect(202);
    let all = entries(&world, &format!("ledger/org:{org}"), 41);
    for entry in &all[1..] {
        assert_eq!(
            (&entry["status"], &entry["user"]),
            (&json!("accepted"), &json!("ann")),
            "{entry}"
        );
        assert!(entry["client"].is_string(), "{entry}");
    }
    assert_eq!(cash(&world, &org, 41), 40);
}

#[test]
fn a_known_id_with_another_command_or_other_data_is_rejected() {
    let world = World::new();
    let org = world.name("acme");
    open(&world, &org);
    let send = |request: &Value| world.post("/command", request.to_string().as_bytes()).expect(202);
    send(&of_client(&world, "till", 1, &org, 5));
    // The same command with other blanks; another amount; another command.
    let again = of_client(&world, "till", 1, &org, 5).to_string().replace(":5", ": 5");
    world.post("/command", again.as_bytes()).expect(202);
    send(&of_client(&world, "till", 1, &org, 6));
    let mut other = of_client(&world, "till", 1, &org, 5);
    other["command"] = json!("withdraw");
    send(&other);
    let all = entries(&world, &format!("ledger/org:{org}"), 5);
    assert_eq!((&all[2]["status"], &all[2]["of"]), (&json!("duplicate"), &json!(2)));
    for (entry, what) in [(&all[3], "with other `data`"), (&all[4], "for the command `deposit`")] {
        assert_eq!(entry["status"], "rejected");
        assert_eq!((&entry["code"], &entry["of"]), (&json!("id_reused"), &json!(2)));
        let message = entry["message"].as_str().expect("a text");
        assert!(message.contains(what) && message.contains("use a new one"), "{message}");
    }
    assert_eq!(cash(&world, &org, 5), 5);
}

#[test]
fn a_client_can_look_up_an_id() {
    let world = World::new();
    let org = world.name("acme");
    let log = format!("/logs/ledger/org:{org}");
    world.get(&format!("{log}?user=ann&id=1")).expect(404);
    open(&world, &org);
    let request = of_client(&world, "till 7", 4, &org, 5);
    for _ in 0..2 {
        world.post("/command", request.to_string().as_bytes()).expect(202);
    }
    let entry = world.reach(&format!("{log}/2")).json;
    world.reach(&format!("{log}/3"));
    assert_eq!(entry["client"], "till 7");
    assert_eq!(world.reach(&format!("{log}?user=ann&client=till+7&id=4")).json, entry);
    for query in ["user=ann&id=4", "user=ann&client=till+7&id=3", "user=cy&id=1"] {
        let answer = world.get(&format!("{log}?{query}"));
        assert_eq!(answer.check_problem(404, "unknown-id", "has had no command"), Ok(()));
    }
    // An id that fell out of the window is unknown, unless the last snapshot still has it.
    send_ids(&world, &org, &(1..=2_060).collect::<Vec<_>>());
    world.reach(&format!("{log}/2063"));
    let answer = world.get(&format!("{log}?user=ann&id=7"));
    match answer.status {
        200 => assert_eq!(answer.json, world.reach(&format!("{log}/10")).json),
        _ => assert_eq!(
            answer.check_problem(410, "id-below-window", "look for it in the log"),
            Ok(())
        ),
    }
}
