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

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use async_trait::async_trait;
    use fanfold::Time;
    use futures::executor::block_on;

    use super::*;

    /// Draws the longest pause of at most 20, 40, 80 and 100 ms, and records the pauses.
    #[derive(Default)]
    struct Longest(Mutex<Vec<u64>>);

    #[async_trait]
    impl Env for Longest {
        fn now(&self) -> Time {
            Time(0)
        }

        fn random(&self) -> u64 {
            399
        }

        async fn sleep(&self, ms: u64) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(ms);
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_end_with_the_last_attempt() {
        let backoff = Backoff { attempts_max: 6, first_ms: 20, longest_ms: 100 };
        let env = Longest::default();
        let paused: Vec<bool> =
            (1..=7).map(|attempt| block_on(backoff.pause(attempt, &env))).collect();
        assert_eq!(paused, [true, true, true, true, true, false, false]);
        let pauses = env.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(pauses, [20, 40, 80, 100, 100]);
    }
}
