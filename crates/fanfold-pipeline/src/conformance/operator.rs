//! [`OperatorParked`] and [`OperatorView`]: what waits, in all logs.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanfold::host::body::lease::Lease;
use fanfold::{LogId, RowKey, Seq, Time};

use super::cursors::{park_at, reason};
use super::{log, must, row_key};
use crate::calls::CallsMark;
use crate::ports::{
    Cursor, CursorMove, OperatorParked, OperatorView, ParkedItem, ParkedPosition, ParkedView,
    Rebuild, StoredRow,
};

/// The whole port of an empty parked table.
pub async fn operator_parked(port: &dyn OperatorParked, prefix: &str) {
    assert_eq!(scanned(port, 10).await, BTreeMap::new(), "an empty table");
    for text in ["", "x", "ledger/org:acme", "[]", "[1,2]"] {
        assert!(!port.is_position(&ParkedPosition(text.to_owned())), "`{text}` is no position");
    }
    let mut expected: BTreeMap<LogId, Vec<ParkedItem>> = BTreeMap::new();
    // Logs of which one begins with another, and names with a blank and the sign behind it.
    for name in ["scan", "scan b", "scan!", "scan-b", "scanned", "über"] {
        let log = log(prefix, name);
        for (seq, identity) in [(0, "attempt"), (2, "ann#3"), (10, "Bob#7"), (10, "ann/till 7#10")]
        {
            let body = Bytes::copy_from_slice(format!("{name} {seq} {identity}").as_bytes());
            let item = ParkedItem { seq: Seq(seq), identity: identity.to_owned(), body };
            must("parking", port.park(&log, &item).await);
            expected.entry(log.clone()).or_default().push(item);
        }
    }
    for limit in [1, 2, 3, 4, 5, 23, 24, 25, 1_000] {
        assert_eq!(scanned(port, limit).await, expected, "pages of {limit}");
    }
    let gone = log(prefix, "scan b");
    for ParkedItem { seq, identity, .. } in expected.remove(&gone).unwrap_or_default() {
        must("removing", port.remove(&gone, seq, &identity).await);
    }
    assert_eq!(scanned(port, 3).await, expected, "what was removed is not there");
}

/// All items, in pages. Within a log they are in its order.
async fn scanned(port: &dyn OperatorParked, limit: usize) -> BTreeMap<LogId, Vec<ParkedItem>> {
    let mut found: BTreeMap<LogId, Vec<ParkedItem>> = BTreeMap::new();
    let mut after: Option<ParkedPosition> = None;
    for _ in 0..1_000 {
        let page = must("a page of all logs", port.scan(after.as_ref(), limit).await);
        assert!(page.items.len() <= limit, "{} items, at most {limit}", page.items.len());
        for (log, item) in page.items {
            found.entry(log).or_default().push(item);
        }
        after = page.next;
        let Some(position) = &after else { return found };
        assert!(port.is_position(position), "{position:?} was in an answer");
    }
    panic!("the pages do not end");
}

/// The whole port of an empty table of a view.
pub async fn operator_view(port: &dyn OperatorView, prefix: &str) {
    parked_logs_are_listed(port, prefix).await;
    a_reason_is_replaced_with_the_cursor(port, prefix).await;
    rows_are_cleared_while_the_view_is_parked(port, prefix).await;
}

async fn cursor_of(port: &dyn OperatorView, log: &LogId) -> Cursor {
    must("reading a cursor", port.cursor(log).await).unwrap_or_default()
}

async fn a_reason_is_replaced_with_the_cursor(port: &dyn OperatorView, prefix: &str) {
    let log = log(prefix, "replaced");
    let replace = async |parked: &ParkedView, to, then: Option<&ParkedView>| {
        must("replacing a reason", port.replace_parked(&log, parked, Seq(to), then).await)
    };
    let (first, second) = (reason(5), reason(9));
    assert!(!replace(&first, 0, None).await, "there is no cursor");
    let lease = Lease { attempts: 2, at: Time(1_000), until: Time(61_000), owner: 7 };
    must("a lease", port.replace_lease(&log, None, &lease).await);
    must("marking a cursor as behind", port.mark_behind(&log, Seq(20)).await);
    must("moving a cursor", port.move_cursor(&log, Seq(4)).await);
    assert!(!replace(&first, 0, None).await, "the view is not parked");
    must("parking a view", port.park(&log, Seq(4), &first).await);
    let mut expected = Cursor {
        seq: Seq(4),
        behind: Some(Seq(20)),
        parked: Some(first.clone()),
        lease: Some(lease),
    };
    for other in [&second, &ParkedView { at: Time(1), ..first.clone() }] {
        assert!(!replace(other, 0, None).await, "it is parked for another reason");
        assert_eq!(cursor_of(port, &log).await, expected, "a refusal changes nothing");
    }
    let rebuild = Rebuild { parked: Some(CallsMark { at: Time(7), process: u64::MAX, calls: 3 }) };
    let rebuild = ParkedView { rebuild: Some(rebuild), build: None, ..second.clone() };
    assert!(replace(&first, 4, Some(&rebuild)).await, "the reason is another one");
    expected.parked = Some(rebuild.clone());
    assert_eq!(cursor_of(port, &log).await, expected, "the lease and `behind` stay");
    assert!(listed(port, 10).await.contains_key(&log), "it is listed as parked");
    assert!(replace(&rebuild, 2, Some(&first)).await, "the cursor may go back");
    (expected.seq, expected.parked) = (Seq(2), Some(first.clone()));
    assert_eq!(cursor_of(port, &log).await, expected, "and stays parked");
    assert!(replace(&first, 0, None).await, "it is released");
    (expected.seq, expected.parked) = (Seq::ZERO, None);
    assert_eq!(cursor_of(port, &log).await, expected, "the lease and `behind` stay");
    assert!(!listed(port, 10).await.contains_key(&log), "it is not parked any more");
    assert!(!replace(&first, 3, None).await, "it is not parked any more");
    let moved = must("moving a cursor", port.move_cursor(&log, Seq(1)).await);
    assert_eq!(moved, CursorMove::Moved, "the view goes on");
}

