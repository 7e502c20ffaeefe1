//! [`Waits`]: waits that end at once, when their seq is reached, or after their time.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use fanfold::{LogId, Seq, Time};
use futures::future::{Either, join, join_all, select};

use super::{RACERS, log, must};
use crate::ports::{CommitItem, Env, Journal, Nonce, ViewTable, Waits};

/// Longer than any call of this suite takes, unless it waits until its time is over.
const LONG_MS: u64 = 20_000;
/// Appends that are awaited one after another without a pause, to provoke races.
const ROUNDS: u64 = 300;

/// The port, what it watches, and a clock.
pub struct WaitsPorts<'a> {
    /// The port.
    pub waits: &'a dyn Waits,
    /// The journal that it watches.
    pub journal: &'a dyn Journal,
    /// The name of a view that the port watches.
    pub view: &'a str,
    /// The table of that view.
    pub table: &'a dyn ViewTable,
    /// For pauses and the suite's own time-outs.
    pub env: &'a dyn Env,
}

impl WaitsPorts<'_> {
    /// Fails if `work` takes longer than half of [`LONG_MS`].
    async fn soon<T>(&self, what: &str, work: impl Future<Output = T>) {
        let (work, late) = (pin!(work), self.env.sleep(LONG_MS / 2));
        if let Either::Right(_) = select(work, late).await {
            panic!("{what} did not end in time");
        }
    }

    async fn append(&self, log: &LogId, seq: u64) {
        let (nonce, body) = (Nonce(u128::from(seq)), Bytes::from_static(b"[]"));
        let commit = CommitItem { first: Seq(seq), n: 1, at: Time(seq), nonce, body };
        must("an append to the journal", self.journal.append(log, &commit).await);
    }

    async fn move_cursor(&self, log: &LogId, to: u64) {
        must("moving a cursor", self.table.move_cursor(log, Seq(to)).await);
    }

    /// Waits again if a wait ends early.
    async fn entry(&self, log: &LogId, seq: u64) {
        while must("the tail of a log", self.journal.tail(log).await) < Seq(seq) {
            self.waits.entry(log, Seq(seq), LONG_MS).await;
        }
    }

    /// Waits again if a wait ends early.
    async fn cursor(&self, log: &LogId, seq: u64) {
        let reached = async || {
            let cursor = must("reading a cursor", self.table.cursor(log).await);
            cursor.unwrap_or_default().seq >= Seq(seq)
        };
        while !reached().await {
            self.waits.view(self.view, self.table, log, Seq(seq), LONG_MS).await;
        }
    }
}

/// The whole port.
pub async fn waits(ports: &WaitsPorts<'_>, prefix: &str) {
    a_wait_for_a_reached_seq_returns_at_once(ports, prefix).await;
    waits_end_when_time_is_over(ports, prefix).await;
    a_wait_ends_when_its_seq_is_reached(ports, prefix).await;
    no_wait_misses_its_seq(ports, prefix).await;
}

async fn a_wait_for_a_reached_seq_returns_at_once(ports: &WaitsPorts<'_>, prefix: &str) {
    let log = log(prefix, "reached");
    for seq in 1..=3 {
        ports.append(&log, seq).await;
        ports.move_cursor(&log, seq).await;
    }
    for seq in [Seq(1), Seq(3)] {
        let entry = ports.waits.entry(&log, seq, LONG_MS);
        ports.soon("waiting for an entry that is there", entry).await;
        let view = ports.waits.view(ports.view, ports.table, &log, seq, LONG_MS);
        ports.soon("waiting for a view that is there", view).await;
    }
}

async fn waits_end_when_time_is_over(ports: &WaitsPorts<'_>, prefix: &str) {
    let (log, never) = (log(prefix, "over"), log(prefix, "over-never"));
    ports.append(&log, 1).await;
    ports.move_cursor(&log, 1).await;
    for log in [&log, &never] {
        for ms in [0, 1, 50] {
            let entry = ports.waits.entry(log, Seq(2), ms);
            ports.soon("a wait for an entry that does not come", entry).await;
            let view = ports.waits.view(ports.view, ports.table, log, Seq(2), ms);
            ports.soon("a wait for a view that does not come", view).await;
        }
    }
}

async fn a_wait_ends_when_its_seq_is_reached(ports: &WaitsPorts<'_>, prefix: &str) {
    let (here, there) = (log(prefix, "meanwhile"), log(prefix, "meanwhile-elsewhere"));
    let waiting = async {
        let entries = join_all((1..=3).map(|seq| ports.entry(&here, seq)));
        let views = join_all((1..=3).map(|seq| ports.cursor(&here, seq)));
        join(entries, views).await;
    };
    let writing = async {
        for seq in 1..=3 {
            ports.env.sleep(5).await;
            ports.append(&there, seq).await;
            ports.append(&here, seq).await;
            ports.env.sleep(5).await;
            ports.move_cursor(&there, seq).await;
            ports.move_cursor(&here, seq).await;
        }
    };
    ports.soon("waiting for what comes meanwhile", join(waiting, writing)).await;
}

async fn no_wait_misses_its_seq(ports: &WaitsPorts<'_>, prefix: &str) {
    let log = log(prefix, "missed");
    let writing = async {
        for seq in 1..=ROUNDS {
            pause(seq % 3).await;
            ports.append(&log, seq).await;
            pause(seq % 4).await;
            ports.move_cursor(&log, seq).await;
        }
    };
    let waiting = join_all((0..RACERS).map(|racer| {
        let log = &log;
        async move {
            for seq in (1 + racer..=ROUNDS).step_by(1 + racer as usize) {
                ports.entry(log, seq).await;
                ports.cursor(log, seq).await;
            }
        }
    }));
    ports.soon("waiting for one after another", join(waiting, writing)).await;
}

/// Yields so many times.
async fn pause(times: u64) {
    let mut left = times;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
