//! Names that people and identity providers use, as arguments and in the output.

use serde_json::{Value, json};

use crate::{Up, lines, stderr};

const NAMES: [&str; 8] =
    ["auth0|64b7", "Zoë Müller", "山田 太郎", "a+b@x.io", "user{1}", "\"q\"", "<b>&", "🦀👩‍🚀"];

fn only(lines: &[String]) -> Value {
    assert_eq!(lines.len(), 1, "{lines:?}");
    serde_json::from_str(&lines[0]).expect("it is JSON")
}

#[test]
fn unusual_names_work_as_arguments_and_are_printed_unchanged() {
    let up = Up::new();
    for name in NAMES {
        let log = format!("ledger/org:{name}");
        let data = json!({"account": name}).to_string();
        let send = ["send", "--type", "ledger", "--command", "open", "--id", "1", "--user", name];
        let output = up.client(&[&send[..], &["--org", name, "--data", &data]].concat());
        assert_eq!(only(&lines(&output, 0)), json!({"log": log, "seq": 1}));

        let view = ["view", "balances", &log, "--seq", "1"];
        assert_eq!(only(&lines(&up.client(&[&view[..], &[name]].concat()), 0))["key"], name);
        let first = name.chars().next().expect("a name is not empty").to_string();
        let rows = up.client(&[&view[..], &["--prefix", &first]].concat());
        assert_eq!(only(&lines(&rows, 0))["key"], name);
        let entry = only(&lines(&up.client(&["log", &log]), 0));
        assert_eq!((&entry["log"], &entry["user"]), (&json!(log), &json!(name)));
    }
}

#[test]
fn a_name_that_no_url_can_hold_is_refused_with_the_reason() {
    let up = Up::new();
    for (log, reason) in [
        ("ledger/org:..", "must not be `.` or `..`"),
        ("ledger/org:a/b", "contains '/' (U+002F)"),
        ("ledger/org:a\u{202e}b", "contains U+202E"),
        ("ledger/org: a", "begins or ends with U+0020"),
        ("ledger/org:e\u{301}", "is not in Unicode normalization form C (NFC)"),
    ] {
        let output = up.client(&["log", log]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
}
