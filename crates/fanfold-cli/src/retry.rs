//! Pauses between the attempts of a request: exponential backoff with full jitter.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::Rng;

/// The longest pause after the first attempt. Doubles with each attempt. Source: our choice.
const FIRST_MS: u64 = 100;
/// The longest pause, unless the server asks for a longer one. Source: our choice.
const LONGEST_MS: u64 = 5_000;
/// The most doublings, so that the shift cannot overflow; [`LONGEST_MS`] is reached long before.
const DOUBLINGS_MAX: u32 = 16;

/// The pauses between the attempts of one request.
#[derive(Debug)]
pub(crate) struct Backoff {
    until: Option<Instant>,
    attempts: u32,
}

impl Backoff {
    /// Gives up after this time, counted from now.
    pub(crate) fn within(give_up: Duration) -> Self {
        // If the sum is later than an `Instant` can be, there is no limit.
        Self { until: Instant::now().checked_add(give_up), attempts: 0 }
    }

    /// Never gives up.
    pub(crate) fn without_limit() -> Self {
        Self { until: None, attempts: 0 }
    }

    /// Sleeps until the next attempt, at least for `retry_after`. Returns `false`, without a pause,
    /// if the attempt would come too late.
    pub(crate) fn pause(&mut self, retry_after: Option<Duration>) -> bool {
        let doubled = FIRST_MS << self.attempts.min(DOUBLINGS_MAX);
        self.attempts += 1;
        let chosen = rand::rng().random_range(1..=doubled.min(LONGEST_MS));
        let pause = Duration::from_millis(chosen).max(retry_after.unwrap_or_default());
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| pause > left) {
            return false;
        }
        sleep(pause);
        true
    }

    /// The number of calls of [`Backoff::pause`].
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_at_least_retry_after_and_none_ends_after_the_time_to_give_up() {
        let began = Instant::now();
        let mut backoff = Backoff::within(Duration::from_millis(400));
        assert!(backoff.pause(Some(Duration::from_millis(150))));
        assert!(began.elapsed() >= Duration::from_millis(150));
        assert!(!backoff.pause(Some(Duration::from_secs(60))));
        while backoff.pause(None) {}
        assert!(began.elapsed() < Duration::from_millis(400) + Duration::from_secs(5));
    }
}
