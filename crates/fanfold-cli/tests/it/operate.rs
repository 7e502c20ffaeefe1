//! Drills of operators with `parked`, `resume`, `skip` and `resend`: an app with mistakes, then its next build.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::{Up, fanfold, lines, stderr};

/// The example `faulty_app` on a folder; with `is_fixed`, its next build.
fn app(folder: &Path, is_fixed: bool) -> Up {
    app_of(&program(), folder, is_fixed)
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_fanfold")).with_file_name("examples/faulty_app")
}

fn app_of(program: &Path, folder: &Path, is_fixed: bool) -> Up {
    let mut command = std::process::Command::new(program);
    command.args(["up", "--listen", "127.0.0.1:0", "--log", "error", "--data"]).arg(folder);
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    if is_fixed {
        command.env("FIXED", "1");
    }
    Up::start(&mut command)
}

fn run(up: &Up, arguments: &[&str]) -> Output {
    fanfold(arguments).env("FANFOLD_URL", &up.url).output().expect("the binary starts")
}

/// Each line of the output, as JSON.
#[track_caller]
fn printed(up: &Up, arguments: &[&str]) -> Vec<Value> {
    let output = run(up, arguments);
    let lines = lines(&output, 0);
    lines.iter().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

#[track_caller]
fn refused(up: &Up, arguments: &[&str], code: i32, says: &str) {
    let output = run(up, arguments);
    assert_eq!(lines(&output, code), Vec::<String>::new());
    let error = stderr(&output);
    assert!(error.starts_with("error: ") && error.contains(says), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

fn say(up: &Up, id: u64, text: &str) {
    let data = json!({ "text": text }).to_string();
    let id = id.to_string();
    let sent = ["send", "--type", "talk", "--command", "say", "--user", "ann", "--org", "acme"];
    let output = run(up, &[&sent[..], &["--id", &id, "--data", &data, "--no-check"]].concat());
    lines(&output, 0);
}

/// The rows of the view, as `text: times`, once it has reached `seq`.
fn rows(up: &Up, seq: &str) -> Vec<String> {
    let rows = printed(up, &["view", "texts", "talk/org:acme", "--seq", seq, "--wait", "20000"]);
    let row = |row: &Value| format!("{}: {}", row["key"].as_str().expect("a key"), row["row"]);
    rows.iter().map(row).collect()
}

const LOG: &str = "talk/org:acme";

/// Waits for the entry `seq`, and returns its status.
fn status(up: &Up, seq: u64) -> String {
    let mut answer =
        ureq::get(format!("{}/logs/{LOG}/{seq}?wait=20000", up.url)).call().expect("200");
    let entry = answer.body_mut().read_to_string().expect("text");
    let entry: Value = serde_json::from_str(&entry).expect("JSON");
    entry["status"].as_str().unwrap_or_default().to_owned()
}

/// Waits until the view is parked.
fn until_parked(up: &Up) -> Vec<Value> {
    for _ in 0..400 {
        let parked = printed(up, &["parked"]);
        if !parked.is_empty() {
            return parked;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the view is not parked")
}

#[test]
fn a_parked_view_goes_on_with_the_next_build() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = app(folder.path(), false);
    for (id, text) in [(1, "hi"), (2, "boo"), (3, "hi")] {
        say(&up, id, text);
    }
    let parked = until_parked(&up);
    let [item] = &parked[..] else { panic!("{parked:?}") };
    assert_eq!(
        (&item["view"], &item["log"], &item["seq"]),
        (&json!("texts"), &json!(LOG), &json!(2))
    );
    assert!(item["reason"].as_str().expect("a reason").contains("this build cannot take `boo`"));
    assert_eq!(item["entry"]["events"][0]["data"], json!({ "text": "boo" }));
    assert_eq!(item["cursor"], 1);
    assert_eq!(printed(&up, &["parked", "--view", "texts"]), parked);
    assert_eq!(printed(&up, &["parked", "--service", "other"]), [] as [Value; 0]);
    refused(&up, &["parked", "--view", "none"], 1, "there is no view `none` here");
    refused(
        &up,
        &["resume", LOG, "2"],
        1,
        "nothing waits at seq 2 of talk/org:acme: it has its entry",
    );
    refused(&up, &["resume", LOG, "2", "--view", "texts"], 2, "--view");
    refused(&up, &["resume", LOG], 2, "<SEQ>");
    refused(&up, &["skip", LOG, "--view", "texts"], 2, "--reason");

    up.signal("-TERM");
    let (code, said) = up.end();
    assert_eq!(code, Some(0), "{said}");
    let up = app(folder.path(), true);
    assert_eq!(printed(&up, &["resume", "--all", "--view", "texts"]), [json!({ "done": "begun" })]);
    assert_eq!(rows(&up, "3"), ["boo: 1", "hi: 2"]);
    assert_eq!(printed(&up, &["parked"]), [] as [Value; 0]);
}

#[test]
fn an_entry_that_no_build_can_show_is_skipped() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = app(folder.path(), false);
    for (id, text) in [(1, "hi"), (2, "boo"), (3, "hi")] {
        say(&up, id, text);
    }
    until_parked(&up);
    let skip = ["skip", LOG, "--view", "texts", "--reason", "it is only noise"];
    assert_eq!(printed(&up, &skip), [json!({ "done": "begun" })]);
    assert_eq!(rows(&up, "3"), ["hi: 2"]);
    let mut again = fanfold(&skip);
    again.envs([("FANFOLD_URL", &*up.url), ("FANFOLD_OPERATOR", "Zoë")]);
    let again = again.output().expect("the binary starts");
    assert!(stderr(&again).contains("the view `texts` is not parked for talk/org:acme"));

    let text = lines(&run(&up, &["timeline", "--limit", "1"]), 0);
    let [line] = &text[..] else { panic!("{text:?}") };
    let shown = " Zoë? skip view texts talk/org:acme (it is only noise): refused, the view `texts`";
    assert!(line.contains(shown), "{line}");

    // What was done is still known after a kill. The outcome of the last action need not be on disk.
    up.signal("-KILL");
    up.end();
    let up = app(folder.path(), false);
    let actions = printed(&up, &["timeline", "--json"]);
    let [second, first] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((&second["by"], &second["action"]), (&json!("Zoë"), &json!("skip")));
    assert_eq!((&first["view"], &first["log"]), (&json!("texts"), &json!(LOG)));
    assert_eq!((&first["state"], &first["reason"]), (&json!("done"), &json!("it is only noise")));
}

#[test]
fn a_faulted_command_is_sent_again_to_the_next_build() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = app(folder.path(), false);
    say(&up, 1, "panic");
    assert_eq!(status(&up, 1), "faulted");
    refused(
        &up,
        &["resend", LOG, "2"],
        1,
        "nothing waits at seq 2 of talk/org:acme: it has no entry",
    );
    up.signal("-TERM");
    let (code, said) = up.end();
    assert_eq!(code, Some(0), "{said}");
    let up = app(folder.path(), true);
    for (seq, expected) in [(2, "accepted"), (3, "duplicate")] {
        let sent = printed(&up, &["resend", LOG, "1"]);
        assert_eq!(sent, [json!({ "done": "accepted", "log": LOG, "seq": seq })]);
        assert_eq!(status(&up, seq), expected);
    }
    refused(&up, &["resend", LOG, "2"], 1, "the entry 2 of talk/org:acme is accepted");
    assert_eq!(rows(&up, "3"), ["panic: 1"]);
}

/// A running engine fits together, and a parked view is a finding.
#[test]
fn the_doctor_examines_a_running_engine() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = app(folder.path(), true);
    for id in 1..=3 {
        say(&up, id, "hello");
    }
    assert_eq!(rows(&up, "3"), ["hello: 3"]);
    let output = run(&up, &["doctor", "--all", "--json"]);
    let [host, examined] = &lines(&output, 0)[..] else { panic!("{output:?}") };
    let host: Value = serde_json::from_str(host).expect("JSON");
    assert_eq!(host["host"]["checked"], json!(["folder", "accepting"]), "{host}");
    let examined: Value = serde_json::from_str(examined).expect("JSON");
    assert_eq!(examined["log"], LOG);
    assert_eq!((&examined["entries"], &examined["rows"]), (&json!(3), &json!(1)), "{examined}");
    let said = stderr(&output);
    assert!(said.contains("1 logs, 3 entries, 1 rows: 0 findings; formats: commit v1 "), "{said}");
    for arguments in [&["doctor", LOG][..], &["doctor", LOG, "--raise-slots"]] {
        assert_eq!(lines(&run(&up, arguments), 0), Vec::<String>::new());
    }
    let output = run(&up, &["doctor", "--journal", "--raise-slots", "--rate", "1"]);
    assert_eq!(lines(&output, 0), Vec::<String>::new());
    assert!(stderr(&output).contains("1 logs, 3 entries, 1 rows: 0 findings"));
    let output = run(&up, &["doctor", "--from", "nonsense"]);
    assert_eq!(lines(&output, 1), Vec::<String>::new());
    assert!(
        stderr(&output).contains("`after`: must be the `next` of the page before"),
        "{}",
        stderr(&output)
    );
    up.signal("-TERM");
    let (code, said) = up.end();
    assert_eq!(code, Some(0), "{said}");

    // The build before cannot apply the next entry.
    let up = app(folder.path(), false);
    say(&up, 4, "boo");
    until_parked(&up);
    let output = run(&up, &["doctor"]);
    let [finding] = &lines(&output, 1)[..] else { panic!("one finding: {output:?}") };
    assert!(finding.starts_with("talk/org:acme parked texts: at entry 4: "), "{finding}");
}

/// Nothing has to be said: another program is another build.
#[test]
fn a_parked_view_tries_again_by_itself_when_another_program_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = app(folder.path(), false);
    for (id, text) in [(1, "hi"), (2, "boo")] {
        say(&up, id, text);
    }
    until_parked(&up);
    up.signal("-TERM");
    let (code, said) = up.end();
    assert_eq!(code, Some(0), "{said}");
    // The same program with the mistake mended is the same build, so the view stays parked.
    let up = app(folder.path(), true);
    assert_eq!(printed(&up, &["parked"]).len(), 1);
    up.signal("-TERM");
    let (code, said) = up.end();
    assert_eq!(code, Some(0), "{said}");
    // What stands behind the end of a program does not change what it does.
    let programs = tempfile::tempdir().expect("a folder");
    let other = programs.path().join("faulty_app");
    fs::copy(program(), &other).expect("a copy");
    let mut file = fs::OpenOptions::new().append(true).open(&other).expect("a file");
    file.write_all(b"another build").expect("it is written");
    drop(file);
    let up = app_of(&other, folder.path(), true);
    // The view's sweep runs every ten seconds.
    for _ in 0..400 {
        if printed(&up, &["parked"]).is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(rows(&up, "2"), ["boo: 1", "hi: 1"]);
}
