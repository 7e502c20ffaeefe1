//! The conformance suite on files, with constant checkpoints: reads find items in all layers in
//! memory and in the tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::disk::FileDisk;
use crate::limit::Limit;
use crate::ports::Ports;
use crate::store::folder::Folder;
use crate::store::{Driver, Store};
use crate::tables::StoredDeadLetters;
use crate::{SystemEnv, TransitConfig};
use bytes::Bytes;
use fanfold_pipeline::conformance;
use tempfile::TempDir;

use super::conformance::{commands_conform, dead_letters_conform, waits_conform};

const VIEW: &str = "view-balances-v1";

/// Ports on a store in a temporary folder, with a thread that makes checkpoints.
struct Stored {
    ports: Ports,
    store: Arc<Store>,
    stop: Arc<AtomicBool>,
    checkpoints: Option<thread::JoinHandle<()>>,
    _folder: TempDir,
}

impl Stored {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::take(Arc::new(FileDisk), dir.path()).expect("a folder");
        let store = Store::open(folder, &[VIEW.to_owned()], Arc::new(SystemEnv), Driver::Loops);
        let store = Arc::new(store.expect("a store"));
        let views = BTreeMap::from([("v".to_owned(), VIEW.to_owned())]);
        let ports = Ports::new(&TransitConfig::default(), &views, &store, Arc::new(SystemEnv));
        let stop = Arc::new(AtomicBool::new(false));
        let checkpoints = {
            let (store, stop) = (store.clone(), stop.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    store.checkpoint(0).expect("a checkpoint");
                    thread::sleep(Duration::from_millis(1));
                }
            })
        };
        let ports = ports.expect("ports");
        Self { ports, store, stop, checkpoints: Some(checkpoints), _folder: dir }
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.checkpoints.take().map(thread::JoinHandle::join);
    }
}

#[tokio::test]
async fn commands() {
    let stored = Stored::new();
    let running = stored.ports.commands.clone();
    let running = tokio::spawn(async move { running.run().await });
    commands_conform(&stored.ports).await;
    stored.ports.commands.end();
    running.await.unwrap();
}

#[tokio::test]
async fn journal() {
    conformance::journal(&*Stored::new().ports.journal, "j").await;
}

/// Reading a log's tail during its first append must not leave an older tail in the cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cached_tail_never_goes_back() {
    use fanfold::{LogId, Seq, Time};
    use fanfold_pipeline::ports::{CommitItem, Journal, Nonce};
    let stored = Stored::new();
    let journal = stored.ports.journal.clone();
    for n in 0..300 {
        let log: LogId = format!("conformance/org:raced{n}").parse().unwrap();
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (journal, log) = (journal.clone(), log.clone());
                tokio::spawn(async move { Journal::tail(&*journal, &log).await })
            })
            .collect();
        let body = Bytes::from_static(b"[]");
        let commit = CommitItem { first: Seq(1), n: 1, at: Time(1), nonce: Nonce(n), body };
        Journal::append(&*journal, &log, &commit).await.unwrap();
        for reader in readers {
            reader.await.unwrap().unwrap();
        }
        assert_eq!(Journal::tail(&*journal, &log).await.unwrap(), Seq(1), "{log}");
    }
}

#[tokio::test]
async fn state() {
    conformance::state(&*Stored::new().ports.state, "s").await;
}

#[tokio::test]
async fn parked() {
    conformance::parked(&*Stored::new().ports.parked, "p").await;
}

#[tokio::test]
async fn view_table() {
    conformance::view_table(&*Stored::new().ports.views["v"], "v").await;
}

#[tokio::test]
async fn dead_letters() {
    dead_letters_conform(&Stored::new().ports).await;
}

#[tokio::test]
async fn dead_letters_are_bounded_and_the_oldest_are_dropped() {
    use fanfold_pipeline::ports::DeadLetters;
    let stored = Stored::new();
    let bound = Limit { items: 3, bytes: 100 };
    let letters = StoredDeadLetters::new(stored.store.clone(), bound);
    for n in 0..5_u8 {
        letters.push("balances", Bytes::from(vec![n; 10]));
        letters.push("others", Bytes::from(vec![n; 60]));
    }
    let left = |found: Vec<fanfold_pipeline::ports::DeadLetter>| -> Vec<(u64, u8)> {
        found.iter().map(|letter| (letter.id, letter.body[0])).collect()
    };
    assert_eq!(left(letters.list("balances", None, 10).await.unwrap()), [(2, 2), (3, 3), (4, 4)]);
    assert_eq!(left(letters.list("others", None, 10).await.unwrap()), [(4, 4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn waits() {
    waits_conform(&Stored::new().ports, Arc::new(SystemEnv)).await;
}
