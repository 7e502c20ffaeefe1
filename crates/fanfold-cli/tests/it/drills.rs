//! The drill of each way in which something can wait: it is planted in a running `up --chaos`, an operator sees it in the
//! metrics, in the log and in `fanfold parked`, and mends it by the command line. In the end nothing is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fanfold::host::body::parked::Reason;
use serde_json::{Value, json};

use crate::{Up, fanfold, lines, stderr};

/// Sweeps run every ten seconds, and ignore what is younger.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often a process that a log ends is started, until its suspects are parked. Source: twice what is needed.
const STARTS_MAX: usize = 10;

/// The gauge of the alarm.
const WAITING: &str = "waiting";

/// A build of the example `faulty_app`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Build {
    WithMistakes,
    Fixed,
    WithoutTheService,
}

fn try_start(folder: &Path, build: Build) -> Result<Up, String> {
    let program = Path::new(env!("CARGO_BIN_EXE_fanfold")).with_file_name("examples/faulty_app");
    let mut command = Command::new(program);
    let up = ["up", "--chaos", "--listen", "127.0.0.1:0", "--log", "error", "--data"];
    command.args(up).arg(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match build {
        Build::WithMistakes => &mut command,
        Build::Fixed => command.env("FIXED", "1"),
        Build::WithoutTheService => command.env("ELSEWHERE", "1"),
    };
    Up::try_start(&mut command)
}

#[track_caller]
fn start(folder: &Path, build: Build) -> Up {
    try_start(folder, build).unwrap_or_else(|said| panic!("it did not start: {said}"))
}

/// Stops it properly; returns what it has logged.
#[track_caller]
fn stop(up: Up) -> String {
    up.signal("-TERM");
    let (code, said) = up.end();
    assert_eq!(code, Some(0), "{said}");
    said
}

/// Runs a command line as an operator would; returns the lines that it prints.
#[track_caller]
fn run(up: &Up, line: &str) -> Vec<Value> {
    let lines = lines(&up.client(&line.split(' ').collect::<Vec<_>>()), 0);
    lines.iter().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn log(org: &str) -> String {
    format!("talk/org:{org}")
}

/// Sends the command `id`; returns its receipt.
#[track_caller]
fn say(up: &Up, org: &str, id: u64, text: &str) -> u64 {
    let request = json!({"type": "talk", "command": "say", "id": id, "user": "ann", "org": org, "data": {"text": text}});
    let mut answer = ureq::post(format!("{}/command", up.url))
        .send(request.to_string())
        .unwrap_or_else(|error| panic!("{request}: {error}"));
    let receipt: Value = serde_json::from_str(&answer.body_mut().read_to_string().expect("text"))
        .expect("a receipt is JSON");
    receipt["seq"].as_u64().expect("a seq")
}

#[track_caller]
fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The status of an entry, once it is there.
#[track_caller]
fn status(up: &Up, org: &str, seq: u64) -> String {
    until(&format!("entry {seq} of {org}"), || {
        let url = format!("{}/logs/{}/{seq}?wait=1000", up.url, log(org));
        let mut answer = ureq::get(url).call().expect("200 or 202");
        let entry = answer.body_mut().read_to_string().expect("text");
        let entry: Value = serde_json::from_str(&entry).expect("JSON");
        (answer.status() == 200).then(|| entry["status"].as_str().expect("a status").to_owned())
    })
}

/// Breaks something of the org's log; returns the number of the fault.
#[track_caller]
fn plant(up: &Up, fault: &str, org: &str) -> u64 {
    let planted = run(up, &format!("chaos {fault} --log {} --for 10min", log(org)));
    planted[0]["id"].as_u64().expect("a number")
}

#[track_caller]
fn until_met(up: &Up, id: u64) {
    until("the fault meets a call", || {
        let faults = run(up, "chaos list");
        faults.iter().find(|fault| fault["id"] == id && fault["met"] != 0).map(|_| ())
    });
}

/// The gauge of logs that wait, by reason, and that of the view.
fn waiting(up: &Up) -> BTreeMap<String, u64> {
    let mut answer = ureq::get(format!("{}/metrics", up.url)).call().expect("200");
    let text = answer.body_mut().read_to_string().expect("text");
    let of = |line: &str| {
        // What the alarm is on.
        if let Some(logs) = line.strip_prefix("fanfold_waiting_logs ") {
            return Some((WAITING.to_owned(), logs.parse().expect("a number")));
        }
        let line = line
            .strip_prefix("fanfold_parked_logs{reason=\"")
            .or_else(|| line.strip_prefix("fanfold_view_parked_logs{view=\""))?;
        let (name, value) = line.split_once("\"} ")?;
        Some((name.to_owned(), value.parse().expect("a number")))
    };
    text.lines().filter_map(of).collect()
}

/// Waits until the metrics say that something waits for each of these.
#[track_caller]
fn until_metrics_say(up: &Up, expected: &[&str]) {
    until(&format!("the metrics have {expected:?}"), || {
        let waiting = waiting(up);
        let is_there = |name: &&str| waiting.get(*name).is_some_and(|logs| *logs > 0);
        expected.iter().all(is_there).then_some(())
    });
}

/// What `fanfold parked` prints: the reason, or `texts` for the view, with the org and the seq.
#[track_caller]
fn parked(up: &Up) -> BTreeSet<(String, String, u64)> {
    let of = |item: Value| {
        let org = item["log"].as_str().and_then(|log| log.split_once("org:")).expect("an org").1;
        let what = item["view"].as_str().or(item["reason"].as_str()).expect("what waits");
        (what.to_owned(), org.to_owned(), item["seq"].as_u64().expect("a seq"))
    };
    run(up, "parked").into_iter().map(of).collect()
}

#[track_caller]
fn until_parked(up: &Up, reason: &str, org: &str, seq: u64) {
    let item = (reason.to_owned(), org.to_owned(), seq);
    until(&format!("{item:?}"), || parked(up).contains(&item).then_some(()));
}

/// What the builds before leave behind: entries that the next one cannot fold, and a command that had no entry yet when its
/// process was killed.
fn prepare(folder: &Path) {
    let up = start(folder, Build::Fixed);
    for (org, text) in [("fold", "unread"), ("suspect", "abort")] {
        assert_eq!(say(&up, org, 1, text), 1);
        assert_eq!(status(&up, org, 1), "accepted");
    }
    stop(up);
    let mut up = start(folder, Build::Fixed);
    // The relay does not get rid of it, so no checkpoint drops it.
    let fail = plant(&up, "fail stream", "moved");
    assert_eq!(say(&up, "moved", 1, "hi"), 1);
    until_met(&up, fail);
    up.kill();
}

#[test]
fn every_way_to_wait_is_seen_and_mended() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut logged = String::new();
    prepare(folder);

    // The service is not deployed here. A build that has it goes on by itself.
    let up = start(folder, Build::WithoutTheService);
    until_metrics_say(&up, &["no_service"]);
    until_parked(&up, "no_service", "moved", 1);
    logged += &stop(up);
    let up = start(folder, Build::WithMistakes);
    assert_eq!(status(&up, "moved", 1), "accepted");

    // This command ends the process, as often as it starts, until its log is suspect. It is answered before that.
    run(&up, "chaos delay process 500ms --log talk/org:suspect");
    say(&up, "suspect", 2, "hi");
    let (_, said) = up.end();
    logged += &said;
    let up = (0..STARTS_MAX).find_map(|_| match try_start(folder, Build::WithMistakes) {
        Ok(up) => Some(up),
        Err(said) => {
            logged += &said;
            None
        }
    });
    let up = up.expect("in the end it starts");
    until_parked(&up, "suspect", "suspect", 2);

    for org in ["gap", "late", "noise", "refused", "view"] {
        assert_eq!(say(&up, org, 1, "hi"), 1);
        assert_eq!(status(&up, org, 1), "accepted");
    }
    say(&up, "fold", 2, "hi");
    until_parked(&up, "cannot_fold", "fold", 2);

    // The second command never comes. Of those behind it, one is given up.
    let lost = plant(&up, "hold --times 1", "gap");
    say(&up, "gap", 2, "hi");
    until_met(&up, lost);
    say(&up, "gap", 3, "hi");
    say(&up, "gap", 4, "hi");
    until_parked(&up, "gap", "gap", 4);
    run(&up, "skip talk/org:gap 4 --reason drill");
    until_parked(&up, "given_up", "gap", 4);

    // The second command comes after it was given up.
    let late = plant(&up, "hold --times 1", "late");
    say(&up, "late", 2, "hi");
    until_met(&up, late);
    run(&up, "skip talk/org:late 2 --reason drill");
    assert_eq!(status(&up, "late", 2), "lost");
    run(&up, &format!("chaos heal {late}"));
    until_parked(&up, "conflict", "late", 2);

    let noise = plant(&up, "damage --times 1", "noise");
    say(&up, "noise", 2, "hi");
    until_met(&up, noise);
    until_parked(&up, "undecodable", "noise", 0);

    let refused = plant(&up, "refuse", "refused");
    say(&up, "refused", 2, "hi");
    until_parked(&up, "unpublished", "refused", 2);

    say(&up, "view", 2, "boo");
    until_parked(&up, "texts", "view", 2);

    // All of it at once.
    let reasons = Reason::ALL.map(fanfold_pipeline::metrics::reason);
    let mut expected: Vec<&str> =
        reasons.into_iter().filter(|reason| *reason != "no_service").collect();
    expected.push("texts");
    until_metrics_say(&up, &[&expected[..], &[WAITING]].concat());
    let listed: BTreeSet<String> = parked(&up).into_iter().map(|(what, ..)| what).collect();
    assert_eq!(listed, expected.iter().map(|what| (*what).to_owned()).collect());

    // What the same build can mend.
    run(&up, "skip talk/org:gap 2 --reason drill");
    assert_eq!([2, 3, 4].map(|seq| status(&up, "gap", seq)), ["lost", "accepted", "lost"]);
    run(&up, "resume talk/org:late 2");
    assert_eq!(status(&up, "late", 3), "accepted");
    run(&up, "skip talk/org:noise 0 --reason drill");
    run(&up, "skip talk/org:noise 2 --reason drill");
    assert_eq!(status(&up, "noise", 2), "lost");
    run(&up, &format!("chaos heal {refused}"));
    run(&up, "resume talk/org:refused 2");
    assert_eq!(status(&up, "refused", 2), "accepted");
    until("it is published", || {
        parked(&up).iter().all(|(_, org, _)| org != "refused").then_some(())
    });
    logged += &stop(up);

    // What needs the next build.
    let up = start(folder, Build::Fixed);
    run(&up, "resume talk/org:suspect 2");
    run(&up, "resume talk/org:view --view texts");
    for org in ["suspect", "fold"] {
        assert_eq!(status(&up, org, 2), "accepted");
    }
    // The command that never came has come with the end of the process before.
    until_parked(&up, "conflict", "gap", 2);
    run(&up, "skip talk/org:gap 2 --reason drill");
    until("nothing is parked", || parked(&up).is_empty().then_some(()));
    until("the metrics say so", || waiting(&up).values().all(|logs| *logs == 0).then_some(()));

    // Everything has its entry and its row, once.
    let rows = |org: &str, seq: u64| {
        let rows = run(&up, &format!("view texts {} --seq {seq} --wait 20000", log(org)));
        let row =
            |row: &Value| (row["key"].as_str().expect("a key").to_owned(), row["row"].as_u64());
        rows.iter().map(row).collect::<BTreeMap<_, _>>()
    };
    for (org, seq, expected) in [
        ("moved", 1, &[("hi", 1)][..]),
        ("suspect", 2, &[("abort", 1), ("hi", 1)]),
        ("fold", 2, &[("unread", 1), ("hi", 1)]),
        ("gap", 4, &[("hi", 2)]),
        ("late", 3, &[("hi", 2)]),
        ("noise", 2, &[("hi", 1)]),
        ("refused", 2, &[("hi", 2)]),
        ("view", 2, &[("boo", 1), ("hi", 1)]),
    ] {
        let expected = expected.iter().map(|(text, n)| ((*text).to_owned(), Some(*n)));
        assert_eq!(rows(org, seq), expected.collect(), "{org}");
    }
    assert_eq!(lines(&up.client(&["doctor", "--all", "--rate", "1000"]), 0), [] as [&str; 0]);
    logged += &stop(up);

    for alarm in ["cannot_fold", "suspect", "conflict", "undecodable", "unpublished", "view_parked"]
    {
        assert!(logged.contains(&format!("alarm=\"{alarm}\"")), "no line rings {alarm}: {logged}");
    }
}

#[test]
fn only_what_can_be_broken_is_broken() {
    let up = Up::start(&mut fanfold(&["up", "--in-memory", "--chaos", "--listen", "127.0.0.1:0"]));
    let refused = |up: &Up, line: &str, says: &str| {
        let output = up.client(&line.split(' ').collect::<Vec<_>>());
        let error = stderr(&output);
        assert!(error.starts_with("error: ") && error.contains(says), "{line}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    };
    for (line, says) in [
        ("chaos fail process", "`at`: must be `stream`, `journal`, `state` or `topic`"),
        ("chaos kill journal", "`at`: must be `relay`, `process` or `view:` with a view's name"),
        ("chaos kill view:none", "`at`: there is no view `none` here"),
        ("chaos delay process 31s", "`delay_ms`: an invocation is delayed by 1 to 30000 ms"),
        ("chaos refuse --for 11min", "`for_ms`: a fault lasts from 1 to 600000 ms"),
        ("chaos hold --shard shardId-000000000099", "`shard`: there is no shard"),
        ("chaos hold --log acme", "--log"),
        ("chaos hold --log ledger/org:a --shard shardId-000000000000", "cannot be used with"),
    ] {
        refused(&up, line, says);
    }
    let post = |body: &str| {
        let answer = ureq::post(format!("{}/ops/chaos", up.url))
            .config()
            .http_status_as_error(false)
            .build()
            .send(body);
        answer.expect("an answer").status().as_u16()
    };
    for body in [
        r#"{"fault":"explode","for_ms":1}"#,
        r#"{"fault":7,"for_ms":1}"#,
        r#"{"fault":"hold"}"#,
        r#"{"fault":"hold","at":"journal","for_ms":1}"#,
        r#"{"fault":"hold","delay_ms":1,"for_ms":1}"#,
        r#"{"fault":"hold","times":-1,"for_ms":1}"#,
        r#"{"fault":"delay","at":"relay","for_ms":1}"#,
        r#"{"fault":"hold","log":"ledger/org:a","shard":"shardId-000000000000","for_ms":1}"#,
        "",
    ] {
        assert_eq!(post(body), 400, "{body}");
    }
    assert_eq!(run(&up, "chaos list"), [] as [Value; 0]);
    let line = "chaos delay view:balances 20ms --shard shardId-000000000001 --times 5";
    let [planted] = &run(&up, line)[..] else { panic!("one fault") };
    let expected = json!({
        "id": 1, "fault": "delay", "at": "view:balances", "delay_ms": 20,
        "shard": "shardId-000000000001", "until": planted["until"], "times": 5, "met": 0,
    });
    assert_eq!(planted, &expected);
    assert_eq!(run(&up, "chaos list"), [expected]);
    assert_eq!(run(&up, "chaos heal 1"), [json!({ "ended": 1 })]);
    stop(up);

    let up = Up::new();
    refused(&up, "chaos list", "nothing at `/ops/chaos`");
}
