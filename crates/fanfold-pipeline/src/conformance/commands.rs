//! [`Commands`]: slots, their changes and the catalogue.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanfold::host::limits::COMMAND_BYTES_MAX;
use fanfold::{LogId, Seq, Time};
use futures::future::join_all;

use super::{LOOKS_MAX, RACERS, log, must};
use crate::ports::{Append, AppendError, CataloguePosition, Change, Commands, Slot, Token};

pub(super) fn batch(n: u64, token: u128) -> Append {
    let body = Bytes::from(format!("{n} commands of {token}"));
    Append { n, body, at: Time(1_000_000 + token as u64 % 1_000), token: Token(token) }
}

pub(super) fn slot_of(seq: u64, append: &Append) -> Slot {
    Slot { seq: Seq(seq), n: append.n, at: append.at, token: append.token, closed: false }
}

pub(super) async fn slot(port: &dyn Commands, log: &LogId) -> Option<Slot> {
    must("reading a slot", port.slot(log).await)
}

async fn refused(port: &dyn Commands, log: &LogId, append: Append, why: &str) -> Slot {
    match port.append(log, append).await {
        Err(AppendError::Refused(slot)) => slot,
        Ok(seq) => panic!("{why} must be refused, but was appended as seq {seq}"),
        Err(AppendError::Unavailable(e)) => panic!("{why} must be refused, but: {e}"),
    }
}

/// Slots: seqs, tokens, refusals, races.
pub async fn commands(port: &dyn Commands, prefix: &str) {
    appends_number_their_commands(port, prefix).await;
    a_repeated_token_is_refused(port, prefix).await;
    racing_appends_are_dense(port, prefix).await;
    racing_attempts_of_one_append_take_effect_once(port, prefix).await;
}

async fn appends_number_their_commands(port: &dyn Commands, prefix: &str) {
    let (here, there) = (log(prefix, "appends"), log(prefix, "appends-elsewhere"));
    assert_eq!(slot(port, &here).await, None, "a log without an append has no slot");
    assert_eq!(
        must("reading a batch", port.batch(&here).await),
        None,
        "a log without an append has no batch"
    );
    let mut accepted = 0;
    for (token, n) in [(11, 1), (12, 3), (13, 500)] {
        accepted += n;
        let append = batch(n, token);
        let seq = must("an append", port.append(&here, append.clone()).await);
        assert_eq!(seq, Seq(accepted), "an append returns the seq of its last command");
        let stored = slot(port, &here).await;
        assert_eq!(stored, Some(slot_of(accepted, &append)), "the slot shows the last append");
        let Append { n, body, at, token } = append;
        let change = Change { log: here.clone(), last: seq, n, at, token, body };
        let held = must("reading a batch", port.batch(&here).await);
        assert!(held.is_none_or(|held| held == change), "the slot holds the last append, if any");
    }
    assert_eq!(slot(port, &there).await, None, "an append must not touch another log");
    let seq = must("an append", port.append(&there, batch(2, 13)).await);
    assert_eq!(seq, Seq(2), "each log has its own seqs, and its own token");

    let large = Append { body: vec![b'x'; COMMAND_BYTES_MAX + 4_096].into(), ..batch(1, 14) };
    must("an append of the largest command", port.append(&here, large).await);
    must("a small append over a large one", port.append(&here, batch(1, 15)).await);
}

async fn a_repeated_token_is_refused(port: &dyn Commands, prefix: &str) {
    let log = log(prefix, "tokens");
    let (first, second) = (batch(2, 21), batch(1, u128::MAX));
    must("an append", port.append(&log, first.clone()).await);
    let shown = refused(port, &log, batch(7, 21), "an append with the slot's token").await;
    assert_eq!(shown, slot_of(2, &first), "a refusal shows the slot as it is");
    assert_eq!(slot(port, &log).await, Some(shown), "a refused append changes nothing");

    must("an append", port.append(&log, second.clone()).await);
    let shown = refused(port, &log, second.clone(), "a second attempt").await;
    assert_eq!(shown, slot_of(3, &second), "a refusal shows the slot as it is");
    let seq = port.append(&log, first).await;
    let seq = must("an append with an older token", seq);
    assert_eq!(seq, Seq(5), "a batch whose token was overwritten is appended again");
}

async fn racing_appends_are_dense(port: &dyn Commands, prefix: &str) {
    let log = log(prefix, "races");
    let racers = (0..RACERS).map(|i| {
        let log = &log;
        async move {
            let n = 1 + i % 3;
            let last = port.append(log, batch(n, 100 + u128::from(i))).await;
            (must("a racing append", last).0, n)
        }
    });
    let mut batches = join_all(racers).await;
    batches.sort_unstable();
    let mut accepted = 0;
    for (last, n) in batches {
        accepted += n;
        assert_eq!(last, accepted, "racing appends must get seqs without holes or overlaps");
    }
    let stored = slot(port, &log).await.map(|slot| slot.seq);
    assert_eq!(stored, Some(Seq(accepted)), "the slot counts every append");
}

