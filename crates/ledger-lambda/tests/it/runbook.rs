//! The runbook and the operators' page have every alarm that can ring, and every reason for which something can wait.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fanfold::host::body::parked::Reason;

use crate::stack::Template;
use crate::template::{VIEWS, id};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All source files that ship, with their text. Tests inside of them are cut off.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().join("crates")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !["tests", "target", "template", "examples"].contains(&name) {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let text = fs::read_to_string(&path).expect("text");
                let ships = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
                found.push((path, ships));
            }
        }
    }
    found
}

/// The names in the first column of the table below a heading.
fn first_column(text: &str, heading: &str) -> BTreeSet<String> {
    let (_, below) = text.split_once(&format!("\n## {heading}\n")).expect("the heading");
    let section = below.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(name, _)| name.to_owned()).filter(|name| name != "alarm").collect()
}

#[test]
fn the_runbook_has_every_alarm_of_the_log() {
    let mut alarms = BTreeSet::new();
    for (path, text) in sources() {
        for after in text.split("alarm = \"").skip(1) {
            let name = after.split('"').next().unwrap_or_default();
            assert!(!name.is_empty(), "{}", path.display());
            alarms.insert(name.to_owned());
        }
    }
    assert!(alarms.len() > 15, "{alarms:?}");
    let runbook = read("docs/runbook.md");
    assert_eq!(first_column(&runbook, "Lines with `alarm`"), alarms);
}

#[test]
fn the_runbook_has_every_reason_to_wait() {
    let reasons = Reason::ALL.map(|reason| {
        let json = serde_json::to_value(reason).expect("JSON");
        json.as_str().expect("a text").to_owned()
    });
    let runbook = read("docs/runbook.md");
    assert_eq!(first_column(&runbook, "What waits"), BTreeSet::from(reasons));
}

#[test]
fn the_operators_page_has_every_alarm_of_the_templates() {
    let page = read("infra/operate.md");
    for delivery in ["direct", "queue"] {
        let template = Template::with(&[("ViewDelivery", delivery)]);
        for (logical, alarm) in template.of_type("AWS::CloudWatch::Alarm") {
            let of_view = VIEWS.iter().find_map(|view| logical.strip_prefix(&id(view, "")));
            let name = of_view.unwrap_or(&logical);
            // Some are shown by the end of their names: `…Errors`, or `…-URGENT-relay-stopped`.
            let ends = ["Errors", "Throttles", "WritesThrottled", "ReadsThrottled"];
            let end = ends.iter().find(|end| name.ends_with(**end)).map(|end| format!("`…{end}`"));
            let urgent = alarm["AlarmName"].as_str().and_then(|name| name.split_once("-URGENT-"));
            let urgent = urgent.map(|(_, name)| format!("`…-URGENT-{name}`"));
            let shown = urgent.or(end).unwrap_or_else(|| format!("`{name}`"));
            assert!(page.contains(&shown), "{logical} is not on the page as {shown}");
        }
    }
}

#[test]
fn the_runbook_has_every_finding_of_the_doctor() {
    let source = read("crates/fanfold-pipeline/src/doctor.rs");
    let (_, kinds) = source.split_once("pub enum Ailment {").expect("the kinds");
    let kinds = kinds.split("\n}\n").next().unwrap_or_default();
    let kinds = kinds.lines().filter_map(|line| line.trim().strip_suffix(','));
    let snake = |name: &str| {
        let mut text = String::new();
        for character in name.chars() {
            if character.is_uppercase() && !text.is_empty() {
                text.push('_');
            }
            text.push(character.to_ascii_lowercase());
        }
        text
    };
    let kinds: BTreeSet<String> = kinds.map(snake).collect();
    assert!(kinds.len() > 10, "{kinds:?}");
    let runbook = read("docs/runbook.md");
    let (_, section) = runbook.split_once("\n## Something looks wrong\n").expect("the heading");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
    let named = rows.flat_map(|(names, _)| names.split("`, `")).map(|name| name.trim_matches('`'));
    assert_eq!(named.map(str::to_owned).collect::<BTreeSet<_>>(), kinds);
}
