//! [`ParkedTable`]: items under seq and identity.

use bytes::Bytes;
use fanfold::host::limits::COMMAND_BYTES_MAX;
use fanfold::{LogId, Seq};
use futures::future::join_all;

use super::{RACERS, log, must};
use crate::ports::{ParkedItem, ParkedTable};

fn item(seq: u64, identity: &str, body: &str) -> ParkedItem {
    let body = Bytes::copy_from_slice(body.as_bytes());
    ParkedItem { seq: Seq(seq), identity: identity.to_owned(), body }
}

async fn park(port: &dyn ParkedTable, log: &LogId, item: &ParkedItem) {
    must("parking", port.park(log, item).await);
}

async fn list(port: &dyn ParkedTable, log: &LogId, from: u64, limit: usize) -> Vec<ParkedItem> {
    must("a list of what is parked", port.list(log, (Seq(from), ""), limit).await)
}

/// The whole port.
pub async fn parked(port: &dyn ParkedTable, prefix: &str) {
    items_are_listed_in_order(port, prefix).await;
    items_are_replaced_and_removed(port, prefix).await;
    large_items_are_listed(port, prefix).await;
    racing_items_all_wait(port, prefix).await;
}

async fn items_are_listed_in_order(port: &dyn ParkedTable, prefix: &str) {
    let (here, there) = (log(prefix, "parked"), log(prefix, "parked-elsewhere"));
    assert_eq!(list(port, &here, 0, 10).await, [], "nothing is parked yet");
    // By seq as a number, not as a text; then by identity, byte by byte.
    let items = [
        item(2, "ann#3", "a"),
        item(9, "ann#1", "b"),
        item(10, "Bob#7", "c"),
        item(10, "ann#10", "d"),
        item(10, "ann#9", "e"),
        item(10, "reactor:r@ledger/org:acme#64", "f"),
        item(11, "ann#2", "g"),
        item((1 << 47) - 1, "ann#4", "h"),
    ];
    for parked in items.iter().rev() {
        park(port, &here, parked).await;
    }
    for from in [0, 1, 2, 3, 9, 10, 11, 12, (1 << 47) - 1] {
        let expected: Vec<&ParkedItem> =
            items.iter().filter(|item| item.seq >= Seq(from)).collect();
        for limit in [1, 3, 8, 100] {
            let listed = list(port, &here, from, limit).await;
            let expected = &expected[..limit.min(expected.len())];
            assert_eq!(
                listed.iter().collect::<Vec<_>>(),
                expected,
                "what waits at or above {from}, by seq and identity, at most {limit}"
            );
        }
    }
    // A list may begin at an identity, whether it is there or not.
    for from in ["", "Bob#7", "Bob#7\0", "ann#10", "ann#3", "reactor:r@ledger/org:acme#64\0"] {
        let expected: Vec<&ParkedItem> = items
            .iter()
            .filter(|item| (item.seq, item.identity.as_str()) >= (Seq(10), from))
            .collect();
        let listed = must("a list", port.list(&here, (Seq(10), from), 100).await);
        assert_eq!(listed.iter().collect::<Vec<_>>(), expected, "what waits from 10 {from:?} on");
    }
    assert_eq!(list(port, &there, 0, 10).await, [], "parking must not touch another log");
}

async fn items_are_replaced_and_removed(port: &dyn ParkedTable, prefix: &str) {
    let log = log(prefix, "replaced");
    park(port, &log, &item(5, "ann#1", "before")).await;
    park(port, &log, &item(5, "ann#2", "beside")).await;
    park(port, &log, &item(5, "ann#1", "after")).await;
    let both = [item(5, "ann#1", "after"), item(5, "ann#2", "beside")];
    assert_eq!(list(port, &log, 0, 10).await, both, "an item replaces one of its own identity");

    for (seq, identity) in [(4, "ann#1"), (5, "ann#3"), (6, "ann#2")] {
        must("removing what is not there", port.remove(&log, Seq(seq), identity).await);
    }
    assert_eq!(list(port, &log, 0, 10).await, both, "removing one leaves the others");
    must("removing", port.remove(&log, Seq(5), "ann#1").await);
    assert_eq!(list(port, &log, 0, 10).await, both[1..], "a removed item is gone");
    must("removing again", port.remove(&log, Seq(5), "ann#1").await);
    must("removing the last", port.remove(&log, Seq(5), "ann#2").await);
    assert_eq!(list(port, &log, 0, 10).await, [], "nothing is parked any more");
}

async fn large_items_are_listed(port: &dyn ParkedTable, prefix: &str) {
    let log = log(prefix, "large");
    let body: Bytes = vec![b'x'; COMMAND_BYTES_MAX + 4_096].into();
    let items: Vec<ParkedItem> =
        (1..=40).map(|seq| ParkedItem { body: body.clone(), ..item(seq, "ann#1", "") }).collect();
    for item in &items {
        park(port, &log, item).await;
    }
    let listed = list(port, &log, 0, 100).await;
    assert!(listed == items, "a list has all items, however large: {} of 40", listed.len());
}

async fn racing_items_all_wait(port: &dyn ParkedTable, prefix: &str) {
    let log = log(prefix, "races");
    let items: Vec<ParkedItem> =
        (0..RACERS).map(|i| item(1, &format!("ann#{i:02}"), "raced")).collect();
    join_all(items.iter().map(|item| park(port, &log, item))).await;
    assert_eq!(list(port, &log, 1, 100).await, items, "every identity waits under its seq");
}
