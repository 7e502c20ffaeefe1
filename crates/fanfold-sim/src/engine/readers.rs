//! Readers of an engine: what they see must never be taken back, and they must be woken.

use std::pin::pin;

use fanfold::host::invariant::Invariant;
use fanfold::{LogId, Seq};
use fanfold_embedded::Engine;
use fanfold_pipeline::ports::{Env, Journal, ViewTable};
use fanfold_pipeline::read::Awaited;
use futures::future::{Either, select};

use super::Run;
use crate::clients::all_rows;
use crate::services;

/// The pause of a reader, in milliseconds.
const READER_MS: std::ops::Range<u64> = 5..400;
/// A write so many milliseconds before the end of a wait may wake the reader or not.
const RACE_MS: u64 = 2;

impl Run {
    /// Reads entries and views, also while they are written.
    pub(super) async fn read(&self, engine: &Engine) {
        loop {
            self.pause(READER_MS).await;
            self.read_once(engine, 2_000).await;
        }
    }

    /// Reads at any promised seq. Returns whether there is one.
    pub(super) async fn read_once(&self, engine: &Engine, wait_ms_max: u64) -> bool {
        let promise = {
            let seen = self.seen.borrow();
            let n = seen.promised.len();
            (n > 0).then(|| {
                let at = self.world.pick(0..n as u64) as usize;
                seen.promised.keys().nth(at).cloned()
            })
        };
        let Some((log, seq)) = promise.flatten() else { return false };
        self.read_at(engine, &log, seq, wait_ms_max).await;
        true
    }

    /// Reads an entry or the views of its log, and waits for up to `wait_ms_max` milliseconds.
    pub(super) async fn read_at(&self, engine: &Engine, log: &LogId, seq: Seq, wait_ms_max: u64) {
        if self.world.happens(500) {
            let wait_ms = self.world.pick(0..wait_ms_max);
            let found = engine.reads().entry(log, seq, wait_ms);
            let is_there = async || engine.ports().journal.tail(log).await.is_ok_and(|t| t >= seq);
            let what = || format!("the entry {seq} of {log}");
            if let Ok(Awaited::Ready(entry)) = self.woken(found, wait_ms, is_there, what).await {
                self.seen.borrow_mut().sees_entry(log, &entry);
            }
            return;
        }
        let asked = self.world.happens(500).then_some(seq);
        for view in services::READ {
            let wait_ms = self.world.pick(0..wait_ms_max);
            let floor = self.seen.borrow().floor(view, log);
            let found = all_rows(engine.reads(), view, log, asked, wait_ms);
            let is_there = async || {
                let cursor = engine.ports().views[view].cursor(log).await.ok().flatten();
                cursor.is_some_and(|cursor| Some(cursor.seq) >= asked)
            };
            let what = || format!("{view} of {log} at {asked:?}");
            let found = self.woken(found, wait_ms, is_there, what).await;
            let Some((cursor, rows)) = found else { continue };
            let rows = rows.into_iter().map(|row| (row.key, row.seq, row.body.to_vec()));
            let rows: Vec<_> = rows.collect();
            let mut seen = self.seen.borrow_mut();
            seen.sees_rows(view, log, &floor, cursor, rows);
            let reached = asked.is_none_or(|asked| cursor >= asked);
            seen.check(Invariant::F6, reached, || {
                format!("{view} {log} is shown at {cursor} before {asked:?}")
            });
        }
    }

    /// The result of a read that waits for up to `wait_ms` milliseconds. A write must wake it: if what it waits for was
    /// there before its time was over, it must not last that long.
    async fn woken<T>(
        &self,
        read: impl Future<Output = T>,
        wait_ms: u64,
        is_there: impl AsyncFn() -> bool,
        what: impl FnOnce() -> String,
    ) -> T {
        let begun = self.world.now();
        let probe = async {
            // The read may be woken and run out of time in the same millisecond.
            self.world.sleep(wait_ms.saturating_sub(RACE_MS)).await;
            is_there().await
        };
        let timed = async { (read.await, self.world.now().since_ms(begun)) };
        let ((found, ms), was_there) = match select(pin!(timed), pin!(probe)).await {
            Either::Left((timed, _)) => (timed, false),
            Either::Right((was_there, timed)) => (timed.await, was_there),
        };
        self.seen.borrow_mut().check(
            Invariant::F6,
            !was_there || ms < wait_ms || wait_ms <= RACE_MS,
            || format!("a reader of {} was not woken within {wait_ms} ms", what()),
        );
        found
    }
}
