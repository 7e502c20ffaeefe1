//! `fanfold send`, `log`, `logs` and `view` against `fanfold up`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::scripted::{Reply, Scripted};
use crate::{Up, fanfold, lines, stderr};

fn json_of(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// `fanfold send` with flags, for acme.
fn send(up: &Up, command: &str, id: &str, data: &str, more: &[&str], code: i32) -> Value {
    let one = ["send", "--type", "ledger", "--command", command, "--id", id];
    let who = ["--user", "ann", "--org", "acme", "--data", data];
    let output = up.client(&[&one[..], &who, more].concat());
    let lines = lines(&output, code);
    assert_eq!(lines.len(), 1, "{lines:?}");
    json_of(&lines[0])
}

fn open(id: u64, account: &str) -> String {
    json!({
        "type": "ledger", "command": "open", "id": id, "user": "ann", "org": "acme",
        "data": {"account": account},
    })
    .to_string()
}

#[test]
fn send_takes_one_command_from_flags() {
    let up = Up::new();
    let receipt = send(&up, "open", "1", r#"{"account":"cash"}"#, &[], 0);
    assert_eq!(receipt, json!({"log": "ledger/org:acme", "seq": 1}));
    let deposit = r#"{"account":"cash","amount":5}"#;
    let entry = send(&up, "deposit", "2", deposit, &["--wait"], 0);
    assert_eq!((&entry["seq"], &entry["status"]), (&json!(2), &json!("accepted")));
    // A rejection by the service is an outcome, but a problem is not.
    let withdraw = r#"{"account":"cash","amount":6}"#;
    let entry = send(&up, "withdraw", "3", withdraw, &["--wait"], 0);
    assert_eq!((&entry["status"], &entry["code"]), (&json!("rejected"), &json!("overdrawn")));
    let refused = send(&up, "rob", "4", "{}", &["--wait"], 1);
    assert_eq!(refused["problem"]["type"], "urn:fanfold:problem:unknown-command");
}

#[test]
fn send_takes_many_commands_from_standard_input_or_a_file() {
    let up = Up::new();
    let many: String = (1..=1_234).map(|id| open(id, &format!("a{id}")) + "\n").collect();
    let receipts = lines(&up.client_reads(&["send"], many.as_bytes()), 0);
    let expected = |seq: usize| format!(r#"{{"log":"ledger/org:acme","seq":{seq}}}"#);
    assert_eq!(receipts, (1..=1_234).map(expected).collect::<Vec<_>>());

    let mut file = tempfile::NamedTempFile::new().expect("there is a place for it");
    let array = format!("[\n{},\n  17,\n{}]", open(2_000, "x"), open(2_001, "y"));
    file.write_all(array.as_bytes()).expect("it is written");
    let path = file.path().to_str().expect("it is text");
    let printed = lines(&up.client(&["send", "--wait", "--file", path]), 1);
    let statuses: Vec<Value> = printed.iter().map(|line| json_of(line)["status"].clone()).collect();
    assert_eq!(statuses, [json!("accepted"), json!(null), json!("accepted")]);
    assert_eq!(json_of(&printed[1])["problem"]["type"], "urn:fanfold:problem:not-an-object");

    assert_eq!(lines(&up.client_reads(&["send", "-"], b""), 0), Vec::<String>::new());
    let output = up.client(&["send", "--file", "/nowhere"]);
    lines(&output, 1);
    assert!(stderr(&output).starts_with("error: cannot read /nowhere: "), "{}", stderr(&output));

    // `log` prints all entries in order, across pages.
    let entries = lines(&up.client(&["log", "ledger/org:acme"]), 0);
    assert_eq!(entries.len(), 1_236);
    let entries = lines(&up.client(&["log", "ledger/org:acme", "--from", "1236"]), 0);
    assert_eq!(json_of(&entries[0])["events"][0]["document"], "y");
    // `view` prints all rows.
    let rows = ["view", "balances", "ledger/org:acme", "--seq", "1236"];
    assert_eq!(lines(&up.client(&rows), 0).len(), 1_236);
}

#[test]
fn commands_from_a_pipe_are_sent_as_they_come() {
    let up = Up::new();
    let mut command = fanfold(&["send", "--wait"]);
    command.env("FANFOLD_URL", &up.url).stdin(std::process::Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    for id in 1..=3 {
        writeln!(stdin, "{}", open(id, "cash")).expect("it reads");
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it is text");
        assert_eq!(json_of(&line)["seq"], id);
    }
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn a_log_can_be_followed() {
    let up = Up::new();
    let data = r#"{"account":"cash"}"#;
    send(&up, "open", "1", data, &["--wait"], 0);
    let mut command = fanfold(&["log", "ledger/org:acme", "--follow"]);
    let mut child = command.env("FANFOLD_URL", &up.url).spawn().expect("the binary starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    for seq in 1..=3 {
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it is text");
        assert_eq!(json_of(&line)["seq"], seq);
        send(&up, "open", &(seq + 1).to_string(), data, &[], 0);
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

/// An address of this machine that nothing listens on.
fn free_address() -> String {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    free.local_addr().expect("it has one").to_string()
}

/// Follows a log there. Returns the process, and what reads the seq of its next entry.
fn follower(address: &str) -> (Child, impl FnMut() -> Value) {
    let mut command = fanfold(&["log", "ledger/org:acme", "--follow", "--url", address]);
    let mut child = command.spawn().expect("the binary starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    let next = move || {
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it is text");
        json_of(&line)["seq"].clone()
    };
    (child, next)
}

/// Starts `up` on this folder and address.
fn up_at(folder: &Path, address: &str) -> Up {
    let mut command = fanfold(&["up", "--listen", address, "--data"]);
    Up::start(command.arg(folder))
}

#[test]
fn a_log_is_followed_before_it_exists_and_across_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = free_address();
    let (child, mut next) = follower(&address);
    let data = r#"{"account":"cash"}"#;
    for seqs in [[1, 2], [3, 4]] {
        let mut up = up_at(folder.path(), &address);
        for seq in seqs {
            send(&up, "open", &seq.to_string(), data, &["--wait"], 0);
            assert_eq!(next(), seq);
        }
        up.kill();
    }
    // A log of the same name in another folder.
    let other = tempfile::tempdir().expect("a folder");
    let up = up_at(other.path(), &address);
    send(&up, "open", "1", data, &["--wait"], 0);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("it is not the same log"), "{}", stderr(&output));
}

/// What `log --follow` asks a server whose pages say nothing new, and that answers other requests with
/// this problem. It waits for the second page, and then ends the command.
fn asked_by_a_follower(detail: &'static str, refuses: fn(&str) -> bool) -> Vec<String> {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let all = Arc::clone(&asked);
    let server = Scripted::start(move |_, request| {
        all.lock().expect("no thread panics").push(request.what.clone());
        if refuses(&request.what) {
            let problem = json!({"type": "urn:fanfold:problem:bad-parameter", "detail": detail});
            return Reply::Status(400, "", problem.to_string());
        }
        let page = r#"{"log":"a/org:b","accepted":0,"tail":0,"entries":[],"next":null}"#;
        Reply::Status(200, "", page.to_owned())
    });
    let mut command = fanfold(&["log", "a/org:b", "--follow", "--url", &server.url]);
    let mut child = command.spawn().expect("the binary starts");
    let deadline = Instant::now() + Duration::from_secs(20);
    let pages = || {
        let asked = asked.lock().expect("no thread panics");
        asked.iter().filter(|what| !refuses(what)).count()
    };
    while pages() < 2 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert!(pages() >= 2, "the follower gave up");
    asked.lock().expect("no thread panics").clone()
}

#[test]
fn a_follower_waits_as_long_as_the_server_allows() {
    let page = "GET /logs/a/org:b?from=1&limit=1000";
    for (detail, refuses, then) in [
        ("", (|_| false) as fn(&str) -> bool, format!("{page}&wait=25000")),
        (
            "`wait`: must be an integer from 0 to 5000",
            |what| what.contains("wait=25000"),
            format!("{page}&wait=5000"),
        ),
        ("`wait`: must be an integer from 0 to 0", |what| what.contains("wait="), page.to_owned()),
        (
            "`wait`: unknown parameter, known here are `from`, `limit`, `raw`",
            |what| what.contains("wait="),
            page.to_owned(),
        ),
    ] {
        let asked = asked_by_a_follower(detail, refuses);
        assert_eq!(asked[0], format!("{page}&wait=25000"), "{detail}");
        let asked: Vec<_> = asked.iter().filter(|what| !refuses(what)).collect();
        assert!(asked.iter().all(|what| **what == then), "{detail}: {asked:?}");
    }
}

/// A follower that waits does not delay the end of the host, and goes on with the next one.
#[test]
fn a_host_stops_while_its_log_is_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = free_address();
    let up = up_at(folder.path(), &address);
    let (mut child, mut next) = follower(&address);
    let data = r#"{"account":"cash"}"#;
    send(&up, "open", "1", data, &["--wait"], 0);
    assert_eq!(next(), 1);
    // So that the follower waits.
    thread::sleep(Duration::from_millis(200));
    let asked = Instant::now();
    up.signal("-TERM");
    assert_eq!(up.end(), (Some(0), String::new()));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let up = up_at(folder.path(), &address);
    send(&up, "open", "2", data, &["--wait"], 0);
    assert_eq!(next(), 2);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[test]
fn logs_are_listed_across_pages() {
    let up = Up::new();
    let in_org = |org: usize| {
        let org = format!("{}{org}", if org.is_multiple_of(2) { "even" } else { "odd" });
        open(1, "cash").replace("acme", &org) + "\n"
    };
    let all: String = (0..1_500).map(in_org).collect();
    assert_eq!(lines(&up.client_reads(&["send"], all.as_bytes()), 0).len(), 1_500);
    let listed = |args: &[&str]| {
        let lines = lines(&up.client(&[&["logs"], args].concat()), 0);
        let logs = lines.iter().map(|line| json_of(line)["log"].to_string());
        let logs: BTreeSet<String> = logs.collect();
        assert_eq!(logs.len(), lines.len(), "a log is listed twice");
        logs.len()
    };
    assert_eq!(listed(&[]), 1_500);
    assert_eq!(listed(&["--prefix", "ledger/org:even"]), 750);
    assert_eq!(listed(&["--prefix", "ledger/org:even12"]), 1 + 5 + 50);
    assert_eq!(listed(&["--prefix", "x"]), 0);
    let output = up.client(&["logs", "--prefix", "lodger/"]);
    lines(&output, 1);
    assert!(stderr(&output).contains("there is no service `lodger`"), "{}", stderr(&output));
}

#[test]
fn rows_of_a_view_are_printed_in_the_range_and_order_asked_for() {
    let up = Up::new();
    let opened: String = (1..=3).map(|id| open(id, &format!("a{id}")) + "\n").collect();
    lines(&up.client_reads(&["send"], opened.as_bytes()), 0);
    let view = |args: &[&str], code| {
        let all = [&["view", "balances", "ledger/org:acme"], args].concat();
        let output = up.client(&all);
        (lines(&output, code), stderr(&output))
    };
    let keys = |args: &[&str]| -> Vec<Value> {
        view(args, 0).0.iter().map(|line| json_of(line)["key"].clone()).collect()
    };
    assert_eq!(keys(&["--seq", "3", "--wait", "5000"]), ["a1", "a2", "a3"]);
    assert_eq!(keys(&["--desc", "--limit", "2"]), ["a3", "a2"]);
    assert_eq!(keys(&["--prefix", "a2"]), ["a2"]);
    let one = json_of(&view(&["a2"], 0).0[0]);
    assert_eq!((&one["rowSeq"], &one["row"]["balance"]), (&json!(2), &json!(0)));

    let served: Vec<Value> = lines(&up.client(&["view"]), 0).iter().map(|l| json_of(l)).collect();
    let names: Vec<&Value> = served.iter().map(|served| &served["view"]).collect();
    assert_eq!(names, ["balances", "statement", "totals"]);
    assert!(served[0]["since"].is_u64(), "{}", served[0]);
    assert_eq!(served[0]["table"], "view-balances-v1", "{}", served[0]);
    let output = up.client(&["view", "balances"]);
    assert_eq!(output.status.code(), Some(2), "the log is missing: {}", stderr(&output));

    let (none, error) = view(&["b"], 1);
    assert!(none.is_empty());
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("has no row `b`"), "{error}");
    let (_, error) = view(&["--seq", "4"], 1);
    assert!(error.contains("has no seq 4"), "{error}");
    let (_, error) = view(&["--limit", "0"], 1);
    assert!(error.contains("`limit`"), "{error}");
    let output = up.client(&["log", "lodger/org:acme"]);
    lines(&output, 1);
    assert!(stderr(&output).contains("there is no service `lodger`"), "{}", stderr(&output));
    let output = up.client(&["log", "ledger/org:nobody"]);
    assert_eq!((lines(&output, 0).len(), stderr(&output).as_str()), (0, ""));
}

#[test]
fn an_absent_server_is_an_error_of_one_line() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}", free.local_addr().expect("it has one"));
    drop(free);
    for args in [
        &["send", "--type", "a", "--command", "b", "--id", "1", "--user", "c"][..],
        &["log", "ledger/org:acme"],
        &["view", "balances", "ledger/org:acme"],
    ] {
        let output = fanfold(args).arg("--url").arg(&url).output().expect("the binary starts");
        lines(&output, 1);
        assert_eq!(
            stderr(&output),
            format!("error: nothing listens at {url}: is `fanfold up` running?\n")
        );
    }
}
