//! What was measured: histograms and counts, of one thread, merged into those of the run.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::report::{Counts, Interval, Latency};

/// The longest time that is told apart: an hour, in µs.
const LONGEST_US: u64 = 3_600_000_000;
/// Stretches into which a run is cut for its curves: as many as a chart shows well.
const INTERVALS: usize = 120;
/// With those after its end, until the last answer has come.
const INTERVALS_MAX: usize = 2 * INTERVALS;
/// Decimal digits of the histograms of the whole run (HDR's usual).
const DIGITS: u8 = 3;
/// Decimal digits of those of an interval: there are many, and they only draw curves.
const INTERVAL_DIGITS: u8 = 2;
/// The shortest interval, in seconds.
const INTERVAL_S_MIN: f64 = 0.25;

/// What a time is of. Each is counted from the intended start of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Until its 202.
    Accept,
    /// Until its entry was read in the log.
    Entry,
    /// Until a view had applied it.
    View,
    /// Until it left.
    Send,
}

impl Kind {
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

/// Everything that a thread measures.
pub(crate) struct Measures {
    all: [Histogram<u64>; 4],
    intervals: Vec<Stretch>,
    interval_s: f64,
    pub(crate) counts: Counts,
    /// When the last answer came.
    pub(crate) last: Duration,
}

struct Stretch {
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

impl Stretch {
    fn new() -> Self {
        let empty = || {
            // They grow as they need to: most are of a few milliseconds.
            let mut histogram = Histogram::new(INTERVAL_DIGITS).expect("two digits are allowed");
            histogram.auto(true);
            histogram
        };
        let (accept, entry, view) = (empty(), empty(), empty());
        Self { due: 0, accepted: 0, errors: 0, accept, entry, view }
    }
}

impl Measures {
    /// For a run of so many seconds.
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

    /// Commands were due.
    pub(crate) fn due(&mut self, at: Duration, commands: u64) {
        self.counts.due += commands;
        self.stretch(at).due += commands;
    }

    /// Commands got their 202.
    pub(crate) fn accepted(&mut self, at: Duration, commands: u64) {
        self.counts.accepted += commands;
        self.stretch(at).accepted += commands;
    }

    /// A request has failed, and will be sent again or not.
    pub(crate) fn failed(&mut self, at: Duration) {
        self.stretch(at).errors += 1;
    }

    /// A request is sent again.
    pub(crate) fn retried(&mut self, why: String) {
        *self.counts.retries.entry(why).or_default() += 1;
    }

    /// Something took from `due` to `now`.
    pub(crate) fn took(&mut self, kind: Kind, due: Duration, now: Duration) {
        let us = u64::try_from(now.saturating_sub(due).as_micros()).unwrap_or(u64::MAX);
        self.all[kind as usize].saturating_record(us);
        let stretch = self.stretch(due);
        let of_stretch = match kind {
            Kind::Accept => &mut stretch.accept,
            Kind::Entry => &mut stretch.entry,
            Kind::View => &mut stretch.view,
            Kind::Send => return,
        };
        // Not `saturating_record`: that would not let it grow.
        of_stretch.record(us.min(LONGEST_US)).expect("it grows");
    }

    fn stretch(&mut self, at: Duration) -> &mut Stretch {
        let index = ((at.as_secs_f64() / self.interval_s) as usize).min(INTERVALS_MAX - 1);
        if self.intervals.len() <= index {
            self.intervals.resize_with(index + 1, Stretch::new);
        }
        &mut self.intervals[index]
    }

    /// Takes in what another thread measured in the same run.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, other) in self.all.iter_mut().zip(&other.all) {
            *mine += other;
        }
        if self.intervals.len() < other.intervals.len() {
            self.intervals.resize_with(other.intervals.len(), Stretch::new);
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

    /// The time, in ms, within which so many percent were.
    pub(crate) fn percentile_ms(&self, kind: Kind, percent: f64) -> f64 {
        ms(self.all[kind as usize].value_at_percentile(percent))
    }

    /// How many were measured.
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.all[kind as usize].len()
    }

    pub(crate) fn latencies(&self) -> Vec<Latency> {
        Kind::ALL.map(|kind| latency(kind.name(), &self.all[kind as usize])).into()
    }

    pub(crate) fn timeline(&self) -> Vec<Interval> {
        let p = |histogram: &Histogram<u64>, percent| {
            (!histogram.is_empty()).then(|| ms(histogram.value_at_percentile(percent)))
        };
        let interval = |(index, stretch): (usize, &Stretch)| Interval {
            at_s: index as f64 * self.interval_s,
            seconds: self.interval_s,
            due_per_s: stretch.due as f64 / self.interval_s,
            accepted_per_s: stretch.accepted as f64 / self.interval_s,
            errors: stretch.errors,
            accept_p50_ms: p(&stretch.accept, 50.0),
            accept_p99_ms: p(&stretch.accept, 99.0),
            entry_p99_ms: p(&stretch.entry, 99.0),
            view_p50_ms: p(&stretch.view, 50.0),
            view_p99_ms: p(&stretch.view, 99.0),
        };
        self.intervals.iter().enumerate().map(interval).collect()
    }

    /// The counts, with their rates.
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

/// Adds what is counted; rates are for [`Measures::counts`].
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
    // As HDR's own plots: the steps halve with the distance to 100.
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

    /// Within the precision of the histograms.
    fn is_near(a: f64, b: f64) -> bool {
        (a - b).abs() <= b * 0.02
    }

    #[test]
    fn times_are_of_the_whole_run_and_of_the_interval_in_which_they_were_due() {
        let mut first = Measures::new(60.0);
        first.took(Kind::Accept, ms(100), ms(110));
        first.took(Kind::Accept, ms(700), ms(2_700));
        first.took(Kind::View, ms(700), ms(750));
        let mut second = Measures::new(60.0);
        second.took(Kind::Accept, ms(1_100), ms(1_101));
        second.took(Kind::Entry, ms(61_000), ms(61_005));
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
        // Long after the end: the last interval takes it.
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
