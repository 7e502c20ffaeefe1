//! All connections with their phases, so that those that have waited longest for their clients can
//! be evicted when others need their places or memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::limits::{Limits, UNCOUNTED_BYTES};

/// What a connection waits for or does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits for the first byte of a request.
    Idle,
    /// It has received a part of a request's head.
    Head,
    /// It has received a request's head and not all of its body.
    Body,
    /// The router works on the request.
    Work,
    /// The answer is being written.
    Answer,
}

const PHASES: [Phase; 5] = [Phase::Idle, Phase::Head, Phase::Body, Phase::Work, Phase::Answer];

impl Phase {
    fn time_max(self, limits: &Limits) -> Option<Duration> {
        match self {
            Self::Idle => Some(limits.idle),
            Self::Head => Some(limits.head),
            Self::Body => Some(limits.body),
            // The router bounds it: a wait lasts at most 25 s.
            Self::Work => None,
            Self::Answer => Some(limits.write),
        }
    }
}

/// One connection.
pub(super) struct Connection {
    id: u64,
    all: Arc<Connections>,
    /// Nanoseconds from the host's start to the phase's beginning (enough for 73 years), times 8,
    /// plus the phase. In whole milliseconds, a phase could end one early.
    phase: AtomicU64,
    /// Its part of [`Connections::bytes`].
    bytes: AtomicUsize,
    is_refused: AtomicBool,
    is_unread: AtomicBool,
    is_evicted: AtomicBool,
    evicted: Notify,
}

/// All connections of a host.
pub(super) struct Connections {
    pub(super) limits: Limits,
    began: Instant,
    open: Mutex<Open>,
    /// Counted bytes of all bodies.
    bytes: AtomicUsize,
}

#[derive(Default)]
struct Open {
    next: u64,
    by_id: HashMap<u64, Arc<Connection>>,
}

impl Connections {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let (began, open) = (Instant::now(), Mutex::default());
        Arc::new(Self { limits, began, open, bytes: AtomicUsize::new(0) })
    }

    /// Adds a connection, and evicts others if there is no place. `None` if none can be evicted:
    /// all are at work, or have not waited as long as the grace.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Entered> {
        let mut open = self.open();
        if open.by_id.len() >= self.limits.connections_max {
            // Evicts several at a time, so that a flood of connections does not scan all of them
            // for each.
            let some = open.by_id.len() / 64 + 1;
            if self.evict_oldest(&open, some, |_| 1) == 0 {
                return None;
            }
        }
        let id = open.next;
        open.next += 1;
        let connection = Arc::new(Connection {
            id,
            all: self.clone(),
            phase: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            is_refused: AtomicBool::new(false),
            is_unread: AtomicBool::new(false),
            is_evicted: AtomicBool::new(false),
            evicted: Notify::new(),
        });
        connection.set(Phase::Idle);
        open.by_id.insert(id, connection.clone());
        Some(Entered(connection))
    }

    /// Evicts the connections that have waited longest for their clients, until the sum of their
    /// `worth` is `enough`, but none that has not waited as long as the grace. They end soon, not
    /// at once. Returns the sum.
    fn evict_oldest(
        &self,
        open: &Open,
        enough: usize,
        worth: impl Fn(&Connection) -> usize,
    ) -> usize {
        // Before the host is as old as the grace, no connection is.
        let Some(until) = self.began.elapsed().checked_sub(self.limits.grace) else { return 0 };
        let found = open.by_id.values().filter_map(|connection| {
            let (phase, since) = connection.phase();
            let can_end = phase != Phase::Work && since <= until && worth(connection) > 0;
            let is_evicted = connection.is_evicted.load(Ordering::Relaxed);
            (can_end && !is_evicted).then_some((since, connection))
        });
        let mut found: Vec<_> = found.collect();
        found.sort_unstable_by_key(|(since, _)| *since);
        let mut sum = 0;
        for (_, connection) in found {
            if sum >= enough {
                break;
            }
            sum += worth(connection);
            connection.is_evicted.store(true, Ordering::Relaxed);
            connection.evicted.notify_one();
            connection.release();
        }
        sum
    }

    /// Counts `n` more bytes of bodies. False if even evictions cannot make enough room.
    fn reserve(&self, n: usize) -> bool {
        let all = self.bytes.fetch_add(n, Ordering::Relaxed) + n;
        let Some(missing) = all.checked_sub(self.limits.body_bytes_max) else { return true };
        let worth = |connection: &Connection| connection.bytes.load(Ordering::Relaxed);
        if missing == 0 || self.evict_oldest(&self.open(), missing, worth) >= missing {
            return true;
        }
        self.bytes.fetch_sub(n, Ordering::Relaxed);
        false
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // No holder of the lock panics between two changes, so a poisoned map is still consistent.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of open connections.
    pub(super) fn count(&self) -> usize {
        self.open().by_id.len()
    }

    /// Counted bytes of all bodies.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Connection {
    /// Begins a phase, also if it is the same as before.
    pub(super) fn set(&self, phase: Phase) {
        let since = self.all.began.elapsed().as_nanos() as u64;
        self.phase.store(since << 3 | phase as u64, Ordering::Relaxed);
    }

    /// The phase, and the time from the host's start to the phase's beginning.
    pub(super) fn phase(&self) -> (Phase, Duration) {
        let packed = self.phase.load(Ordering::Relaxed);
        (PHASES[(packed & 7) as usize], Duration::from_nanos(packed >> 3))
    }

    /// The end of the phase's time; `None` if the phase has no bound here.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (phase, since) = self.phase();
        let time_max = phase.time_max(&self.all.limits)?;
        Some(self.all.began + since + time_max)
    }

    /// Counts `n` more bytes of a body that has `before` bytes so far. False if there is no room.
    pub(super) fn reserve(&self, before: usize, n: usize) -> bool {
        let counted = |bytes: usize| bytes.saturating_sub(UNCOUNTED_BYTES);
        let more = counted(before + n) - counted(before);
        let fits =
            more == 0 || (!self.is_evicted.load(Ordering::Relaxed) && self.all.reserve(more));
        if fits {
            self.bytes.fetch_add(more, Ordering::Relaxed);
        }
        fits
    }

    /// Stops counting its body, which was dropped.
    pub(super) fn release(&self) {
        self.all.bytes.fetch_sub(self.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Remembers that there was no room for its body.
    pub(super) fn refuse(&self) {
        self.is_refused.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Relaxed)
    }

    /// Remembers whether the last request has bytes that were not read.
    pub(super) fn set_unread(&self, is_unread: bool) {
        self.is_unread.store(is_unread, Ordering::Relaxed);
    }

    pub(super) fn is_unread(&self) -> bool {
        self.is_unread.load(Ordering::Relaxed)
    }

    /// Returns when the connection is evicted.
    pub(super) async fn evicted(&self) {
        loop {
            self.evicted.notified().await;
            if self.phase().0 != Phase::Work {
                return;
            }
            // A request arrived in the meantime, so the connection stays.
            self.is_evicted.store(false, Ordering::Relaxed);
        }
    }
}

