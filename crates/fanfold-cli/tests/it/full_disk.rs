//! A disk that fills up, and later has room again.

use std::fs::{self, File};
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::audit::audit;
use crate::folder::Mounted;
use crate::load::{Load, agent, get, post};
use crate::{Up, lines, stderr, up_on};

#[test]
fn a_full_disk_refuses_commands_until_there_is_room_again() {
    let place = tempfile::tempdir().expect("a folder");
    let options = ["-t", "tmpfs", "-o", "size=48m", "tmpfs"];
    let Some(disk) = Mounted::new(place.path(), &options) else {
        println!("skipped: nothing can be mounted here");
        return;
    };
    let folder = disk.0.join("data");
    let mut up = Up::on(&folder);
    let mut load = Load::new(1, 4, 100);
    load.run(&up.url, || thread::sleep(Duration::from_millis(1_500)));
    load.resend(&up.url);
    audit(&up.url, &load);

    let filler = disk.0.join("filler");
    fill(&filler);
    let open = |id: u64| {
        let data = json!({"account": format!("b{id}")});
        let command = json!({
            "type": "ledger", "command": "open", "id": id, "user": "ann", "org": "full",
            "data": data,
        });
        post(&agent(), &format!("{}/command", up.url), &command.to_string()).expect("an answer")
    };
    // Some commands still fit into the last block and into reserved space.
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut taken = Vec::new();
    let problem = (1..).find_map(|id| match open(id) {
        (202, _) => {
            taken.push(id);
            assert!(Instant::now() < deadline, "the disk never is full");
            None
        }
        (status, problem) => Some((status, problem)),
    });
    let (status, problem) = problem.expect("a problem");
    assert_eq!((status, &problem["type"]), (503, &json!("urn:fanfold:problem:disk-full")));
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("full")), "{problem}");

    // Reads continue while checkpoints fail. Processed parts of the command log are removed, which
    // makes room again, so the disk is filled in each round.
    let mut refused = 0;
    let deadline = Instant::now() + Duration::from_secs(30);
    for id in 1_000_000.. {
        if refused >= 5 {
            break;
        }
        assert!(Instant::now() < deadline, "the disk is not full for long");
        fill(&filler);
        audit(&up.url, &load);
        match open(id).0 {
            202 => taken.push(id),
            status => {
                assert_eq!(status, 503);
                refused += 1;
            }
        }
        thread::sleep(Duration::from_millis(100));
    }

    fs::remove_file(&filler).expect("it is there");
    let deadline = Instant::now() + Duration::from_secs(20);
    while open(2_000_000).0 != 202 {
        assert!(Instant::now() < deadline, "no command is accepted, although there is room");
        thread::sleep(Duration::from_millis(50));
    }
    load.run(&up.url, || thread::sleep(Duration::from_millis(1_500)));
    load.resend(&up.url);
    audit(&up.url, &load);

    // Exactly the accepted commands have entries, also after a crash.
    let accounts = |up: &Up| {
        let tail = taken.len() + 1;
        let url =
            format!("{}/views/balances/ledger/org:full?seq={tail}&wait=10000&limit=1000", up.url);
        let (_, page) = get(&url);
        let rows = page["rows"].as_array().unwrap_or_else(|| panic!("{page}")).iter();
        let mut found: Vec<u64> = rows
            .map(|row| row["key"].as_str().and_then(|key| key[1..].parse().ok()).expect("a key"))
            .collect();
        found.sort_unstable();
        found
    };
    let expected: Vec<u64> = taken.iter().copied().chain([2_000_000]).collect();
    assert_eq!(accounts(&up), expected);
    up.kill();
    // Each refused command is a warning, but the log shows only some of them.
    let (_, log) = up.end();
    let warned = log.lines().count();
    assert!((1..1_000).contains(&warned), "{warned} lines, as {:?}", log.lines().last());
    println!("{warned} lines in the log");
    let up = Up::on(&folder);
    audit(&up.url, &load);
    assert_eq!(accounts(&up), expected);

    // A start on a full disk is an error that says so, unless the allocated blocks suffice. Nothing
    // is lost.
    drop(up);
    fill(&filler);
    let new = disk.0.join("new");
    let output = up_on(&new).output().expect("the binary starts");
    assert_eq!(lines(&output, 1), Vec::<String>::new());
    let shown = new.display();
    assert_eq!(
        stderr(&output),
        format!(
            "error: the disk of the folder {shown} is full: free some space, then start again\n"
        )
    );
    let mut child = up_on(&folder).spawn().expect("the binary starts");
    thread::sleep(Duration::from_millis(500));
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    fs::remove_file(&filler).expect("it is there");
    drop(Up::on(&new));
    let up = Up::on(&folder);
    audit(&up.url, &load);
    assert_eq!(accounts(&up), expected);
    drop(up);
    println!("{} commands were accepted on the full disk", taken.len());
}

/// Fills the disk.
fn fill(path: &std::path::Path) {
    let mut file = File::options().create(true).append(true).open(path).expect("a file");
    for bytes in [1 << 20, 1 << 12, 1 << 6, 1] {
        let piece = vec![1; bytes];
        while file.write_all(&piece).is_ok() {}
    }
}
