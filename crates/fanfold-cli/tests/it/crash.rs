//! Crashes under load, and the restarts after them.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::Up;
use crate::audit::audit;
use crate::load::{Load, agent, get, post};

const ROUNDS: u64 = 5;
const CLIENTS: u64 = 8;

/// The seed in `FANFOLD_SEED`, or a random one. Prints it.
pub(crate) fn seed() -> u64 {
    let wanted = std::env::var("FANFOLD_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = wanted.unwrap_or_else(|| rand::random_range(0..1_000_000));
    println!("FANFOLD_SEED={seed}");
    seed
}

#[test]
fn acknowledged_commands_survive_kill_9_under_load() {
    let folder = tempfile::tempdir().expect("a folder");
    let seed = seed();
    let mut chance = SmallRng::seed_from_u64(seed);
    let mut load = Load::new(seed, CLIENTS, 2_000);
    let mut up = Up::on(folder.path());
    for round in 1..=ROUNDS {
        let ms = chance.random_range(100..900);
        load.run(&up.url.clone(), || {
            thread::sleep(Duration::from_millis(ms));
            up.kill();
        });
        let began = Instant::now();
        up = Up::on(folder.path());
        let started = began.elapsed();
        // The next round sends again what was not answered in this one.
        let audited = audit(&up.url, &load);
        let acknowledged = load.acknowledged();
        println!(
            "round {round}: killed after {ms} ms, {acknowledged} commands were acknowledged; up after {started:?}: {audited:?}"
        );
    }
    load.resend(&up.url);
    let audited = audit(&up.url, &load);
    assert_eq!(load.acknowledged(), load.sent().count());
    for status in ["accepted", "rejected", "duplicate"] {
        assert!(audited.outcomes.contains_key(status), "{status}: {audited:?}");
    }
}

#[test]
fn a_command_that_is_sent_again_after_a_restart_is_a_duplicate() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = json!({
        "type": "ledger", "command": "open", "id": 7, "user": "ann", "org": "acme",
        "data": {"account": "cash"},
    });
    let send = |up: &Up, expected: u64| {
        let url = format!("{}/command", up.url);
        let (status, answer) = post(&agent(), &url, &open.to_string()).expect("an answer");
        assert_eq!((status, &answer["seq"]), (202, &json!(expected)), "{answer}");
        let (_, entry) = get(&format!("{}/logs/ledger/org:acme/{expected}?wait=5000", up.url));
        entry
    };
    let up = Up::on(folder.path());
    assert_eq!(send(&up, 1)["status"], "accepted");
    up.signal("-TERM");
    assert_eq!(up.end(), (Some(0), String::new()));
    let mut up = Up::on(folder.path());
    let entry = send(&up, 2);
    assert_eq!((&entry["status"], &entry["of"]), (&json!("duplicate"), &json!(1)));
    up.kill();
    let mut up = Up::on(folder.path());
    let entry = send(&up, 3);
    assert_eq!((&entry["status"], &entry["of"]), (&json!("duplicate"), &json!(1)));
    // Killed at once, when only the command itself is on disk.
    up.kill();
    let up = Up::on(folder.path());
    let entry = send(&up, 4);
    assert_eq!((&entry["status"], &entry["of"]), (&json!("duplicate"), &json!(1)));
}

/// The most bytes of a folder after 200,000 small commands of 50 logs: their entries, rows and
/// documents, and the logs of the tables, which `fjall` makes 64 MiB large with holes.
const FOLDER_BYTES_MAX: u64 = 400 * 1024 * 1024;

#[test]
fn the_command_log_is_empty_after_all_commands_are_processed() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = Up::on(folder.path());
    let began = Instant::now();
    thread::scope(|scope| {
        for client in 0..4_u64 {
            let url = format!("{}/commands", up.url);
            scope.spawn(move || {
                let agent = agent();
                for batch in 0..100_u64 {
                    let line = |n: u64| {
                        let id = batch * 500 + n + 1;
                        let (command, data) = match id {
                            ..=50 => ("open", json!({"account": "cash"})),
                            _ => ("deposit", json!({"account": "cash", "amount": 1})),
                        };
                        let (user, org) = (format!("user-{client}"), format!("org-{}", id % 50));
                        json!({
                            "type": "ledger", "command": command, "id": id, "user": user,
                            "org": org, "data": data,
                        })
                        .to_string()
                    };
                    let body: Vec<String> = (0..500).map(line).collect();
                    send_all(&agent, &url, body);
                }
            });
        }
    });
    let sent = began.elapsed();
    let deadline = Instant::now() + Duration::from_secs(60);
    let commands = folder.path().join("commands");
    while !(is_quiet(&up) && log_bytes(&commands) == 8) {
        assert!(Instant::now() < deadline, "{} bytes are left", log_bytes(&commands));
        thread::sleep(Duration::from_millis(20));
    }
    println!("200,000 commands were accepted in {sent:?}, and done after {:?}", began.elapsed());
    let bytes = disk_bytes(folder.path());
    println!("the folder has {} KiB", bytes / 1024);
    assert!(bytes < FOLDER_BYTES_MAX, "{bytes}");
    up.signal("-TERM");
    assert_eq!(up.end(), (Some(0), String::new()));
    println!("and {} KiB after the end", disk_bytes(folder.path()) / 1024);
}

/// Sends commands, one a line, until each has a receipt.
fn send_all(agent: &ureq::Agent, url: &str, mut lines: Vec<String>) {
    while !lines.is_empty() {
        let (status, answer) = post(agent, url, &lines.join("\n")).expect("an answer");
        assert_eq!(status, 202, "{answer}");
        let results = answer["results"].as_array().expect("results");
        let refused = lines.into_iter().zip(results).filter(|(_, result)| result["seq"].is_null());
        lines = refused.map(|(line, _)| line).collect();
        if !lines.is_empty() {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Whether no command waits for a stage.
fn is_quiet(up: &Up) -> bool {
    let mut answer = agent().get(format!("{}/metrics", up.url)).call().expect("an answer");
    let text = answer.body_mut().read_to_string().expect("text");
    let stages = ["relay", "process", "views"];
    stages.iter().all(|stage| {
        let line = format!("fanfold_backlog{{stage=\"{stage}\"}} 0");
        text.lines().any(|found| found == line)
    })
}

fn log_bytes(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).expect("a folder").flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// The bytes that files use on disk, without holes.
pub(crate) fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = fs::read_dir(path).expect("a folder").flatten();
    let bytes = |file: fs::DirEntry| match file.metadata() {
        Ok(data) if data.is_dir() => disk_bytes(&file.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    };
    files.map(bytes).sum()
}
