//! `fanfold shards` against `fanfold up`: under load, and with wrong arguments.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Up, fanfold, lines, stderr};

const ORGS: u64 = 40;
const ROUNDS: u64 = 25;

fn name(shard: u64) -> String {
    format!("shardId-{shard:012}")
}

fn shards(up: &Up, args: &[&str]) -> Vec<Value> {
    let output = up.client(&[&["shards"], args].concat());
    let json_of = |line: &String| serde_json::from_str(line).expect("a line is JSON");
    lines(&output, 0).iter().map(json_of).collect()
}

#[test]
fn shards_are_listed_split_and_merged() {
    let up = Up::new();
    let listed = shards(&up, &["list"]);
    assert_eq!(listed.len(), 4);
    assert_eq!(
        listed[1],
        json!({
            "id": name(1),
            "range": {
                "start": "85070591730234615865843651857942052864",
                "end": "170141183460469231731687303715884105727",
            },
            "state": "open",
            "parents": [],
            "backlog": 0,
            "percent": 25.0,
        })
    );
    let children = shards(&up, &["split", &name(0)]);
    let found: Vec<_> = children.iter().map(|s| (&s["id"], &s["percent"], &s["parents"])).collect();
    let (four, five) = (json!(name(4)), json!(name(5)));
    let (percent, parents) = (json!(12.5), json!([name(0)]));
    assert_eq!(found, [(&four, &percent, &parents), (&five, &percent, &parents)]);
    let child = shards(&up, &["merge", &name(1), &name(5)]);
    assert_eq!((&child[0]["id"], &child[0]["percent"]), (&json!(name(6)), &json!(37.5)));
    let children = shards(&up, &["split", &name(4), "--at", "1"]);
    assert_eq!(children[0]["range"], json!({"start": "0", "end": "0"}));
    assert_eq!(shards(&up, &["list"]).len(), 5, "2, 3, 6, 7, 8: nothing was in the others");
}

