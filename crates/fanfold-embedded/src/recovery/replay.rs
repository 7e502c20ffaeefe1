//! Processes commands again after a restart, and isolates a command that crashes each start.
//!
//! - **Notifications** are only in memory, so a crash loses them. Each view catches up from the
//!   journal in the logs whose commands are processed again, before the command log is cut off.
//! - **After a second unclean start at one position**, the stages are suspicious (see
//!   [`Suspicion`]): the whole engine works on one record or message at a time, each behind a
//!   durable lease. So the next start finds out at which one the process crashed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fanfold::LogId;
use fanfold::Time;
use fanfold::host::body::notification::ReceivedCommit;
use fanfold::host::body::record::Record;
use fanfold::host::knob::Knob;
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::calls::{CallCounter, ViewCalls};
use fanfold_pipeline::ports::{Commands, Env};
use fanfold_pipeline::process::{Processor, ReceivedRecord, Suspicion};
use fanfold_pipeline::project::Projector;
use fanfold_pipeline::sweep::ViewSweep;
use tokio::sync::Mutex;

use super::{Durability, ViewGaps, Watchdog};
use crate::ports::Ports;
use crate::store::Store;

/// The number of unclean starts at one position in the command log from which everything there is
/// suspect. A single one may have another cause. `docs/design.md#suspects`.
const UNCLEAN_STARTS_MAX: u64 = 2;
/// The `attempts_max` of the processor while everything is suspect; a projector gets one more. Low,
/// because the two starts before crashed there, too, though a signal may have ended one of them.
const ATTEMPTS_MAX: u32 = 1;
/// The number of logs that a view catches up in at a time.
const LOGS_PER_PAGE: Knob = Knob::new(10_000, 1);
/// How long a view catches up before it leaves the rest to its sweep, in milliseconds.
const CATCH_UP_MS: u64 = 30_000;

/// The progress of processing commands again.
pub(crate) struct Replay {
    /// The logs of the commands that are processed again.
    logs: Vec<LogId>,
    /// The number of views that have not caught up yet.
    views: AtomicUsize,
    /// The number of views that may still lack commits of commands that were processed again.
    incomplete: AtomicUsize,
    is_suspicious: AtomicBool,
    /// A suspicious stage holds it while users' code runs.
    turn: Mutex<()>,
    watchdog: Arc<Watchdog>,
    /// Counts the calls of views.
    calls: Arc<CallCounter>,
    /// Makes leases durable.
    store: Arc<Store>,
}

impl Replay {
    /// `process` is a random number of this process.
    pub(crate) fn new(
        logs: &[LogId],
        views: usize,
        unclean_starts: u64,
        store: Arc<Store>,
        process: u64,
    ) -> Arc<Self> {
        let is_suspicious = unclean_starts >= UNCLEAN_STARTS_MAX;
        if is_suspicious {
            tracing::warn!(
                unclean_starts,
                logs = logs.len(),
                "earlier starts crashed during recovery: recovery processes one record at a time"
            );
        }
        Arc::new(Self {
            logs: logs.to_vec(),
            views: AtomicUsize::new(views),
            incomplete: AtomicUsize::new(views),
            is_suspicious: is_suspicious.into(),
            turn: Mutex::default(),
            watchdog: Arc::default(),
            calls: CallCounter::new(process),
            store,
        })
    }

    /// The watchdog over all invocations.
    pub(crate) fn watchdog(&self) -> &Arc<Watchdog> {
        &self.watchdog
    }

    /// The calls of all views.
    pub(crate) fn calls(&self) -> ViewCalls {
        ViewCalls::Counted(self.calls.clone())
    }

    /// Whether all views have caught up.
    pub(crate) fn has_caught_up(&self) -> bool {
        self.views.load(Ordering::Acquire) == 0
    }

    /// Whether all views have the commits of all commands that were processed again.
    pub(crate) fn is_complete(&self) -> bool {
        self.incomplete.load(Ordering::Acquire) == 0
    }

    pub(crate) fn is_suspicious(&self) -> bool {
        self.is_suspicious.load(Ordering::Relaxed)
    }

    /// The processor's suspicion. [`Replay::clear_suspicion`] changes it.
    pub(crate) fn suspicion(&self) -> Suspicion {
        match self.is_suspicious() {
            true => Suspicion { age_ms: 0, attempts_max: ATTEMPTS_MAX, ..Suspicion::default() },
            false => Suspicion::default(),
        }
    }

    /// Ends the suspicion, after all commands were processed again.
    pub(crate) fn clear_suspicion(&self, processor: &Processor) {
        self.is_suspicious.store(false, Ordering::Relaxed);
        processor.suspect(self.suspicion());
    }

