//! [`State`]: guarded puts, reads by key.

use bytes::Bytes;
use fanfold::host::limits::DOCUMENT_BYTES_MAX;
use fanfold::{DocumentId, LogId, Name, Origin, Seq, StateKey};
use futures::future::join_all;

use super::{RACERS, log, must};
use crate::ports::{Guarded, State, StateItem};

/// The most keys that one read takes.
const KEYS_MAX: usize = 1_000;

fn item(seq: u64, text: &str) -> StateItem {
    StateItem { seq: Seq(seq), body: Bytes::copy_from_slice(text.as_bytes()) }
}

fn document(version: u32, name: &str) -> StateKey {
    StateKey::document(version, &must("a document of the suite", DocumentId::new(name)))
}

async fn put(port: &dyn State, log: &LogId, key: &StateKey, item: &StateItem) -> Guarded {
    must("a put", port.put(log, key, item).await)
}

async fn get(port: &dyn State, log: &LogId, keys: &[StateKey]) -> Vec<Option<StateItem>> {
    let items = must("a read by key", port.get(log, keys).await);
    assert_eq!(items.len(), keys.len(), "an answer for every key");
    items
}

/// The whole port.
pub async fn state(port: &dyn State, prefix: &str) {
    newer_items_replace_older_ones(port, prefix).await;
    keys_are_told_apart(port, prefix).await;
    many_keys_are_read_in_order(port, prefix).await;
    the_newest_of_many_racers_stays(port, prefix).await;
}

async fn newer_items_replace_older_ones(port: &dyn State, prefix: &str) {
    let log = log(prefix, "guard");
    let key = StateKey::head(1);
    assert_eq!(get(port, &log, std::slice::from_ref(&key)).await, [None], "nothing is there yet");
    let mut there = None;
    for (seq, text, expected) in [
        (5, "first", Guarded::Stored),
        (4, "older", Guarded::Newer),
        (5, "as new", Guarded::Newer),
        (9, "newer", Guarded::Stored),
        (10, "newer, with one digit more", Guarded::Stored),
        (9, "older, with one digit less", Guarded::Newer),
    ] {
        let put = put(port, &log, &key, &item(seq, text)).await;
        assert_eq!(put, expected, "a put of seq {seq} over {there:?}");
        if expected == Guarded::Stored {
            there = Some(item(seq, text));
        }
        let found = get(port, &log, std::slice::from_ref(&key)).await;
        assert_eq!(found, std::slice::from_ref(&there), "after a put of seq {seq}");
    }
}

async fn keys_are_told_apart(port: &dyn State, prefix: &str) {
    let (here, there) = (log(prefix, "keys"), log(prefix, "keys-elsewhere"));
    let user = must("a user of the suite", Name::new("a"));
    let user = must("a user of the suite", Origin::user(&user));
    let keys = [
        StateKey::head(1),
        StateKey::head(2),
        StateKey::head(10),
        document(1, "a"),
        document(2, "a"),
        document(1, "aa"),
        document(1, "A"),
        StateKey::window(1, &user),
        StateKey::window(1, &Origin::resend()),
        StateKey::window(1, &Origin::reactor(&must("a name", "r".parse()), &there)),
    ];
    for (seq, key) in (1..).zip(&keys) {
        assert_eq!(put(port, &here, key, &item(seq, key.as_str())).await, Guarded::Stored);
    }
    for (found, (seq, key)) in get(port, &here, &keys).await.into_iter().zip((1..).zip(&keys)) {
        assert_eq!(found, Some(item(seq, key.as_str())), "each key has its own item");
    }
    let elsewhere = get(port, &there, &keys).await;
    assert!(elsewhere.iter().all(Option::is_none), "a put must not touch another log");
    assert_eq!(get(port, &here, &[]).await, [], "a read without keys returns no items");
}

async fn many_keys_are_read_in_order(port: &dyn State, prefix: &str) {
    let log = log(prefix, "many");
    let key = |i: usize| document(1, &format!("d{i}"));
    // A third of them exists: more than a database gives in one answer.
    let exists = |i: usize| i.is_multiple_of(3);
    let puts = (0..KEYS_MAX).filter(|i| exists(*i)).map(|i| {
        let (log, key) = (&log, key(i));
        async move { put(port, log, &key, &item(i as u64 + 1, key.as_str())).await }
    });
    join_all(puts).await;
    // 387 and 1,000 have no common divisor: every key once, in a mixed order.
    let order: Vec<usize> = (0..KEYS_MAX).map(|i| i * 387 % KEYS_MAX).collect();
    let keys: Vec<StateKey> = order.iter().map(|i| key(*i)).collect();
    for (i, found) in order.into_iter().zip(get(port, &log, &keys).await) {
        let expected = exists(i).then(|| item(i as u64 + 1, key(i).as_str()));
        assert_eq!(found, expected, "items come in the order of their keys");
    }

    // Together more than a database gives in one answer.
    let large: Vec<StateKey> = (0..70).map(|i| document(2, &format!("large{i}"))).collect();
    let body = Bytes::from(vec![b'x'; DOCUMENT_BYTES_MAX.get()]);
    for key in &large {
        put(port, &log, key, &StateItem { seq: Seq(1), body: body.clone() }).await;
    }
    let found = get(port, &log, &large).await;
    let whole = found.iter().flatten().filter(|item| item.body == body).count();
    assert_eq!(whole, large.len(), "all large items come back whole");
}

async fn the_newest_of_many_racers_stays(port: &dyn State, prefix: &str) {
    let log = log(prefix, "races");
    let key = document(1, "raced");
    let same = join_all((0..RACERS).map(|i| {
        let (log, key) = (&log, &key);
        async move { put(port, log, key, &item(7, &i.to_string())).await }
    }));
    let stored = same.await.into_iter().filter(|put| *put == Guarded::Stored).count();
    assert_eq!(stored, 1, "of {RACERS} puts of one seq exactly one is stored");

    join_all((0..RACERS).map(|i| {
        let (log, key) = (&log, &key);
        // Each seq once, in a mixed order.
        async move { put(port, log, key, &item(8 + i * 5 % RACERS, "newest")).await }
    }))
    .await;
    let found = get(port, &log, std::slice::from_ref(&key)).await;
    assert_eq!(found, [Some(item(7 + RACERS, "newest"))], "the newest of racing puts stays");
}
