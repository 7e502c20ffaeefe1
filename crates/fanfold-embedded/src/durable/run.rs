//! A durable engine's own threads, and what it notes of its starts.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use fanfold::LogId;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::{Checkpoints, DurableCommands, Stages};
use crate::faults;
use crate::stop::{Stop, Stopper};
use crate::store::{OpenError, Space, Store, StoreError};
use crate::striped::lock;
use crate::watchdog::Watchdog;

/// The meta table's key of what is known of a run that has not ended properly.
const RUN_KEY: &[u8] = b"run";

/// The store, and the threads that write to it.
pub struct Durability {
    store: Arc<Store>,
    commands: Arc<DurableCommands>,
    stopper: Stopper,
    stop: Stop,
    threads: Mutex<Option<Threads>>,
    /// How often the engine has been started at this place without ending properly before.
    unclean_starts: u64,
    /// Everything in the command log below was there at the start.
    replayed: u64,
    done: Arc<AtomicU64>,
    made: Arc<AtomicU64>,
}

struct Threads {
    commands: JoinHandle<()>,
    checkpoints: JoinHandle<Result<(), StoreError>>,
}

impl Durability {
    /// Notes that the engine runs; what is read from the command log has been read.
    pub fn begin(store: Arc<Store>, commands: Arc<DurableCommands>) -> Result<Self, OpenError> {
        let explain = |error| store.folder().explain(error);
        let done = store.done().map_err(explain)?;
        let before = store.get(Space::META, RUN_KEY).map_err(explain)?.and_then(decode);
        // One that came on since is another matter; unless it went one thing at a time, and came on
        // for that.
        let unclean_starts = match before {
            Some((at, starts)) if at == done || starts > 1 => starts + 1,
            Some(_) => 1,
            None => 0,
        };
        let run = encode(done, unclean_starts);
        store.put_now(Space::META, RUN_KEY, Some(run)).map_err(explain)?;
        let (stopper, stop) = Stopper::new();
        let replayed = commands.shown();
        Ok(Self {
            store,
            commands,
            stopper,
            stop,
            threads: Mutex::default(),
            unclean_starts,
            replayed,
            done: Arc::new(AtomicU64::new(done)),
            made: Arc::default(),
        })
    }

    /// Starts the threads.
    pub(crate) fn start(
        &mut self,
        stages: impl Stages,
        watchdog: Arc<Watchdog>,
    ) -> Result<(), OpenError> {
        let (store, commands) = (self.store.clone(), self.commands.clone());
        let checkpoints = Checkpoints::new(store, commands, stages, watchdog)
            .map_err(|error| self.store.folder().explain(error))?;
        (self.done, self.made) = (checkpoints.done(), checkpoints.made());
        let (store, done) = (Arc::downgrade(&self.store), self.done.clone());
        let commands = Arc::downgrade(&self.commands);
        faults::before_death(move || {
            let done = done.load(Ordering::Relaxed);
            let shown = commands.upgrade().map(|commands| commands.shown());
            let saved = store.upgrade().map(|store| store.checkpoint(done));
            tracing::debug!(done, shown, ?saved, "a checkpoint before the end");
        });
        let checkpoints = checkpoints
            .start(self.stop.clone(), Handle::current())
            .map_err(|error| self.explain(error))?;
        let commands = self.commands.start().map_err(|error| self.explain(error))?;
        *lock(&self.threads) = Some(Threads { commands, checkpoints });
        Ok(())
    }

    /// What is wrong, if this went wrong while the engine was started.
    pub(crate) fn explain(&self, error: io::Error) -> OpenError {
        self.store.folder().explain(StoreError::Io(error))
    }

    /// The logs of which something is done again.
    pub fn replayed_logs(&self) -> &[LogId] {
        self.commands.replayed_logs()
    }

    /// How often the engine was started before at the same place in the command log, and did not
    /// end properly.
    pub fn unclean_starts(&self) -> u64 {
        self.unclean_starts
    }

    /// Whether everything that was in the command log at the start is done.
    pub fn is_recovered(&self) -> bool {
        self.done.load(Ordering::Relaxed) >= self.replayed
    }

    /// Notes that everything was done again: how this run ends says nothing about that.
    pub(crate) fn recovered(&self) {
        let run = encode(self.done.load(Ordering::Relaxed), 0);
        if let Err(error) = self.store.put_now(Space::META, RUN_KEY, Some(run)) {
            tracing::warn!(%error, "it was not noted that everything was done again");
        }
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The commands table.
    pub fn commands(&self) -> &Arc<DurableCommands> {
        &self.commands
    }

    /// How many checkpoints were made.
    pub fn checkpoints(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Makes a last checkpoint, and ends the threads. `clean`: nothing was left to do. `false`: what
    /// the last checkpoint lacks is done again at the next start.
    pub async fn end(&self, clean: bool) -> bool {
        self.commands.end();
        self.stopper.stop();
        let Some(Threads { commands, checkpoints }) = lock(&self.threads).take() else {
            return false;
        };
        // Joining waits for the disk.
        let joined = spawn_blocking(|| (commands.join(), checkpoints.join())).await;
        let saved = match joined {
            Ok((Ok(()), Ok(Ok(())))) => true,
            Ok((_, Ok(Err(error)))) => {
                tracing::error!(%error, "the last checkpoint was not made");
                false
            }
            _ => false,
        };
        match saved && clean {
            true => self.store.put_now(Space::META, RUN_KEY, None).is_ok(),
            false => saved,
        }
    }
}

impl Drop for Durability {
    /// One that is dropped without an end stops where it is; the next start does the rest.
    fn drop(&mut self) {
        self.commands.end();
    }
}

fn encode(at: u64, starts: u64) -> Bytes {
    [at.to_be_bytes(), starts.to_be_bytes()].concat().into()
}

fn decode(value: Bytes) -> Option<(u64, u64)> {
    let (at, starts) = value.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*at), u64::from_be_bytes(starts.try_into().ok()?)))
}