async fn racing_attempts_of_one_append_take_effect_once(port: &dyn Commands, prefix: &str) {
    let log = log(prefix, "attempts");
    let append = batch(2, 31);
    let attempts = join_all((0..RACERS).map(|_| port.append(&log, append.clone()))).await;
    let mut taken = 0;
    for attempt in attempts {
        match attempt {
            Ok(seq) => {
                taken += 1;
                assert_eq!(seq, Seq(2), "the first append ends at its own n");
            }
            Err(AppendError::Refused(shown)) => {
                assert_eq!(shown, slot_of(2, &append), "a refusal shows the slot as it is");
            }
            Err(AppendError::Unavailable(e)) => panic!("a racing attempt: {e}"),
        }
    }
    assert_eq!(taken, 1, "of {RACERS} attempts of one append exactly one takes effect");
    assert_eq!(slot(port, &log).await, Some(slot_of(2, &append)), "the append is counted once");
}

/// A closed slot. No port can close one, so the caller does, after at least one append to `closed`.
pub async fn closed_slot(port: &dyn Commands, closed: &LogId) {
    let before = slot(port, closed).await;
    let Some(before) = before else { panic!("`{closed}` must have a slot") };
    assert!(before.closed, "the slot of `{closed}` must show that it is closed");
    let fresh = Append { token: Token(before.token.0.wrapping_add(1)), ..batch(1, 0) };
    let shown = refused(port, closed, fresh, "an append to a closed slot").await;
    assert_eq!(shown, before, "a refusal shows the slot as it is");
    assert_eq!(slot(port, closed).await, Some(before), "a refused append changes nothing");
}

/// The change stream. `arrived` returns the changes since its last call, those of one log in order.
/// The suite calls it until no change is missing, so it may wait a little.
pub async fn changes(
    port: &dyn Commands,
    prefix: &str,
    mut arrived: impl AsyncFnMut() -> Vec<Change>,
) {
    let logs: Vec<LogId> = (0..3).map(|i| log(prefix, &format!("changes-{i}"))).collect();
    let mut expected: BTreeMap<&LogId, Vec<Change>> = BTreeMap::new();
    for round in 0..10 {
        for (i, log) in (0..).zip(&logs) {
            let append = batch(1 + round % 4, u128::from(round * 10 + i + 1));
            let last = must("an append", port.append(log, append.clone()).await);
            refused(port, log, append.clone(), "a second attempt").await;
            let Append { n, body, at, token } = append;
            let change = Change { log: log.clone(), last, n, at, token, body };
            expected.entry(log).or_default().push(change);
        }
    }
    let missing = |seen: &[Change]| {
        expected.values().flatten().find(|change| !seen.contains(change)).cloned()
    };
    let mut seen: Vec<Change> = Vec::new();
    for _ in 0..LOOKS_MAX {
        seen.extend(arrived().await.into_iter().filter(|change| logs.contains(&change.log)));
        if missing(&seen).is_none() {
            break;
        }
    }
    if let Some(lost) = missing(&seen) {
        panic!("the change of {}@{} was lost", lost.log, lost.last);
    }
    // A change of a refused append would arrive after the others.
    seen.extend(arrived().await.into_iter().filter(|change| logs.contains(&change.log)));
    for (log, expected) in expected {
        let mut first_sights: Vec<Change> = Vec::new();
        for change in seen.iter().filter(|change| change.log == *log) {
            if !first_sights.contains(change) {
                first_sights.push(change.clone());
            }
        }
        assert_eq!(first_sights, expected, "the changes of `{log}`: one an append, in order");
    }
}

/// The catalogue lists every log once in a walk, in steps of any size.
pub async fn catalogue(port: &dyn Commands, prefix: &str) {
    let mut logs: Vec<LogId> = (0..100).map(|i| log(prefix, &format!("catalogue-{i}"))).collect();
    logs.sort();
    for (token, log) in (1..).zip(logs.iter().chain(&logs)) {
        must("an append", port.append(log, batch(1, token)).await);
    }
    for limit in [1_000, 7, 1] {
        let mut listed = Vec::new();
        for _ in 0..LOOKS_MAX {
            listed = walk(port, limit).await;
            listed.retain(|log| logs.contains(log));
            listed.sort();
            if listed.len() >= logs.len() {
                break;
            }
        }
        assert_eq!(listed, logs, "a walk in steps of {limit} lists every log once");
    }
}

pub(super) async fn walk(port: &dyn Commands, limit: usize) -> Vec<LogId> {
    let mut listed = Vec::new();
    let mut after: Option<CataloguePosition> = None;
    loop {
        let page = must("a page of the catalogue", port.catalogue(after.clone(), limit).await);
        assert!(page.logs.len() <= limit, "a page has at most {limit} logs");
        listed.extend(page.logs);
        if page.next.is_none() {
            return listed;
        }
        assert_ne!(page.next, after, "a walk over the catalogue must advance");
        after = page.next;
    }
}
