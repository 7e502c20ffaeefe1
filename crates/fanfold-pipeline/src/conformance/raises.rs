//! [`OperatorCommands`]: slots that are raised.

use fanfold::{LogId, Seq, Time};
use futures::future::join_all;

use super::commands::{batch, slot, slot_of, walk};
use super::{LOOKS_MAX, RACERS, log, must};
use crate::ports::{Change, OperatorCommands, Slot, SlotRaise, Token};

/// When slots are raised.
const AT: Time = Time(2_000_000);

fn raised(to: u64, token: u128) -> Slot {
    Slot { seq: Seq(to), n: 0, at: AT, token: Token(token), closed: false }
}

async fn raise(port: &dyn OperatorCommands, log: &LogId, to: u64, token: u128) -> SlotRaise {
    must("raising a slot", port.raise(log, Seq(to), AT, Token(token)).await)
}

/// Raising slots: what they show, what is refused, races.
pub async fn operator_commands(port: &dyn OperatorCommands, prefix: &str) {
    a_slot_is_raised(port, prefix).await;
    a_missing_slot_is_made(port, prefix).await;
    a_slot_never_goes_back(port, prefix).await;
    racing_raises_and_appends_never_overlap(port, prefix).await;
}

async fn a_slot_is_raised(port: &dyn OperatorCommands, prefix: &str) {
    let log = log(prefix, "raised");
    must("an append", port.append(&log, batch(3, 41)).await);
    assert_eq!(raise(port, &log, 10, 42).await, SlotRaise::Raised, "3 is below 10");
    assert_eq!(slot(port, &log).await, Some(raised(10, 42)), "a raised slot has no command");
    let held = must("reading a batch", port.batch(&log).await);
    assert_eq!(held, None, "a raised slot has no batch, and so not the one before it");
    let append = batch(2, 43);
    let seq = must("an append", port.append(&log, append.clone()).await);
    assert_eq!(seq, Seq(12), "the next append goes on behind the raised slot");
    assert_eq!(slot(port, &log).await, Some(slot_of(12, &append)), "the slot shows the append");
}

async fn a_missing_slot_is_made(port: &dyn OperatorCommands, prefix: &str) {
    let log = log(prefix, "raised-new");
    assert_eq!(raise(port, &log, 7, 51).await, SlotRaise::Raised, "a log without a slot");
    assert_eq!(slot(port, &log).await, Some(raised(7, 51)), "the slot was made");
    let held = must("reading a batch", port.batch(&log).await);
    assert_eq!(held, None, "a raised slot has no batch");
    let mut is_listed = false;
    for _ in 0..LOOKS_MAX {
        is_listed = walk(port, 1_000).await.contains(&log);
        if is_listed {
            break;
        }
    }
    assert!(is_listed, "the catalogue lists a log whose slot was raised");
    let seq = must("an append", port.append(&log, batch(1, 52)).await);
    assert_eq!(seq, Seq(8), "the first append goes on behind the raised slot");
}

async fn a_slot_never_goes_back(port: &dyn OperatorCommands, prefix: &str) {
    let log = log(prefix, "raised-below");
    let append = batch(5, 61);
    must("an append", port.append(&log, append.clone()).await);
    for to in [1, 4, 5] {
        let refused = raise(port, &log, to, 62).await;
        let shown = slot_of(5, &append);
        assert_eq!(refused, SlotRaise::Refused(shown.clone()), "a slot at 5 is not raised to {to}");
        assert_eq!(slot(port, &log).await, Some(shown), "a refused raise changes nothing");
    }
    assert_eq!(raise(port, &log, 6, 63).await, SlotRaise::Raised, "5 is below 6");
    let again = raise(port, &log, 6, 63).await;
    assert_eq!(again, SlotRaise::Refused(raised(6, 63)), "a raise takes effect once");
}

/// Appends get seqs that no other append and no raise covers.
async fn racing_raises_and_appends_never_overlap(port: &dyn OperatorCommands, prefix: &str) {
    let log = log(prefix, "raised-races");
    let racers = (0..RACERS).map(|i| {
        let log = &log;
        async move {
            if i % 2 == 0 {
                let raise = raise(port, log, 3 * (i + 1), 200 + u128::from(i)).await;
                return (raise == SlotRaise::Raised).then_some((3 * (i + 1), 0));
            }
            let n = 1 + i % 3;
            let last = port.append(log, batch(n, 200 + u128::from(i))).await;
            Some((must("a racing append", last).0, n))
        }
    });
    let mut effects: Vec<(u64, u64)> = join_all(racers).await.into_iter().flatten().collect();
    effects.sort_unstable();
    let mut reached = 0;
    for (last, n) in effects {
        assert!(last > reached, "what raises the slot to {last} follows what was at {reached}");
        assert!(n == 0 || last - n >= reached, "{n} commands up to {last} overlap with {reached}");
        reached = last;
    }
    let stored = slot(port, &log).await.map(|slot| slot.seq);
    assert_eq!(stored, Some(Seq(reached)), "the slot shows the last effect");
}

/// A closed slot stays closed. No port can close one, so the caller does, after at least one append to `closed`.
pub async fn raised_closed_slot(port: &dyn OperatorCommands, closed: &LogId) {
    let before = slot(port, closed).await;
    let Some(before) = before else { panic!("`{closed}` must have a slot") };
    assert!(before.closed, "the slot of `{closed}` must show that it is closed");
    let to = before.seq.0 + 5;
    assert_eq!(raise(port, closed, to, 71).await, SlotRaise::Raised, "a closed slot is raised");
    let expected = Slot { closed: true, ..raised(to, 71) };
    assert_eq!(slot(port, closed).await, Some(expected), "a raised slot stays closed");
}

/// The change stream. `arrived` returns the changes since its last call, those of one log in order. The suite calls it
/// until no change is missing, so it may wait a little.
pub async fn raised_changes(
    port: &dyn OperatorCommands,
    prefix: &str,
    mut arrived: impl AsyncFnMut() -> Vec<Change>,
) {
    let log = log(prefix, "raised-changes");
    must("an append", port.append(&log, batch(1, 81)).await);
    assert_eq!(raise(port, &log, 9, 82).await, SlotRaise::Raised, "1 is below 9");
    must("an append", port.append(&log, batch(1, 83)).await);
    let mut seen: Vec<Change> = Vec::new();
    for _ in 0..LOOKS_MAX {
        seen.extend(arrived().await.into_iter().filter(|change| change.log == log));
        if seen.iter().any(|change| change.last == Seq(10)) {
            break;
        }
    }
    let with_commands = seen.iter().filter(|change| change.n > 0).map(|change| change.last.0);
    let mut with_commands: Vec<u64> = with_commands.collect();
    with_commands.dedup();
    assert_eq!(with_commands, [1, 10], "the changes of the appends, in order");
    for change in seen.iter().filter(|change| change.n == 0) {
        let Change { last, at, token, body, .. } = change;
        assert_eq!((*last, *at, *token), (Seq(9), AT, Token(82)), "the change of the raise");
        assert!(body.is_empty(), "a raised slot has no body");
    }
    assert!(seen.is_sorted_by_key(|change| change.last), "the changes are in order");
}
