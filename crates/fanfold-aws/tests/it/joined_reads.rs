//! Reads that begin at the same time share a call, but not the errors of other keys.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use fanfold::{LogId, RowKey, Seq};
use fanfold_aws::dynamo::DynamoViewTable;
use fanfold_pipeline::ports::{StoredRow, Unavailable, ViewTable};
use futures::future::join_all;
use futures::{FutureExt, pin_mut};

use crate::dynamo::Dynamo;
use crate::wire::Trouble;

const ALWAYS: usize = usize::MAX;

fn log(i: u64) -> LogId {
    format!("ledger/org:{i:03}").parse().expect("a log")
}

fn key() -> RowKey {
    RowKey::new("cash").expect("a key")
}

/// A view in which each log below `logs` has a row and a cursor whose seq is the log's number plus 1.
async fn view(dynamo: &Dynamo, logs: u64) -> (DynamoViewTable, String) {
    let table = dynamo.view();
    let view = DynamoViewTable::new(&dynamo.aws, &table);
    for i in 0..logs {
        let row = StoredRow { seq: Seq(i + 1), body: Some(Bytes::from("{}")), expires: None };
        view.put_row(&log(i), &key(), &row, None).await.expect("a row");
        view.move_cursor(&log(i), Seq(i + 1)).await.expect("a cursor");
    }
    dynamo.wire.seen();
    (view, table)
}

async fn seq_of_row(view: &DynamoViewTable, i: u64) -> Result<Option<Seq>, Unavailable> {
    let row = view.rows(&log(i), &[key()]).await?.pop().expect("an answer for the key");
    Ok(row.map(|row| row.seq))
}

#[tokio::test]
async fn reads_at_the_same_time_are_one_call() {
    let dynamo = Dynamo::start().await;
    let (view, table) = view(&dynamo, 30).await;
    let count = |calls: &[&str]| {
        let seen = dynamo.wire.seen();
        let seen: Vec<&str> = seen.iter().map(|call| call.operation.as_str()).collect();
        assert_eq!(seen, calls);
    };

    let before = dynamo.aws.meter.snapshot();
    let asked: Vec<u64> = (0..40).chain([7, 7]).collect();
    let rows = join_all(asked.iter().map(|i| seq_of_row(&view, *i))).await;
    for (i, row) in asked.iter().zip(rows) {
        assert_eq!(row, Ok((*i < 30).then_some(Seq(i + 1))), "of log {i}");
    }
    count(&["BatchGetItem"]);
    let spent = dynamo.aws.meter.snapshot() - &before;
    assert_eq!(spent.of(&table).read, 40.0, "a unit for each key, and none for a repeated one");

    // Cursors and rows together, more than a call takes.
    let cursors = join_all((0..150).map(async |i| view.cursor(&log(i)).await));
    let rows = join_all((0..10).map(|i| seq_of_row(&view, i)));
    let (cursors, rows) = futures::join!(cursors, rows);
    let cursors = cursors.into_iter().map(|cursor| cursor.expect("a read").map(|at| at.seq));
    assert!(cursors.eq((0..150).map(|i| (i < 30).then_some(Seq(i + 1)))));
    assert!(rows.into_iter().eq((0..10).map(|i| Ok(Some(Seq(i + 1))))));
    count(&["BatchGetItem", "BatchGetItem"]);

    // Reads one after another are not joined.
    for i in 0..2 {
        assert_eq!(seq_of_row(&view, i).await, Ok(Some(Seq(i + 1))));
    }
    count(&["GetItem", "GetItem"]);
}

/// A throttled key concerns one log, and neither stops nor delays the others (F7).
#[tokio::test]
async fn a_key_that_stays_unprocessed_fails_only_its_own_reads() {
    let dynamo = Dynamo::start().await;
    let (view, table) = view(&dynamo, 10).await;
    dynamo.wire.trouble("BatchGetItem", &table, 1, Trouble::OnlyKeys(7));
    dynamo.wire.trouble("BatchGetItem", &table, ALWAYS, Trouble::OnlyKeys(0));
    let throttled = Trouble::Answer(400, "ProvisionedThroughputExceededException");
    dynamo.wire.trouble("GetItem", &table, ALWAYS, throttled);
    let calls = AtomicUsize::new(0);
    let rows = join_all((0..10).map(async |i| {
        let row = seq_of_row(&view, i).await;
        let calls = calls.fetch_add(dynamo.wire.seen().len(), Ordering::Relaxed);
        (row, calls)
    }));
    let rows = rows.await;
    let (read, throttled): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(row, _)| row.is_ok());
    assert_eq!((read.len(), throttled.len()), (7, 3));
    for (error, _) in throttled {
        assert!(matches!(error, Err(Unavailable::Throttled { .. })), "{error:?}");
    }
    // The first read that returned has counted the only call.
    let before = read.iter().map(|(_, calls)| *calls).collect::<BTreeSet<_>>();
    assert_eq!(before, BTreeSet::from([0, 1]), "a read waits for retries of others");
}

/// The read that reads for the others may be dropped, before its call or during it.
#[tokio::test]
async fn reads_are_made_again_if_the_one_that_reads_is_dropped() {
    let dynamo = Dynamo::start().await;
    let (view, table) = view(&dynamo, 3).await;
    for reads in [false, true] {
        let mut first = Box::pin(seq_of_row(&view, 0));
        let others = join_all([1, 2].map(|i| seq_of_row(&view, i)));
        pin_mut!(others);
        assert!(first.as_mut().now_or_never().is_none(), "the first read does not let others join");
        assert!(others.as_mut().now_or_never().is_none(), "the others do not wait for the first");
        if reads {
            dynamo.wire.trouble("BatchGetItem", &table, 1, Trouble::LoseRequest);
            assert!(first.as_mut().now_or_never().is_none(), "the first read waits for its answer");
        }
        assert_eq!(dynamo.wire.count("BatchGetItem", &table), usize::from(reads));
        drop(first);
        assert_eq!(others.await, [Ok(Some(Seq(2))), Ok(Some(Seq(3)))]);
        assert_eq!(dynamo.wire.count("BatchGetItem", &table), 1, "one reads for the other");
    }
}
