//! What an engine processes again after it has ended, and how it does so if it ends again and again: then something that
//! it processes again ends its process.
//!
//! - **Notifications** are lost with the memory: each view catches up from the journal, in the logs whose commands are
//!   processed again, and the command log is kept until that is so.
//! - **After the second start at one position** without a proper end, the stages are suspicious (see [`Suspicion`]): one
//!   record, one message at a time in the whole engine, each behind a marker that is on disk. So the next start knows at
//!   which one the process ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fanfold::LogId;
use fanfold::Time;
use fanfold::body::notification::ReceivedCommit;
use fanfold::body::record::Record;
use fanfold::knob::Knob;
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::ports::{Commands, Env};
use fanfold_pipeline::process::{Processor, ReceivedRecord, Suspicion};
use fanfold_pipeline::project::Projector;
use fanfold_pipeline::sweep::ViewSweep;
use tokio::sync::Mutex;

use super::{Durability, ViewGaps, Watchdog};
use crate::ports::Ports;
use crate::store::Store;

/// Starts at one position in the command log, without a proper end, after which everything there is suspect: one may have
/// another cause. `docs/design.md#suspects`.
const UNCLEAN_STARTS_MAX: u64 = 2;
/// Attempts that may end the process while everything is suspect, before the record or message is taken for the cause. The
/// two starts before ended there, too; but one of them may have been ended by a signal.
const ATTEMPTS_MAX: u32 = 1;
/// Logs that a view catches up in at a time.
const LOGS_PER_PAGE: Knob = Knob::new(10_000, 1);
/// How long a view catches up before the rest is left to its sweep, in milliseconds.
const CATCH_UP_MS: u64 = 30_000;

/// What is processed again.
pub(crate) struct Replay {
    /// The logs of the commands that are processed again.
    logs: Vec<LogId>,
    /// Views that have not caught up yet.
    views: AtomicUsize,
    /// Views that may still lack something that was processed again.
    incomplete: AtomicUsize,
    is_suspicious: AtomicBool,
    /// A suspicious stage holds it while users' code runs.
    turn: Mutex<()>,
    watchdog: Arc<Watchdog>,
    /// Makes markers durable.
    store: Arc<Store>,
}

impl Replay {
    pub(crate) fn new(
        logs: &[LogId],
        views: usize,
        unclean_starts: u64,
        store: Arc<Store>,
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
            store,
        })
    }

    /// Knows which invocations are under way.
    pub(crate) fn watchdog(&self) -> &Arc<Watchdog> {
        &self.watchdog
    }

    /// Whether all views have caught up.
    pub(crate) fn has_caught_up(&self) -> bool {
        self.views.load(Ordering::Acquire) == 0
    }

    /// Whether all views have everything that was processed again.
    pub(crate) fn is_complete(&self) -> bool {
        self.incomplete.load(Ordering::Acquire) == 0
    }

    pub(crate) fn is_suspicious(&self) -> bool {
        self.is_suspicious.load(Ordering::Relaxed)
    }

    /// A processor's suspicion, until [`Replay::trust`].
    pub(crate) fn suspicion(&self) -> Suspicion {
        match self.is_suspicious() {
            true => Suspicion { age_ms: 0, attempts_max: ATTEMPTS_MAX, ..Suspicion::default() },
            false => Suspicion::default(),
        }
    }

    /// Everything was processed again.
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
        // What a nudge takes up is not processed again after a crash: only its marker says that it was at hand.
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

    /// Makes it durable that an attempt has returned, before the next one can end the process.
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

    /// Runs something of a view's sweep, alone if it has to be.
    pub(crate) async fn sweep<T>(&self, run: impl Future<Output = T>) -> T {
        let _turn = match self.is_suspicious() {
            true => Some(self.turn.lock().await),
            false => None,
        };
        let _watched = self.watchdog.watch("a view's sweep");
        run.await
    }

    /// Lets a view catch up, which may have lost notifications of what the journal has: in the logs whose commands are
    /// processed again; in all logs, if an earlier run has left gaps.
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

    /// Once all commands are processed again: lets a view catch up that has lost notifications meanwhile.
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

    /// How many of these logs the view could not catch up in.
    async fn catch_up_in(&self, logs: &[LogId], sweep: &ViewSweep, deadline: Time) -> usize {
        let attempts_max = self.is_suspicious().then_some(ATTEMPTS_MAX + 1);
        let report = self.sweep(sweep.catch_up(logs, attempts_max, deadline)).await;
        let caught_up = report.caught_up.len();
        tracing::info!(logs = logs.len(), caught_up, "recovery has brought a view up to date");
        report.failed.len() + report.under_way
    }
}
