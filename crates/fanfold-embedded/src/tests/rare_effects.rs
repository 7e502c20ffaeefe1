//! Crashes right after calls that a normal load does not make, on the ports alone.

use std::path::Path;
use std::sync::Arc;

use crate::SystemEnv;
use crate::disk::MemoryDisk;
use crate::limit::Limit;
use crate::store::folder::Folder;
use crate::store::{Driver, Store};
use crate::tables::{StoredDeadLetters, StoredParked, StoredView};
use bytes::Bytes;
use fanfold::{LogId, Seq, Time};
use fanfold_pipeline::ports::{
    DeadLetters, ParkedItem, ParkedTable, ParkedView, Unavailable, ViewTable,
};
use futures::future::BoxFuture;
use futures::poll;

const VIEW: &str = "view-balances-v1";
const ROOMY: Limit = Limit { items: 100, bytes: 1 << 20 };

fn log() -> LogId {
    "ledger/org:acme".parse().expect("a log")
}

fn open(disk: &MemoryDisk) -> Arc<Store> {
    let folder = Folder::take(Arc::new(disk.clone()), Path::new("/data")).expect("a folder");
    let store = Store::open(folder, &[VIEW.to_owned()], Arc::new(SystemEnv), Driver::Loops);
    Arc::new(store.expect("a store"))
}

fn view_table(store: &Arc<Store>) -> StoredView {
    StoredView::new(store.clone(), store.view(VIEW).expect("its table"))
}

/// The state on disk: seqs of parked commands, number of dead letters, the cursor's `behind`, and
/// whether the view is parked.
type Found = (Vec<u64>, usize, Option<u64>, bool);

/// Reads the state as a new process would.
async fn find(disk: &MemoryDisk) -> Found {
    let store = open(&disk.copied());
    let parked = StoredParked::new(store.clone()).list(&log(), (Seq(0), ""), 10).await;
    let letters = StoredDeadLetters::new(store.clone(), ROOMY).list("balances", None, 10).await;
    let cursor = view_table(&store).cursor(&log()).await.expect("a cursor").unwrap_or_default();
    (
        parked.expect("a list").iter().map(|item| item.seq.0).collect(),
        letters.expect("a list").len(),
        cursor.behind.map(|seq| seq.0),
        cursor.parked.is_some(),
    )
}

#[tokio::test]
async fn durable_effects_survive_a_crash() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    let (log, parked, view) = (log(), StoredParked::new(store.clone()), view_table(&store));
    let letters = StoredDeadLetters::new(store.clone(), ROOMY);
    let checkpoint = || store.checkpoint(0).expect("a checkpoint");
    let saved = async |mut call: BoxFuture<'_, Result<(), Unavailable>>| {
        assert!(poll!(&mut call).is_pending(), "it returns before it is durable");
        checkpoint();
        call.await.expect("it is done");
    };
    assert_eq!(find(&disk).await, (vec![], 0, None, false));

    // A parked command is on disk before its record counts as finished.
    let item = ParkedItem { seq: Seq(7), identity: "ann 1".to_owned(), body: Bytes::from("{}") };
    saved(parked.park(&log, &item)).await;
    assert_eq!(find(&disk).await, (vec![7], 0, None, false));

    // A removed command may reappear: the processor recognises it as done.
    parked.remove(&log, Seq(7), "ann 1").await.expect("it is removed");
    assert_eq!(find(&disk).await, (vec![7], 0, None, false));
    checkpoint();
    assert_eq!(find(&disk).await, (vec![], 0, None, false));

    // A dead letter may be lost: the cursor has not passed it, so the sweep reads the journal.
    letters.push("balances", Bytes::from("[]"));
    assert_eq!(find(&disk).await, (vec![], 0, None, false));
    checkpoint();
    assert_eq!(find(&disk).await, (vec![], 1, None, false));

    letters.remove("balances", 0).await.expect("it is removed");
    assert_eq!(find(&disk).await, (vec![], 1, None, false));
    checkpoint();
    assert_eq!(find(&disk).await, (vec![], 0, None, false));

    view.mark_behind(&log, Seq(9)).await.expect("it is marked");
    assert_eq!(find(&disk).await, (vec![], 0, None, false));
    checkpoint();
    assert_eq!(find(&disk).await, (vec![], 0, Some(9), false));

    let reason = ParkedView {
        seq: Seq(1),
        reason: "it panicked".to_owned(),
        at: Time(1),
        build: None,
        rebuild: None,
    };
    saved(view.park(&log, Seq(0), &reason)).await;
    assert_eq!(find(&disk).await, (vec![], 0, Some(9), true));
}
