//! What the stages measure: latencies by hop, outcomes, and the processor's cache.
//!
//! A host that wants the figures gives its stages one [`Telemetry`]; without one they measure
//! nothing. Measuring is a few additions to counters in memory. It waits for nothing, draws no
//! random number and starts no task, so a simulation runs the same with it.
//!
//! All latencies of a command count from the time of its acceptance to now, in milliseconds of
//! [`Env::now`](crate::ports::Env::now). Where the clocks of two machines differ, a latency is wrong
//! by that difference, and at least 0. A hop that repeats its work counts it again, with the time
//! until then.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use fanfold::entry::Outcome;
use fanfold::{Entry, LogId, Time};

use crate::tenants::Tenants;

use crate::traces::{Traces, Tracing};

/// The upper bounds of a [`Histogram`]'s buckets, in milliseconds; above them is one bucket more.
/// Source: our choice; two to three in each power of ten, from the clock's resolution to a minute,
/// after which alarms of the sweep take over.
pub const BOUNDS_MS: [u64; 15] =
    [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000];
/// The number of a histogram's buckets.
const BUCKETS: usize = BOUNDS_MS.len() + 1;

/// The outcomes of commands, in the order of [`Figures::outcomes`].
pub const OUTCOMES: [&str; 6] = ["accepted", "rejected", "duplicate", "stale", "faulted", "lost"];

/// Counts of latencies.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ms: AtomicU64,
}

/// What a [`Histogram`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latencies {
    /// For each bound of [`BOUNDS_MS`], how many latencies were at or below it and above the bound
    /// before it; last, how many were above all bounds.
    pub buckets: [u64; BUCKETS],
    /// The sum of all latencies, in milliseconds.
    pub sum_ms: u64,
}

impl Latencies {
    /// How many latencies were measured.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Histogram {
    /// Counts `n` latencies of `ms` milliseconds.
    pub fn observe(&self, ms: u64, n: u64) {
        let bucket = BOUNDS_MS.partition_point(|bound| *bound < ms);
        self.buckets[bucket].fetch_add(n, Relaxed);
        self.sum_ms.fetch_add(ms.saturating_mul(n), Relaxed);
    }

    /// Counts the entries' latencies until `now`. Neighbours with the same time are counted at once.
    pub(crate) fn observe_entries(&self, entries: impl IntoIterator<Item = Time>, now: Time) {
        let mut run: Option<(Time, u64)> = None;
        for time in entries {
            match &mut run {
                Some((last, n)) if *last == time => *n += 1,
                _ => {
                    if let Some((last, n)) = run.replace((time, 1)) {
                        self.observe(now.since_ms(last), n);
                    }
                }
            }
        }
        if let Some((last, n)) = run {
            self.observe(now.since_ms(last), n);
        }
    }

    fn read(&self, read: impl Fn(&AtomicU64) -> u64) -> Latencies {
        Latencies { buckets: self.buckets.each_ref().map(&read), sum_ms: read(&self.sum_ms) }
    }
}

/// What the stages of one host have measured. Stages share it by `Arc`.
#[derive(Debug, Default)]
pub struct Telemetry {
    accept: Histogram,
    relay: Histogram,
    decide: Histogram,
    publish: Histogram,
    outcomes: [AtomicU64; OUTCOMES.len()],
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    /// By the view's name.
    views: Mutex<BTreeMap<String, Arc<Histogram>>>,
    traces: Option<Arc<dyn Traces>>,
    tenants: Option<Tenants>,
}

/// The figures of a [`Telemetry`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// From the request until the commands are durable in their slot.
    pub accept: Latencies,
    /// From the acceptance until the command stream has the command.
    pub relay: Latencies,
    /// From the acceptance until the journal has the entry.
    pub decide: Latencies,
    /// From the acceptance until the topic has the entry's commit.
    pub publish: Latencies,
    /// For each view, from the acceptance until its rows have the entry.
    pub apply: BTreeMap<String, Latencies>,
    /// The entries that were appended, by outcome, in the order of [`OUTCOMES`].
    pub outcomes: [u64; OUTCOMES.len()],
    /// How often the processor found a log in its cache.
    pub cache_hits: u64,
    /// How often the processor had to load a log.
    pub cache_misses: u64,
}

impl Telemetry {
    /// Nothing measured yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also reports commands whose traces are recorded to `traces`; `None`: nothing.
    #[must_use]
    pub fn with_traces(mut self, traces: Option<Arc<dyn Traces>>) -> Self {
        self.traces = traces;
        self
    }

    /// The traces of a batch that a stage begins now.
    pub(crate) fn begin(&self) -> Tracing {
        Tracing::begin(self.traces.as_ref())
    }

    /// Counts what tenants do, too, which [`Figures`] do not have.
    #[must_use]
    pub fn with_tenants(self) -> Self {
        Self { tenants: Some(Tenants::new()), ..self }
    }

