use fanfold::Time;

/// What a stage still has to do when it starts nothing new: publish what it appended (for 3 s, and an
/// attempt of 3 s that is under way then), remove its markers, note where it stands. In milliseconds.
/// Behind an invocation's deadline there is never more: then Lambda ends it.
pub(crate) const WIND_UP_MS: u64 = 10_000;
/// What a stage still has to do when no call runs any more: pause between attempts that are in vain
/// (0.75 s for each marker, and they are removed at the same time), and report what is not done. In
/// milliseconds.
const GIVE_UP_MS: u64 = 2_500;
/// What the host still has to do when no call may run any more: report, and answer Lambda, which
/// ends the process when the invocation's time is over. In milliseconds.
const ANSWER_MS: u64 = 500;

/// The time of one invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The invocation begins.
    pub begin: Time,
    /// Stages begin nothing new from here on, and report what they have not come to.
    pub deadline: Time,
    /// Calls of AWS end here, so that what waits for one still returns by itself: only then does it
    /// leave nothing behind, neither markers nor logs that are out of the cache.
    pub calls_end: Time,
    /// Everything ends here that has not returned.
    pub end: Time,
}

impl Budget {
    /// Of an invocation that begins now and may last until `until`. A short one keeps half of its
    /// time for work.
    pub fn of(now: Time, until: Time) -> Self {
        let left_ms = until.since_ms(now);
        let before = |ms: u64| now.plus_ms(left_ms - ms.min(left_ms / 2));
        Self {
            begin: now,
            deadline: before(WIND_UP_MS),
            calls_end: before(GIVE_UP_MS),
            end: before(ANSWER_MS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends_before_the_invocation() {
        for (until, deadline, calls_end, end) in [
            (60_000, 50_000, 57_500, 59_500),
            (10_000, 5_000, 7_500, 9_500),
            (4_000, 2_000, 2_000, 3_500),
            (600, 300, 300, 300),
            (1, 1, 1, 1),
            (0, 0, 0, 0),
        ] {
            let start = Time(1_000_000);
            let budget = Budget::of(start, start.plus_ms(until));
            assert_eq!(budget.deadline.since_ms(start), deadline, "of {until} ms");
            assert_eq!(budget.calls_end.since_ms(start), calls_end, "of {until} ms");
            assert_eq!(budget.end.since_ms(start), end, "of {until} ms");
        }
        let late = Budget::of(Time(5), Time(3));
        let now = Time(5);
        let none = Budget { begin: now, deadline: now, calls_end: now, end: now };
        assert_eq!(late, none, "there is no time");
    }
}
