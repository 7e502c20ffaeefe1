//! When checkpoints are made, and how far the command log need not be read again.
//!
//! The place is found without asking any stage about single commands: note where the command log is
//! on the change stream; once the relay has passed everything that was there, note the end of the
//! command stream; once the processor has passed that, the end of the notifications; once every view
//! has, all that was noted first is done. A checkpoint that is cut after that holds all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use fanfold_pipeline::process::ReceivedRecord;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use super::DurableCommands;
use crate::faults;
use crate::memory::Changing;
use crate::shard::Position;
use crate::shards::{Mark, Shards};
use crate::store::{CHECKPOINT_BYTES, Store, StoreError};
use crate::watchdog::{Vital, Watchdog};

/// How often it is looked how far the stages are, in milliseconds.
const LOOK_MS: u64 = 20;
/// What is written is on disk after this, in milliseconds: what a crash makes it necessary to do again.
const CHECKPOINT_MS: u64 = 500;
/// How often it is looked whether the folder is still there, in milliseconds.
const FOLDER_MS: u64 = 250;
/// After a checkpoint that failed, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// What the stages behind the change stream are about.
pub trait Stages: Send + 'static {
    /// The records on the command stream.
    fn records(&self) -> &Shards<ReceivedRecord>;
    /// The end of the notifications.
    fn published(&self) -> Position;
    /// Whether every view has come to the end of everything below.
    fn is_projected(&self, below: Position) -> bool;
}

/// What is being waited for.
enum Wait {
    Relayed(Mark),
    Processed(Mark),
    Projected(Position),
}

/// Makes checkpoints until it is told to stop.
pub struct Checkpoints<S> {
    store: Arc<Store>,
    commands: Arc<DurableCommands>,
    stages: S,
    /// Everything in the command log below is done.
    done: Arc<AtomicU64>,
    /// Of the command log, and what is waited for until that is done, too.
    next: Option<(u64, Wait)>,
    /// What the last checkpoint has stored.
    saved: u64,
    made: Arc<AtomicU64>,
    watchdog: Arc<Watchdog>,
}

impl<S: Stages> Checkpoints<S> {
    /// None made yet.
    pub(crate) fn new(
        store: Arc<Store>,
        commands: Arc<DurableCommands>,
        stages: S,
        watchdog: Arc<Watchdog>,
    ) -> Result<Self, StoreError> {
        let done = store.done()?;
        Ok(Self {
            store,
            commands,
            stages,
            done: Arc::new(AtomicU64::new(done)),
            next: None,
            saved: done,
            made: Arc::default(),
            watchdog,
        })
    }

    /// Everything in the command log below is done.
    pub fn done(&self) -> Arc<AtomicU64> {
        self.done.clone()
    }

    /// How many were made.
    pub fn made(&self) -> Arc<AtomicU64> {
        self.made.clone()
    }

    /// Starts the thread. It makes a last checkpoint when `stop` says so, and ends.
    pub fn start(
        mut self,
        stop: crate::stop::Stop,
        runtime: Handle,
    ) -> std::io::Result<thread::JoinHandle<Result<(), StoreError>>> {
        let thread = thread::Builder::new().name("fanfold-checkpoints".to_owned());
        thread.spawn(move || {
            let _vital = Vital("the checkpoints");
            let mut due = Instant::now() + Duration::from_millis(CHECKPOINT_MS);
            let mut looked = Instant::now();
            while !stop.is_told() {
                let store = self.store.clone();
                let wanted = runtime.block_on(async {
                    let wanted = store.wanted.notified();
                    let look = timeout(Duration::from_millis(LOOK_MS), wanted);
                    stop.or(look).await.is_some_and(|wanted| wanted.is_ok())
                });
                if looked.elapsed() >= Duration::from_millis(FOLDER_MS) {
                    looked = Instant::now();
                    // The store logs it, and the host ends the engine.
                    let _ = store.folder().check();
                }
                if store.folder().is_gone() {
                    continue;
                }
                while self.look() {}
                let is_behind =
                    store.is_unsaved() || self.done.load(Ordering::Relaxed) > self.saved;
                let is_due = Instant::now() >= due && is_behind;
                if wanted || is_due || store.unsaved_bytes() >= CHECKPOINT_BYTES {
                    let pause = match self.make() {
                        Ok(()) => CHECKPOINT_MS,
                        Err(error) => {
                            tracing::error!(alarm = "not_durable", %error, "no checkpoint");
                            let pause = Duration::from_millis(RETRY_MS);
                            // Inside of the runtime: a timer cannot be made elsewhere.
                            runtime.block_on(async { stop.or(sleep(pause)).await });
                            0
                        }
                    };
                    due = Instant::now() + Duration::from_millis(pause);
                }
            }
            // What is done now was done before the stop: nothing comes to it any more.
            while self.look() {}
            self.make()
        })
    }

    /// Whether something that was waited for has come.
    fn look(&mut self) -> bool {
        let (position, wait) = match self.next.take() {
            Some(next) => next,
            None => {
                // First the place, then the mark: the mark covers everything below the place.
                let position = self.commands.shown();
                if position <= self.done.load(Ordering::Relaxed) {
                    return false;
                }
                (position, Wait::Relayed(self.commands.changes().mark()))
            }
        };
        let (wait, came) = match wait {
            Wait::Relayed(mark) if self.commands.changes().has_passed(&mark) => {
                (Some(Wait::Processed(self.stages.records().mark())), true)
            }
            Wait::Processed(mark) if self.stages.records().has_passed(&mark) => {
                (Some(Wait::Projected(self.stages.published())), true)
            }
            Wait::Projected(below) if self.stages.is_projected(below) => (None, true),
            wait => (Some(wait), false),
        };
        match wait {
            Some(wait) => self.next = Some((position, wait)),
            None => self.done.store(position, Ordering::Relaxed),
        }
        came
    }

    fn make(&mut self) -> Result<(), StoreError> {
        let done = self.done.load(Ordering::Relaxed);
        // A disk that fills up at the wrong moment makes `fjall` wait for itself.
        let _watched = self.watchdog.watch("a checkpoint");
        self.store.checkpoint(done)?;
        self.saved = done;
        self.made.fetch_add(1, Ordering::Relaxed);
        self.commands.trim(done)?;
        faults::reached("checkpoint.trimmed");
        Ok(())
    }
}