#[test]
fn an_impossible_change_is_an_error_of_one_line_that_says_what_to_do() {
    let up = Up::new();
    let half = "85070591730234615865843651857942052864";
    for (args, expected) in [
        (&["split", &name(9)][..], "there is no shardId-000000000009: list the shards"),
        (&["split", &name(0), "--at", half], "give a hash key from 1 to 8507059"),
        (&["merge", &name(0), &name(2)], "are not neighbours"),
        (&["merge", &name(3), &name(3)], "are not neighbours"),
    ] {
        let output = up.client(&[&["shards"], args].concat());
        assert_eq!(lines(&output, 1), Vec::<String>::new(), "{args:?}");
        let stderr = stderr(&output);
        assert!(stderr.contains(expected) && stderr.lines().count() == 1, "{args:?}: {stderr}");
    }
    for (args, expected) in [
        (&["shards", "split", "4"][..], "shardId-000000000004"),
        (&["shards", "split", &name(0), "--at=-1"], "a decimal integer"),
        (&["shards", "split", &name(0), "--at", "x"], "a decimal integer"),
        (&["shards", "merge", &name(0)], "<SHARD>"),
        (&["shards"], "list"),
    ] {
        let output = fanfold(args).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn the_routes_answer_with_problems() {
    let up = Up::new();
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).build().into();
    for (path, body, status, kind, detail) in [
        ("split", "{", 400, "not-json", "the request is not JSON"),
        ("split", "[]", 400, "not-an-object", "the request must be"),
        ("split", "{}", 400, "missing-field", "`shard`: is required"),
        ("split", r#"{"shard":1}"#, 400, "wrong-type", "`shard`: must be"),
        ("split", r#"{"shard":"1"}"#, 400, "bad-name", "`shard`: a shard is named"),
        ("split", r#"{"shard":"shardId-000000000000","at":7}"#, 400, "wrong-type", "`at`: must be"),
        (
            "split",
            r#"{"shard":"shardId-000000000000","at":"+7"}"#,
            400,
            "bad-parameter",
            "`at`: a hash key is",
        ),
        ("split", r#"{"shards":[]}"#, 400, "unknown-field", "`shards`: unknown field"),
        ("split", r#"{"shard":"shardId-000000000009"}"#, 404, "unknown-shard", "there is no shard"),
        ("merge", r#"{"shards":["shardId-000000000000"]}"#, 400, "wrong-type", "`shards`: must be"),
        (
            "merge",
            r#"{"shards":["shardId-000000000000","shardId-000000000003"]}"#,
            409,
            "cannot-reshard",
            "shardId-000000000000 and shardId-000000000003 are not neighbours",
        ),
        ("explode", "{}", 404, "unknown-route", "there is nothing at"),
    ] {
        let sent = agent.post(format!("{}/ops/shards/{path}", up.url)).send(body);
        let mut answer = sent.expect("it answers");
        let text = answer.body_mut().read_to_string().expect("it is text");
        let problem: Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(answer.status(), status, "{body}: {text}");
        assert_eq!(problem["type"], format!("urn:fanfold:problem:{kind}"), "{body}: {text}");
        assert!(problem["detail"].as_str().is_some_and(|d| d.starts_with(detail)), "{text}");
    }
    let answer = agent.get(format!("{}/ops/shards/split", up.url)).call().expect("it answers");
    assert_eq!(answer.status(), 405);
}

fn deposit(org: u64, id: u64) -> String {
    let (command, data) = match id {
        1 => ("open", json!({"account": "cash"})),
        _ => ("deposit", json!({"account": "cash", "amount": 1})),
    };
    let org = format!("o{org}");
    json!({"type": "ledger", "command": command, "id": id, "user": "ann", "org": org, "data": data})
        .to_string()
}

#[test]
fn load_goes_on_while_shards_are_split_and_merged() {
    let up = Up::new();
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            for id in 1..=ROUNDS {
                let round: String = (0..ORGS).map(|org| deposit(org, id) + "\n").collect();
                assert_eq!(lines(&up.client_reads(&["send"], round.as_bytes()), 0).len(), 40);
            }
        });
        // Merges four shards into one, then splits them into eight, and so on.
        let (mut grows, mut turns) = (false, 0);
        while !load.is_finished() {
            let mut open = shards(&up, &["list"]);
            open.retain(|shard| shard["state"] == "open");
            let start = |shard: &Value| -> u128 {
                shard["range"]["start"].as_str().expect("text").parse().expect("a number")
            };
            open.sort_by_key(start);
            let ids: Vec<&str> =
                open.iter().map(|shard| shard["id"].as_str().expect("text")).collect();
            turns += 1;
            grows = ids.len() == 1 || (grows && ids.len() < 8);
            if grows {
                assert_eq!(shards(&up, &["split", ids[ids.len() / 2]]).len(), 2);
            } else {
                assert_eq!(shards(&up, &["merge", ids[0], ids[1]]).len(), 1);
            }
        }
        load.join().expect("every command is accepted");
        assert!(turns > 5, "it was over too soon: {turns}");
    });
    let last = ROUNDS.to_string();
    for org in 0..ORGS {
        let log = format!("ledger/org:o{org}");
        let rows = ["view", "balances", &log, "cash", "--seq", &last, "--wait", "20000"];
        let row: Value = serde_json::from_str(&lines(&up.client(&rows), 0)[0]).expect("JSON");
        assert_eq!(row["row"]["balance"], ROUNDS - 1, "{log}");
        let entries = lines(&up.client(&["log", &log]), 0);
        let entries: Vec<Value> =
            entries.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(entries.len() as u64, ROUNDS, "{log}");
        for (entry, seq) in entries.iter().zip(1..) {
            let found = (&entry["seq"], &entry["id"], &entry["status"]);
            assert_eq!(found, (&json!(seq), &json!(seq), &json!("accepted")), "{log}");
        }
    }
    // A closed shard leaves the list when it is drained. Every command has its entry by now, but
    // the last batch may not be acknowledged yet.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let states: BTreeMap<String, Value> = shards(&up, &["list"])
            .into_iter()
            .map(|shard| (shard["id"].to_string(), shard["state"].clone()))
            .collect();
        if states.values().all(|state| state == "open") {
            break;
        }
        assert!(Instant::now() < deadline, "{states:?}");
        thread::sleep(Duration::from_millis(20));
    }
    up.signal("-TERM");
    assert_eq!(up.end(), (Some(0), String::new()));
}
