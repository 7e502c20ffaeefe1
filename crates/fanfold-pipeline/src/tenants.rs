//! Which tenants are the busiest: estimates of the last one to two minutes, in bounded memory.
//!
//! A tenant is the partition of a log, over all services. Counting is a search in an array of 256 hashes, and makes no
//! allocation once the array's places are taken. The estimate is that of Space-Saving (Metwally, Agrawal and El Abbadi,
//! 2005): a tenant that is not in the array takes the place of the one with the least count, and that count with it. So
//! a count is never too low, and the share that may be another tenant's is known.

use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fanfold::host::canary::Canary;
use fanfold::{LogId, Service, Time};
use foldhash::fast::FixedState;

/// Tenants that each list tells apart. Source: our choice. A tenant with more than 1/256 of a list's sum is surely in it, and
/// a search of so many hashes takes some tens of nanoseconds.
pub const TRACKED: usize = 256;
/// How long a window counts before the next one begins, in milliseconds. Source: our choice; people look at minutes.
const WINDOW_MS: u64 = 60_000;

/// One tenant in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// The partition.
    pub tenant: String,
    /// Why requests were refused; empty in other lists.
    pub reason: &'static str,
    /// The count: never too low.
    pub count: u64,
    /// How much of it may be that of other tenants.
    pub over: u64,
}

/// What was counted of tenants. Each list begins with the largest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Busiest {
    /// When counting began.
    pub from: Time,
    /// Until when was counted.
    pub to: Time,
    /// Commands that were accepted.
    pub accepted: Vec<Busy>,
    /// Bytes of the accepted commands, as their slots had them.
    pub bytes: Vec<Busy>,
    /// Commands that were refused, by reason.
    pub refused: Vec<Busy>,
    /// Entries in the journal.
    pub entries: Vec<Busy>,
    /// The longest times from acceptance to the entry, in milliseconds. These are exact.
    pub slowest: Vec<Busy>,
}

/// How a list combines what is counted of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Combine {
    Sum,
    Max,
}

/// The tenants of one list in one window, in no order.
#[derive(Debug)]
struct Sketch {
    combine: Combine,
    /// Beside the others, since they are searched.
    hashes: Vec<u64>,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    tenant: String,
    reason: &'static str,
    count: u64,
    over: u64,
}

impl Sketch {
    fn new(combine: Combine) -> Self {
        let places = Vec::with_capacity(TRACKED);
        Self { combine, hashes: Vec::with_capacity(TRACKED), places }
    }

    fn clear(&mut self) {
        self.hashes.clear();
        self.places.clear();
    }

    fn find(&self, hash: u64, tenant: &str, reason: &str) -> Option<usize> {
        let mut found = self.hashes.iter().enumerate().filter(|(_, found)| **found == hash);
        found.find_map(|(at, _)| {
            let place = &self.places[at];
            (place.tenant == tenant && place.reason == reason).then_some(at)
        })
    }

    fn add(&mut self, tenant: &str, reason: &'static str, count: u64) {
        let hash = FixedState::default().hash_one((tenant, reason));
        if let Some(at) = self.find(hash, tenant, reason) {
            let place = &mut self.places[at];
            place.count = match self.combine {
                Combine::Sum => place.count.saturating_add(count),
                Combine::Max => place.count.max(count),
            };
            return;
        }
        if self.places.len() < TRACKED {
            self.hashes.push(hash);
            self.places.push(Place { tenant: tenant.to_owned(), reason, count, over: 0 });
            return;
        }
        let least = self.places.iter().enumerate().min_by_key(|(_, place)| place.count);
        let Some((at, least)) = least.map(|(at, place)| (at, place.count)) else { return };
        // The greatest are exact: whatever is left out was not among them.
        if self.combine == Combine::Max && count <= least {
            return;
        }
        self.hashes[at] = hash;
        let place = &mut self.places[at];
        place.tenant.clear();
        place.tenant.push_str(tenant);
        place.reason = reason;
        (place.count, place.over) = match self.combine {
            Combine::Sum => (least.saturating_add(count), least),
            Combine::Max => (count, 0),
        };
    }

    /// What a tenant that is not here may have at most.
    fn unseen(&self) -> u64 {
        match self.combine {
            Combine::Sum if self.places.len() == TRACKED => {
                self.places.iter().map(|place| place.count).min().unwrap_or_default()
            }
            _ => 0,
        }
    }