/// An open connection. Dropping it frees the place.
pub(super) struct Entered(Arc<Connection>);

impl std::ops::Deref for Entered {
    type Target = Arc<Connection>;

    fn deref(&self) -> &Arc<Connection> {
        &self.0
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.release();
        self.0.all.open().by_id.remove(&self.0.id);
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn all(connections_max: usize, body_bytes_max: usize) -> Arc<Connections> {
        let grace = Duration::ZERO;
        Connections::new(Limits { connections_max, body_bytes_max, grace, ..Limits::default() })
    }

    fn is_evicted(connection: &Connection) -> bool {
        connection.is_evicted.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn no_phase_ends_early_and_no_grace() {
        let grace = Duration::from_millis(50);
        let all = Connections::new(Limits { connections_max: 1, grace, ..Limits::default() });
        for step_us in [1, 900, 999, 1_000, 1_001] {
            tokio::time::advance(Duration::from_micros(step_us)).await;
            let waits = all.enter().expect("there is room");
            waits.set(Phase::Head);
            let deadline = waits.deadline().expect("a head has a bound");
            let early = (Instant::now() + all.limits.head).saturating_duration_since(deadline);
            assert_eq!(early, Duration::ZERO, "after {step_us} us");
            tokio::time::advance(grace - Duration::from_micros(1)).await;
            assert!(all.enter().is_none(), "after {step_us} us: evicted before its grace is over");
            tokio::time::advance(Duration::from_micros(1)).await;
            assert!(all.enter().is_some(), "after {step_us} us: not evicted");
        }
    }

    #[test]
    fn a_waiting_connection_is_evicted_for_a_new_one_and_a_working_one_is_not() {
        let all = all(2, 0);
        let (works, waits) = (all.enter().expect("one"), all.enter().expect("two"));
        works.set(Phase::Work);
        let next = all.enter().expect("the waiting one is evicted");
        assert!(is_evicted(&waits) && !is_evicted(&works));
        next.set(Phase::Work);
        assert!(all.enter().is_none(), "an evicted connection makes room only once");
        drop((waits, next));
        assert!(all.enter().is_some());
    }

    #[test]
    fn a_connection_that_waits_with_a_body_is_evicted_for_another_body() {
        let all = all(9, 100);
        let (first, second) = (all.enter().expect("one"), all.enter().expect("two"));
        first.set(Phase::Body);
        assert!(first.reserve(0, UNCOUNTED_BYTES + 80));
        first.set(Phase::Work);
        assert!(!second.reserve(0, UNCOUNTED_BYTES + 30), "the first one is worked on");
        first.set(Phase::Answer);
        assert!(second.reserve(0, UNCOUNTED_BYTES + 30));
        assert!(is_evicted(&first) && !first.reserve(UNCOUNTED_BYTES + 80, 1));
        assert!(second.reserve(UNCOUNTED_BYTES + 30, 70));
        assert_eq!(all.bytes(), 100);
    }

    #[test]
    fn counted_bytes_stay_within_the_limit_and_are_all_released() {
        for seed in 0..100 {
            let mut chance = SmallRng::seed_from_u64(seed);
            let all = all(5, 1_000);
            let mut open: Vec<(Entered, usize)> = Vec::new();
            for _ in 0..300 {
                let at = chance.random_range(0..=open.len());
                match open.get_mut(at) {
                    None => open.extend(all.enter().map(|entered| (entered, UNCOUNTED_BYTES))),
                    Some((connection, length)) => match chance.random_range(0..8) {
                        0 => drop(open.swap_remove(at)),
                        1 => {
                            connection.release();
                            *length = UNCOUNTED_BYTES;
                        }
                        phase @ 2..5 => connection.set(PHASES[phase]),
                        _ => {
                            let n = chance.random_range(0..400);
                            *length += if connection.reserve(*length, n) { n } else { 0 };
                        }
                    },
                }
                // An evicted connection ends soon, not at once.
                open.retain(|(connection, _)| !is_evicted(connection) || chance.random_bool(0.5));
                let bytes = |(c, _): &(Entered, usize)| c.bytes.load(Ordering::Relaxed);
                assert_eq!(all.bytes(), open.iter().map(bytes).sum::<usize>(), "seed {seed}");
                assert!(all.bytes() <= 1_000, "seed {seed}");
            }
            drop(open);
            assert_eq!((all.bytes(), all.count()), (0, 0), "seed {seed}");
        }
    }
}
