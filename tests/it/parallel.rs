//! F1, F3, for two logs in parallel: they and their views are independent.

use std::thread;

use serde_json::{Value, json};

use crate::world::World;

/// Commands of each org, by each connection.
const DEPOSITS: u64 = 50;

#[test]
fn two_orgs_in_parallel_have_independent_logs_and_views() {
    let world = World::new();
    let orgs = [("acme", 1), ("umbrella", 10)].map(|(org, amount)| (world.name(org), amount));
    for (org, _) in &orgs {
        world.send("ledger", "open", 1, org, json!({"account": "cash"})).expect(202);
    }
    thread::scope(|scope| {
        for (org, amount) in &orgs {
            for user in ["ann", "bob"] {
                let world = &world;
                scope.spawn(move || {
                    let caller = world.another_connection();
                    // Both orgs, and both users of each, use the same ids.
                    for id in 2..2 + DEPOSITS {
                        let data = json!({"account": "cash", "amount": amount});
                        let mut request = caller.request("ledger", "deposit", id, org, data);
                        request["user"] = json!(user);
                        caller.post("/command", request.to_string().as_bytes()).expect(202);
                    }
                });
            }
        }
    });
    for (org, amount) in &orgs {
        let page = format!("/logs/ledger/org:{org}?limit=1000");
        let last = world.get(&page).expect(200).json["accepted"].as_u64().expect("a number");
        world.reach(&format!("/logs/ledger/org:{org}/{last}"));
        let log = world.get(&page).expect(200).json;
        assert_eq!((&log["accepted"], &log["tail"]), (&json!(last), &json!(last)), "{org}");
        let entries = log["entries"].as_array().expect("an array");
        let seqs: Vec<_> = entries.iter().filter_map(|entry| entry["seq"].as_u64()).collect();
        assert_eq!(seqs, (1..=last).collect::<Vec<_>>(), "{org}: dense from 1 on");
        // On a stack the answer to an append can be lost, and another writer can come between. Then
        // the command is in the log twice, and counts once.
        let (again, entries): (Vec<_>, Vec<_>) =
            entries.iter().partition(|entry| entry["status"] == "duplicate");
        assert!(!world.is_local() || again.is_empty(), "{org}: {again:?}");
        for entry in again {
            let first = entry["of"].as_u64().expect("it names the first");
            let same = |e: &&&Value| (&e["user"], &e["id"]) == (&entry["user"], &entry["id"]);
            let first_seen = entries.iter().find(same).and_then(|e| e["seq"].as_u64());
            assert_eq!(first_seen, Some(first), "{org}: {entry}");
        }
        assert_eq!(entries.len() as u64, 1 + 2 * DEPOSITS, "{org}");
        let of = |user: &str| -> Vec<&Value> {
            entries[1..].iter().filter(|entry| entry["user"] == user).copied().collect()
        };
        for user in ["ann", "bob"] {
            // In the order in which this user has sent them.
            let ids: Vec<_> = of(user).iter().filter_map(|entry| entry["id"].as_u64()).collect();
            assert_eq!(ids, (2..2 + DEPOSITS).collect::<Vec<_>>(), "{org} {user}");
        }
        for entry in &entries[1..] {
            assert_eq!(entry["status"], "accepted", "{org}: {entry}");
            assert_eq!(entry["events"][0]["data"]["amount"], *amount, "{org}: {entry}");
        }
        let row = world.reach(&format!("/views/balances/ledger/org:{org}/cash?seq={last}"));
        assert_eq!(
            row.json["row"],
            json!({"balance": 2 * DEPOSITS * amount, "movements": 2 * DEPOSITS})
        );
        let total = world.reach(&format!("/views/totals/ledger/org:{org}/total?seq={last}"));
        assert_eq!(total.json["row"]["balance"], 2 * DEPOSITS * amount, "{org}");
        let statement =
            world.reach(&format!("/views/statement/ledger/org:{org}?limit=1000&seq={last}"));
        assert_eq!(statement.json["rows"].as_array().map(Vec::len), Some(100), "{org}");
    }
}
