//! Ctrl-C at any time: what was done is reported.

use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fake_target::{Fake, Manner, Plant};
use serde_json::Value;
use tempfile::TempDir;

use crate::generator::{count, interrupt, json, load, loadtest, run, text};

fn started(line: &str, more: &[&Path]) -> Child {
    let mut command = loadtest(line, more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

fn ended(child: Child, within: Duration) -> Output {
    let began = Instant::now();
    let output = child.wait_with_output().expect("it ends");
    assert!(began.elapsed() < within, "{:?}: {output:?}", began.elapsed());
    output
}

const SOON: Duration = Duration::from_secs(8);

/// Ends a load by Ctrl-C after this time. Returns its output, and its report. `change` replaces a
/// part of the command line.
fn interrupted(fake: &Fake, change: [&str; 2], ms: u64, within: Duration) -> (Output, Value) {
    let folder = TempDir::new().expect("a folder");
    let to_json = folder.path().join("r.json");
    let line = load(&fake.url).replace(change[0], change[1]);
    let running = started(&format!("{line} --json"), &[&to_json]);
    thread::sleep(Duration::from_millis(ms));
    interrupt(&running);
    (ended(running, within), json(&to_json))
}

#[test]
fn ctrl_c_while_accounts_are_opened_ends_the_load() {
    let change = ["--tenants 5", "--tenants 2000000 --audit-sample 20"];
    let (output, report) = interrupted(&Fake::start(None), change, 2_000, Duration::from_secs(20));
    // No command of the load itself was accepted.
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!((&report["interrupted"], count(&report, "/counts/due")), (&true.into(), 0));
    assert_eq!(count(&report, "/audit/breaches"), 0, "{report}");
    assert_eq!(count(&report, "/audit/receipts"), 20 * 3, "{report}");
    let named = count(&report, "/audit/logs_named");
    assert!((100..2_000_000).contains(&named), "{named}");
}

#[test]
fn ctrl_c_in_the_first_step_of_a_search_ends_it() {
    let change = ["--duration 1s", "--duration 300s --arrivals search"];
    let (output, report) = interrupted(&Fake::start(None), change, 2_000, SOON);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["search"]["steps"].as_array().map(Vec::len), Some(0), "{report}");
    assert!(count(&report, "/counts/accepted") > 50, "{report}");
    assert!(count(&report, "/latencies/0/count") > 50, "{report}");
}

#[test]
fn ctrl_c_while_a_view_is_stuck_ends_the_load() {
    let fake = Fake::with(None, Manner::ViewsStand);
    let change = ["--duration 1s", "--duration 300s --no-audit --give-up 3s"];
    // Opening the accounts waits for the view, too.
    let (output, report) = interrupted(&fake, change, 5_000, Duration::from_secs(2));
    assert!(output.status.success(), "{output:?}");
    assert!(count(&report, "/counts/samples_unseen") > 10, "{report}");
}

#[test]
fn ctrl_c_while_requests_wait_for_a_connection_ends_the_load() {
    let stalls = Manner::Stalls { from_ms: 200, to_ms: 4_000 };
    let change = ["--duration 1s", "--duration 300s --connections 1"];
    let (output, report) = interrupted(&Fake::with(None, stalls), change, 2_500, SOON);
    assert!(output.status.success(), "{output:?}");
    let counts = &report["counts"];
    assert!(count(counts, "/unsent") > 100, "{report}");
    assert_eq!(count(counts, "/due"), count(counts, "/accepted") + count(counts, "/unsent"));
    // Commands that were never sent have waited, too.
    assert_eq!(count(&report, "/latencies/0/count"), count(counts, "/due"), "{report}");
    let shown = text(&output.stdout).replace("\n", " ");
    assert!(shown.contains("% were accepted"), "{shown}");
}

#[test]
fn ctrl_c_under_overload_ends_the_load() {
    let change = ["--rate 300 --duration 1s", "--rate 500000 --duration 300s --audit-sample 1"];
    let (output, report) = interrupted(&Fake::start(None), change, 2_000, Duration::from_secs(20));
    assert!(output.status.success(), "{output:?}");
    assert!(count(&report, "/counts/unsent") > 100_000, "{output:?}");
}

#[test]
fn the_second_ctrl_c_ends_the_audit_and_its_findings_are_reported() {
    let (fake, folder) =
        (Fake::with(Some(Plant::Hole), Manner::ViewsStand), TempDir::new().expect("a folder"));
    let receipts = folder.path().join("receipts");
    let line = load(&fake.url).replace("--audit-patience 2s", "--audit-patience 60s --give-up 1s");
    let running = started(&format!("{line} --receipts"), &[&receipts]);
    thread::sleep(Duration::from_secs(5));
    interrupt(&running);
    thread::sleep(Duration::from_millis(500));
    interrupt(&running);
    let output = ended(running, SOON);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("Audit: FAIL") && shown.contains("ended by Ctrl-C"), "{shown}");
    assert!(shown.contains("F1  ledger/org:load-"), "{shown}");

    // An audit without a load ends at the first Ctrl-C.
    let line = format!("audit --target {} --audit-patience 60s --receipts", fake.url);
    let running = started(&line, &[&receipts]);
    thread::sleep(Duration::from_secs(2));
    interrupt(&running);
    let output = ended(running, SOON);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).contains("F1  ledger/org:load-"), "{output:?}");
}

#[test]
fn a_target_accepts_the_name_of_a_run_once() {
    let fake = Fake::start(None);
    let named = |name: &str| run(&format!("{} --name {name}", load(&fake.url)), &[]);
    assert!(named("ci").status.success());
    // No name of a run counts as the beginning of another.
    assert!(named("ci2").status.success());
    let again = named("ci");
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    let said = text(&again.stderr);
    assert!(said.contains("`ci+`") && said.contains("another --name"), "{said}");
}
