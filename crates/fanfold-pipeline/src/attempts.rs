//! Leases of attempts: what is stored before something that perhaps ends its process, and taken back
//! by every call that returns. The processor's stand in the parked table, the views' in their
//! cursors.
//!
//! A lease that stands there is of a call that is under way, or of one that has ended its process.
//! It counts as a crash only if another process has begun it, and its call cannot run any more.

use fanfold::Time;
use fanfold::body::attempt::Lease;

use crate::backoff::Backoff;
use crate::ports::Env;

/// A lease that is not taken back tells of a crash that was none: it is tried for some seconds.
pub(crate) const CLOSE_BACKOFF: Backoff =
    Backoff { attempts_max: 5, first_ms: 50, longest_ms: 800 };

/// How far the clocks of two processes may be apart, in milliseconds. Those of Lambda follow the
/// Amazon Time Sync Service, to within milliseconds; a machine with NTP alone, to within a second.
const SKEW_MS: u64 = 5_000;

/// How long a call may go on behind its deadline, in milliseconds, unless the host says otherwise:
/// what the Lambda host and the embedded engine give it.
const GRACE_MS: u64 = 10_000;

/// What a process may take for granted of others, which work on the same logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They may be running. A call of theirs ends at the latest so many milliseconds after its
    /// deadline, because its host ends it.
    MayRun {
        /// In milliseconds.
        grace_ms: u64,
    },
    /// There are none: whatever another process has begun has ended with that process. So it is
    /// where a lock admits one process at a time.
    HaveEnded,
}

impl Default for Others {
    fn default() -> Self {
        Self::MayRun { grace_ms: GRACE_MS }
    }
}

/// How one process makes leases, and reads them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leases {
    owner: u64,
    others: Others,
}

/// What a lease says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing is under way, as far as this process can tell.
    Free {
        /// The attempts that have ended their processes, one after another.
        crashes: u32,
        /// Whether the lease itself is of such an attempt, and none of this process.
        is_crash: bool,
    },
    /// A call of another process.
    UnderWay,
}

impl Leases {
    /// Of a process that has just started.
    pub(crate) fn new(env: &dyn Env) -> Self {
        Self { owner: env.random(), others: Others::default() }
    }

    pub(crate) fn among(self, others: Others) -> Self {
        Self { others, ..self }
    }

    /// A lease for a call with this deadline, after so many crashes.
    pub(crate) fn begin(self, crashes: u32, now: Time, deadline: Time) -> Lease {
        let until = match self.others {
            Others::MayRun { grace_ms } => deadline.plus_ms(grace_ms),
            Others::HaveEnded => deadline,
        };
        Lease { attempts: crashes.saturating_add(1), at: now, until, owner: self.owner }
    }

    /// What says that a call has returned.
    pub(crate) fn end(self, now: Time) -> Lease {
        Lease { attempts: 0, at: now, until: now, owner: self.owner }
    }

    fn is_own(self, lease: &Lease) -> bool {
        lease.owner == self.owner
    }

    pub(crate) fn find(self, lease: Option<&Lease>, now: Time) -> Found {
        let Some(lease) = lease.filter(|lease| lease.attempts > 0) else {
            return Found::Free { crashes: 0, is_crash: false };
        };
        let crash = Found::Free { crashes: lease.attempts, is_crash: true };
        let uncounted = Found::Free { crashes: lease.attempts - 1, is_crash: false };
        match self.others {
            // This process lives.
            _ if self.is_own(lease) => uncounted,
            Others::HaveEnded => crash,
            // Of a clock that cannot be compared with this one: it must not hold the log until that
            // time has come.
            Others::MayRun { .. } if lease.at > now.plus_ms(SKEW_MS) => uncounted,
            Others::MayRun { .. } if may_run(lease, now) => Found::UnderWay,
            Others::MayRun { .. } => crash,
        }
    }
}

/// Whether the call of a lease may be under way, by the clock of another process.
pub(crate) fn may_run(lease: &Lease, now: Time) -> bool {
    lease.attempts > 0 && now <= lease.until.plus_ms(SKEW_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lease_that_is_over_tells_of_a_crash() {
        let here = Leases { owner: 1, others: Others::MayRun { grace_ms: 10_000 } };
        let alone = here.among(Others::HaveEnded);
        let free = |crashes, is_crash| Found::Free { crashes, is_crash };
        let lease = Leases { owner: 2, ..here }.begin(2, Time(100_000), Time(150_000));
        assert_eq!((lease.attempts, lease.until), (3, Time(160_000)));
        for (now, owner, others, alone_finds) in [
            // Its process wrote it with a clock that goes ahead, by little and by much.
            (96_000, 2, Found::UnderWay, free(3, true)),
            (94_000, 2, free(2, false), free(3, true)),
            (100_000, 2, Found::UnderWay, free(3, true)),
            (165_000, 2, Found::UnderWay, free(3, true)),
            (165_001, 2, free(3, true), free(3, true)),
            // Our own marker: this process has not crashed.
            (100_000, 1, free(2, false), free(2, false)),
            (900_000, 1, free(2, false), free(2, false)),
        ] {
            let lease = Lease { owner, ..lease };
            assert_eq!(here.find(Some(&lease), Time(now)), others, "{now} {owner}");
            assert_eq!(alone.find(Some(&lease), Time(now)), alone_finds, "{now} {owner}");
        }
        let ended = Leases { owner: 2, ..here }.end(Time(100_000));
        for lease in [None, Some(&ended)] {
            assert_eq!(here.find(lease, Time(100_000)), free(0, false));
        }
    }
}