    pub(crate) async fn process(
        &self,
        processor: &Processor,
        records: &[ReceivedRecord],
        deadline: Time,
    ) -> BatchOutcome {
        let is_suspicious = self.is_suspicious();
        // The commands that a nudge takes up are not in the command log. After a crash, only a
        // durable lease shows that they were at hand.
        let is_nudge = |record: &ReceivedRecord| Record::is_nudge(&record.data);
        if !is_suspicious && !records.iter().any(is_nudge) {
            let _watched = self.watchdog.watch("a processor's invocation");
            return processor.process(records, deadline).await;
        }
        let suspicion = match is_suspicious {
            true => self.suspicion(),
            false => Suspicion { age_ms: 0, ..Suspicion::default() },
        };
        for (index, record) in records.iter().enumerate() {
            let _turn = self.turn.lock().await;
            let _watched = self.watchdog.watch("a processor's invocation");
            let record = std::slice::from_ref(record);
            let outcome = processor.process_suspect(record, suspicion, deadline).await;
            self.make_durable().await;
            if outcome.unfinished.is_some() {
                return BatchOutcome { unfinished: Some(index) };
            }
        }
        BatchOutcome::DONE
    }

    /// Makes the end of an attempt durable, so that a crash in the next does not count against it.
    async fn make_durable(&self) {
        if let Err(error) = self.store.durable().await {
            tracing::warn!(%error, "the end of a call could not be made durable: a crash from here on counts against that call");
        }
    }

    pub(crate) async fn project(
        &self,
        projector: &Projector,
        messages: &[&[ReceivedCommit]],
        deadline: Time,
    ) -> Vec<usize> {
        let _counted = self.calls.begin();
        if !self.is_suspicious() {
            let _watched = self.watchdog.watch("a view's invocation");
            return projector.project_commits(messages, deadline).await;
        }
        let projector = projector.suspicious(ATTEMPTS_MAX + 1);
        let mut failed = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            let _turn = self.turn.lock().await;
            let _watched = self.watchdog.watch("a view's invocation");
            if !projector.project_commits(&[message], deadline).await.is_empty() {
                failed.push(index);
            }
            self.make_durable().await;
        }
        failed
    }

    /// Runs a step of a view's sweep, alone while everything is suspect.
    pub(crate) async fn sweep<T>(&self, run: impl Future<Output = T>) -> T {
        let _counted = self.calls.begin();
        let _turn = match self.is_suspicious() {
            true => Some(self.turn.lock().await),
            false => None,
        };
        let _watched = self.watchdog.watch("a view's sweep");
        run.await
    }

    /// Lets a view catch up from the journal, as the crash may have lost notifications: in the logs
    /// whose commands are processed again, and in all logs if an earlier run has left gaps.
    pub(crate) async fn catch_up(
        &self,
        sweep: &ViewSweep,
        gaps: &ViewGaps,
        ports: &Ports,
        env: &dyn Env,
    ) {
        let deadline = env.now().plus_ms(CATCH_UP_MS);
        let mut failed = self.catch_up_in(&self.logs, sweep, deadline).await;
        if gaps.has_unclosed() {
            let mut after = None;
            loop {
                let Ok(page) = ports.commands.catalogue(after, LOGS_PER_PAGE.get()).await else {
                    failed += 1;
                    break;
                };
                failed += self.catch_up_in(&page.logs, sweep, deadline).await;
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        match failed {
            0 => gaps.close_earlier(),
            logs => tracing::warn!(
                view = gaps.view(),
                logs,
                "recovery could not bring the view up to date in all logs: the view's sweep does the rest"
            ),
        }
        self.views.fetch_sub(1, Ordering::Release);
    }

    /// Waits until all commands are processed again. Then lets the view catch up if it has gaps.
    pub(crate) async fn complete(
        &self,
        sweep: &ViewSweep,
        gaps: &ViewGaps,
        durability: &Durability,
        env: &dyn Env,
    ) {
        durability.until_recovered(env).await;
        if gaps.are_open() {
            let deadline = env.now().plus_ms(CATCH_UP_MS);
            self.catch_up_in(&self.logs, sweep, deadline).await;
        }
        self.incomplete.fetch_sub(1, Ordering::Release);
    }

    /// Lets the view catch up in these logs. Returns the number of logs that are left.
    async fn catch_up_in(&self, logs: &[LogId], sweep: &ViewSweep, deadline: Time) -> usize {
        let attempts_max = self.is_suspicious().then_some(ATTEMPTS_MAX + 1);
        let report = self.sweep(sweep.catch_up(logs, attempts_max, deadline)).await;
        let caught_up = report.caught_up.len();
        tracing::info!(logs = logs.len(), caught_up, "recovery has brought a view up to date");
        report.failed.len() + report.under_way
    }
}
