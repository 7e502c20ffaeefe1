//! Waiting for what the journal and the views come to.
//!
//! Who writes tells its [`Waiters`] how far it is now; who waits registers first, then looks, then
//! waits. So whatever is written is either seen by the look, or told to who has registered; and
//! memory is held only while somebody waits.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use fanfold::{LogId, Seq};
use fanfold_pipeline::ports::{Cursor, Env, Journal, ViewTable, Waits};
use futures::future::select;
use tokio::sync::oneshot;

use crate::striped::Striped;

/// Those who wait for the logs of one journal, or of one view, to come to a seq.
#[derive(Default)]
pub struct Waiters {
    /// By seq, so that a write wakes only those whose time has come.
    logs: Striped<BTreeMap<(Seq, u64), oneshot::Sender<()>>>,
    registered: AtomicU64,
    /// How many wait. Counted before they are registered, let alone look.
    waiting: AtomicUsize,
}

/// One who waits; no longer registered once it is dropped.
pub struct Waiter<'a> {
    waiters: &'a Waiters,
    log: &'a LogId,
    key: (Seq, u64),
    woken: oneshot::Receiver<()>,
}

impl Waiters {
    /// Registers one who waits for `log` to come to `seq`.
    pub fn register<'a>(&'a self, log: &'a LogId, seq: Seq) -> Waiter<'a> {
        let key = (seq, self.registered.fetch_add(1, Ordering::Relaxed));
        let (wake, woken) = oneshot::channel();
        // Before it looks: who writes after that look sees that somebody waits.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.logs.of(log).entry(log.clone()).or_default().insert(key, wake);
        Waiter { waiters: self, log, key, woken }
    }

    /// Wakes those whose seq the log has reached.
    pub fn reached(&self, log: &LogId, seq: Seq) {
        // Most often nobody does. Who registers later than this looks later than what was written.
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

    /// Wakes all who wait for the log: it comes no further.
    pub fn stopped(&self, log: &LogId) {
        let woken = self.logs.of(log).remove(log);
        woken.into_iter().flatten().for_each(|(_, waiter)| wake(waiter));
    }

    /// How many logs are waited for.
    pub fn logs(&self) -> usize {
        self.logs.stripes().map(|logs| logs.len()).sum()
    }
}

fn wake(waiter: oneshot::Sender<()>) {
    // Who has gone meanwhile needs no waking.
    let _ = waiter.send(());
}

impl Waiter<'_> {
    /// Returns when it is woken.
    pub async fn woken(mut self) {
        // Both mean the same: it waits no longer.
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

/// A journal, or a view's table, with those who wait for it.
struct Watched<T: ?Sized> {
    port: Arc<T>,
    waiters: Arc<Waiters>,
}

/// The port, over a journal and view tables that tell their [`Waiters`] how far they are.
pub struct LocalWaits {
    env: Arc<dyn Env>,
    journal: Watched<dyn Journal>,
    views: BTreeMap<String, Watched<dyn ViewTable>>,
}

impl LocalWaits {
    /// Watches a journal, and no views yet.
    pub fn new(env: Arc<dyn Env>, journal: Arc<dyn Journal>, waiters: Arc<Waiters>) -> Self {
        Self { env, journal: Watched { port: journal, waiters }, views: BTreeMap::new() }
    }

    /// Watches a view, too.
    #[must_use]
    pub fn with_view(
        mut self,
        view: &str,
        table: Arc<dyn ViewTable>,
        waiters: Arc<Waiters>,
    ) -> Self {
        self.views.insert(view.to_owned(), Watched { port: table, waiters });
        self
    }

    async fn until_woken(&self, waiter: Waiter<'_>, ms: u64) {
        select(pin!(waiter.woken()), self.env.sleep(ms)).await;
    }
}

#[async_trait]
impl Waits for LocalWaits {
    async fn entry(&self, log: &LogId, seq: Seq, ms: u64) {
        let waiter = self.journal.waiters.register(log, seq);
        // A journal that does not answer: the caller finds that out when it reads.
        if self.journal.port.tail(log).await.is_ok_and(|tail| tail < seq) {
            self.until_woken(waiter, ms).await;
        }
    }

    async fn view(&self, view: &str, log: &LogId, seq: Seq, ms: u64) {
        let Some(view) = self.views.get(view) else { return };
        let waiter = view.waiters.register(log, seq);
        let cursor = view.port.cursor(log).await;
        // One that is parked comes no further, however long anybody waits.
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
    fn who_waits_is_woken_once_its_seq_is_reached() {
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
    fn nothing_is_held_for_those_who_have_gone() {
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
