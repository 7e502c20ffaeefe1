//! Measurements: histograms and counts of one thread, merged into those of the run.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::report::{Counts, Interval, Latency};

/// The longest time of the histograms, in µs: an hour.
const LONGEST_US: u64 = 3_600_000_000;
/// Intervals of a run for its charts: as many as a chart shows well.
const INTERVALS: usize = 120;
/// Intervals, with those after the end until the last answer.
const INTERVALS_MAX: usize = 2 * INTERVALS;
/// Decimal digits of the histograms of the whole run (HDR's usual).
const DIGITS: u8 = 3;
/// Decimal digits of the histograms of an interval. They are many, and only draw curves.
const INTERVAL_DIGITS: u8 = 2;
const INTERVAL_S_MIN: f64 = 0.25;

/// What a time measures. Each counts from when a request was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measured {
    /// Until the 202.
    Accept,
    /// Until the entry was read from the log.
    Entry,
    /// Until a view had applied the entry.
    View,
    /// Until the request was sent.
    Send,
}

impl Measured {
    pub(crate) const ALL: [Self; 4] = [Self::Accept, Self::Entry, Self::View, Self::Send];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Entry => "entry",
            Self::View => "view",
            Self::Send => "send",
        }
    }
}

pub(crate) struct Measures {
    all: [Histogram<u64>; 4],
    intervals: Vec<IntervalMeasures>,
    interval_s: f64,
    pub(crate) counts: Counts,
    pub(crate) last: Duration,
}

struct IntervalMeasures {
    due: u64,
    accepted: u64,
    errors: u64,
    accept: Histogram<u64>,
    entry: Histogram<u64>,
    view: Histogram<u64>,
}

fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, digits).expect("the bounds are fit for each other")
}

impl IntervalMeasures {
    fn new() -> Self {
        let empty = || {
            // They grow on demand: most hold a few milliseconds.
            let mut histogram = Histogram::new(INTERVAL_DIGITS).expect("two digits are allowed");
            histogram.auto(true);
            histogram
        };
        let (accept, entry, view) = (empty(), empty(), empty());
        Self { due: 0, accepted: 0, errors: 0, accept, entry, view }
    }
}

impl Measures {
    pub(crate) fn new(seconds: f64) -> Self {
        let interval_s = (seconds / INTERVALS as f64).max(INTERVAL_S_MIN);
        Self {
            all: [DIGITS; 4].map(histogram),
            intervals: Vec::new(),
            interval_s,
            counts: Counts::default(),
            last: Duration::ZERO,
        }
    }

    pub(crate) fn due(&mut self, at: Duration, commands: u64) {
        self.counts.due += commands;
        self.interval_of(at).due += commands;
    }

    pub(crate) fn accepted(&mut self, at: Duration, commands: u64) {
        self.counts.accepted += commands;
        self.interval_of(at).accepted += commands;
    }

    /// Counts a failed request, whether it is sent again or not.
    pub(crate) fn failed(&mut self, at: Duration) {
        self.interval_of(at).errors += 1;
    }

    pub(crate) fn retried(&mut self, why: String) {
        *self.counts.retries.entry(why).or_default() += 1;
    }

    /// Records a time from `due` to `now`.
    pub(crate) fn took(&mut self, kind: Measured, due: Duration, now: Duration) {
        let us = u64::try_from(now.saturating_sub(due).as_micros()).unwrap_or(u64::MAX);
        self.all[kind as usize].saturating_record(us);
        let interval_of = self.interval_of(due);
        let of_stretch = match kind {
            Measured::Accept => &mut interval_of.accept,
            Measured::Entry => &mut interval_of.entry,
            Measured::View => &mut interval_of.view,
            Measured::Send => return,
        };
        // `saturating_record` would not let the histogram grow.
        of_stretch.record(us.min(LONGEST_US)).expect("it grows");
    }

    fn interval_of(&mut self, at: Duration) -> &mut IntervalMeasures {
        let index = ((at.as_secs_f64() / self.interval_s) as usize).min(INTERVALS_MAX - 1);
        if self.intervals.len() <= index {
            self.intervals.resize_with(index + 1, IntervalMeasures::new);
        }
        &mut self.intervals[index]
    }

    /// Adds the measurements of another thread of the same run.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, other) in self.all.iter_mut().zip(&other.all) {
            *mine += other;
        }
        if self.intervals.len() < other.intervals.len() {
            self.intervals.resize_with(other.intervals.len(), IntervalMeasures::new);
        }
        for (mine, other) in self.intervals.iter_mut().zip(&other.intervals) {
            mine.due += other.due;
            mine.accepted += other.accepted;
            mine.errors += other.errors;
            mine.accept += &other.accept;
            mine.entry += &other.entry;
            mine.view += &other.view;
        }
        add(&mut self.counts, &other.counts);
        self.last = self.last.max(other.last);
    }

    pub(crate) fn percentile_ms(&self, kind: Measured, percent: f64) -> f64 {
        ms(self.all[kind as usize].value_at_percentile(percent))
    }

    pub(crate) fn count(&self, kind: Measured) -> u64 {
        self.all[kind as usize].len()
    }

    pub(crate) fn latencies(&self) -> Vec<Latency> {
        Measured::ALL.map(|kind| latency(kind.name(), &self.all[kind as usize])).into()
    }

    pub(crate) fn timeline(&self) -> Vec<Interval> {
        let p = |histogram: &Histogram<u64>, percent| {
            (!histogram.is_empty()).then(|| ms(histogram.value_at_percentile(percent)))
        };
        let interval = |(index, interval_of): (usize, &IntervalMeasures)| Interval {
            at_s: index as f64 * self.interval_s,
            seconds: self.interval_s,
            due_per_s: interval_of.due as f64 / self.interval_s,
            accepted_per_s: interval_of.accepted as f64 / self.interval_s,
            errors: interval_of.errors,
            accept_p50_ms: p(&interval_of.accept, 50.0),
            accept_p99_ms: p(&interval_of.accept, 99.0),
            entry_p99_ms: p(&interval_of.entry, 99.0),
            view_p50_ms: p(&interval_of.view, 50.0),
            view_p99_ms: p(&interval_of.view, 99.0),
        };
        self.intervals.iter().enumerate().map(interval).collect()
    }

    /// The counts with their rates.
    pub(crate) fn counts(&self) -> Counts {
        let elapsed_s = self.last.as_secs_f64();
        let per_s = |count: u64| if elapsed_s > 0.0 { count as f64 / elapsed_s } else { 0.0 };
        Counts {
            elapsed_s,
            accepted_per_s: per_s(self.counts.accepted),
            requests_per_s: per_s(self.counts.requests),
            ..self.counts.clone()
        }
    }
}

