//! Many logs, each written once: the memory that they need is bounded.

use std::fs;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::{Config, Engine};
use fanfold::{Seq, Views};
use ledger::views::{Balances, Totals};

use super::child;
use super::engine::{balance, config, request};

/// The number of logs, unless `FANFOLD_LOGS` sets it.
const LOGS: u64 = 1_000_000;
const BATCH: u64 = 500;
/// The limits of caches, unsaved writes and data in transit, with the allocator's overhead.
const RESIDENT_KIB_MAX: u64 = 1_000 * 1024;
/// What the second half of the logs may add: filters and indexes of the tables, at most some
/// hundred bytes for each log. A cache that grew with the number of logs would need more.
const SECOND_HALF_KIB_MAX: u64 = 256 * 1024;

/// A value in KiB from this process's status in `/proc`.
fn kib(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("there is /proc");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Opens an account in each of these logs, again and again until all are accepted.
async fn open_accounts(engine: &Engine, logs: Range<u64>) {
    let org = |n: u64| request(&format!("org-{n}"), 1, "open", r#"{"account":"cash"}"#);
    let mut requests: Vec<String> = logs.map(org).collect();
    while !requests.is_empty() {
        let bytes: Vec<&[u8]> = requests.iter().map(String::as_bytes).collect();
        let answers = engine.ingest().ingest(&bytes).await;
        let answered = requests.into_iter().zip(answers);
        requests = answered.filter(|(_, answer)| answer.is_err()).map(|(r, _)| r).collect();
        if !requests.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn until_quiet(engine: &Engine) {
    let is_quiet = || {
        let status = engine.status();
        status.changes + status.records + status.notifications == 0
    };
    while !is_quiet() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// More logs than one run of a sweep visits.
const LOGS_OF_TWO_RUNS: u64 = 12_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_view_walks_over_all_logs_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    // No sweep but the first would come within this test.
    let config = |views| Config { views, sweep_ms: 3_600_000, ..config() };
    let engine =
        Engine::open(config(Views::new().with::<Totals>()), folder.path()).expect("an engine");
    open_accounts(&engine, 0..LOGS_OF_TWO_RUNS).await;
    until_quiet(&engine).await;
    assert!(engine.shutdown().await);
    // A sweep ignores what is younger than ten seconds.
    tokio::time::sleep(Duration::from_millis(10_500)).await;

    let views = Views::new().with::<Totals>().with::<Balances>();
    let engine = Engine::open(config(views), folder.path()).expect("an engine");
    let (began, (_, walked)) = (Instant::now(), engine.status().walked.remove(0));
    while walked.walks() == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} logs", walked.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for n in (0..LOGS_OF_TWO_RUNS).step_by(501).chain([LOGS_OF_TWO_RUNS - 1]) {
        assert_eq!(balance(&engine, &format!("org-{n}"), Seq(1)).await["balance"], 0, "org-{n}");
    }
    assert!(engine.shutdown().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in a child"]
async fn touch_many_logs() {
    let Some(folder) = child::folder() else { return };
    let logs = std::env::var("FANFOLD_LOGS").ok().and_then(|logs| logs.parse().ok());
    let logs = logs.unwrap_or(LOGS);
    let engine = Engine::open(config(), &folder).expect("an engine");
    let began = Instant::now();
    let mut at_half = 0;
    for first in (0..logs).step_by(BATCH as usize) {
        open_accounts(&engine, first..logs.min(first + BATCH)).await;
        if first < logs / 2 {
            at_half = kib("VmHWM");
        }
        if first % (logs / 10).max(BATCH) < BATCH {
            println!("{first} logs: {} MiB", kib("VmRSS") / 1024);
        }
    }
    until_quiet(&engine).await;
    println!("{logs} logs in {:?}, at most {} MiB", began.elapsed(), kib("VmHWM") / 1024);
    assert!(engine.shutdown().await);
    println!("resident KiB: {}", kib("VmHWM"));
    println!("second half KiB: {}", kib("VmHWM") - at_half);
}

#[test]
fn many_logs_need_bounded_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = child::run("tests::many_logs::touch_many_logs", folder.path());
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{output:?}");
    let number = |name: &str| -> u64 {
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        found.and_then(|kib| kib.parse().ok()).expect("it says so")
    };
    let (resident, second_half) = (number("resident KiB: "), number("second half KiB: "));
    assert!(resident < RESIDENT_KIB_MAX, "{resident} KiB");
    assert!(second_half < SECOND_HALF_KIB_MAX, "{second_half} KiB for the second half");
}
