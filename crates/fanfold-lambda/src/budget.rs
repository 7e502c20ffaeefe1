use fanfold::Time;

/// Time from a stage's deadline to the end of the invocation, in milliseconds: the stage starts no new
/// work, but finishes what it has begun. Source: it publishes what it appended (3 s, and 3 s for an
/// attempt in progress), removes its leases, and stores its position.
pub(crate) const WIND_UP_MS: u64 = 10_000;
/// Time from the end of all calls to the end of the invocation, in milliseconds. Source: a stage still
/// pauses between attempts that fail at once (0.75 s for each lease, in parallel), and reports what is
/// not done.
const GIVE_UP_MS: u64 = 2_500;
/// Time from the end of the handler to the end of the invocation, in milliseconds. Source: our choice;
/// the host writes a line and answers Lambda, which ends the process when the invocation's time is over.
const ANSWER_MS: u64 = 500;

/// The time of one invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// When the invocation begins.
    pub begin: Time,
    /// When stages start no new work, and report what is not done.
    pub deadline: Time,
    /// When all calls of AWS end, so that stages that wait for one can still return. A stage that
    /// does not return leaves its leases behind, and loses the logs that it took out of the cache.
    pub calls_end: Time,
    /// When the handler is dropped if it has not returned.
    pub end: Time,
}

impl Budget {
    /// The budget of an invocation that begins at `now` and may last until `until`. At least half of
    /// the time is left for work.
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
        assert_eq!(late, none, "no time is left");
    }
}
