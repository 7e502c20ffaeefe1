//! [`OperatorParked`] and [`OperatorView`]: what waits, in all logs.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanfold::host::body::lease::Lease;
use fanfold::{LogId, Seq, Time};

use super::{log, must};
use crate::ports::{
    Cursor, CursorMove, OperatorParked, OperatorView, ParkedItem, ParkedPosition, ParkedView,
    ViewTable,
};

/// The whole port of an empty parked table.
pub async fn operator_parked(port: &dyn OperatorParked, prefix: &str) {
    assert_eq!(scanned(port, 10).await, BTreeMap::new(), "an empty table");
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
        if after.is_none() {
            return found;
        }
    }
    panic!("the pages do not end");
}

/// The whole port of an empty table of a view.
pub async fn operator_view(port: &dyn OperatorView, prefix: &str) {
    parked_logs_are_listed(port, prefix).await;
    a_release_needs_the_same_reason(port, prefix).await;
}

fn reason(seq: u64) -> ParkedView {
    ParkedView { seq: Seq(seq), reason: format!("cannot apply {seq}"), at: Time(seq * 1_000) }
}

async fn park(port: &dyn ViewTable, log: &LogId, at: u64) {
    if at > 0 {
        must("moving a cursor", port.move_cursor(log, Seq(at)).await);
    }
    must("parking a view", port.park(log, Seq(at), &reason(at + 1)).await);
}

async fn parked_logs_are_listed(port: &dyn OperatorView, prefix: &str) {
    let mut expected = BTreeMap::new();
    for (at, name) in ["parked", "parked b", "parked-b", "parkedb"].into_iter().enumerate() {
        let (log, at) = (log(prefix, name), at as u64);
        park(port, &log, at).await;
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
            return found;
        }
    }
    panic!("the pages do not end");
}

async fn a_release_needs_the_same_reason(port: &dyn OperatorView, prefix: &str) {
    let log = log(prefix, "release");
    let cursor = async || must("reading a cursor", port.cursor(&log).await).unwrap_or_default();
    let release = async |parked, to| must("a release", port.release(&log, &parked, to).await);
    assert!(!release(reason(1), None).await, "there is no cursor");
    park(port, &log, 4).await;
    let lease = Lease { attempts: 2, at: Time(1_000), until: Time(61_000), owner: 7 };
    must("a lease", port.replace_lease(&log, None, &lease).await);
    must("marking", port.mark_behind(&log, Seq(9)).await);
    let before = cursor().await;
    let other = ParkedView { reason: "another reason".to_owned(), ..reason(5) };
    let later = ParkedView { at: Time(1), ..reason(5) };
    for wrong in [other, later, reason(6)] {
        assert!(!release(wrong, Some(Seq(5))).await, "it is parked for another reason");
        assert_eq!(cursor().await, before, "nothing has changed");
    }
    assert!(release(reason(5), None).await);
    let released = Cursor { parked: None, ..before.clone() };
    assert_eq!(cursor().await, released, "only the reason is gone");
    assert!(!release(reason(5), None).await, "it is released already");
    must("parking", port.park(&log, Seq(4), &reason(5)).await);
    assert!(release(reason(5), Some(Seq(5))).await);
    assert_eq!(cursor().await, Cursor { seq: Seq(5), ..released.clone() }, "behind the entry");
    must("parking", port.park(&log, Seq(5), &reason(6)).await);
    assert!(release(reason(6), Some(Seq(3))).await);
    assert_eq!(cursor().await, Cursor { seq: Seq(5), ..released }, "a cursor never goes back");
    let moved = must("moving", port.move_cursor(&log, Seq(6)).await);
    assert_eq!(moved, CursorMove::Moved, "a released cursor moves");
}
