//! Makes checkpoints, and finds the position in the command log below which all is processed.
//!
//! No stage reports single commands. The loop notes a position in the command log, and marks the
//! end of the change stream. When the relay has passed the mark, the loop marks the end of the
//! command stream; when the processor has passed that, the end of the notifications. When all views
//! have passed that, everything below the noted position is processed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfold::with_causes;
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::process::ReceivedRecord;
use futures::future::{Either, select};

use super::gaps::StoredGaps;
use super::watchdog::Watchdog;
use crate::commands::StoredCommands;
use crate::faults;
use crate::shards::{Mark, Shards};
use crate::stop::Stop;
use crate::store::{CHECKPOINT_BYTES, Store, StoreError};
use crate::transit::Position;

/// The pause between two checks of the stages' progress, in milliseconds.
const LOOK_MS: u64 = 20;
/// The time between two checkpoints, in milliseconds. A crash costs about this much work again.
const CHECKPOINT_MS: u64 = 500;
/// The time between two checks that the folder still exists, in milliseconds.
const FOLDER_MS: u64 = 250;
/// The pause after a failed checkpoint, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// The stages behind the change stream.
pub(crate) trait Downstream: Send + Sync + 'static {
    /// The records on the command stream.
    fn records(&self) -> &Shards<ReceivedRecord>;
    /// The end of the notifications.
    fn published(&self) -> Position;
    /// Whether every view has passed all notifications below this position.
    fn is_projected(&self, below: Position) -> bool;
}

/// The progress that the loop waits for.
pub(super) enum Wait {
    Relayed(Mark),
    Processed(Mark),
    Projected(Position),
}

/// The progress of checkpoints, which the loop shares with reports.
#[derive(Debug, Default)]
pub(crate) struct CheckpointCounts {
    /// Everything below this position in the command log is processed.
    pub(crate) done: AtomicU64,
    /// The number of checkpoints made.
    pub(crate) made: AtomicU64,
}

/// The loop that makes checkpoints.
pub(crate) struct CheckpointLoop<D> {
    pub(super) store: Arc<Store>,
    pub(super) commands: Arc<StoredCommands>,
    pub(super) downstream: D,
    pub(super) env: Arc<dyn Env>,
    pub(super) watchdog: Arc<Watchdog>,
    pub(super) counts: Arc<CheckpointCounts>,
    pub(super) gaps: StoredGaps,
    /// A position in the command log, and the next step until everything below it is processed.
    pub(super) next: Option<(u64, Wait)>,
    /// The position that the last checkpoint has stored.
    pub(super) saved: u64,
}

impl<D: Downstream> CheckpointLoop<D> {
    /// Makes checkpoints until `stop`, and then a last one.
    pub(crate) async fn run(mut self, stop: Stop) -> Result<(), StoreError> {
        // Sums of pauses, because the clock may jump.
        let (mut checkpoint_ms, mut folder_ms) = (0, 0);
        while !stop.is_given() {
            let is_wanted = {
                let wanted = std::pin::pin!(self.store.wanted.notified());
                let pause = self.env.sleep(LOOK_MS);
                matches!(stop.or(select(wanted, pause)).await, Some(Either::Left(_)))
            };
            if !is_wanted {
                (checkpoint_ms, folder_ms) = (checkpoint_ms + LOOK_MS, folder_ms + LOOK_MS);
            }
            if folder_ms >= FOLDER_MS {
                folder_ms = 0;
                // The store logs that the folder is gone, and the host ends the engine.
                let _ = self.store.folder().check();
            }
            if self.store.folder().is_gone() {
                continue;
            }
            while self.advance() {}
            let is_due = checkpoint_ms >= CHECKPOINT_MS && self.is_behind();
            if is_wanted || is_due || self.store.unsaved_bytes() >= CHECKPOINT_BYTES.get() {
                checkpoint_ms = 0;
                if let Err(error) = self.checkpoint() {
                    tracing::error!(
                        alarm = "not_durable",
                        error = with_causes(&error),
                        "the engine could not make a checkpoint: it tries again"
                    );
                    stop.or(self.env.sleep(RETRY_MS)).await;
                    checkpoint_ms = CHECKPOINT_MS;
                }
            }
        }
        // On a proper stop the stages have ended, so this finds all that they have done.
        while self.advance() {}
        self.checkpoint()
    }

    fn done(&self) -> u64 {
        self.counts.done.load(Ordering::Relaxed)
    }

    fn is_behind(&self) -> bool {
        self.store.is_unsaved() || self.done() > self.saved
    }

    /// Goes on to the next step if a stage has passed this one. Returns whether it has.
    fn advance(&mut self) -> bool {
        let (position, wait) = match self.next.take() {
            Some(next) => next,
            None => {
                // Read the position before the mark, so that the mark covers all below it.
                let position = self.commands.shown();
                if position <= self.done() {
                    return false;
                }
                (position, Wait::Relayed(self.commands.changes().mark()))
            }
        };
        let (wait, has_passed) = match wait {
            Wait::Relayed(mark) if self.commands.changes().has_passed(&mark) => {
                (Some(Wait::Processed(self.downstream.records().mark())), true)
            }
            Wait::Processed(mark) if self.downstream.records().has_passed(&mark) => {
                (Some(Wait::Projected(self.downstream.published())), true)
            }
            Wait::Projected(below) if self.downstream.is_projected(below) => (None, true),
            wait => (Some(wait), false),
        };
        match wait {
            Some(wait) => self.next = Some((position, wait)),
            None => self.counts.done.store(position, Ordering::Relaxed),
        }
        has_passed
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        let done = self.done();
        // `fjall` can deadlock when the disk fills up. The watchdog then ends the process.
        let _watched = self.watchdog.watch("a checkpoint");
        // After reading `done`: a view counts gaps before it passes them, so these are stored.
        self.gaps.store()?;
        self.store.checkpoint(done)?;
        self.saved = done;
        self.counts.made.fetch_add(1, Ordering::Relaxed);
        self.commands.trim(done)?;
        faults::reached("checkpoint.trimmed");
        Ok(())
    }
}
