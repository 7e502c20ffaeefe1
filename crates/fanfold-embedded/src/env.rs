//! Time and random numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use fanfold::Time;
use fanfold_pipeline::ports::Env;

use crate::striped::lock;

/// The system's clock, tokio's timer, and a cryptographic random number generator that the
/// operating system seeds, so that its numbers do not repeat, even after a restart.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnv;

/// Wraps an environment so that its time never goes back. While the clock is behind, because it was
/// set back in this run or since an earlier one, time runs at half speed until the clock has caught
/// up, so every wait for a time still ends.
///
/// An entry has the time at which its command was accepted, unless the processor's time is before
/// that (`docs/design.md#process`). With this environment it never is, so a command that is decided
/// again after a crash gets the same time.
pub(crate) struct SteadyEnv {
    env: Arc<dyn Env>,
    /// `now` returns no time before this, in milliseconds.
    latest_ms: AtomicU64,
    /// The start of the time at half speed, when the clock was last found to be behind.
    behind: Mutex<Option<SetBack>>,
}

#[derive(Clone, Copy)]
struct SetBack {
    from_ms: u64,
    uptime_ms: u64,
}

impl SteadyEnv {
    pub(crate) fn new(env: Arc<dyn Env>) -> Self {
        Self { env, latest_ms: AtomicU64::new(0), behind: Mutex::default() }
    }

    /// From now on, `now` returns no time before `time`.
    pub(crate) fn not_before(&self, time: Time) {
        self.latest_ms.fetch_max(time.0, Ordering::Relaxed);
    }

    fn while_behind(&self) -> u64 {
        let (uptime_ms, latest_ms) = (self.env.uptime_ms(), self.latest_ms.load(Ordering::Relaxed));
        let mut behind = lock(&self.behind);
        let passed = |from: SetBack| from.from_ms + uptime_ms.saturating_sub(from.uptime_ms) / 2;
        match *behind {
            Some(from) if passed(from) >= latest_ms => passed(from),
            _ => {
                *behind = Some(SetBack { from_ms: latest_ms, uptime_ms });
                latest_ms
            }
        }
    }
}

#[async_trait]
impl Env for SteadyEnv {
    fn now(&self) -> Time {
        let clock_ms = self.env.now().0;
        if clock_ms < self.latest_ms.load(Ordering::Relaxed) {
            let now_ms = self.while_behind();
            return Time(self.latest_ms.fetch_max(now_ms, Ordering::Relaxed).max(now_ms));
        }
        // Another thread may have returned a later time meanwhile.
        Time(self.latest_ms.fetch_max(clock_ms, Ordering::Relaxed).max(clock_ms))
    }

    fn uptime_ms(&self) -> u64 {
        self.env.uptime_ms()
    }

    fn random(&self) -> u64 {
        self.env.random()
    }

    fn build(&self) -> Option<&str> {
        self.env.build()
    }

    async fn sleep(&self, ms: u64) {
        self.env.sleep(ms).await;
    }
}

#[async_trait]
impl Env for SystemEnv {
    fn now(&self) -> Time {
        // A clock that is set before 1970 counts as 1970.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn uptime_ms(&self) -> u64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> u64 {
        rand::random()
    }

    fn build(&self) -> Option<&str> {
        fanfold_pipeline::build::of_program()
    }

    async fn sleep(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use super::*;

    /// A clock that differs by `ahead_ms` from the time that passes.
    #[derive(Default)]
    struct Clock {
        passed_ms: AtomicU64,
        ahead_ms: AtomicI64,
    }

    #[async_trait]
    impl Env for Clock {
        fn now(&self) -> Time {
            Time(self.uptime_ms().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed)))
        }

        fn uptime_ms(&self) -> u64 {
            self.passed_ms.load(Ordering::Relaxed)
        }

        fn random(&self) -> u64 {
            0
        }

        async fn sleep(&self, _: u64) {}
    }

    #[test]
    fn time_goes_on_at_half_speed_while_the_clock_is_behind() {
        let clock = Arc::new(Clock::default());
        let env = SteadyEnv::new(clock.clone());
        // The time that passes, how far the clock is ahead after that, and the expected time.
        for (passed_ms, ahead_ms, expected) in [
            (1_000, 0, 1_000),
            (0, 500, 1_500),
            (100, 500, 1_600),
            (0, 0, 1_600),
            (400, 0, 1_800),
            (400, 0, 1_900),
            (100, 0, 2_000),
            (100, 0, 2_100),
            (100, 0, 2_200),
            (0, -1_000, 2_200),
            (200, -1_000, 2_300),
            (0, 7_000, 9_400),
            (0, -1_000, 9_400),
            (20, -1_000, 9_410),
        ] {
            clock.passed_ms.fetch_add(passed_ms, Ordering::Relaxed);
            clock.ahead_ms.store(ahead_ms, Ordering::Relaxed);
            assert_eq!(env.now(), Time(expected), "after {passed_ms} ms, {ahead_ms} ms ahead");
            assert_eq!(env.now(), Time(expected), "asked again");
        }
        env.not_before(Time(20_000));
        assert_eq!(env.now(), Time(20_000));
    }
}
