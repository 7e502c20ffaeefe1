//! The search for the highest rate that holds an SLO: it doubles the rate until it does not hold,
//! and then bisects until the result is known to a twentieth.

use std::str::FromStr;
use std::time::Duration;

use crate::measure::{Measured, Measures};
use crate::report::{Search, Step};

/// The precision: the ratio of the lowest rate that failed to the highest that held.
const NEAR: f64 = 1.05;
/// The maximum number of tried rates: enough from 1/s to the highest rate of a machine, and for the
/// bisection.
const STEPS_MAX: usize = 24;
/// The minimum number of measurements for any percentile.
const MEASURED_MIN: f64 = 20.0;
/// If requests are sent late by this share of the SLO, the generator may be the limit.
const LATE_SHARE: f64 = 0.25;
/// The lowest tried rate, in commands per second.
const RATE_MIN: f64 = 1.0;

/// An SLO, such as `view p99 100ms`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slo {
    kind: Measured,
    percent: f64,
    below: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "an SLO is accept, entry or view, then p50, p90, p99 or p999, then a time: `view p99 100ms`"
)]
pub(crate) struct BadSlo;

impl FromStr for Slo {
    type Err = BadSlo;

    fn from_str(text: &str) -> Result<Self, BadSlo> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [kind, percent, below] = words[..] else { return Err(BadSlo) };
        let kind = match kind {
            "accept" => Measured::Accept,
            "entry" => Measured::Entry,
            "view" => Measured::View,
            _ => return Err(BadSlo),
        };
        let percent = match percent {
            "p50" => 50.0,
            "p90" => 90.0,
            "p99" => 99.0,
            "p999" => 99.9,
            _ => return Err(BadSlo),
        };
        let below = humantime::parse_duration(below).map_err(|_| BadSlo)?;
        Ok(Self { kind, percent, below })
    }
}

impl std::fmt::Display for Slo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = self.percent.to_string().replace('.', "");
        let below = humantime::format_duration(self.below);
        write!(f, "{} p{percent} < {below}", self.kind.name())
    }
}

impl Slo {
    fn below_ms(&self) -> f64 {
        self.below.as_secs_f64() * 1e3
    }

    pub(crate) fn is_of_views(&self) -> bool {
        self.kind == Measured::View
    }

    pub(crate) fn is_of_samples(&self) -> bool {
        self.kind != Measured::Accept
    }

    /// The number of measurements of which one is beyond the percentile.
    fn measured_min(&self) -> u64 {
        (100.0 / (100.0 - self.percent)).max(MEASURED_MIN).round() as u64
    }

    /// Whether there are too few measurements for the percentile. At a lower rate there are even
    /// fewer.
    fn has_too_few(&self, measures: &Measures) -> bool {
        measures.count(self.kind) < self.measured_min()
    }

    /// Why a rate did not hold; `None`: it held.
    fn failed(&self, measures: &Measures) -> Option<String> {
        let counts = measures.counts();
        for (count, what) in [
            (counts.refused, "refused"),
            (counts.unanswered, "unanswered"),
            (counts.unsent, "not sent in time"),
            (counts.samples_unseen, "samples never seen"),
        ] {
            if count > 0 {
                return Some(format!("{count} {what}"));
            }
        }
        // Counts, not times: a rate that holds may have one late answer.
        if counts.accepted < counts.due {
            return Some(format!("accepted only {} of {}", counts.accepted, counts.due));
        }
        if self.has_too_few(measures) {
            let (measured, min) = (measures.count(self.kind), self.measured_min());
            let more = "use longer steps (--duration) or more --samples";
            return Some(format!("too few measurements, {measured} of {min}: {more}"));
        }
        let took = measures.percentile_ms(self.kind, self.percent);
        let below = self.below_ms();
        (took >= below).then(|| format!("{:.1} ms, not below {below} ms", took))
    }

    /// Whether the generator may have been the limit.
    fn may_be_the_generator(&self, measures: &Measures) -> bool {
        let late_ms = measures.percentile_ms(Measured::Send, self.percent);
        measures.counts.unsent > 0 || late_ms >= LATE_SHARE * self.below_ms()
    }

