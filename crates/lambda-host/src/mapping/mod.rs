//! Event source mappings: what reads streams and queues, and invokes functions with batches.

pub mod dynamo;
pub mod kinesis;
pub mod queue;
pub mod stream;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What a mapping does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It reads, and invokes.
    On,
    /// It does neither. What is with the function is finished.
    Off,
    /// It passes over what it reads, as if that had expired before it came.
    Drop,
}

/// What has become of records and batches.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    /// Records, or messages, that were read.
    pub read: u64,
    /// That were done.
    pub done: u64,
    /// That were passed over.
    pub dropped: u64,
    /// Invocations.
    pub batches: u64,
    /// Answers that reported something, and so had a part come again.
    pub partial: u64,
    /// Of these: with something done before what was reported.
    pub split: u64,
    /// Batches that failed as a whole.
    pub failed: u64,
    /// Of these: that came again in two halves.
    pub bisected: u64,
    /// Calls of AWS for records or messages that failed.
    pub refused: u64,
}

/// One mapping, as it is controlled and watched.
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
    /// Changes what it does.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// What it does, and when that changes.
    pub fn mode(&self) -> watch::Receiver<Mode> {
        self.mode.subscribe()
    }

    /// What has happened until now.
    pub fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what has happened.
    pub fn count(&self, note: impl FnOnce(&mut Counts)) {
        note(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Milliseconds since the host has started.
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

    /// Waits until then; for ever, if there is no time.
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