async fn rows_are_cleared_while_the_view_is_parked(port: &dyn OperatorView, prefix: &str) {
    let (here, there) = (log(prefix, "cleared"), log(prefix, "cleared-elsewhere"));
    let key = |n: u64| row_key(&format!("row/{n}/é"));
    let live = StoredRow { seq: Seq(1), body: Some(Bytes::from_static(b"1")), expires: None };
    let dead = StoredRow { seq: Seq(2), body: None, expires: Some(Time(u64::from(u32::MAX))) };
    for log in [&here, &there] {
        for n in 0..25 {
            must("a row", port.put_row(log, &key(n), &live, None).await);
            if n % 3 == 0 {
                must("a tombstone", port.put_row(log, &key(n), &dead, Some(Seq(1))).await);
            }
        }
        must("moving a cursor", port.move_cursor(log, Seq(4)).await);
    }
    let keys: Vec<RowKey> = (0..25).map(key).collect();
    let left = async |log: &LogId| {
        let rows = must("rows", port.rows(log, &keys).await);
        rows.iter().flatten().count()
    };
    let clear = async |parked: &ParkedView, limit| {
        must("clearing rows", port.clear(&here, parked, limit).await)
    };
    let parked = reason(5);
    assert_eq!(clear(&parked, 3).await, None, "the view is not parked");
    must("parking a view", port.park(&here, Seq(4), &parked).await);
    assert_eq!(clear(&reason(6), 3).await, None, "it is parked for another reason");
    assert_eq!(left(&here).await, 25, "nothing is removed yet");
    assert_eq!(clear(&parked, 10).await, Some(10), "so many are removed");
    assert_eq!(left(&here).await, 15, "so many are left, tombstones as well");
    assert_eq!(clear(&parked, 1).await, Some(1), "so many are removed");
    assert_eq!(clear(&parked, 100).await, Some(14), "all are removed");
    assert_eq!((left(&here).await, left(&there).await), (0, 25), "only those of the log");
    assert_eq!(clear(&parked, 100).await, Some(0), "there are none");
    let expected = Cursor { seq: Seq(4), parked: Some(parked.clone()), ..Cursor::default() };
    assert_eq!(cursor_of(port, &here).await, expected, "the cursor stays");
    assert!(must("a release", port.release(&here, &parked, None).await), "it is parked");
    must("a row", port.put_row(&here, &key(0), &live, None).await);
    assert_eq!(clear(&parked, 100).await, None, "the view is released");
    assert_eq!(left(&here).await, 1, "the new row stays");
    must("a tombstone", port.put_row(&here, &key(0), &dead, Some(Seq(1))).await);
    must("a row", port.put_row(&here, &key(0), &live, Some(Seq(2))).await);
}

async fn parked_logs_are_listed(port: &dyn OperatorView, prefix: &str) {
    let mut expected = BTreeMap::new();
    for (at, name) in ["parked", "parked b", "parked-b", "parkedb"].into_iter().enumerate() {
        let (log, at) = (log(prefix, name), at as u64);
        park_at(port, &log, at).await;
        let parked = Some(reason(at + 1));
        expected.insert(log, Cursor { seq: Seq(at), parked, ..Cursor::default() });
    }
    let fine = log(prefix, "parked-not");
    must("moving a cursor", port.move_cursor(&fine, Seq(4)).await);
    for limit in 1..=5 {
        assert_eq!(listed(port, limit).await, expected, "pages of {limit}");
    }
    for (log, cursor) in expected {
        let Some(parked) = cursor.parked else { continue };
        assert!(must("a release", port.release(&log, &parked, None).await), "{log} is parked");
    }
    assert_eq!(listed(port, 10).await, BTreeMap::new(), "none is parked any more");
}

/// All logs for which the view is parked. A log that was released may be listed, too.
async fn listed(port: &dyn OperatorView, limit: usize) -> BTreeMap<LogId, Cursor> {
    let (mut found, mut after) = (BTreeMap::new(), None);
    for _ in 0..1_000 {
        let page = must("a page of parked logs", port.parked(after.as_ref(), limit).await);
        assert!(page.logs.len() <= limit, "{} logs, at most {limit}", page.logs.len());
        for (log, cursor) in page.logs {
            assert_eq!(found.insert(log.clone(), cursor), None, "{log} is listed twice");
        }
        after = page.next;
        if after.is_none() {
            found.retain(|_, cursor| cursor.parked.is_some());
            return found;
        }
    }
    panic!("the pages do not end");
}
