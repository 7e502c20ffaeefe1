//! [`OperatorParked`] and [`OperatorView`]: what waits, in all logs.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanfold::{LogId, Seq};

use super::cursors::{park_at, reason};
use super::{log, must};
use crate::ports::{Cursor, OperatorParked, OperatorView, ParkedItem, ParkedPosition};

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
