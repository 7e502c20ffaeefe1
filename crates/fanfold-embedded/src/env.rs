//! Time and random numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use fanfold::Time;
use fanfold_pipeline::ports::Env;

/// The system's clock, tokio's timer, and a cryptographic random number generator, seeded by the operating system: its
/// numbers never repeat by accident, also not after a restart.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnv;

/// Another environment, whose time is never before one that was given out in an earlier run: a command that is decided
/// again after a crash gets a time that is not before the one it had.
pub(crate) struct LaterEnv {
    env: Arc<dyn Env>,
    not_before: AtomicU64,
}

impl LaterEnv {
    pub(crate) fn new(env: Arc<dyn Env>) -> Self {
        Self { env, not_before: AtomicU64::new(0) }
    }

    /// From now on the time is not before this.
    pub(crate) fn not_before(&self, time: Time) {
        self.not_before.fetch_max(time.0, Ordering::Relaxed);
    }
}

#[async_trait]
impl Env for LaterEnv {
    fn now(&self) -> Time {
        self.env.now().max(Time(self.not_before.load(Ordering::Relaxed)))
    }

    fn random(&self) -> u64 {
        self.env.random()
    }

    async fn sleep(&self, ms: u64) {
        self.env.sleep(ms).await;
    }
}

#[async_trait]
impl Env for SystemEnv {
    fn now(&self) -> Time {
        // A clock before 1970 is as wrong as one at 1970.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn random(&self) -> u64 {
        rand::random()
    }

    async fn sleep(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}
