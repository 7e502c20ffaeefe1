//! Waiting until the journal or a view reaches a seq.
//!
//! After each write, the writer reports its new seq to its [`Waiters`]. A waiter registers first,
//! then reads, then waits. So a write is either seen by the read, or it wakes the registered
//! waiter. Memory is held only while there are waiters.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use fanfold::{LogId, Seq};
use fanfold_pipeline::ports::{Cursor, Env, Journal, ViewTable, Waits};
use futures::future::select;
use tokio::sync::oneshot;

use crate::interleave::{self, Between};
use crate::striped::Striped;

/// The waiters for the logs of one journal, or of one view, to reach a seq.
#[derive(Default)]
pub struct Waiters {
    /// Ordered by seq, so that a write wakes only the waiters whose seq it reached.
    logs: Striped<BTreeMap<(Seq, u64), oneshot::Sender<()>>>,
    registered: AtomicU64,
    /// The number of waiters. Incremented before a waiter registers and reads.
    waiting: AtomicUsize,
}

/// A registered waiter. Dropping it removes the registration.
pub struct Waiter<'a> {
    waiters: &'a Waiters,
    log: &'a LogId,
    key: (Seq, u64),
    woken: oneshot::Receiver<()>,
}

impl Waiters {
    /// Registers a waiter for `log` to reach `seq`.
    pub fn register<'a>(&'a self, log: &'a LogId, seq: Seq) -> Waiter<'a> {
        let key = (seq, self.registered.fetch_add(1, Ordering::Relaxed));
        let (wake, woken) = oneshot::channel();
        // Before the waiter reads: a write after that read then sees that there is a waiter.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.logs.of(log).entry(log.clone()).or_default().insert(key, wake);
        Waiter { waiters: self, log, key, woken }
    }

    /// Wakes the waiters whose seq is at most `seq`.
    pub fn reached(&self, log: &LogId, seq: Seq) {
        // Fast path: no waiters. A waiter that registers later reads after our write.
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut woken = Vec::new();
        {
            let mut logs = self.logs.of(log);
            let Some(waiting) = logs.get_mut(log) else { return };
            while let Some(first) = waiting.first_entry()
                && first.key().0 <= seq
            {
                woken.push(first.remove());
            }
            if waiting.is_empty() {
                logs.remove(log);
            }
        }
        woken.into_iter().for_each(wake);
    }

    /// Wakes all waiters for the log, because it will not advance further.
    pub fn stopped(&self, log: &LogId) {
        let woken = self.logs.of(log).remove(log);
        woken.into_iter().flatten().for_each(|(_, waiter)| wake(waiter));
    }

    /// The number of logs that have waiters.
    pub fn logs(&self) -> usize {
        self.logs.stripes().map(|logs| logs.len()).sum()
    }
}

fn wake(waiter: oneshot::Sender<()>) {
    // An error means that the waiter was dropped meanwhile.
    let _ = waiter.send(());
}

impl Waiter<'_> {
    /// Returns when it is woken.
    pub async fn woken(mut self) {
        // On `Err` the sender is gone: this waiter is not registered any more.
        let (Ok(()) | Err(_)) = (&mut self.woken).await;
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.waiters.waiting.fetch_sub(1, Ordering::SeqCst);
        let mut logs = self.waiters.logs.of(self.log);
        if let Some(waiting) = logs.get_mut(self.log) {
            waiting.remove(&self.key);
            if waiting.is_empty() {
                logs.remove(self.log);
            }
        }
    }
}

/// The port [`Waits`], over a journal and view tables that report their progress to [`Waiters`].
pub struct LocalWaits {
    env: Arc<dyn Env>,
    journal: Arc<dyn Journal>,
    entries: Arc<Waiters>,
    views: BTreeMap<String, Arc<Waiters>>,
}

impl LocalWaits {
    /// Watches a journal, and no views yet.
    pub fn new(env: Arc<dyn Env>, journal: Arc<dyn Journal>, entries: Arc<Waiters>) -> Self {
        Self { env, journal, entries, views: BTreeMap::new() }
    }

    /// Also watches a view.
    #[must_use]
    pub fn with_view(mut self, view: &str, waiters: Arc<Waiters>) -> Self {
        self.views.insert(view.to_owned(), waiters);
        self
    }

    async fn until_woken(&self, waiter: Waiter<'_>, ms: u64) {
        select(pin!(waiter.woken()), self.env.sleep(ms)).await;
    }
}

#[async_trait]
impl Waits for LocalWaits {
    async fn entry(&self, log: &LogId, seq: Seq, ms: u64) {
        let waiter = self.entries.register(log, seq);
        interleave::reached(Between::Steps);
        // If the journal fails here, the caller gets the error from its own read.
        let tail = self.journal.tail(log).await;
        interleave::reached(Between::Steps);
        if tail.is_ok_and(|tail| tail < seq) {
            self.until_woken(waiter, ms).await;
        }
    }

    async fn view(&self, view: &str, table: &dyn ViewTable, log: &LogId, seq: Seq, ms: u64) {
        let Some(waiters) = self.views.get(view) else { return };
        let waiter = waiters.register(log, seq);
        interleave::reached(Between::Steps);
        let cursor = table.cursor(log).await;
        interleave::reached(Between::Steps);
        // A parked view does not advance, so waiting for it is useless.
        let comes = |cursor: Cursor| cursor.seq < seq && cursor.parked.is_none();
        if cursor.is_ok_and(|cursor| comes(cursor.unwrap_or_default())) {
            self.until_woken(waiter, ms).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn log(org: &str) -> LogId {
        format!("ledger/org:{org}").parse().expect("a log")
    }

    #[test]
    fn a_waiter_is_woken_once_its_seq_is_reached() {
        let waiters = Waiters::default();
        let (here, there) = (log("here"), log("there"));
        let mut third = Box::pin(waiters.register(&here, Seq(3)).woken());
        let mut fourth = Box::pin(waiters.register(&here, Seq(4)).woken());
        let mut elsewhere = Box::pin(waiters.register(&there, Seq(3)).woken());
        assert_eq!(waiters.logs(), 2);
        for (seq, expected) in [(2, [false, false]), (3, [true, false])] {
            waiters.reached(&here, Seq(seq));
            let woken =
                [(&mut third).now_or_never().is_some(), (&mut fourth).now_or_never().is_some()];
            assert_eq!(woken, expected, "after {seq}");
        }
        assert!((&mut elsewhere).now_or_never().is_none());
        waiters.stopped(&here);
        assert!((&mut fourth).now_or_never().is_some());
        waiters.reached(&there, Seq(9));
        assert!((&mut elsewhere).now_or_never().is_some());
        assert_eq!(waiters.logs(), 0);
    }

    #[test]
    fn dropped_waiters_hold_no_memory() {
        let waiters = Waiters::default();
        let log = log("gone");
        let one = waiters.register(&log, Seq(1));
        drop(waiters.register(&log, Seq(1)));
        assert_eq!(waiters.logs(), 1);
        drop(one.woken());
        assert_eq!(waiters.logs(), 0);
        waiters.reached(&log, Seq(1));
        assert_eq!(waiters.logs(), 0);
    }
}
