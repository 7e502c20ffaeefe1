use fanfold::Time;

/// What a stage still has to do when it starts nothing new: publish what it appended (up to five
/// attempts, pauses of 0.75 s together), note where it stands, answer. In milliseconds.
const WIND_UP_MS: u64 = 5_000;
/// What the host still has to do when no call may run any more: report, and answer Lambda, which
/// ends the process when the invocation's time is over. In milliseconds.
const ANSWER_MS: u64 = 500;

/// The time of one invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Stages begin nothing new from here on, and report what they have not come to.
    pub deadline: Time,
    /// Calls of AWS end here; so does everything that has not returned.
    pub end: Time,
}

impl Budget {
    /// Of an invocation that begins now and may last until `until`. A short one keeps half of its
    /// time for work.
    pub fn of(now: Time, until: Time) -> Self {
        let left_ms = until.since_ms(now);
        let before = |ms: u64| now.plus_ms(left_ms - ms.min(left_ms / 2));
        Self { deadline: before(WIND_UP_MS), end: before(ANSWER_MS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends_before_the_invocation() {
        for (until, deadline, end) in [
            (60_000, 55_000, 59_500),
            (10_000, 5_000, 9_500),
            (4_000, 2_000, 3_500),
            (600, 300, 300),
            (1, 1, 1),
            (0, 0, 0),
        ] {
            let start = Time(1_000_000);
            let budget = Budget::of(start, start.plus_ms(until));
            assert_eq!(budget.deadline.since_ms(start), deadline, "of {until} ms");
            assert_eq!(budget.end.since_ms(start), end, "of {until} ms");
        }
        let late = Budget::of(Time(5), Time(3));
        assert_eq!(late, Budget { deadline: Time(5), end: Time(5) }, "there is no time");
    }
}
