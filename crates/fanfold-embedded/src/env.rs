//! The clock and the chance of this machine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use fanfold::Time;
use fanfold_pipeline::ports::Env;

/// The system's clock, tokio's timer, and a generator of the cryptographic kind, seeded by the
/// operating system: its numbers never repeat by accident, after a restart neither.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnv;

/// The machine's, but that its time is never before one that was given out in an earlier run: a
/// command that is decided again after a crash gets the time that it had.
#[derive(Debug, Default)]
pub struct LaterEnv {
    not_before: AtomicU64,
}

impl LaterEnv {
    /// From now on the time is not before this.
    pub fn not_before(&self, time: Time) {
        self.not_before.fetch_max(time.0, Ordering::Relaxed);
    }
}

#[async_trait]
impl Env for LaterEnv {
    fn now(&self) -> Time {
        SystemEnv.now().max(Time(self.not_before.load(Ordering::Relaxed)))
    }

    fn random(&self) -> u64 {
        SystemEnv.random()
    }

    async fn sleep(&self, ms: u64) {
        SystemEnv.sleep(ms).await;
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
