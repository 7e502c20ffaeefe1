//! How long to wait before a request is sent again.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::Rng;

/// The longest pause after the first attempt; doubles with each further one (full jitter).
const FIRST_MS: u64 = 100;
/// The longest pause at all, unless the server asks for more.
const LONGEST_MS: u64 = 5_000;
/// Doublings after which the longest pause is reached for certain.
const DOUBLINGS_MAX: u32 = 16;

/// The pauses of one request.
#[derive(Debug)]
pub struct Backoff {
    until: Option<Instant>,
    attempts: u32,
}

impl Backoff {
    /// Gives up after that time, counted from now.
    pub fn within(give_up: Duration) -> Self {
        // A time that no clock reaches is none.
        Self { until: Instant::now().checked_add(give_up), attempts: 0 }
    }

    /// Never gives up.
    pub fn for_ever() -> Self {
        Self { until: None, attempts: 0 }
    }

    /// Waits until the next attempt, at least as long as the server has `asked` for; `false`: that
    /// would be too late.
    pub fn pause(&mut self, asked: Option<Duration>) -> bool {
        let doubled = FIRST_MS << self.attempts.min(DOUBLINGS_MAX);
        self.attempts += 1;
        let chosen = rand::rng().random_range(1..=doubled.min(LONGEST_MS));
        let pause = Duration::from_millis(chosen).max(asked.unwrap_or_default());
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| pause > left) {
            return false;
        }
        sleep(pause);
        true
    }

    /// Attempts that were followed by a pause.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_as_long_as_it_is_asked_to_and_gives_up_in_time() {
        let began = Instant::now();
        let mut backoff = Backoff::within(Duration::from_millis(400));
        assert!(backoff.pause(Some(Duration::from_millis(150))));
        assert!(began.elapsed() >= Duration::from_millis(150));
        assert!(!backoff.pause(Some(Duration::from_secs(60))));
        while backoff.pause(None) {}
        assert!(began.elapsed() < Duration::from_millis(400) + Duration::from_secs(5));
    }
}
