//! The costs that the adapters' docs state, compared with the meter.

use std::sync::Arc;

use bytes::Bytes;
use fanfold::host::body::lease::Lease;
use fanfold::{DocumentId, LogId, RowKey, Seq, StateKey, Time};
use fanfold_aws::dynamo::{
    DynamoCommands, DynamoJournal, DynamoParked, DynamoState, DynamoSweepPosition, DynamoViewTable,
};
use fanfold_aws::{PollingWaits, SystemEnv};
use fanfold_pipeline::ports::{
    Append, AppendError, Commands, CommitItem, Journal, JournalAppendError, Nonce, ParkedItem,
    ParkedTable, ParkedView, RowRange, State, StateItem, StoredRow, Token, ViewTable, Waits,
};

use crate::dynamo::Dynamo;

fn log() -> LogId {
    "ledger/org:acme".parse().expect("a log")
}

fn body(bytes: usize) -> Bytes {
    vec![b'x'; bytes].into()
}

/// Small enough that an item with its other attributes is below one write unit.
const SMALL: usize = 800;
/// An item with this body and its other attributes takes four write units and one read unit.
const LARGE: usize = 4_000;

/// Read and write units, and failed conditions, on all tables.
async fn cost<T>(dynamo: &Dynamo, call: impl Future<Output = T>) -> ((f64, f64, f64), T) {
    let before = dynamo.aws.meter.snapshot();
    let answer = call.await;
    let spent = (dynamo.aws.meter.snapshot() - &before).total();
    ((spent.read, spent.write, spent.conflicts), answer)
}

/// Like [`cost`], of a call that succeeds.
async fn costs<T, E: std::fmt::Debug>(
    dynamo: &Dynamo,
    call: impl Future<Output = Result<T, E>>,
) -> (f64, f64) {
    let ((read, write, conflicts), answer) = cost(dynamo, call).await;
    answer.expect("an answer");
    assert_eq!(conflicts, 0.0);
    (read, write)
}

#[tokio::test]
async fn slots_cost_as_documented() {
    let dynamo = Dynamo::start().await;
    let commands = DynamoCommands::new(&dynamo.aws, dynamo.tables.commands());
    let append = |token, bytes| Append {
        n: 1,
        body: body(bytes),
        at: Time(1_795_401_660_123),
        token: Token(token),
    };
    for (token, bytes, write, why) in [
        (1, SMALL, 2.0, "a new log has an entry in the catalogue"),
        (2, SMALL, 1.0, "the entry in the catalogue does not change"),
        (3, LARGE, 4.0, "a unit per KB, rounded up"),
        (4, SMALL, 4.0, "the larger of before and after"),
        (5, SMALL, 1.0, "both are small"),
    ] {
        let cost = costs(&dynamo, commands.append(&log(), append(token, bytes))).await;
        assert_eq!(cost, (0.0, write), "{why}");
    }
    let (cost, refused) = cost(&dynamo, commands.append(&log(), append(5, SMALL))).await;
    assert!(matches!(refused, Err(AppendError::Refused(_))));
    assert_eq!(cost, (0.0, 0.0, 1.0), "a failed condition is counted apart");
    assert_eq!(costs(&dynamo, commands.slot(&log())).await, (1.0, 0.0));
    let walk = costs(&dynamo, commands.catalogue(None, 1_000)).await;
    assert_eq!(walk, (32.0, 0.0), "half a unit for each of 64 buckets");
}

fn commit(first: u64, n: u64, bytes: usize) -> CommitItem {
    let at = Time(1_795_401_660_123);
    CommitItem { first: Seq(first), n, at, nonce: Nonce(first.into()), body: body(bytes) }
}

