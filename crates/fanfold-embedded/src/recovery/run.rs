//! The loops of an engine that write to the store, and the stored count of unclean starts.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fanfold::{LogId, with_causes};
use fanfold_pipeline::ports::Env;

use super::checkpoints::{CheckpointCounts, CheckpointLoop, Downstream};
use super::gaps::StoredGaps;
use super::watchdog::{Vital, Watchdog};
use crate::commands::StoredCommands;
use crate::faults;
use crate::stop::{Stop, Stopper};
use crate::store::{OpenError, Store, StoreError, Table};
use crate::striped::lock;
use crate::tasks::Tasks;

/// The meta table's key of the current run: its position in the command log, and the number of
/// unclean starts before it. A clean end removes it.
pub(crate) const RUN_KEY: &[u8] = b"run";
/// The pause between two checks whether everything is processed again, in milliseconds: short
/// beside the half second of work that this usually is.
const RECOVERY_LOOK_MS: u64 = 5;

/// The store, and the loops that write to it.
pub struct Durability {
    store: Arc<Store>,
    commands: Arc<StoredCommands>,
    tasks: Tasks,
    stopper: Stopper,
    stop: Stop,
    /// The result of the last checkpoint. `None`: the loop has not ended.
    last: Arc<Mutex<Option<Result<(), StoreError>>>>,
    /// The number of earlier starts at this position without a clean end.
    unclean_starts: u64,
    /// The end of the command log at the start.
    replayed: u64,
    counts: Arc<CheckpointCounts>,
}

impl Durability {
    /// Stores that a run begins. The command log was read before.
    pub(crate) fn begin(
        store: Arc<Store>,
        commands: Arc<StoredCommands>,
        tasks: Tasks,
    ) -> Result<Self, OpenError> {
        let explain = |error| store.folder().explain(error);
        let done = store.done().map_err(explain)?;
        let before = store.get(Table::META, RUN_KEY).map_err(explain)?.and_then(decode);
        // Count from 1 again if the last run made progress, unless it was suspicious: it may have
        // made progress only because it processed one command at a time.
        let unclean_starts = match before {
            Some((at, starts)) if at == done || starts > 1 => starts + 1,
            Some(_) => 1,
            None => 0,
        };
        let run = encode(done, unclean_starts);
        store.put_now(Table::META, RUN_KEY, Some(run)).map_err(explain)?;
        let (stopper, stop) = Stopper::new();
        let counts = CheckpointCounts { done: done.into(), ..CheckpointCounts::default() };
        Ok(Self {
            replayed: commands.shown(),
            store,
            commands,
            tasks,
            stopper,
            stop,
            last: Arc::default(),
            unclean_starts,
            counts: Arc::new(counts),
        })
    }

    /// Starts the loops.
    pub(crate) fn start(
        &self,
        downstream: impl Downstream,
        gaps: StoredGaps,
        env: Arc<dyn Env>,
        watchdog: Arc<Watchdog>,
    ) -> Result<(), OpenError> {
        let checkpoints = CheckpointLoop {
            store: self.store.clone(),
            commands: self.commands.clone(),
            downstream,
            env,
            watchdog,
            counts: self.counts.clone(),
            gaps,
            next: None,
            saved: self.counts.done.load(Ordering::Relaxed),
        };
        let (store, counts) = (Arc::downgrade(&self.store), self.counts.clone());
        let commands = Arc::downgrade(&self.commands);
        faults::before_abort(move || {
            let done = counts.done.load(Ordering::Relaxed);
            let shown = commands.upgrade().map(|commands| commands.shown());
            let saved = store.upgrade().map(|store| store.checkpoint(done));
            tracing::debug!(done, shown, ?saved, "a checkpoint before the end");
        });
        let (stop, last) = (self.stop.clone(), self.last.clone());
        let checkpoints = async move {
            let _vital = Vital("the checkpoints");
            let saved = checkpoints.run(stop).await;
            *lock(&last) = Some(saved);
        };
        let commands = self.commands.clone();
        let commands = async move {
            let _vital = Vital("the commands");
            commands.run().await;
        };
        let started = self.tasks.spawn_thread("fanfold-checkpoints", checkpoints);
        let started = started.and_then(|()| self.tasks.spawn_thread("fanfold-commands", commands));
        started.map_err(|error| self.explain(error))
    }

    /// Converts an I/O error of the start into the error for opening the folder.
    pub(crate) fn explain(&self, error: io::Error) -> OpenError {
        self.store.folder().explain(StoreError::Io(error))
    }

    /// The logs whose commands are processed again.
    pub fn replayed_logs(&self) -> &[LogId] {
        self.commands.replayed_logs()
    }

    /// The number of earlier starts at the same position in the command log without a clean end.
    pub fn unclean_starts(&self) -> u64 {
        self.unclean_starts
    }

    /// Waits until everything that was in the command log at the start is processed.
    pub(crate) async fn until_recovered(&self, env: &dyn Env) {
        while self.counts.done.load(Ordering::Relaxed) < self.replayed {
            env.sleep(RECOVERY_LOOK_MS).await;
        }
    }

    /// Stores that the engine has recovered, so that a later crash does not count against the
    /// commands that were processed again.
    pub(crate) fn recovered(&self) {
        let run = encode(self.counts.done.load(Ordering::Relaxed), 0);
        if let Err(error) = self.store.put_now(Table::META, RUN_KEY, Some(run)) {
            tracing::warn!(
                error = with_causes(&error),
                "recovery is complete, but this could not be stored: a crash from here on counts as one during recovery"
            );
        }
    }

    /// The store.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The number of syncs of the command log.
    pub fn syncs(&self) -> u64 {
        self.commands.counts().syncs()
    }

    /// The bytes of the command log.
    pub fn command_log_bytes(&self) -> u64 {
        self.commands.counts().log_bytes()
    }

    /// The bytes that the next checkpoint will store.
    pub fn unsaved_bytes(&self) -> usize {
        self.store.unsaved_bytes()
    }

    /// The number of checkpoints made.
    pub fn checkpoints(&self) -> u64 {
        self.counts.made.load(Ordering::Relaxed)
    }

    /// Stops the loops without waiting for their end. Has no effect after [`Durability::end`].
    /// Without that, the next start does the rest.
    pub(crate) fn abandon(&self) {
        self.commands.end();
        self.stopper.stop();
    }

    /// Makes a last checkpoint, and ends the loops. `clean`: no work is left. `false`: the last
    /// checkpoint or the clean end could not be stored, so the next start has more to do.
    pub(crate) async fn end(&self, clean: bool) -> bool {
        self.commands.end();
        self.stopper.stop();
        self.tasks.ended().await;
        let saved = match lock(&self.last).take() {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::error!(
                    error = with_causes(&error),
                    "the engine could not make its last checkpoint: the next start processes more commands again"
                );
                false
            }
            None => false,
        };
        match saved && clean {
            true => self.store.put_now(Table::META, RUN_KEY, None).is_ok(),
            false => saved,
        }
    }
}

fn encode(at: u64, starts: u64) -> Bytes {
    [at.to_be_bytes(), starts.to_be_bytes()].concat().into()
}

fn decode(value: Bytes) -> Option<(u64, u64)> {
    let (at, starts) = value.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*at), u64::from_be_bytes(starts.try_into().ok()?)))
}