    fn step(&self, rate: f64, measures: &Measures) -> Step {
        let failed = self.failed(measures);
        Step {
            rate,
            accepted_per_s: measures.counts().accepted_per_s,
            accept_p99_ms: measures.percentile_ms(Measured::Accept, 99.0),
            view_p99_ms: measures.percentile_ms(Measured::View, 99.0),
            send_p99_ms: measures.percentile_ms(Measured::Send, 99.0),
            may_be_the_generator: failed.is_some() && self.may_be_the_generator(measures),
            failed,
        }
    }
}

/// Tries rates. Returns the highest that held, with its measurements; if none held, those of the
/// last rate. `drive` also returns whether it finished: if it was stopped, the search returns what
/// it found so far.
pub(crate) fn search<E>(
    slo: &Slo,
    first: f64,
    mut drive: impl FnMut(f64) -> Result<(Measures, bool), E>,
) -> Result<(Search, Option<Measures>), E> {
    let mut found =
        Search { slo: slo.to_string(), slo_ms: slo.below_ms(), steps: Vec::new(), highest: None };
    let (mut rate, mut failed, mut best) = (first, None::<f64>, None);
    while found.steps.len() < STEPS_MAX {
        let (measures, is_finished) = drive(rate)?;
        if !is_finished {
            best = best.or(Some(measures));
            break;
        }
        let step = slo.step(rate, &measures);
        let held = step.failed.is_none();
        found.steps.push(step);
        if slo.has_too_few(&measures) {
            best = best.or(Some(measures));
            break;
        }
        if held || found.highest.is_none() {
            best = Some(measures);
        }
        match held {
            true => found.highest = Some(rate),
            false => failed = Some(rate),
        }
        let next = match (found.highest, failed) {
            (Some(held), Some(failed)) if failed / held <= NEAR => break,
            (Some(held), Some(failed)) => (held * failed).sqrt(),
            (Some(held), None) => held * 2.0,
            (None, _) if rate <= RATE_MIN => break,
            (None, _) => (rate / 2.0).max(RATE_MIN),
        };
        rate = next.round();
        // No whole number lies between them.
        if found.highest == Some(rate) || failed == Some(rate) {
            break;
        }
    }
    Ok((found, best))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// All commands accepted, and visible in a view within a time.
    fn measured(rate: f64, view_ms: u64) -> Measures {
        let mut measures = Measures::new(1.0);
        let second = Duration::from_secs(1);
        measures.due(Duration::ZERO, rate as u64);
        measures.accepted(second, rate as u64);
        measures.last = second;
        for _ in 0..100 {
            measures.took(Measured::View, Duration::ZERO, Duration::from_millis(view_ms));
            measures.took(Measured::Accept, Duration::ZERO, Duration::from_millis(1));
        }
        measures
    }

    /// A target that accepts all commands at once, and shows them within 10 ms up to a rate.
    fn holds_up_to(limit: f64) -> impl FnMut(f64) -> Result<(Measures, bool), Infallible> {
        move |rate| Ok((measured(rate, if rate <= limit { 10 } else { 1_000 }), true))
    }

    #[test]
    fn a_search_finds_the_highest_rate() {
        let slo: Slo = "view p99 100ms".parse().expect("it is one");
        for (limit, first, steps_max) in [
            (2_345.0, 100.0, 11),
            (2_345.0, 50_000.0, 11),
            (100.0, 100.0, 6),
            (7.0, 1_000.0, 11),
            (13.0, 1.0, 8),
            (180_000.0, 1_000.0, 14),
        ] {
            let Ok((found, best)) = search(&slo, first, holds_up_to(limit));
            let highest = found.highest.expect("one holds");
            assert!(highest <= limit && highest * 1.2 >= limit, "{limit} from {first}: {found:?}");
            if limit > 100.0 {
                assert!(highest * NEAR >= limit, "{limit} from {first}: {found:?}");
            }
            let best = best.expect("it was measured").counts().accepted;
            assert_eq!(best, highest as u64);
            let mut rates: Vec<_> = found.steps.iter().map(|step| step.rate).collect();
            assert!(rates.len() <= steps_max, "{limit} from {first}: {rates:?}");
            rates.sort_by(f64::total_cmp);
            rates.dedup();
            assert_eq!(rates.len(), found.steps.len(), "a rate was tried twice: {found:?}");
        }
    }

    #[test]
    fn a_stopped_step_is_reported_only_if_no_step_has_ended() {
        let slo: Slo = "view p99 100ms".parse().expect("it is one");
        for (steps, accepted) in [(0, 100), (1, 100), (2, 200)] {
            let mut left = steps;
            let (found, best) = search(&slo, 100.0, |rate| {
                left -= 1;
                Ok::<_, Infallible>((measured(rate, 10), left >= 0))
            })
            .expect("nothing fails");
            assert_eq!(found.steps.len(), steps as usize);
            assert_eq!(best.expect("it was measured").counts().accepted, accepted);
        }
    }

    #[test]
    fn no_lower_rate_is_tried_after_too_few_measurements() {
        let slo: Slo = "view p99 100ms".parse().expect("it is one");
        let few = |rate| {
            let mut measures = measured(rate, 1_000);
            if rate < 100.0 {
                measures = Measures::new(1.0);
                measures.took(Measured::View, Duration::ZERO, Duration::from_millis(1));
            }
            Ok::<_, Infallible>((measures, true))
        };
        for (first, rates) in [(50.0, &[50.0][..]), (300.0, &[300.0, 150.0, 75.0])] {
            let Ok((found, _)) = search(&slo, first, few);
            assert_eq!(found.highest, None);
            assert_eq!(found.steps.iter().map(|step| step.rate).collect::<Vec<_>>(), rates);
            let why = found.steps.last().and_then(|step| step.failed.as_deref());
            assert!(why.is_some_and(|why| why.contains("--duration")), "{why:?}");
        }
    }

    #[test]
    fn the_search_ends_if_no_rate_or_every_rate_holds() {
        let slo: Slo = "view p99 100ms".parse().expect("it is one");
        let Ok((nothing, _)) = search(&slo, 100.0, holds_up_to(0.0));
        assert_eq!(nothing.highest, None);
        assert!(nothing.steps.iter().all(|step| step.failed.is_some()));
        let Ok((everything, _)) = search(&slo, 1.0, holds_up_to(f64::MAX));
        assert_eq!(everything.steps.len(), STEPS_MAX);
    }

    #[test]
    fn a_rate_with_unaccepted_commands_does_not_hold() {
        let slo: Slo = "accept p99 1s".parse().expect("it is one");
        let mut measures = measured(100.0, 10);
        assert_eq!(slo.failed(&measures), None);
        // One late answer, within the percentile, changes nothing.
        measures.last = Duration::from_secs(30);
        assert_eq!(slo.failed(&measures), None);
        measures.counts.accepted = 99;
        assert_eq!(slo.failed(&measures).as_deref(), Some("accepted only 99 of 100"));
        measures.counts.unsent = 1;
        assert_eq!(slo.failed(&measures).as_deref(), Some("1 not sent in time"));
    }

    #[test]
    fn a_percentile_needs_enough_measurements() {
        for (slo, min) in [
            ("view p50 1s", 20),
            ("view p90 1s", 20),
            ("view p99 1s", 100),
            ("entry p999 1s", 1_000),
        ] {
            let slo: Slo = slo.parse().expect("it is one");
            let mut measures = Measures::new(1.0);
            for n in 0..=min {
                let failed = slo.failed(&measures);
                assert_eq!(failed.is_none(), n >= min, "{slo} of {n}: {failed:?}");
                measures.took(slo.kind, Duration::ZERO, Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn late_requests_may_be_the_limit_of_the_generator() {
        let slo: Slo = "view p99 100ms".parse().expect("it is one");
        for (late_ms, is) in [(10, false), (30, true)] {
            let mut measures = measured(100.0, 200);
            measures.took(Measured::Send, Duration::ZERO, Duration::from_millis(late_ms));
            assert_eq!(slo.step(100.0, &measures).may_be_the_generator, is, "{late_ms}");
            measures.counts.unsent = 1;
            assert!(slo.step(100.0, &measures).may_be_the_generator);
        }
        assert!(!slo.step(100.0, &measured(100.0, 10)).may_be_the_generator, "it held");
    }

    #[test]
    fn an_slo_is_shown_with_its_comparison() {
        for (text, shown) in [
            ("view p99 100ms", "view p99 < 100ms"),
            ("accept  p999 1s", "accept p999 < 1s"),
            ("entry p50 250us", "entry p50 < 250us"),
        ] {
            assert_eq!(text.parse::<Slo>().expect(text).to_string(), shown);
        }
    }
}