#[tokio::test]
async fn commits_cost_as_documented() {
    let dynamo = Dynamo::start().await;
    let new = || DynamoJournal::new(&dynamo.aws, dynamo.tables.journal());
    let journal = new();
    assert_eq!(costs(&dynamo, journal.tail(&log())).await, (1.0, 0.0), "nothing is there");
    assert_eq!(costs(&dynamo, journal.read(&log(), Seq(1), 100)).await, (1.0, 0.0));
    assert_eq!(costs(&dynamo, journal.append(&log(), &commit(1, 2, SMALL))).await, (0.0, 1.0));
    assert_eq!(costs(&dynamo, journal.append(&log(), &commit(3, 9, 99_000))).await, (0.0, 97.0));
    let (cost, exists) = cost(&dynamo, journal.append(&log(), &commit(3, 1, SMALL))).await;
    assert!(matches!(exists, Err(JournalAppendError::Exists(_))));
    assert_eq!(cost, (0.0, 0.0, 1.0), "a failed condition is counted apart");

    // A process that has written or read the last commit does not pay for it again.
    for (from, units, why) in [(12, 1.0, "from the end"), (40, 2.0, "from beyond it")] {
        let read = costs(&dynamo, journal.read(&log(), Seq(from), 100)).await;
        assert_eq!(read, (units, 0.0), "{why}");
    }
    assert_eq!(costs(&dynamo, journal.tail(&log())).await, (1.0, 0.0));
    for (from, limit, units, why) in [
        (1, 100, 25.0, "all: 100 KB"),
        (3, 100, 25.0, "from where a commit begins"),
        (4, 100, 26.0, "from inside it: a query for the commit before, and the commit"),
        (11, 100, 26.0, "from its last entry"),
        (12, 100, 26.0, "from the end, which this process does not know"),
        (1, 1, 25.0, "one commit, and the next, which shows that there are more"),
    ] {
        let cost = costs(&dynamo, new().read(&log(), Seq(from), limit)).await;
        assert_eq!(cost, (units, 0.0), "{why}");
    }
    assert_eq!(costs(&dynamo, new().tail(&log())).await, (25.0, 0.0), "the last commit");
}

/// Neither a warm nor a cold processor reads more of a longer log.
#[tokio::test]
async fn the_cost_of_reads_does_not_depend_on_a_logs_length() {
    let dynamo = Dynamo::start().await;
    let journal = DynamoJournal::new(&dynamo.aws, dynamo.tables.journal());
    for first in 1..=300 {
        let append = costs(&dynamo, journal.append(&log(), &commit(first, 1, SMALL))).await;
        assert_eq!(append, (0.0, 1.0));
        if first % 100 == 0 {
            let cold = DynamoJournal::new(&dynamo.aws, dynamo.tables.journal());
            assert_eq!(costs(&dynamo, cold.read(&log(), Seq(first - 2), 100)).await, (1.0, 0.0));
            assert_eq!(costs(&dynamo, cold.read(&log(), Seq(first + 1), 100)).await, (1.0, 0.0));
            assert_eq!(costs(&dynamo, journal.tail(&log())).await, (1.0, 0.0));
        }
    }
}

/// The pauses of a wait grow, too.
#[tokio::test]
async fn a_wait_reads_no_commit_twice() {
    let dynamo = Dynamo::start().await;
    let journal = Arc::new(DynamoJournal::new(&dynamo.aws, dynamo.tables.journal()));
    let elsewhere = DynamoJournal::new(&dynamo.aws, dynamo.tables.journal());
    elsewhere.append(&log(), &commit(1, 1, 99_000)).await.expect("an append");
    let waits = PollingWaits::new(journal, Arc::new(SystemEnv));
    let (spent, ()) = cost(&dynamo, waits.entry(&log(), Seq(2), 500)).await;
    // Reads at 0, 50, 150, 350 and 500 ms, of which the first reads the commit.
    assert!((26.0..=29.0).contains(&spent.0), "{spent:?}");
    let (spent, ()) = cost(&dynamo, waits.entry(&log(), Seq(2), 0)).await;
    assert_eq!(spent.0, 1.0, "the next wait does not read the commit either");
}

