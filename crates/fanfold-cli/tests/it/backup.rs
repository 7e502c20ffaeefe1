//! `fanfold backup` while load runs, and `fanfold restore`.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::audit;
use crate::crash::seed;
use crate::folder::open;
use crate::load::{Load, agent, get, post};
use crate::{Up, fanfold, lines, stderr, up_on};

fn backed_up(up: &Up, args: &[&str]) -> Value {
    let made = lines(&up.client(&[&["backup"], args].concat()), 0);
    assert_eq!(made.len(), 1, "{made:?}");
    serde_json::from_str(&made[0]).expect("a line is JSON")
}

/// The receipts of a log's commands: the seq of each, with its user and id.
fn receipts(load: &Load) -> Vec<(String, u64, String, u64)> {
    let of = |sent: &crate::load::Sent| {
        let (org, user, id) = (sent.org.clone(), sent.user.clone(), sent.id);
        sent.seqs.iter().map(move |seq| (org.clone(), *seq, user.clone(), id)).collect::<Vec<_>>()
    };
    load.sent().flat_map(of).collect()
}

/// Panics if a receipt has no entry.
fn check(up: &Up, receipts: &[(String, u64, String, u64)]) {
    let mut logs = std::collections::BTreeMap::<&str, Vec<Value>>::new();
    for (org, seq, user, id) in receipts {
        let entries = logs.entry(org).or_insert_with(|| {
            let entries = lines(&up.client(&["log", &format!("ledger/org:{org}")]), 0);
            entries.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
        });
        let entry = entries.get(*seq as usize - 1).unwrap_or_else(|| panic!("{org} {seq}"));
        assert_eq!((&entry["seq"], &entry["user"]), (&json!(seq), &json!(user)), "{org}");
        let found = entry["id"].as_u64();
        assert!(found.is_none_or(|found| found == *id), "{org} {seq}: {entry}");
    }
    let examined = up.client(&["doctor", "--all", "--rate", "1000"]);
    assert_eq!(examined.status.code(), Some(0), "{}", stderr(&examined));
}

#[test]
fn a_backup_under_load_has_every_command_that_was_accepted_before_it() {
    let place = tempfile::tempdir().expect("a folder");
    let (data, backup, again) =
        (place.path().join("data"), place.path().join("backup"), place.path().join("again"));
    let up = Up::on(&data);
    let mut load = Load::new(seed(), 6, 3_000);
    load.run(&up.url, || thread::sleep(Duration::from_millis(900)));
    let before = receipts(&load);
    let mut made = Value::Null;
    load.run(&up.url, || {
        thread::sleep(Duration::from_millis(100));
        made = backed_up(&up, &[backup.to_str().expect("text")]);
        thread::sleep(Duration::from_millis(200));
    });
    println!("{} receipts before, {} in all: {made}", before.len(), load.acknowledged());
    assert!(before.len() > 100 && load.acknowledged() > before.len() + 10, "load went on");
    assert_eq!(made["folder"], json!(backup.to_str()));
    assert_eq!(made["state"], "complete");
    assert!(made["bytes"].as_u64().is_some_and(|bytes| bytes > 10_000), "{made}");
    assert!(made["seconds"].is_number() && made["position"].as_u64() > Some(0), "{made}");
    load.resend(&up.url);
    audit(&up.url, &load);

    let restored =
        fanfold(&["restore", backup.to_str().expect("text"), "--data"]).arg(&again).output();
    let restored = lines(&restored.expect("the binary starts"), 0);
    let restored: Value = serde_json::from_str(&restored[0]).expect("JSON");
    assert_eq!(restored["position"], made["position"]);
    for folder in [&again, &backup] {
        let copy = Up::on(folder);
        check(&copy, &before);
        assert!(open(&copy, 1).is_some(), "it accepts commands");
    }
    audit(&up.url, &load);
    up.signal("-TERM");
    assert_eq!(up.end(), (Some(0), String::new()));
}