    /// What tenants do; `None` if it is not counted.
    pub fn tenants(&self) -> Option<&Tenants> {
        self.tenants.as_ref()
    }

    /// The figures since the start.
    pub fn figures(&self) -> Figures {
        self.read(|counter| counter.load(Relaxed))
    }

    /// The figures since the last call, or since the start. What stages measure during the call is in
    /// this call's figures or in the next one's.
    pub fn take(&self) -> Figures {
        self.read(|counter| counter.swap(0, Relaxed))
    }

    fn read(&self, read: impl Fn(&AtomicU64) -> u64) -> Figures {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        Figures {
            accept: self.accept.read(&read),
            relay: self.relay.read(&read),
            decide: self.decide.read(&read),
            publish: self.publish.read(&read),
            apply: views.iter().map(|(view, of)| (view.clone(), of.read(&read))).collect(),
            outcomes: self.outcomes.each_ref().map(&read),
            cache_hits: read(&self.cache_hits),
            cache_misses: read(&self.cache_misses),
        }
    }

    pub(crate) fn accepted(&self, began: Time, now: Time, commands: u64) {
        self.accept.observe(now.since_ms(began), commands);
    }

    pub(crate) fn relayed(&self, accepted: Time, now: Time, commands: u64) {
        self.relay.observe(now.since_ms(accepted), commands);
    }

    pub(crate) fn decided(&self, log: &LogId, entries: &[Entry], now: Time) {
        if let (Some(tenants), Some(first)) = (&self.tenants, entries.first()) {
            tenants.decided(log, entries.len() as u64, first.time, now);
        }
        self.decide.observe_entries(entries.iter().map(|entry| entry.time), now);
        for entry in entries {
            let at = match &entry.outcome {
                Outcome::Accepted(_) => 0,
                Outcome::Rejected { .. } => 1,
                Outcome::Duplicate { .. } => 2,
                Outcome::Stale => 3,
                Outcome::Faulted { .. } => 4,
                Outcome::Lost { .. } => 5,
            };
            self.outcomes[at].fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn published(&self, entries: &[Entry], now: Time) {
        self.publish.observe_entries(entries.iter().map(|entry| entry.time), now);
    }

    pub(crate) fn looked_up(&self, is_cached: bool) {
        let counter = if is_cached { &self.cache_hits } else { &self.cache_misses };
        counter.fetch_add(1, Relaxed);
    }

    /// Where what a view applies is measured.
    pub(crate) fn of_view(&self, name: &str) -> Applied {
        Applied { latencies: self.view(name), traces: self.traces.clone() }
    }

    /// The histogram of a view, which is made when it is first asked for.
    fn view(&self, name: &str) -> Arc<Histogram> {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.entry(name.to_owned()).or_default().clone()
    }
}

/// Where what one view applies is measured.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    latencies: Arc<Histogram>,
    traces: Option<Arc<dyn Traces>>,
}

impl Applied {
    /// The traces of entries that the view begins to apply now.
    pub(crate) fn begin(&self) -> Tracing {
        Tracing::begin(self.traces.as_ref())
    }

    /// Counts the entries' latencies until `now`.
    pub(crate) fn observe(&self, entries: impl IntoIterator<Item = Time>, now: Time) {
        self.latencies.observe_entries(entries, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_counts_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for (ms, n) in [(0, 1), (1, 2), (2, 3), (3, 4), (60_000, 5), (60_001, 6)] {
            histogram.observe(ms, n);
        }
        let latencies = histogram.read(|counter| counter.load(Relaxed));
        assert_eq!(latencies.buckets, [3, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 6]);
        assert_eq!(latencies.count(), 21);
        assert_eq!(latencies.sum_ms, 2 + 6 + 12 + 300_000 + 360_006);
    }

    #[test]
    fn entries_count_one_by_one_and_never_below_zero() {
        let histogram = Histogram::default();
        histogram.observe_entries([5, 5, 7, 5, 30].map(Time), Time(15));
        let latencies = histogram.read(|counter| counter.load(Relaxed));
        assert_eq!((latencies.count(), latencies.sum_ms), (5, 10 + 10 + 8 + 10));
        assert_eq!(latencies.buckets[0], 1, "an entry of the future has waited no time");
    }

    #[test]
    fn what_was_taken_is_not_there_again() {
        let telemetry = Telemetry::new();
        telemetry.accepted(Time(1), Time(4), 2);
        telemetry.looked_up(true);
        telemetry.view("totals").observe(1, 1);
        let taken = telemetry.take();
        assert_eq!((taken.accept.count(), taken.cache_hits), (2, 1));
        assert_eq!(taken.apply["totals"].count(), 1);
        let left = telemetry.figures();
        assert_eq!((left.accept.count(), left.cache_hits), (0, 0));
        assert_eq!(left.apply["totals"].count(), 0);
    }
}
