//! Bounded exponential backoff with full jitter.

use crate::ports::Env;

/// How often a call is tried, and how long the pauses between attempts are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    /// Attempts in all, at least 1.
    pub attempts_max: u32,
    /// The longest pause after the first attempt, in milliseconds. It doubles with each attempt.
    pub first_ms: u64,
    /// The longest pause after any attempt, in milliseconds.
    pub longest_ms: u64,
}

impl Backoff {
    /// Pauses after the failed attempt number `attempt` (counted from 1). `false`: that was the
    /// last attempt, and there is no pause.
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
