//! What a durable engine does again after it has ended, and how it does so when it ends again and
//! again: then something that it does again ends its process.
//!
//! - **What was told** is lost with the memory: each view is brought on from the journal, in the logs
//!   whose commands are done again, and the command log is kept until that is so.
//! - **After the second start at one place** without a proper end, the stages are suspicious (see
//!   [`Suspicion`]): one record, one message at a time in the whole engine, each behind a marker that
//!   is on disk. So what dies next is known at the start after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fanfold::LogId;
use fanfold::Time;
use fanfold::body::notification::ReceivedCommit;
use fanfold::body::record::Record;
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::process::{Processor, ReceivedRecord, Suspicion};
use fanfold_pipeline::project::Projector;
use fanfold_pipeline::sweep::ViewSweep;
use tokio::sync::Mutex;

use crate::store::Store;
use crate::watchdog::Watchdog;

/// Starts at one place in the command log, without a proper end, after which everything there is
/// suspect: once may be bad luck. `docs/design.md#suspects`.
const UNCLEAN_STARTS_MAX: u64 = 2;
/// Attempts that may end the process while everything is suspect, before what is at hand is taken
/// for the cause. Two starts before, the process ended there, too; but one may be a stray signal.
const ATTEMPTS_MAX: u32 = 1;
/// How long a view is brought on before the rest is left to its sweep, in milliseconds.
const BRING_ON_MS: u64 = 30_000;

/// What is done again.
pub(crate) struct Again {
    /// The logs of the commands that are done again.
    logs: Vec<LogId>,
    /// Views that are not brought on yet.
    views: AtomicUsize,
    is_suspicious: AtomicBool,
    /// Whoever is suspicious holds it while users' code runs.
    turn: Mutex<()>,
    watchdog: Arc<Watchdog>,
    /// Where it is known after a crash what has come back.
    store: Option<Arc<Store>>,
}

impl Again {
    pub(crate) fn new(
        logs: &[LogId],
        views: usize,
        unclean_starts: u64,
        store: Option<Arc<Store>>,
    ) -> Arc<Self> {
        let is_suspicious = unclean_starts >= UNCLEAN_STARTS_MAX;
        if is_suspicious {
            tracing::warn!(
                unclean_starts,
                logs = logs.len(),
                "the process has ended at the same place before: one thing at a time"
            );
        }
        Arc::new(Self {
            logs: logs.to_vec(),
            views: AtomicUsize::new(views),
            is_suspicious: is_suspicious.into(),
            turn: Mutex::default(),
            watchdog: Arc::default(),
            store,
        })
    }

    /// Nothing: for an engine that has not ended before.
    pub(crate) fn nothing() -> Arc<Self> {
        Self::new(&[], 0, 0, None)
    }

    /// Knows what is under way.
    pub(crate) fn watchdog(&self) -> &Arc<Watchdog> {
        &self.watchdog
    }

    /// Whether all views are brought on.
    pub(crate) fn is_brought_on(&self) -> bool {
        self.views.load(Ordering::Acquire) == 0
    }

    pub(crate) fn is_suspicious(&self) -> bool {
        self.is_suspicious.load(Ordering::Relaxed)
    }

    /// A processor's suspicion while this lasts.
    pub(crate) fn suspicion(&self) -> Suspicion {
        match self.is_suspicious() {
            true => Suspicion { age_ms: 0, attempts_max: ATTEMPTS_MAX, ..Suspicion::default() },
            false => Suspicion::default(),
        }
    }

    /// Everything was done again.
    pub(crate) fn trust(&self, processor: &Processor) {
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
        // What a nudge takes up is not done again after a crash: only its marker tells of it.
        let is_nudge =
            |record: &ReceivedRecord| self.store.is_some() && Record::is_nudge(&record.data);
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
            self.is_durable().await;
            if outcome.unfinished.is_some() {
                return BatchOutcome { unfinished: Some(index) };
            }
        }
        BatchOutcome::DONE
    }

    /// That it came back is on disk, before the next may die.
    async fn is_durable(&self) {
        if let Some(store) = &self.store
            && let Err(error) = store.durable().await
        {
            tracing::warn!(%error, "that something came back is perhaps not known after a crash");
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
            self.is_durable().await;
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

    /// Brings a view on, which may not have been told of everything that the journal has.
    pub(crate) async fn bring_on(&self, view: &'static str, sweep: &ViewSweep, env: &dyn Env) {
        let attempts_max = self.is_suspicious().then_some(ATTEMPTS_MAX + 1);
        let bring_on = async {
            let deadline = env.now().plus_ms(BRING_ON_MS);
            sweep.catch_up(&self.logs, attempts_max, deadline).await
        };
        let report = self.sweep(bring_on).await;
        tracing::info!(
            view,
            logs = self.logs.len(),
            caught_up = report.caught_up.len(),
            "brought on"
        );
        if !report.failed.is_empty() {
            tracing::warn!(view, logs = report.failed.len(), "left to the view's sweep");
        }
        self.views.fetch_sub(1, Ordering::Release);
    }
}
