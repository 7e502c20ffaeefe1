//! Drill: a build has folded rows otherwise than the one that runs. The doctor finds them, and they are made again.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Up, lines, stderr};

/// Sweeps run every ten seconds, and ignore what is younger.
const PATIENCE: Duration = Duration::from_secs(90);
const ORGS: [&str; 3] = ["a", "b", "c"];

fn start(folder: &Path, miscounts: bool) -> Up {
    let program = Path::new(env!("CARGO_BIN_EXE_fanfold")).with_file_name("examples/faulty_app");
    let mut command = Command::new(program);
    command.args(["up", "--listen", "127.0.0.1:0", "--log", "error", "--data"]).arg(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("FIXED", "1");
    if miscounts {
        command.env("MISCOUNTS", "1");
    }
    Up::start(&mut command)
}

fn stop(up: Up) {
    up.signal("-TERM");
    let (code, said) = up.end();
    assert_eq!(code, Some(0), "{said}");
}

fn say(up: &Up, org: &str, id: u64, text: &str) {
    let request = json!({"type": "talk", "command": "say", "id": id, "user": "ann", "org": org, "data": {"text": text}});
    let sent = ureq::post(format!("{}/command?wait=20000", up.url)).send(request.to_string());
    assert_eq!(sent.expect("200").status(), 200, "{request}");
}

/// The rows of the view, and its seq; with `seq`, once it has reached that.
fn view(up: &Up, org: &str, seq: u64) -> (Value, u64) {
    let url = format!("{}/views/texts/talk/org:{org}?seq={seq}&wait=1000", up.url);
    let began = Instant::now();
    loop {
        let mut answer = ureq::get(&url).call().expect("200 or 202");
        let text = answer.body_mut().read_to_string().expect("text");
        if answer.status() == 200 {
            let page: Value = serde_json::from_str(&text).expect("JSON");
            return (page["rows"].clone(), page["seq"].as_u64().expect("a seq"));
        }
        assert!(began.elapsed() < PATIENCE, "{org} does not reach {seq}: {text}");
        thread::sleep(Duration::from_millis(100));
    }
}

fn counts(up: &Up, org: &str, seq: u64) -> Vec<(String, u64)> {
    let (rows, _) = view(up, org, seq);
    let row = |row: &Value| {
        (row["key"].as_str().expect("a key").to_owned(), row["row"].as_u64().expect("a number"))
    };
    rows.as_array().expect("rows").iter().map(row).collect()
}

#[test]
fn rows_of_another_fold_are_found_and_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (wrong, right) = ([("hi".to_owned(), 4), ("ho".to_owned(), 2)], [2, 1]);
    let right = [("hi".to_owned(), right[0]), ("ho".to_owned(), right[1])];
    let up = start(folder.path(), true);
    for org in ORGS {
        for (id, text) in [(1, "hi"), (2, "ho"), (3, "hi")] {
            say(&up, org, id, text);
        }
        assert_eq!(counts(&up, org, 3), wrong);
    }
    stop(up);

    let up = start(folder.path(), false);
    let found = lines(&up.client(&["doctor"]), 1);
    assert_eq!(found.len(), 6, "{found:?}");
    for row in ["hi", "ho"] {
        let said = format!("the row `{row}` at entry");
        let of = found.iter().filter(|line| line.contains(&said) && line.contains(" row_wrong "));
        assert_eq!(of.count(), 3, "{found:?}");
    }

    // One log by hand.
    let done = lines(&up.client(&["rebuild", "talk/org:a", "--view", "texts"]), 0);
    let done: Value = serde_json::from_str(&done[0]).expect("JSON");
    let expected = json!({"log": "talk/org:a", "view": "texts", "done": "begun", "removed": 2});
    assert_eq!(done, expected);
    assert_eq!(counts(&up, "a", 3), right);
    for (arguments, says) in [
        (["rebuild", "talk/org:a", "--view", "sums"], "there is no view `sums` here"),
        (["rebuild", "talk/org:nobody", "--view", "texts"], "which has no entry"),
    ] {
        let output = up.client(&arguments);
        assert_eq!(lines(&output, 1), Vec::<String>::new());
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }

    // The others by the doctor. What it has printed tells each finding, and what was done.
    let output = up.client(&["doctor", "--repair", "--json"]);
    let printed = lines(&output, 0);
    let repaired: Vec<Value> = printed
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["repair"].clone())
        .filter(|repair| !repair.is_null())
        .collect();
    assert_eq!(repaired.len(), 2, "{printed:?}");
    let said = stderr(&output);
    assert!(said.contains("4 findings;") && said.contains("; 4 of them are mended"), "{said}");
    for org in ORGS {
        assert_eq!(counts(&up, org, 3), right, "{org}");
    }
    assert_eq!(lines(&up.client(&["doctor"]), 0), Vec::<String>::new());

    // The view goes on as before, also after a restart.
    for org in ORGS {
        say(&up, org, 4, "hi");
    }
    stop(up);
    let up = start(folder.path(), false);
    for org in ORGS {
        assert_eq!(counts(&up, org, 4), [("hi".to_owned(), 3), ("ho".to_owned(), 1)], "{org}");
    }
    assert_eq!(lines(&up.client(&["doctor", "--all"]), 0), Vec::<String>::new());
    stop(up);
}