#[tokio::test]
async fn state_costs_as_documented() {
    let dynamo = Dynamo::start().await;
    let state = DynamoState::new(&dynamo.aws, dynamo.tables.state());
    let document = |i: u64| DocumentId::new(format!("d{i}")).expect("a document");
    let keys: Vec<StateKey> = (1..=3).map(|i| StateKey::document(1, &document(i))).collect();
    for (key, bytes, write) in [(&keys[0], SMALL, 1.0), (&keys[1], LARGE, 4.0)] {
        let item = StateItem { seq: Seq(1), body: body(bytes) };
        assert_eq!(costs(&dynamo, state.put(&log(), key, &item)).await, (0.0, write));
    }
    assert_eq!(costs(&dynamo, state.get(&log(), &keys[..1])).await, (1.0, 0.0));
    assert_eq!(costs(&dynamo, state.get(&log(), &keys[2..])).await, (1.0, 0.0), "absent: a unit");
    assert_eq!(costs(&dynamo, state.get(&log(), &keys)).await, (3.0, 0.0), "each key is billed");
    assert_eq!(costs(&dynamo, state.get(&log(), &[])).await, (0.0, 0.0));
    let positions = DynamoSweepPosition::new(&dynamo.aws, dynamo.tables.state());
    assert_eq!(costs(&dynamo, positions.put(None)).await, (0.0, 1.0));
    assert_eq!(costs(&dynamo, positions.get()).await, (1.0, 0.0));
}

#[tokio::test]
async fn parked_items_cost_as_documented() {
    let dynamo = Dynamo::start().await;
    let parked = DynamoParked::new(&dynamo.aws, dynamo.tables.parked());
    assert_eq!(costs(&dynamo, parked.list(&log(), (Seq(1), ""), 100)).await, (1.0, 0.0));
    let item = ParkedItem { seq: Seq(1), identity: "ann#1".to_owned(), body: body(SMALL) };
    assert_eq!(costs(&dynamo, parked.park(&log(), &item)).await, (0.0, 1.0));
    assert_eq!(costs(&dynamo, parked.list(&log(), (Seq(1), ""), 100)).await, (1.0, 0.0));
    assert_eq!(costs(&dynamo, parked.remove(&log(), Seq(1), "ann#1")).await, (0.0, 1.0));
    assert_eq!(costs(&dynamo, parked.remove(&log(), Seq(1), "ann#1")).await, (0.0, 1.0));
}

#[tokio::test]
async fn views_cost_as_documented() {
    let dynamo = Dynamo::start().await;
    let table = DynamoViewTable::new(&dynamo.aws, dynamo.view());
    assert_eq!(costs(&dynamo, table.cursor(&log())).await, (1.0, 0.0));
    assert_eq!(costs(&dynamo, table.move_cursor(&log(), Seq(1))).await, (0.0, 1.0));
    assert_eq!(costs(&dynamo, table.mark_behind(&log(), Seq(9))).await, (0.0, 1.0));
    let lease = Lease { attempts: 1, at: Time(1), until: Time(2), owner: 3 };
    for before in [None, Some(lease)] {
        let log = log();
        let noted = table.replace_lease(&log, before.as_ref(), &lease);
        assert_eq!(costs(&dynamo, noted).await, (0.0, 1.0));
    }
    let why = ParkedView {
        seq: Seq(2),
        reason: "a test".to_owned(),
        at: Time(1),
        build: None,
        rebuild: None,
    };
    let again = costs(&dynamo, table.park(&log(), Seq(1), &why)).await;
    assert_eq!(again, (0.0, 2.0), "one of them for the index");
    assert_eq!(costs(&dynamo, table.cursor(&log())).await, (1.0, 0.0));
    let (spent, _) = cost(&dynamo, table.move_cursor(&log(), Seq(2))).await;
    assert_eq!(spent, (0.0, 0.0, 1.0), "the view is parked");

    let key = |i: u64| -> RowKey { format!("row/{i:03}").parse().expect("a key") };
    let row = StoredRow { seq: Seq(1), body: Some(body(SMALL)), expires: None };
    for i in 0..50 {
        let put = costs(&dynamo, table.put_row(&log(), &key(i), &row, None)).await;
        assert_eq!(put, (0.0, 1.0));
    }
    let keys: Vec<RowKey> = (48..52).map(key).collect();
    assert_eq!(costs(&dynamo, table.rows(&log(), &keys)).await, (4.0, 0.0));
    for (limit, units) in [(3, 1.0), (49, 11.0), (50, 11.0), (1_000, 11.0)] {
        let range = RowRange { limit, ..RowRange::default() };
        assert_eq!(costs(&dynamo, table.scan(&log(), &range)).await, (units, 0.0), "{limit}");
    }
}
