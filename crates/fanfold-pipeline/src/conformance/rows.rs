//! [`ViewTable`]: rows, tombstones, ranges.

use bytes::Bytes;
use fanfold::host::limits::ROW_BYTES_MAX;
use fanfold::{LogId, RowKey, Seq, Time};
use futures::future::join_all;

use super::{RACERS, log, must, row_key};
use crate::ports::{PutRowError, Row, RowRange, StoredRow, ViewTable};

/// 2100-01-01, in whole seconds: no tombstone of the suite expires while it runs.
const NEVER: Time = Time(4_102_444_800_000);
/// The most keys that one read takes.
const KEYS_MAX: usize = 1_000;

fn row(seq: u64, json: &str) -> StoredRow {
    let body = Some(Bytes::copy_from_slice(json.as_bytes()));
    StoredRow { seq: Seq(seq), body, expires: None }
}

fn tombstone(seq: u64) -> StoredRow {
    StoredRow { seq: Seq(seq), body: None, expires: Some(NEVER) }
}

async fn put(
    port: &dyn ViewTable,
    log: &LogId,
    key: &RowKey,
    row: &StoredRow,
    loaded: Option<u64>,
) -> bool {
    match port.put_row(log, key, row, loaded.map(Seq)).await {
        Ok(()) => true,
        Err(PutRowError::Conflict) => false,
        Err(PutRowError::Unavailable(e)) => panic!("a put of a row: {e}"),
    }
}

async fn load(port: &dyn ViewTable, log: &LogId, keys: &[RowKey]) -> Vec<Option<StoredRow>> {
    let rows = must("a read of rows", port.rows(log, keys).await);
    assert_eq!(rows.len(), keys.len(), "an answer for every key");
    rows
}

/// The port's rows by key: guards, tombstones.
pub async fn rows(port: &dyn ViewTable, prefix: &str) {
    rows_are_guarded(port, prefix).await;
    one_of_many_racers_writes(port, prefix).await;
    many_rows_are_read_in_order(port, prefix).await;
}

async fn rows_are_guarded(port: &dyn ViewTable, prefix: &str) {
    let (here, there) = (log(prefix, "guard"), log(prefix, "guard-elsewhere"));
    let (key, other) = (row_key("cash"), row_key("cash/17"));
    assert_eq!(load(port, &here, std::slice::from_ref(&key)).await, [None], "nothing is there yet");
    let mut there_now: Option<StoredRow> = None;
    for (stored, loaded) in [
        (row(3, "{}"), Some(2)),
        (row(3, "{\"a\":1}"), None),
        (row(4, "{\"a\":2}"), None),
        (row(4, "{\"a\":3}"), Some(2)),
        (row(9, "{\"a\":4}"), Some(3)),
        (row(10, "{\"a\":5}"), Some(3)),
        (row(10, "{\"a\":6}"), Some(9)),
        (tombstone(11), Some(9)),
        (tombstone(11), Some(10)),
        (row(12, "{\"a\":7}"), None),
        (row(12, "{\"a\":8}"), Some(10)),
        (row(12, "{\"a\":9}"), Some(11)),
    ] {
        let expected = there_now.as_ref().map(|row| row.seq.0) == loaded;
        let done = put(port, &here, &key, &stored, loaded).await;
        assert_eq!(done, expected, "a put of {stored:?} loaded as {loaded:?} over {there_now:?}");
        if expected {
            there_now = Some(stored);
        }
        let found = load(port, &here, std::slice::from_ref(&key)).await;
        assert_eq!(found, std::slice::from_ref(&there_now), "a read by key shows tombstones");
    }
    assert!(put(port, &here, &other, &tombstone(1), None).await, "a tombstone may come first");
    let found = load(port, &here, &[other, key.clone()]).await;
    assert_eq!(found, [Some(tombstone(1)), there_now], "each key has its own row");
    assert_eq!(load(port, &there, &[key]).await, [None], "a put must not touch another log");
    assert_eq!(must("reading a cursor", port.cursor(&here).await), None, "rows move no cursor");
}

async fn one_of_many_racers_writes(port: &dyn ViewTable, prefix: &str) {
    let log = log(prefix, "races");
    let key = row_key("raced");
    let mut loaded = None;
    for seq in 1..=5 {
        let rows: Vec<StoredRow> = (0..RACERS).map(|i| row(seq, &format!("{i}"))).collect();
        let written = join_all(rows.iter().map(|row| put(port, &log, &key, row, loaded))).await;
        let winners: Vec<&StoredRow> =
            rows.iter().zip(&written).filter(|(_, done)| **done).map(|(row, _)| row).collect();
        let found = load(port, &log, std::slice::from_ref(&key)).await;
        let found = found.first().and_then(Option::as_ref);
        assert_eq!(winners.len(), 1, "of {RACERS} that loaded {loaded:?} exactly one writes");
        assert_eq!(winners.first().copied(), found, "the acknowledged row is stored");
        loaded = Some(seq);
    }
}

async fn many_rows_are_read_in_order(port: &dyn ViewTable, prefix: &str) {
    let log = log(prefix, "many");
    let key = |i: usize| row_key(&format!("row/{i}"));
    let stored = |i: usize| row(i as u64 + 1, &format!("{i}"));
    let exists = |i: usize| i.is_multiple_of(3);
    let puts = (0..KEYS_MAX).filter(|i| exists(*i)).map(|i| {
        let (log, key, row) = (&log, key(i), stored(i));
        async move { put(port, log, &key, &row, None).await }
    });
    assert!(join_all(puts).await.into_iter().all(|done| done), "every row is new");
    // 387 and 1,000 have no common divisor: every key once, in a mixed order.
    let order: Vec<usize> = (0..KEYS_MAX).map(|i| i * 387 % KEYS_MAX).collect();
    let keys: Vec<RowKey> = order.iter().map(|i| key(*i)).collect();
    for (i, found) in order.into_iter().zip(load(port, &log, &keys).await) {
        assert_eq!(found, exists(i).then(|| stored(i)), "rows come in the order of their keys");
    }
}

