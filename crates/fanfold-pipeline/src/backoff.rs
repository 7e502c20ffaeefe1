//! Waiting between attempts: exponential, with full jitter, bounded.

use crate::ports::Env;

/// How often something is tried, and how long is waited in between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    /// Attempts in all, at least 1.
    pub attempts_max: u32,
    /// The longest wait after the first attempt, in milliseconds; doubles with each.
    pub first_ms: u64,
    /// The longest wait at all, in milliseconds.
    pub longest_ms: u64,
}

impl Backoff {
    /// Waits after the failed attempt number `attempt` (from 1 on). `false`: that was the last.
    pub(crate) async fn pause(&self, attempt: u32, env: &dyn Env) -> bool {
        if attempt >= self.attempts_max {
            return false;
        }
        let doubled = self.first_ms.saturating_mul(1 << (attempt - 1).min(20));
        let longest = doubled.min(self.longest_ms).max(1);
        env.sleep(1 + env.random() % longest).await;
        true
    }
}
