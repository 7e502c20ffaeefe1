//! Backups of an engine under load: everything that was acknowledged before one is in it, and what is in
//! it is a prefix of each log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::backup::BackupState;
use crate::config::Machine;
use crate::disk::{FileDisk, MemoryDisk};
use crate::{Config, Engine};
use fanfold::entry::Entry;
use fanfold::{LogId, Seq};
use fanfold_pipeline::doctor::Depth;
use tokio::time::sleep;

use super::child::quick_folder;
use super::engine::{config, request, send};

const ORGS: u64 = 12;
const ROUNDS: usize = 4;

fn log(org: u64) -> LogId {
    format!("ledger/org:{org}").parse().expect("a log")
}

async fn entries(engine: &Engine, org: u64) -> Vec<Entry> {
    let mut all = Vec::new();
    loop {
        let from = Seq(all.len() as u64 + 1);
        let page = engine.reads().entries(&log(org), from, 1_000).await.expect("it answers");
        if page.entries.is_empty() {
            return all;
        }
        all.extend(page.entries);
    }
}

/// Opens an engine, and waits until it has recovered.
async fn open(machine: Machine, path: &Path) -> Engine {
    let engine = Engine::open_on(machine, Config { app: Some("ledger".into()), ..config() }, path);
    let engine = engine.expect("it opens");
    assert!(engine.recovered().await);
    engine
}

async fn check(machine: Machine, data: &Path, place: &Path) {
    let engine = Arc::new(open(machine.clone(), data).await);
    let acknowledged: Arc<Vec<AtomicU64>> =
        Arc::new((0..ORGS).map(|_| AtomicU64::new(0)).collect());
    let is_over = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..ORGS)
        .map(|org| {
            let (engine, acknowledged) = (engine.clone(), acknowledged.clone());
            let is_over = is_over.clone();
            tokio::spawn(async move {
                let mut id = 0;
                while !is_over.load(Ordering::Relaxed) {
                    id += 1;
                    let (command, data) = match id {
                        1 => ("open", r#"{"account":"cash"}"#),
                        _ => ("deposit", r#"{"account":"cash","amount":1}"#),
                    };
                    let sent = send(&engine, &[request(&org.to_string(), id, command, data)]).await;
                    for receipt in sent {
                        let seq = receipt.expect("acceptance goes on").seq;
                        acknowledged[org as usize].store(seq.0, Ordering::SeqCst);
                    }
                    sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();

    let backups = engine.backups().expect("it is durable").clone();
    let mut made = Vec::new();
    for round in 0..ROUNDS {
        sleep(Duration::from_millis(150 * (round as u64 + 1))).await;
        let before: Vec<u64> = acknowledged.iter().map(|seq| seq.load(Ordering::SeqCst)).collect();
        let path = place.join(format!("backup-{round}"));
        backups.begin(&path, None).expect("it begins");
        let second = backups.begin(&place.join("second"), None).expect_err("one at a time");
        assert!(second.to_string().contains("is under way"), "{second}");
        let status = loop {
            let status = backups.last().expect("a backup");
            if status.state != BackupState::Running {
                break status;
            }
            sleep(Duration::from_millis(2)).await;
        };
        assert_eq!(status.state, BackupState::Complete);
        made.push((path, before, status));
    }
    is_over.store(true, Ordering::Relaxed);
    for load in load {
        load.await.expect("it ends");
    }
    let mut source = Vec::new();
    for org in 0..ORGS {
        let last = Seq(acknowledged[org as usize].load(Ordering::SeqCst));
        engine.reads().entry(&log(org), last, 20_000).await.expect("it answers");
        source.push(entries(&engine, org).await);
    }
    let engine = Arc::into_inner(engine).expect("no other task has it");
    assert!(engine.shutdown().await);

    for (path, before, status) in made {
        let copy = open(machine.clone(), &path).await;
        let durable = copy.monitor().durable().expect("it has a folder");
        assert_eq!(durable.unclean_starts(), 0, "a backup is no crash");
        let mut found = 0;
        for org in 0..ORGS {
            let entries = entries(&copy, org).await;
            let least = before[org as usize] as usize;
            assert!(entries.len() >= least, "{org}: {} of {least}", entries.len());
            let all = &source[org as usize];
            assert_eq!(entries[..], all[..entries.len()], "a prefix of {org}");
            found += entries.len();
        }
        let page = copy.doctor().page(None, 100, Depth::All).await.expect("it answers");
        assert_eq!(page.logs.len(), ORGS as usize);
        for examined in page.logs {
            assert!(examined.findings.is_empty(), "{examined:?}");
        }
        // The copy is a folder like any other.
        let more = [request("0", 1_000_000, "deposit", r#"{"account":"cash","amount":1}"#)];
        send(&copy, &more).await[0].as_ref().expect("accepted");
        assert!(copy.shutdown().await);
        println!("{found} entries, {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_on_files_has_all_that_was_acknowledged_and_a_prefix_of_each_log() {
    let place = quick_folder();
    let machine = Machine { disk: Arc::new(FileDisk), has_watchdog: false, ..Machine::this() };
    check(machine, &place.path().join("data"), place.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_in_memory_has_all_that_was_acknowledged_and_a_prefix_of_each_log() {
    let disk = Arc::new(MemoryDisk::default());
    check(Machine { disk, ..Machine::in_memory() }, Path::new("/data"), Path::new("/")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_keeps_to_its_rate_and_ends_with_the_engine() {
    let place = quick_folder();
    let engine = open(Machine::this(), &place.path().join("data")).await;
    let open_one = |org: u64| request(&org.to_string(), 1, "open", r#"{"account":"cash"}"#);
    let requests: Vec<String> = (0..300).map(open_one).collect();
    for receipt in send(&engine, &requests).await {
        receipt.expect("accepted");
    }
    let backups = engine.backups().expect("it is durable").clone();
    let slow = std::num::NonZeroU64::new(10_000);
    let path = place.path().join("backup");
    backups.begin(&path, slow).expect("it begins");
    sleep(Duration::from_millis(800)).await;
    let status = backups.last().expect("a backup");
    assert_eq!(status.state, BackupState::Running, "{status:?}");
    assert!(engine.shutdown().await);
    let status = backups.last().expect("a backup");
    assert!(matches!(&status.state, BackupState::Failed(why) if why.contains("host stopped")));
    assert!(!path.exists(), "what it has written is removed");
    assert!(Engine::start(config()).expect("an engine").backups().is_none());
}