    /// The tenants of this window and of the one before, the largest first.
    fn with(&self, before: &Self, limit: usize) -> Vec<Busy> {
        let (unseen_here, unseen_before) = (self.unseen(), before.unseen());
        let busy = |place: &Place, count, over| {
            let Place { tenant, reason, .. } = place;
            Busy { tenant: tenant.clone(), reason, count, over }
        };
        let here = self.hashes.iter().zip(&self.places).map(|(hash, place)| {
            let at = before.find(*hash, &place.tenant, place.reason);
            let (count, over) = at.map_or((unseen_before, unseen_before), |at| {
                (before.places[at].count, before.places[at].over)
            });
            match self.combine {
                Combine::Sum => {
                    busy(place, place.count.saturating_add(count), place.over.saturating_add(over))
                }
                Combine::Max => busy(place, place.count.max(count), 0),
            }
        });
        let only_before = before.hashes.iter().zip(&before.places).filter_map(|(hash, place)| {
            let is_here = self.find(*hash, &place.tenant, place.reason).is_some();
            let (count, over) = (place.count, place.over);
            let (count, over) =
                (count.saturating_add(unseen_here), over.saturating_add(unseen_here));
            (!is_here).then(|| busy(place, count, over))
        });
        let mut all: Vec<Busy> = here.chain(only_before).collect();
        all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.tenant.cmp(&b.tenant)));
        all.truncate(limit);
        all
    }
}

#[derive(Debug)]
struct Window {
    began: Time,
    accepted: Sketch,
    bytes: Sketch,
    refused: Sketch,
    entries: Sketch,
    slowest: Sketch,
}

impl Window {
    fn new() -> Self {
        let [accepted, bytes, refused, entries] = [(); 4].map(|()| Sketch::new(Combine::Sum));
        let slowest = Sketch::new(Combine::Max);
        Self { began: Time::default(), accepted, bytes, refused, entries, slowest }
    }

    fn begin(&mut self, now: Time) {
        self.began = now;
        let Self { accepted, bytes, refused, entries, slowest, .. } = self;
        [accepted, bytes, refused, entries, slowest].into_iter().for_each(Sketch::clear);
    }
}

#[derive(Debug)]
struct Windows {
    now: Window,
    before: Window,
}

impl Windows {
    /// Begins a window if the last one is over.
    fn turn(&mut self, now: Time) {
        let age_ms = now.since_ms(self.now.began);
        if age_ms < WINDOW_MS {
            return;
        }
        std::mem::swap(&mut self.now, &mut self.before);
        self.now.begin(now);
        if age_ms >= 2 * WINDOW_MS {
            self.before.begin(now);
        }
    }
}

/// Counts what tenants do. The stages of a host share it.
#[derive(Debug)]
pub struct Tenants {
    windows: Mutex<Windows>,
}

impl Default for Tenants {
    fn default() -> Self {
        Self { windows: Mutex::new(Windows { now: Window::new(), before: Window::new() }) }
    }
}

impl Tenants {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The `limit` busiest tenants of each list, of the last one to two minutes.
    pub fn busiest(&self, now: Time, limit: usize) -> Busiest {
        let mut windows = self.lock();
        windows.turn(now);
        let Windows { now: here, before } = &*windows;
        Busiest {
            from: before.began,
            to: now,
            accepted: here.accepted.with(&before.accepted, limit),
            bytes: here.bytes.with(&before.bytes, limit),
            refused: here.refused.with(&before.refused, limit),
            entries: here.entries.with(&before.entries, limit),
            slowest: here.slowest.with(&before.slowest, limit),
        }
    }

    pub(crate) fn accepted(&self, log: &LogId, commands: u64, bytes: u64, now: Time) {
        let mut windows = self.lock();
        windows.turn(now);
        windows.now.accepted.add(log.partition(), "", commands);
        windows.now.bytes.add(log.partition(), "", bytes);
    }

    pub(crate) fn refused(&self, log: &LogId, reason: &'static str, commands: u64, now: Time) {
        let mut windows = self.lock();
        windows.turn(now);
        windows.now.refused.add(log.partition(), reason, commands);
    }

    pub(crate) fn decided(&self, log: &LogId, entries: u64, oldest: Time, now: Time) {
        if log.service() == Canary::NAME {
            return;
        }
        let mut windows = self.lock();
        windows.turn(now);
        windows.now.entries.add(log.partition(), "", entries);
        windows.now.slowest.add(log.partition(), "", now.since_ms(oldest));
    }