#[test]
fn a_backup_begins_at_the_working_folder_and_is_one_at_a_time() {
    let place = tempfile::tempdir().expect("a folder");
    let data = place.path().join("data");
    let up = Up::on(&data);
    assert_eq!(open(&up, 1), Some(1));
    let within = |args: &[&str]| {
        let mut command = fanfold(args);
        command.env("FANFOLD_URL", &up.url).current_dir(place.path());
        command.output().expect("the binary starts")
    };
    lines(&within(&["backup", "first", "--rate", "100"]), 0);
    assert!(place.path().join("first/FORMAT").exists());
    for (folder, expected) in [
        ("first", "is not empty: choose a new folder"),
        ("data/inside", "is inside of the folder"),
        ("first/FORMAT/x", "cannot be written to"),
    ] {
        let output = within(&["backup", folder]);
        assert_eq!(lines(&output, 1), Vec::<String>::new());
        let said = stderr(&output);
        assert!(said.contains(expected) && said.lines().count() == 1, "{folder}: {said}");
    }
    let output = within(&["restore", "first", "--data", "data"]);
    assert_eq!(lines(&output, 1), Vec::<String>::new());
    assert!(stderr(&output).contains("is not empty"), "{}", stderr(&output));

    let url = format!("{}/ops/backup", up.url);
    let ask = |body: Value| post(&agent(), &url, &body.to_string()).expect("an answer");
    for (body, status, kind) in [
        (json!({}), 400, "missing-field"),
        (json!({"folder": 1}), 400, "wrong-type"),
        (json!({"folder": "/x", "mb_per_s": 0}), 400, "wrong-type"),
        (json!({"folder": "/x", "to": 0}), 400, "unknown-field"),
        (json!({"folder": "relative"}), 400, "bad-parameter"),
        (json!({"folder": data.join("x")}), 400, "bad-parameter"),
        (json!({"folder": data.join("../first")}), 409, "cannot-back-up"),
    ] {
        let (found, problem) = ask(body.clone());
        assert_eq!(found, status, "{body}: {problem}");
        assert_eq!(problem["type"], format!("urn:fanfold:problem:{kind}"), "{body}");
    }
    // So many commands that a megabyte in a second takes a while.
    let noise: String = (0..40_000)
        .map(|id| {
            let command = json!({"type": "ledger", "command": "deposit", "id": id + 100, "user": "ann",
                "org": format!("o{}", id % 50), "data": {"account": "cash", "amount": 1}});
            command.to_string() + "\n"
        })
        .collect();
    lines(&up.client_reads(&["send"], noise.as_bytes()), 0);
    let (status, running) = ask(json!({"folder": place.path().join("slow"), "mb_per_s": 1}));
    assert_eq!((status, &running["state"]), (202, &json!("running")), "{running}");
    let (status, problem) = ask(json!({"folder": place.path().join("second")}));
    assert_eq!(status, 409, "{problem}");
    assert_eq!(problem["type"], "urn:fanfold:problem:backup-under-way");
    let (status, shown) = get(&url);
    assert_eq!((status, &shown["state"]), (200, &json!("running")), "{shown}");
    assert_eq!(open(&up, 3), Some(2), "acceptance goes on");

    // The process is killed in the middle of it.
    let mut up = up;
    up.kill();
    let output = up_on(&place.path().join("slow")).output().expect("the binary starts");
    assert_eq!(lines(&output, 1), Vec::<String>::new());
    let said = stderr(&output);
    assert!(said.contains("is not a complete copy") && said.lines().count() == 1, "{said}");
    let up = Up::on(&data);
    assert_eq!(open(&up, 4), Some(3));
    assert_eq!(get(&format!("{}/ops/backup", up.url)).1["state"], "none");
}

#[test]
fn a_host_in_memory_has_no_folder_to_back_up() {
    let up = Up::new();
    let output = up.client(&["backup", "somewhere"]);
    assert_eq!(lines(&output, 1), Vec::<String>::new());
    assert!(stderr(&output).contains("keeps everything in memory"), "{}", stderr(&output));
    assert_eq!(get(&format!("{}/ops/backup", up.url)).0, 409);
    assert!(!Path::new("somewhere").exists());
}

/// A full disk fails the backup, and nothing else.
#[test]
fn a_backup_on_a_full_disk_fails_and_leaves_nothing() {
    let place = tempfile::tempdir().expect("a folder");
    let small = tempfile::tempdir().expect("a folder");
    let options = ["-t", "tmpfs", "-o", "size=2m", "tmpfs"];
    let Some(disk) = crate::folder::Mounted::new(small.path(), &options) else {
        println!("skipped: nothing can be mounted here");
        return;
    };
    let up = Up::on(&place.path().join("data"));
    let mut load = Load::new(1, 4, 2_000);
    load.run(&up.url, || thread::sleep(Duration::from_millis(1_500)));
    let target = disk.0.join("backup");
    let output = up.client(&["backup", target.to_str().expect("text")]);
    assert_eq!(lines(&output, 1), Vec::<String>::new());
    assert!(stderr(&output).contains("the disk is full"), "{}", stderr(&output));
    assert_eq!(fs::read_dir(&disk.0).expect("a folder").count(), 0, "it is removed");
    load.run(&up.url, || thread::sleep(Duration::from_millis(300)));
    load.resend(&up.url);
    audit(&up.url, &load);
}
