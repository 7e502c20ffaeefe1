//! The program as a user runs it.

use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use fake_target::{Fake, Plant};
use serde_json::Value;
use tempfile::TempDir;

use crate::proxy::Proxy;

pub(crate) fn loadtest(arguments: &str, more: &[&Path]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(arguments.split_whitespace()).args(more).env_remove("FANFOLD_TOKEN");
    command
}

pub(crate) fn run(arguments: &str, more: &[&Path]) -> Output {
    loadtest(arguments, more).output().expect("it starts")
}

/// A load of one second on a small target, with repetitions, late and rejected commands.
pub(crate) fn load(url: &str) -> String {
    format!(
        "run --target {url} --rate 300 --duration 1s --tenants 5 --users 3 --samples 50 \
         --duplicates 0.1 --out-of-order 0.1 --rejected 0.1 --audit-patience 2s"
    )
}

pub(crate) fn json(path: &Path) -> Value {
    let text = std::fs::read(path).expect("the report was written");
    serde_json::from_slice(&text).expect("it is JSON")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn count(report: &Value, pointer: &str) -> u64 {
    report.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {report}"))
}

#[test]
fn a_load_is_driven_measured_audited_and_reported() {
    for (how, commands) in [
        ("", 300),
        ("--batch 10", 300),
        ("--threads 3 --poisson", 0),
        ("--clients 3 --reused 0.1", 300),
    ] {
        let (fake, folder) = (Fake::start(None), TempDir::new().expect("a folder"));
        let (to_json, to_html) = (folder.path().join("r.json"), folder.path().join("r.html"));
        let line = format!("{} {how} --json", load(&fake.url));
        let output = run(&line, &[&to_json, Path::new("--html"), &to_html]);
        assert!(output.status.success(), "{how}: {output:?}");
        let report = json(&to_json);
        let due = count(&report, "/counts/due");
        assert!(due == commands || commands == 0 && (200..400).contains(&due), "{how}: {due}");
        assert_eq!(count(&report, "/counts/accepted"), due);
        // The accounts of five organisations were opened before.
        assert_eq!(count(&report, "/audit/receipts"), due + 15);
        assert_eq!(count(&report, "/audit/entries"), due + 15);
        assert_eq!(count(&report, "/audit/breaches"), 0);
        assert!(count(&report, "/audit/seen") > 0, "{how}");
        for outcome in ["accepted", "rejected", "duplicate"] {
            assert!(count(&report, &format!("/audit/outcomes/{outcome}")) > 0, "{how}");
        }
        for latency in report["latencies"].as_array().expect("a list") {
            assert!(count(latency, "/count") > 0, "{how}: {latency}");
        }
        let shown = text(&output.stdout);
        assert!(shown.contains("Audit: PASS") && shown.contains("visible in a view"), "{shown}");
        let page = std::fs::read_to_string(&to_html).expect("the page was written");
        assert!(page.contains("<svg") && page.contains(&fake.url), "{how}");
    }
}

#[test]
fn a_search_finds_a_rate_and_its_samples_agree_with_the_log() {
    let (fake, folder) = (Fake::start(None), TempDir::new().expect("a folder"));
    let to_json = folder.path().join("r.json");
    // No target can hold this SLO, so the search ends soon: when it has too few measurements.
    let search = "--arrivals search --slo";
    let line = load(&fake.url).replace("--rate 300", "--rate 80");
    let mut command = loadtest(&format!("{line} {search}"), &[Path::new("accept p50 1us")]);
    let output = command.arg("--json").arg(&to_json).output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let report = json(&to_json);
    assert_eq!(report["search"]["highest"], Value::Null);
    assert_eq!(report["search"]["steps"].as_array().map(Vec::len), Some(4), "{report}");
    let why = report["search"]["steps"][3]["failed"].as_str();
    assert!(why.is_some_and(|why| why.starts_with("too few measurements, 10 of 20")), "{report}");
    assert_eq!(count(&report, "/counts/accepted"), 80 + 40 + 20 + 10);
    assert_eq!(count(&report, "/audit/breaches"), 0);
    // This SLO holds, and there are many samples to compare.
    let line = load(&fake.url).replace("--samples 50", "--samples 1000");
    let mut command = loadtest(&format!("{line} {search}"), &[Path::new("accept p50 60s")]);
    let child = command.arg("--json").arg(&to_json).spawn().expect("it starts");
    thread::sleep(Duration::from_secs(4));
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let report = json(&to_json);
    assert!(report["search"]["steps"].as_array().map(Vec::len) > Some(1), "{report}");
    assert!(report["search"]["highest"].as_f64() >= Some(300.0), "{report}");
    assert!(count(&report, "/audit/seen") > 500, "{report}");
}

pub(crate) fn interrupt(running: &std::process::Child) {
    let stop = Command::new("kill").args(["-INT", &running.id().to_string()]).status();
    assert!(stop.expect("kill is there").success());
}

#[test]
fn a_breach_fails_with_examples_and_keeps_the_receipts() {
    let fake = Fake::start(Some(Plant::WrongBalance));
    let folder = TempDir::new().expect("a folder");
    let receipts = folder.path().join("receipts");
    let output = run(&format!("{} --receipts", load(&fake.url)), &[&receipts]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("Audit: FAIL") && shown.contains("F6  ledger/org:load-"), "{shown}");
    let again =
        run(&format!("audit --target {} --audit-patience 2s --receipts", fake.url), &[&receipts]);
    let shown = text(&again.stdout);
    assert_eq!(again.status.code(), Some(1), "{shown}");
    assert!(shown.contains("Audit: FAIL") && shown.contains("F6  ledger/org:load-"), "{shown}");
}

#[test]
fn commands_with_lost_answers_are_sent_again_and_count_once() {
    let (fake, folder) = (Fake::start(None), TempDir::new().expect("a folder"));
    let proxy = Proxy::start(&fake.url, 20);
    let to_json = folder.path().join("r.json");
    let output = run(&format!("{} --json", load(&proxy.url)), &[&to_json]);
    assert!(output.status.success(), "{output:?}");
    let report = json(&to_json);
    assert!(proxy.cut() > 10, "{}", proxy.cut());
    assert!(count(&report, "/counts/retries/connection") > 5, "{report}");
    assert_eq!(count(&report, "/counts/accepted"), 300);
    let errors: u64 =
        report["timeline"].as_array().expect("a list").iter().map(|at| count(at, "/errors")).sum();
    assert!(errors > 5, "{report}");
    // A command whose 202 was lost has two entries.
    assert!(count(&report, "/audit/entries") > count(&report, "/audit/receipts"), "{report}");
}

#[test]
fn a_load_that_ctrl_c_ends_is_audited_and_reported() {
    let (fake, folder) = (Fake::start(None), TempDir::new().expect("a folder"));
    let to_json = folder.path().join("r.json");
    let line = format!("{} --json", load(&fake.url).replace("--duration 1s", "--duration 300s"));
    let mut running = loadtest(&line, &[&to_json]);
    let running = running.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    thread::sleep(Duration::from_secs(2));
    interrupt(&running);
    let output = running.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let report = json(&to_json);
    assert_eq!(report["interrupted"], true);
    let accepted = count(&report, "/counts/accepted");
    assert!((50..5_000).contains(&accepted), "{report}");
    assert_eq!(count(&report, "/audit/receipts"), accepted + 15);
    assert!(text(&output.stdout).contains("ended early"));
}

#[test]
fn a_token_is_sent_and_never_shown() {
    let (fake, folder) = (Fake::start(None), TempDir::new().expect("a folder"));
    for by_flag in [true, false] {
        let proxy = Proxy::start(&fake.url, 0);
        let to_json = folder.path().join("r.json");
        let flag = if by_flag { "--token s3cret-1" } else { "" };
        let mut command = loadtest(&format!("{} {flag} --json", load(&proxy.url)), &[&to_json]);
        if !by_flag {
            command.env("FANFOLD_TOKEN", "s3cret-1");
        }
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{output:?}");
        let heard = proxy.heard().to_lowercase();
        let (requests, tokens) = (
            heard.matches("\r\nhost: ").count(),
            heard.matches("authorization: bearer s3cret-1").count(),
        );
        assert!(requests > 10 && requests.abs_diff(tokens) <= 1, "{requests} requests, {tokens}");
        let all = text(&output.stdout) + &text(&output.stderr) + &json(&to_json).to_string();
        assert!(!all.contains("s3cret"), "{all}");
    }
}

#[test]
fn an_impossible_task_is_an_error_with_its_reason() {
    for (line, expected) in [
        ("run --target http://127.0.0.1:1 --rate 1 --ready-within 0s", "does not answer"),
        ("run --target nowhere --rate 1", "must begin with http"),
        ("run --target http://127.0.0.1:1 --rate 1 --batch 501", "--batch 501 is more"),
        (
            "audit --target http://127.0.0.1:1 --ready-within 0s --receipts nowhere",
            "does not answer",
        ),
    ] {
        let output = run(line, &[]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(stderr.contains(expected), "{line}: {stderr}");
    }
    let fake = Fake::start(None);
    let output = run(&format!("audit --target {} --receipts nowhere", fake.url), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot read the receipts in nowhere"), "{output:?}");
}