/// Adds counts. [`Measures::counts`] computes the rates.
pub(crate) fn add(to: &mut Counts, other: &Counts) {
    to.due += other.due;
    to.accepted += other.accepted;
    to.refused += other.refused;
    to.unanswered += other.unanswered;
    to.unsent += other.unsent;
    to.requests += other.requests;
    to.samples_dropped += other.samples_dropped;
    to.samples_unseen += other.samples_unseen;
    let retries: &BTreeMap<_, _> = &other.retries;
    for (why, count) in retries {
        *to.retries.entry(why.clone()).or_default() += count;
    }
}

fn latency(of: &str, histogram: &Histogram<u64>) -> Latency {
    let p = |percent| ms(histogram.value_at_percentile(percent));
    let (mean_ms, max_ms) = match histogram.is_empty() {
        true => (0.0, 0.0),
        false => (histogram.mean() / 1e3, ms(histogram.max())),
    };
    // As in HDR's own plots, the steps halve with the distance to 100.
    let percentiles = histogram
        .iter_quantiles(10)
        .map(|step| (step.quantile_iterated_to() * 100.0, ms(step.value_iterated_to())))
        .collect();
    Latency {
        of: of.to_owned(),
        count: histogram.len(),
        mean_ms,
        p50_ms: p(50.0),
        p90_ms: p(90.0),
        p99_ms: p(99.0),
        p999_ms: p(99.9),
        max_ms,
        percentiles,
    }
}

fn ms(us: u64) -> f64 {
    us as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Equal within the precision of the histograms.
    fn is_near(a: f64, b: f64) -> bool {
        (a - b).abs() <= b * 0.02
    }

    #[test]
    fn a_time_counts_for_the_run_and_for_the_interval_in_which_it_was_due() {
        let mut first = Measures::new(60.0);
        first.took(Measured::Accept, ms(100), ms(110));
        first.took(Measured::Accept, ms(700), ms(2_700));
        first.took(Measured::View, ms(700), ms(750));
        let mut second = Measures::new(60.0);
        second.took(Measured::Accept, ms(1_100), ms(1_101));
        second.took(Measured::Entry, ms(61_000), ms(61_005));
        let mut both = Measures::new(60.0);
        both.merge(&first);
        both.merge(&second);
        let near = |value: Option<f64>, expected| is_near(value.unwrap_or_default(), expected);
        let timeline = both.timeline();
        assert_eq!(timeline.len(), 123, "half seconds, and one second after the end");
        assert!(near(timeline[0].accept_p50_ms, 10.0), "{:?}", timeline[0]);
        assert!(near(timeline[1].accept_p99_ms, 2_000.0), "{:?}", timeline[1]);
        assert!(near(timeline[1].view_p99_ms, 50.0), "{:?}", timeline[1]);
        assert!(near(timeline[2].accept_p99_ms, 1.0), "{:?}", timeline[2]);
        assert!(near(timeline[122].entry_p99_ms, 5.0), "{:?}", timeline[122]);
        assert_eq!(timeline[0].view_p99_ms, None);
        let [accept, entry, view, send] = &both.latencies()[..] else { panic!("four") };
        assert_eq!((accept.count, entry.count, view.count, send.count), (3, 1, 1, 0));
        assert!(is_near(accept.p50_ms, 10.0) && is_near(accept.max_ms, 2_000.0), "{accept:?}");
        assert!(is_near(accept.mean_ms, 670.3), "{accept:?}");
    }

    #[test]
    fn counts_add_up_and_intervals_are_bounded() {
        let mut first = Measures::new(10.0);
        first.due(ms(100), 3);
        first.accepted(ms(400), 2);
        first.failed(ms(400));
        first.retried("503".to_owned());
        first.last = ms(4_000);
        // It is long after the end, so the last interval counts it.
        first.accepted(Duration::from_secs(10_000), 10);
        let mut both = Measures::new(10.0);
        both.merge(&first);
        both.merge(&first);
        let counts = both.counts();
        assert_eq!((counts.due, counts.accepted, counts.retries["503"]), (6, 24, 2));
        assert!(is_near(counts.accepted_per_s, 6.0) && is_near(counts.elapsed_s, 4.0));
        let timeline = both.timeline();
        assert_eq!(timeline.len(), INTERVALS_MAX);
        assert!(is_near(timeline[0].due_per_s, 24.0), "{:?}", timeline[0]);
        assert!(is_near(timeline[1].accepted_per_s, 16.0), "{:?}", timeline[1]);
        assert_eq!(timeline[1].errors, 2);
    }
}
