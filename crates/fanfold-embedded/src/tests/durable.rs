//! The conformance suite on files, with constant checkpoints: reads find items in all layers in memory and in the
//! tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::SystemEnv;
use crate::commands::StoredCommands;
use crate::disk::FileDisk;
use crate::limit::Limit;
use crate::store::folder::Folder;
use crate::store::{Driver, Store};
use crate::tables::{StoredDeadLetters, StoredJournal, StoredParked, StoredState, StoredView};
use crate::waits::LocalWaits;
use bytes::Bytes;
use fanfold_pipeline::conformance;
use fanfold_pipeline::ports::{Append, Commands, Token};
use tempfile::TempDir;

use super::conformance::drained;

const ROOMY: Limit = Limit { items: 100_000, bytes: 1 << 30 };
const VIEW: &str = "view-balances-v1";

/// A store in a temporary folder, with a thread that makes checkpoints until it is dropped.
pub(crate) struct Stored {
    pub(crate) store: Arc<Store>,
    stop: Arc<AtomicBool>,
    checkpoints: Option<thread::JoinHandle<()>>,
    _folder: TempDir,
}

impl Stored {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(folder.path());
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
        Self { store, stop, checkpoints: Some(checkpoints), _folder: folder }
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.checkpoints.take().map(thread::JoinHandle::join);
    }
}

pub(crate) fn open(folder: &std::path::Path) -> Arc<Store> {
    let folder = Folder::take(Arc::new(FileDisk), folder).expect("a folder");
    let store = Store::open(folder, &[VIEW.to_owned()], Arc::new(SystemEnv), Driver::Loops);
    Arc::new(store.expect("a store"))
}

#[tokio::test]
async fn commands() {
    let stored = Stored::new();
    let commands =
        StoredCommands::open(stored.store.clone(), 3, ROOMY, Arc::new(SystemEnv)).unwrap();
    let commands = Arc::new(commands);
    let running = commands.clone();
    let running = tokio::spawn(async move { running.run().await });
    conformance::commands(&*commands, "c").await;
    conformance::catalogue(&*commands, "c").await;
    drained(commands.changes());
    conformance::changes(&*commands, "c", async || drained(commands.changes())).await;
    let log = "conformance/org:closed".parse().unwrap();
    assert!(!commands.close(&log).await.unwrap(), "no slot, nothing to close");
    let (body, at) = (Bytes::from_static(b"[]"), fanfold::Time(1));
    commands.append(&log, Append { n: 1, body, at, token: Token(1) }).await.unwrap();
    assert!(commands.close(&log).await.unwrap());
    conformance::closed_slot(&*commands, &log).await;
    commands.end();
    running.await.unwrap();
}

#[tokio::test]
async fn journal() {
    let stored = Stored::new();
    conformance::journal(&StoredJournal::new(stored.store.clone()), "j").await;
}

/// Reading a log's tail during its first append must not leave an older tail in the cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cached_tail_never_goes_back() {
    use fanfold::{LogId, Seq, Time};
    use fanfold_pipeline::ports::{CommitItem, Journal, Nonce};
    let stored = Stored::new();
    let journal = Arc::new(StoredJournal::new(stored.store.clone()));
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
    let stored = Stored::new();
    conformance::state(&StoredState::new(stored.store.clone()), "s").await;
}

#[tokio::test]
async fn parked() {
    let stored = Stored::new();
    conformance::parked(&StoredParked::new(stored.store.clone()), "p").await;
}

#[tokio::test]
async fn view_table() {
    let stored = Stored::new();
    let space = stored.store.view(VIEW).unwrap();
    conformance::view_table(&StoredView::new(stored.store.clone(), space), "v").await;
}

#[tokio::test]
async fn dead_letters() {
    let stored = Stored::new();
    let letters = StoredDeadLetters::new(stored.store.clone(), ROOMY);
    let kill = async |bodies: Vec<Bytes>| {
        bodies.into_iter().for_each(|body| letters.push("balances", body));
    };
    conformance::dead_letters_of_views(&letters, "balances", kill).await;
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
    let stored = Stored::new();
    let env = Arc::new(SystemEnv);
    let journal = Arc::new(StoredJournal::new(stored.store.clone()));
    let space = stored.store.view(VIEW).unwrap();
    let table = Arc::new(StoredView::new(stored.store.clone(), space));
    let waits = LocalWaits::new(env.clone(), journal.clone(), journal.waiters().clone()).with_view(
        "balances",
        table.clone(),
        table.waiters().clone(),
    );
    let ports = conformance::WaitsPorts {
        waits: &waits,
        journal: &*journal,
        view: "balances",
        table: &*table,
        env: &*env,
    };
    conformance::waits(&ports, "w").await;
}