/// The port's ranges.
pub async fn scans(port: &dyn ViewTable, prefix: &str) {
    ranges_are_exact(port, prefix).await;
    large_rows_are_paged(port, prefix).await;
    tombstones_are_passed_over(port, prefix).await;
}

/// All rows of a range, page by page.
async fn walk(port: &dyn ViewTable, log: &LogId, range: &RowRange) -> Vec<Row> {
    let mut all: Vec<Row> = Vec::new();
    let mut range = range.clone();
    loop {
        let page = must("a scan", port.scan(log, &range).await);
        assert!(page.rows.len() <= range.limit, "a page has at most {} rows", range.limit);
        let Some(last) = page.rows.last() else {
            assert!(!page.more, "a page is empty and says there is more: {range:?}");
            return all;
        };
        let before = range.after.replace(last.key.clone());
        let came_forward = match before {
            Some(before) if range.descending => last.key < before,
            Some(before) => last.key > before,
            None => true,
        };
        assert!(came_forward, "rows come from behind `after`: {range:?}");
        all.extend(page.rows);
        let behind = must("a scan", port.scan(log, &RowRange { limit: 1, ..range.clone() }).await);
        let behind = !behind.rows.is_empty();
        assert_eq!(page.more, behind, "`more` says whether there is something in {range:?}");
        if !page.more {
            return all;
        }
    }
}

async fn ranges_are_exact(port: &dyn ViewTable, prefix: &str) {
    let (here, there) = (log(prefix, "ranges"), log(prefix, "ranges-elsewhere"));
    let names = [
        "+", "A", "Z", "a", "a+", "a/1", "a/10", "a/2", "aa", "a~", "b", "b/1", "row", "z=z", "~",
        "é/1", "山 田", "\u{ffee}", "😀", "😀/1",
    ];
    let mut live: Vec<Row> = Vec::new();
    for (seq, name) in (1..).zip(names) {
        let key = row_key(name);
        let stored = row(seq, name);
        assert!(put(port, &here, &key, &stored, None).await, "the row `{name}` is new");
        // Every fourth is deleted again.
        if seq % 4 == 0 {
            assert!(
                put(port, &here, &key, &tombstone(seq + 1), Some(seq)).await,
                "the row has not changed"
            );
        } else {
            live.push(Row { key, seq: Seq(seq), body: stored.body.unwrap_or_default() });
        }
    }
    // A cursor in the same table is no row.
    must("moving a cursor", port.move_cursor(&here, Seq(1)).await);
    live.sort_by(|a, b| a.key.cmp(&b.key));
    let afters = ["+", "B", "a/1", "a/3", "c", "zz", "~~", "😀"];
    for prefix in ["", "a", "a/", "b", "nothing", "z", "é", "山 ", "😀"] {
        for after in afters.iter().map(|name| Some(row_key(name))).chain([None]) {
            for descending in [false, true] {
                let behind = |key: &RowKey| match &after {
                    None => true,
                    Some(after) if descending => key < after,
                    Some(after) => key > after,
                };
                let inside = |row: &&Row| row.key.as_str().starts_with(prefix) && behind(&row.key);
                let mut expected: Vec<&Row> = live.iter().filter(inside).collect();
                if descending {
                    expected.reverse();
                }
                for limit in [1, 4, 100] {
                    let (prefix, after) = (prefix.to_owned(), after.clone());
                    let range = RowRange { prefix, after, descending, limit };
                    let found = walk(port, &here, &range).await;
                    assert_eq!(found.iter().collect::<Vec<_>>(), expected, "rows of {range:?}");
                }
            }
        }
    }
    let everything = RowRange { limit: 100, ..RowRange::default() };
    assert_eq!(walk(port, &there, &everything).await, [], "another log has other rows");
}

async fn large_rows_are_paged(port: &dyn ViewTable, prefix: &str) {
    let log = log(prefix, "large");
    let body = format!("\"{}\"", "x".repeat(ROW_BYTES_MAX.get() - 2));
    for i in 0..6 {
        let key = row_key(&format!("large/{i}"));
        assert!(put(port, &log, &key, &row(1, &body), None).await, "the row is new");
    }
    for descending in [false, true] {
        let range = RowRange { descending, limit: 100, ..RowRange::default() };
        let whole = walk(port, &log, &range).await;
        let whole = whole.iter().filter(|row| row.body == body.as_bytes()).count();
        assert_eq!(whole, 6, "all large rows come back whole");
    }
}

async fn tombstones_are_passed_over(port: &dyn ViewTable, prefix: &str) {
    let log = log(prefix, "tombstones");
    let puts = (0..300).map(|i| {
        let (log, key) = (&log, row_key(&format!("dead/{i:03}")));
        async move { put(port, log, &key, &tombstone(1), None).await }
    });
    assert!(join_all(puts).await.into_iter().all(|done| done), "every tombstone is new");
    let everything = RowRange { limit: 3, ..RowRange::default() };
    assert_eq!(walk(port, &log, &everything).await, [], "a scan shows no tombstones");
    for name in ["a", "z"] {
        assert!(put(port, &log, &row_key(name), &row(1, "1"), None).await, "the row is new");
    }
    for descending in [false, true] {
        let range = RowRange { descending, limit: 1, ..RowRange::default() };
        let found = walk(port, &log, &range).await;
        let mut keys: Vec<&str> = found.iter().map(|row| row.key.as_str()).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["a", "z"], "the rows on both sides of many tombstones");
    }
}