    fn lock(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn log(tenant: u64) -> LogId {
        format!("ledger/org:t{tenant}").parse().expect("a log")
    }

    fn at(list: &[Busy]) -> BTreeMap<String, (u64, u64)> {
        list.iter().map(|busy| (busy.tenant.clone(), (busy.count, busy.over))).collect()
    }

    proptest! {
        /// Over any commands in two windows, of more tenants than are told apart.
        #[test]
        fn a_count_is_never_too_low_and_too_high_by_what_is_said_at_most(
            commands in prop::collection::vec((0..600_u64, 1..50_u64, prop::bool::ANY), 0..3_000),
        ) {
            let tenants = Tenants::new();
            let mut exact: BTreeMap<String, u64> = BTreeMap::new();
            let mut slowest: BTreeMap<String, u64> = BTreeMap::new();
            for is_late in [false, true] {
                let now = Time(1_000_000 + if is_late { WINDOW_MS } else { 0 });
                for (tenant, n, _) in commands.iter().filter(|(_, _, late)| *late == is_late) {
                    tenants.accepted(&log(*tenant), *n, 3 * n, now);
                    tenants.decided(&log(*tenant), *n, Time(now.0 - n), now);
                    *exact.entry(format!("org:t{tenant}")).or_default() += n;
                    let most = slowest.entry(format!("org:t{tenant}")).or_default();
                    *most = n.max(most).to_owned();
                }
            }
            let found = tenants.busiest(Time(1_000_000 + WINDOW_MS), usize::MAX);
            for (list, times) in [(&found.accepted, 1), (&found.bytes, 3), (&found.entries, 1)] {
                for (tenant, (count, over)) in at(list) {
                    let exact = exact[&tenant] * times;
                    prop_assert!(exact <= count && count - over <= exact, "{tenant}: {count} {over}");
                }
                prop_assert!(list.is_sorted_by(|a, b| a.count >= b.count));
            }
            // Of a tenant that is in no list, no more than the list's least.
            if let Some(least) = found.accepted.iter().map(|busy| busy.count).min() {
                let known = at(&found.accepted);
                let unknown = exact.iter().filter(|(tenant, _)| !known.contains_key(*tenant));
                prop_assert!(unknown.into_iter().all(|(_, count)| *count <= least));
            }
            if let Some(first) = found.slowest.first() {
                prop_assert_eq!(Some(&first.count), slowest.values().max());
            }
        }
    }

    #[test]
    fn a_tenant_that_takes_a_place_says_what_may_be_of_others() {
        let tenants = Tenants::new();
        for tenant in 0..=TRACKED as u64 {
            tenants.accepted(&log(tenant), 3, 1, Time(1_000_000));
        }
        let found = tenants.busiest(Time(1_000_000), 1);
        let [first] = &found.accepted[..] else { panic!("{found:?}") };
        assert_eq!((&*first.tenant, first.count, first.over), ("org:t256", 6, 3));
    }

    #[test]
    fn a_window_is_forgotten_two_minutes_after_it() {
        let tenants = Tenants::new();
        let counts = |now| {
            let found = tenants.busiest(Time(now), 10);
            (found.from.0, found.accepted.first().map(|busy| busy.count))
        };
        tenants.accepted(&log(1), 2, 20, Time(1_000_000));
        assert_eq!(counts(1_000_000), (1_000_000, Some(2)));
        tenants.accepted(&log(1), 3, 20, Time(1_000_000 + WINDOW_MS));
        assert_eq!(counts(1_000_000 + 2 * WINDOW_MS - 1), (1_000_000, Some(5)));
        assert_eq!(counts(1_000_000 + 2 * WINDOW_MS), (1_000_000 + WINDOW_MS, Some(3)));
        assert_eq!(counts(1_000_000 + 9 * WINDOW_MS).1, None);
    }

    #[test]
    fn refusals_are_told_apart_by_reason() {
        let tenants = Tenants::new();
        for (reason, n) in [("closed", 1), ("not_admitted", 5), ("closed", 1)] {
            tenants.refused(&log(1), reason, n, Time(1_000_000));
        }
        let found = tenants.busiest(Time(1_000_000), 1);
        let [first] = &found.refused[..] else { panic!("{found:?}") };
        assert_eq!((first.reason, first.count, first.over), ("not_admitted", 5, 0));
    }
}
