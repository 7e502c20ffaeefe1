//! Leases of attempts: the policy for suspects that the processor, the projector and both sweeps
//! share. `docs/design.md#suspects`.
//!
//! A stage stores a lease before it runs something that may end its process, and removes the lease
//! when the call returns, whatever it returns. The processor keeps leases in the parked table, a
//! view in its cursor. A stored lease belongs to a call that is under way, or to one that has ended
//! its process. It counts as a crash only if another process stored it and its call can no longer
//! run.

use fanfold::host::body::lease::{Lease, ProcessorLease, Step};
use fanfold::{Seq, Time};

use crate::backoff::Backoff;
use crate::ports::{Env, ParkedItem};

/// A lease that stays after its call returned would later count as a crash that never happened, so
/// its removal is retried for a few seconds.
pub(crate) const CLOSE_BACKOFF: Backoff =
    Backoff { attempts_max: 5, first_ms: 50, longest_ms: 800 };

/// How far the clocks of two processes may be apart, in milliseconds. Source: Lambda's clocks
/// follow the Amazon Time Sync Service to within milliseconds; a machine with NTP alone stays
/// within a second.
pub(crate) const SKEW_MS: u64 = 5_000;

/// How long a call may run past its deadline, in milliseconds, unless the host says otherwise.
/// Source: what the Lambda host and the embedded engine allow.
const GRACE_MS: u64 = 10_000;

/// What a process may assume about other processes that work on the same logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// Other processes may be running. A host ends a call at the latest `grace_ms` after the call's
    /// deadline.
    MayRun {
        /// In milliseconds.
        grace_ms: u64,
    },
    /// No other process is running: a lock admits one at a time. Whatever another process began has
    /// ended with it.
    HaveEnded,
}

impl Default for Others {
    fn default() -> Self {
        Self::MayRun { grace_ms: GRACE_MS }
    }
}

/// Makes and reads leases, for one process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leases {
    owner: u64,
    others: Others,
}

/// What a stored lease means to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Judging by the lease, no call is under way.
    Free {
        /// How many attempts in a row have ended their process.
        crashes: u32,
        /// Whether the stored lease itself belongs to such an attempt of another process.
        is_crash: bool,
    },
    /// A call of another process may be under way.
    UnderWay,
}

impl Leases {
    /// For a process that has just started: it draws its owner id.
    pub(crate) fn new(env: &dyn Env) -> Self {
        Self { owner: env.random(), others: Others::default() }
    }

    pub(crate) fn among(self, others: Others) -> Self {
        Self { others, ..self }
    }

    /// The lease of a call with this deadline, after so many crashes.
    pub(crate) fn begin(self, crashes: u32, now: Time, deadline: Time) -> Lease {
        let until = match self.others {
            Others::MayRun { grace_ms } => deadline.plus_ms(grace_ms),
            Others::HaveEnded => deadline,
        };
        Lease { attempts: crashes.saturating_add(1), at: now, until, owner: self.owner }
    }

    /// The lease that replaces another one when its call has returned.
    pub(crate) fn end(self, now: Time) -> Lease {
        Lease { attempts: 0, at: now, until: now, owner: self.owner }
    }

    fn is_own(self, lease: &Lease) -> bool {
        lease.owner == self.owner
    }

    /// What the stored lease means now.
    pub(crate) fn read(self, lease: Option<&Lease>, now: Time) -> Standing {
        let Some(lease) = lease.filter(|lease| lease.attempts > 0) else {
            return Standing::Free { crashes: 0, is_crash: false };
        };
        let crash = Standing::Free { crashes: lease.attempts, is_crash: true };
        let uncounted = Standing::Free { crashes: lease.attempts - 1, is_crash: false };
        match self.others {
            // This process has not crashed.
            _ if self.is_own(lease) => uncounted,
            Others::HaveEnded => crash,
            // The clock that wrote it is too far ahead to be compared. Waiting for that time could
            // hold the log for very long.
            Others::MayRun { .. } if lease.at > now.plus_ms(SKEW_MS) => uncounted,
            Others::MayRun { .. } if may_run(lease, now) => Standing::UnderWay,
            Others::MayRun { .. } => crash,
        }
    }
}

/// Whether the call of a lease may still run, where clocks differ by at most [`SKEW_MS`].
pub(crate) fn may_run(lease: &Lease, now: Time) -> bool {
    lease.attempts > 0 && now <= lease.until.plus_ms(SKEW_MS)
}

/// Takes the lease out of a log's parked items. Of a lease that this build cannot read, only its
/// presence is known.
pub(crate) fn take_lease(items: &mut Vec<ParkedItem>) -> Option<ProcessorLease> {
    let is_lease =
        |item: &ParkedItem| item.seq == Seq::ZERO && item.identity == ProcessorLease::IDENTITY;
    let at = items.iter().position(is_lease)?;
    let lease = Lease { attempts: 0, at: Time(0), until: Time(0), owner: 0 };
    let unreadable = ProcessorLease { lease, step: Step::Whole };
    Some(ProcessorLease::decode(&items.remove(at).body).unwrap_or(unreadable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_as_a_crash_only_after_its_call_has_ended() {
        let here = Leases { owner: 1, others: Others::MayRun { grace_ms: 10_000 } };
        let alone = here.among(Others::HaveEnded);
        let free = |crashes, is_crash| Standing::Free { crashes, is_crash };
        let lease = Leases { owner: 2, ..here }.begin(2, Time(100_000), Time(150_000));
        assert_eq!((lease.attempts, lease.until), (3, Time(160_000)));
        for (now, owner, others, alone_finds) in [
            // The other process's clock is ahead, by a little and by too much.
            (96_000, 2, Standing::UnderWay, free(3, true)),
            (95_000, 2, Standing::UnderWay, free(3, true)),
            (94_000, 2, free(2, false), free(3, true)),
            (100_000, 2, Standing::UnderWay, free(3, true)),
            (165_000, 2, Standing::UnderWay, free(3, true)),
            (165_001, 2, free(3, true), free(3, true)),
            // Our own lease: this process has not crashed.
            (100_000, 1, free(2, false), free(2, false)),
            (900_000, 1, free(2, false), free(2, false)),
        ] {
            let lease = Lease { owner, ..lease };
            assert_eq!(here.read(Some(&lease), Time(now)), others, "{now} {owner}");
            assert_eq!(alone.read(Some(&lease), Time(now)), alone_finds, "{now} {owner}");
        }
        let ended = Leases { owner: 2, ..here }.end(Time(100_000));
        for lease in [None, Some(&ended)] {
            assert_eq!(here.read(lease, Time(100_000)), free(0, false));
        }
    }

    #[test]
    fn only_the_lease_is_taken_out_of_the_parked_items() {
        let lease = Leases { owner: 1, others: Others::HaveEnded }.end(Time(7));
        let lease = ProcessorLease { lease, step: Step::Loading };
        let body = |bytes: &[u8]| bytes::Bytes::copy_from_slice(bytes);
        let item = |seq, identity: &str, bytes: &[u8]| ParkedItem {
            seq: Seq(seq),
            identity: identity.to_owned(),
            body: body(bytes),
        };
        let stored = item(0, ProcessorLease::IDENTITY, &lease.encode().expect("it is small"));
        let others = [item(0, "bytes#1", b"x"), item(5, "ann#5", b"y")];
        let mut items = vec![others[0].clone(), stored, others[1].clone()];
        assert_eq!(take_lease(&mut items), Some(lease));
        assert_eq!(items, others);
        assert_eq!(take_lease(&mut items), None);
        assert_eq!(items, others);
    }
}
