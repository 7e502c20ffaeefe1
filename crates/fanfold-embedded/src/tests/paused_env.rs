//! An [`Env`] on tokio's clock, which tests pause and advance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fanfold::Time;
use fanfold_pipeline::ports::Env;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};

pub(crate) struct PausedEnv {
    start: Instant,
    random: AtomicU64,
}

impl PausedEnv {
    /// Starts with the same random numbers in every test.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), random: AtomicU64::new(1) })
    }
}

#[async_trait]
impl Env for PausedEnv {
    fn now(&self) -> Time {
        Time(self.start.elapsed().as_millis() as u64)
    }

    fn random(&self) -> u64 {
        // SplitMix64.
        let state = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    async fn sleep(&self, ms: u64) {
        sleep(Duration::from_millis(ms)).await;
    }
}

/// A runtime with paused time, for tests that cannot use `#[tokio::test]`.
pub(crate) fn paused_runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime")
}
