//! What a load checks before it sends anything, and that every workload can be run again.

use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use fake_target::Fake;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::generator::{load, loadtest, run, text};

/// The commands `open` and `note` of the service `seats`.
fn document() -> Value {
    let data = |properties: Value, required: Value| {
        json!({
            "type": "object", "properties": properties, "required": required,
            "additionalProperties": false,
        })
    };
    let request = |command: &str, data: Value| {
        json!({ "type": "object", "properties": {
            "type": { "const": "seats" }, "command": { "const": command }, "data": data,
        } })
    };
    let row = json!({ "$ref": "#/components/schemas/Type.Row" });
    let open = json!({ "row": row, "seats": { "type": "integer", "minimum": 0 } });
    let note = data(json!({ "to": data(json!({ "row": row }), json!(["row"])) }), json!([]));
    json!({ "openapi": "3.1.0", "components": { "schemas": {
        "Entry.seats": {},
        "Type.Row": { "type": "string", "pattern": "^(?!x)[a-z-]+[0-9]*$" },
        "Request.seats.open": request("open", data(open, json!(["row"]))),
        "Request.seats.note": request("note", json!({ "anyOf": [note, { "type": "null" }] })),
        "Request.seats.go.20.on": request("go on", json!({ "type": ["object", "null"], "maxProperties": 0 })),
    } } })
}

/// The usual load of a workload file, which is in `folder`.
fn line(url: &str) -> String {
    format!("{} --workload", load(url).replace("--rejected 0.1", ""))
}

#[test]
fn a_workload_is_compared_with_the_description_before_anything_is_sent() {
    // A command that is drawn once in a billion.
    let rare = |step: &str| {
        format!(
            "service: seats\nmix:\n  - {{ command: open, data: {{ row: a }} }}\n  - {{ weight: 0.000001, {step} }}\n"
        )
    };
    let data = |data: &str| rare(&format!("command: open, data: {data}"));
    for (content, says) in [
        (
            rare("command: opne"),
            "w.yaml, line 4: the service `seats` has no command `opne`; it has `go on`, `note`, `open`",
        ),
        (
            "service: seats\nsetup:\n  - command: opne\nmix: [{ command: note }]".to_owned(),
            "w.yaml, line 3: the service `seats` has no command `opne`; it has",
        ),
        (
            "mix: [{ command: open }]\nservice: seat".to_owned(),
            "w.yaml, line 2: the target has no service `seat`; it has `seats`",
        ),
        (
            data("{ }"),
            "w.yaml, line 4: the command `open`, field `data.row`: it is missing, and must be given",
        ),
        (
            rare("command: open"),
            "w.yaml, line 4: the command `open`, field `data.row`: it is missing",
        ),
        (
            rare("command: open,\n      data: {\n        row: a,\n        seat: 1 }"),
            "w.yaml, line 7: the command `open`, field `data.seat`: there is no such field; the command has `row`, `seats`",
        ),
        (
            data("{ row: a, seats: '4' }"),
            "field `data.seats`: it is rendered as \"4\", and it is not of type \"integer\"",
        ),
        (data("{ row: a, seats: '{{ int(-3, 3) }}' }"), "field `data.seats`: it is rendered as -"),
        (
            data("{ row: 'x-{{ n }}' }"),
            "field `data.row`: it is rendered as \"x-0\", and it does not match",
        ),
        (
            rare("command: note, data: { to: { row: a, size: 1 } }"),
            "the command `note`, field `data.to.size`: there is no such field",
        ),
        (
            rare("command: go on, data: { a: 1 }"),
            "the command `go on`, field `data`: it is rendered as {\"a\":1}",
        ),
    ] {
        let (fake, folder) = (Fake::described(document()), TempDir::new().expect("a folder"));
        let path = folder.path().join("w.yaml");
        std::fs::write(&path, &content).expect("it is written");
        let output = run(&line(&fake.url), &[&path]);
        let shown = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{content}: {output:?}");
        assert!(shown.contains(says), "`{says}` is not in: {shown}");
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert_eq!(text(&output.stdout), "", "nothing was sent");
    }
}

