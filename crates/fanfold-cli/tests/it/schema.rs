//! `fanfold schema` and `fanfold schema check`.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::{fanfold, lines, stderr};

fn schema() -> Value {
    let output = fanfold(&["schema"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

fn check(old: &Value, file: &Path) -> Output {
    fs::write(file, old.to_string()).expect("it can be written");
    let file = file.to_str().expect("it is text");
    fanfold(&["schema", "check", file]).output().expect("it runs")
}

#[test]
fn a_change_is_one_line_and_fails_only_if_it_breaks() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, now) = (folder.path().join("old.json"), schema());
    assert!(lines(&check(&now, &file), 0).is_empty(), "nothing has changed");

    let old = |path: &str, value: Value| {
        let mut old = now.clone();
        *old.pointer_mut(path).unwrap_or_else(|| panic!("nothing is at {path}")) = value;
        old
    };
    // The old build had fewer than this one.
    let mut events = now["services"]["ledger"]["events"].clone();
    events.as_object_mut().expect("it has events").remove("closed").expect("it is there");
    let mut kinds = now["views"]["totals"]["events"].clone();
    kinds.as_object_mut().expect("it has events").remove("closed").expect("it is there");
    for (old, code, expected) in [
        (old("/services/ledger/events", events), 0, "notice: event ledger.closed: is new"),
        (old("/views/totals/version", json!(0)), 0, "notice: view totals: has version 1"),
        (old("/views/totals/version", json!(2)), 1, "breaks: view totals: has version 1 instead"),
        (
            old("/views/totals/events", kinds),
            1,
            "breaks: view totals: has another list of event types",
        ),
        (
            old("/views/totals/row", json!({ "type": "object" })),
            1,
            "is required now, and may be absent in stored rows: raise `VERSION`",
        ),
    ] {
        let output = check(&old, &file);
        let said = lines(&output, code);
        assert!(said.iter().any(|line| line.contains(expected)), "{expected}: {said:?}");
        let error = stderr(&output);
        assert_eq!(error.lines().count(), usize::try_from(code).expect("it is small"), "{error}");
        assert_eq!(error.contains("changes break what relies on"), code == 1, "{error}");
    }
}

#[test]
fn what_is_not_an_output_is_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = check(&json!({ "app": "ledger" }), &folder.path().join("old.json"));
    let error = stderr(&output);
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    assert!(error.contains("is not an output of this version of `schema`"), "{error}");
}
