//! Event source mappings, which read streams and queues, and invoke functions with batches.

pub mod dynamo;
pub mod kinesis;
pub mod queue;
pub mod stream;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What a mapping does with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Reads, and invokes the function.
    On,
    /// Does neither. Running invocations end normally.
    Off,
    /// Reads records and discards them, as if they had expired unread.
    Drop,
}

/// Counters of records and batches.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    /// Records, or messages, read.
    pub read: u64,
    /// Records done.
    pub done: u64,
    /// Records discarded.
    pub dropped: u64,
    /// Invocations.
    pub batches: u64,
    /// Answers that reported failures, so that a part is retried.
    pub partial: u64,
    /// Of these: with records done before the first failure.
    pub split: u64,
    /// Batches that failed as a whole.
    pub failed: u64,
    /// Of these: retried in two halves.
    pub bisected: u64,
    /// Failed calls of AWS for records or messages.
    pub refused: u64,
}

/// Controls one mapping, and holds its counters.
#[derive(Debug, Clone)]
pub struct Handle {
    mode: Arc<watch::Sender<Mode>>,
    counts: Arc<Mutex<Counts>>,
}

/// All mappings of a host, by the names of their functions.
pub type Mappings = BTreeMap<String, Handle>;

impl Default for Handle {
    fn default() -> Self {
        Self { mode: Arc::new(watch::Sender::new(Mode::On)), counts: Arc::default() }
    }
}

impl Handle {
    /// Sets its mode.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Its mode, and changes of it.
    pub fn mode(&self) -> watch::Receiver<Mode> {
        self.mode.subscribe()
    }

    /// Its counters.
    pub fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Updates its counters.
    pub fn count(&self, note: impl FnOnce(&mut Counts)) {
        note(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Milliseconds since the start of the host.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at 0.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Now.
    pub fn now_ms(self) -> u64 {
        self.0.elapsed().as_millis().min(u128::from(u64::MAX)) as u64
    }

    /// Waits until this time; without end for `None`.
    pub async fn until(self, ms: Option<u64>) {
        match ms {
            Some(ms) => {
                let left_ms = ms.saturating_sub(self.now_ms());
                tokio::time::sleep(std::time::Duration::from_millis(left_ms)).await;
            }
            None => std::future::pending().await,
        }
    }
}