#[test]
fn a_workload_that_fits_the_description_is_sent_without_a_word() {
    let (fake, folder) = (Fake::described(document()), TempDir::new().expect("a folder"));
    let path = folder.path().join("w.yaml");
    let content = "service: seats\nsetup: [{ command: open, each: 3, data: { row: 'a-{{ n }}' } }]\n\
                   mix:\n  - command: note\n    data: { to: { row: \"{{ earlier('open', 'row') }}\" } }\n  \
                   - command: note\n  - command: go on\n";
    std::fs::write(&path, content).expect("it is written");
    let output = run(&line(&fake.url), &[&path]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_description_of_another_kind_is_noted() {
    let odd = json!({ "components": { "schemas": {
        "Entry.seats": {},
        "Request.seats.open": { "properties": { "data": { "$ref": "http://elsewhere.invalid/" } } },
    } } });
    for (fake, says) in [
        (Fake::start(None), "w.yaml are not checked before they are sent: http://"),
        (
            Fake::described(json!({ "openapi": "3.1.0" })),
            "w.yaml are not checked before they are sent: the target's /openapi.json has no schemas",
        ),
        (
            Fake::described(odd),
            "w.yaml: the data of the command `open` are not compared with its schema",
        ),
    ] {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("w.yaml");
        std::fs::write(&path, "service: seats\nmix: [{ command: open }]").expect("it is written");
        let output = run(&line(&fake.url), &[&path]);
        let shown = text(&output.stderr);
        assert!(output.status.success(), "{output:?}");
        assert!(shown.starts_with("note: ") && shown.contains(says), "`{says}` is not in: {shown}");
        assert_eq!(shown.lines().count(), 1, "{shown}");
    }
}

#[test]
fn a_workload_can_be_run_again_on_the_same_target() {
    let (fake, folder) = (Fake::start(None), TempDir::new().expect("a folder"));
    let ledger = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads/ledger.yaml");
    let receipts = folder.path().join("receipts");
    let logs = |more: &str| {
        let line = line(&fake.url).replace("--workload", &format!("{more} --workload"));
        let output = run(&line, &[&ledger, Path::new("--receipts"), &receipts]);
        let lines = std::fs::read_to_string(&receipts).expect("they were asked for");
        let line: Value =
            serde_json::from_str(lines.lines().nth(1).expect("a receipt")).expect("JSON");
        (output, line["receipt"]["log"].as_str().expect("a log").to_owned())
    };
    for more in ["", "", "--name ci"] {
        let (output, log) = logs(more);
        assert!(output.status.success(), "{more}: {output:?}");
        let name = if more.is_empty() { "r" } else { "ci-" };
        assert!(log.starts_with(&format!("ledger/org:load-{name}")), "{log}");
    }
    let (output, log) = logs("--org-prefix mine-");
    assert!(output.status.success() && log == "ledger/org:mine-0", "{log}: {output:?}");
    // The same organisations again: their accounts are open.
    let (output, _) = logs("--org-prefix mine-");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn a_load_waits_for_a_target_that_starts() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let line = load(&format!("http://{address}")).replace("--rate 300", "--rate 50");
    let running = thread::spawn(move || loadtest(&line, &[]).output().expect("it starts"));
    thread::sleep(Duration::from_millis(800));
    let _fake = Fake::on(TcpListener::bind(address).expect("the port is still free"));
    let output = running.join().expect("it ends");
    let shown = text(&output.stderr);
    assert!(output.status.success(), "{output:?}");
    assert!(
        shown.starts_with(&format!(
            "waiting up to 30s for the target: http://{address} does not answer: "
        )),
        "{shown}"
    );
    assert_eq!(shown.lines().count(), 1, "{shown}");
}

#[test]
fn a_target_that_does_not_start_is_given_up() {
    for (within, says) in [
        (
            "0s",
            "error: the target is not ready: start it first: http://127.0.0.1:1 does not answer: ",
        ),
        (
            "1s",
            "error: the target was not ready within 1s: start it first: http://127.0.0.1:1 does not answer: ",
        ),
    ] {
        let output =
            run(&format!("run --target http://127.0.0.1:1 --rate 1 --ready-within {within}"), &[]);
        let shown = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{shown}");
        let last = shown.lines().last().expect("an error");
        assert!(last.starts_with(says), "{shown}");
    }
}

#[test]
fn a_draft_does_not_replace_a_file() {
    let (fake, folder) = (Fake::described(document()), TempDir::new().expect("a folder"));
    let path = folder.path().join("w.yaml");
    let init = format!("init --target {} --out", fake.url);
    assert!(run(&init, &[&path]).status.success());
    // What is drafted fits what it was drafted from.
    assert!(run(&line(&fake.url), &[&path]).status.success());
    let output = run(&init, &[&path]);
    let shown = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{shown}");
    assert!(shown.contains("w.yaml exists") && shown.contains("choose another --out"), "{shown}");
}
