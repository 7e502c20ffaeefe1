//! Crashes right after the effects that a normal load does not cause, on the ports alone.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::faults::{RARE_EFFECTS, before_death};
use crate::limit::Limit;
use crate::store::Store;
use crate::tables::{StoredDeadLetters, StoredParked, StoredView};
use bytes::Bytes;
use fanfold::{LogId, Seq, Time};
use fanfold_pipeline::ports::{DeadLetters, ParkedItem, ParkedTable, ParkedView, ViewTable};

use super::child;
use super::durable::open;

const VIEW: &str = "view-balances-v1";
const ROOMY: Limit = Limit { items: 100, bytes: 1 << 20 };

fn log() -> LogId {
    "ledger/org:acme".parse().expect("a log")
}

fn view_table(store: &Arc<Store>) -> StoredView {
    StoredView::new(store.clone(), store.view(VIEW).expect("its table"))
}

/// The state on disk: seqs of parked commands, number of dead letters, the cursor's `behind`, and whether the view is
/// parked.
#[derive(Debug, PartialEq)]
struct Found {
    parked: Vec<u64>,
    letters: usize,
    behind: Option<u64>,
    is_parked: bool,
}

async fn find(folder: &Path) -> Found {
    let store = open(folder);
    let parked = StoredParked::new(store.clone()).list(&log(), Seq(0), 10).await;
    let letters = StoredDeadLetters::new(store.clone(), ROOMY).list("balances", None, 10).await;
    let cursor = view_table(&store).cursor(&log()).await.expect("a cursor").unwrap_or_default();
    Found {
        parked: parked.expect("a list").iter().map(|item| item.seq.0).collect(),
        letters: letters.expect("a list").len(),
        behind: cursor.behind.map(|seq| seq.0),
        is_parked: cursor.parked.is_some(),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in a child that crashes"]
async fn all_rare_effects() {
    let Some(folder) = child::folder() else { return };
    let store = open(&folder);
    let made = store.clone();
    before_death(move || made.checkpoint(0).expect("a checkpoint"));
    let (log, parked, view) = (log(), StoredParked::new(store.clone()), view_table(&store));
    let letters = StoredDeadLetters::new(store.clone(), ROOMY);
    // Makes the checkpoints that the durable calls below wait for.
    let checkpoints = |n: usize| {
        let store = store.clone();
        thread::spawn(move || {
            for _ in 0..n {
                thread::sleep(Duration::from_millis(50));
                store.checkpoint(0).expect("a checkpoint");
            }
        })
    };
    let item = ParkedItem { seq: Seq(7), identity: "ann 1".to_owned(), body: Bytes::from("{}") };
    let saving = checkpoints(3);
    parked.park(&log, &item).await.expect("it is parked");
    saving.join().expect("they were made");
    parked.remove(&log, Seq(7), "ann 1").await.expect("it is removed");
    letters.push("balances", Bytes::from("[]"));
    store.checkpoint(0).expect("a checkpoint");
    letters.remove("balances", 0).await.expect("it is removed");
    view.mark_behind(&log, Seq(9)).await.expect("it is marked");
    let _saving = checkpoints(1_000);
    let reason = ParkedView { seq: Seq(1), reason: "it panicked".to_owned(), at: Time(1) };
    view.park(&log, Seq(0), &reason).await.expect("it is parked");
}

#[tokio::test]
async fn durable_effects_survive_a_crash() {
    let none = || Found { parked: vec![], letters: 0, behind: None, is_parked: false };
    let table = [
        // A parked command is on disk before its record counts as finished.
        ("parked.park", Found { parked: vec![7], ..none() }, Found { parked: vec![7], ..none() }),
        // A removed command may reappear: the processor recognises it as done.
        ("parked.remove", Found { parked: vec![7], ..none() }, none()),
        // A dead letter may be lost: the cursor has not passed its commits, so the sweep finds them in the journal.
        ("dead_letters.push", Found { parked: vec![7], ..none() }, Found { letters: 1, ..none() }),
        ("dead_letters.remove", Found { letters: 1, ..none() }, none()),
        ("view.mark_behind", Found { letters: 1, ..none() }, Found { behind: Some(9), ..none() }),
        (
            "view.park",
            Found { behind: Some(9), is_parked: true, ..none() },
            Found { behind: Some(9), is_parked: true, ..none() },
        ),
    ];
    let mut covered: Vec<&str> = table.iter().map(|(effect, ..)| *effect).collect();
    let mut all = RARE_EFFECTS.to_vec();
    covered.sort_unstable();
    all.sort_unstable();
    assert_eq!(covered, all);
    for (effect, lost, saved) in table {
        for (expected, checkpoint_first) in [(lost, false), (saved, true)] {
            let folder = child::quick_folder();
            let point = format!("{effect}:1");
            let mut env = vec![("FANFOLD_DIE_AFTER", point.as_str())];
            env.extend(checkpoint_first.then_some(("FANFOLD_CHECKPOINT_FIRST", "1")));
            let output = child::run("tests::rare_effects::all_rare_effects", folder.path(), &env);
            assert!(!output.status.success(), "{effect} was not reached: {output:?}");
            let found = find(folder.path()).await;
            assert_eq!(found, expected, "{effect}, a checkpoint first: {checkpoint_first}");
        }
    }
}
