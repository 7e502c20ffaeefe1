//! The search for the highest rate that holds an SLO: doubled until it does not hold, and then
//! halved into, until the answer is known to a twentieth.

use std::str::FromStr;
use std::time::Duration;

use crate::measure::{Kind, Measures};
use crate::report::{Search, Step};

/// How near the answer is to the truth: the rate that held to the one that did not.
const NEAR: f64 = 1.05;
/// Rates that are tried: from 1/s to the highest that a machine sends, and back in.
const STEPS_MAX: usize = 24;
/// A rate holds only if so much of it was accepted.
const ACCEPTED_MIN: f64 = 0.97;
/// The lowest rate that is tried, in commands per second.
const RATE_MIN: f64 = 1.0;

/// What must hold: `view p99 100ms`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slo {
    kind: Kind,
    percent: f64,
    below: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "an SLO is accept, entry or view, then p50, p90, p99 or p999, then a time: `view p99 100ms`"
)]
pub(crate) struct NoSlo;

impl FromStr for Slo {
    type Err = NoSlo;

    fn from_str(text: &str) -> Result<Self, NoSlo> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [kind, percent, below] = words[..] else { return Err(NoSlo) };
        let kind = match kind {
            "accept" => Kind::Accept,
            "entry" => Kind::Entry,
            "view" => Kind::View,
            _ => return Err(NoSlo),
        };
        let percent = match percent {
            "p50" => 50.0,
            "p90" => 90.0,
            "p99" => 99.0,
            "p999" => 99.9,
            _ => return Err(NoSlo),
        };
        let below = humantime::parse_duration(below).map_err(|_| NoSlo)?;
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

    /// Why a rate did not hold; `None`: it did.
    fn failed(&self, rate: f64, measures: &Measures) -> Option<String> {
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
        if counts.accepted_per_s < ACCEPTED_MIN * rate {
            return Some(format!("accepted only {:.0}/s", counts.accepted_per_s));
        }
        let took = measures.percentile_ms(self.kind, self.percent);
        let below = self.below_ms();
        (took >= below).then(|| format!("{:.1} ms, not below {below} ms", took))
    }
}

/// Tries rates, and says which was the highest that held, with what was measured at it; if none
/// did, with what was measured last.
pub(crate) fn search<E>(
    slo: &Slo,
    first: f64,
    mut drive: impl FnMut(f64) -> Result<Option<Measures>, E>,
) -> Result<(Search, Option<Measures>), E> {
    let mut found =
        Search { slo: slo.to_string(), slo_ms: slo.below_ms(), steps: Vec::new(), highest: None };
    let (mut rate, mut failed, mut best) = (first, None::<f64>, None);
    while found.steps.len() < STEPS_MAX {
        // Stopped by whoever watches: what is found so far stands.
        let Some(measures) = drive(rate)? else { break };
        let why = slo.failed(rate, &measures);
        let held = why.is_none();
        found.steps.push(Step {
            rate,
            accepted_per_s: measures.counts().accepted_per_s,
            accept_p99_ms: measures.percentile_ms(Kind::Accept, 99.0),
            view_p99_ms: measures.percentile_ms(Kind::View, 99.0),
            failed: why,
        });
        if held || found.highest.is_none() {
            best = Some(measures);
        }
        match held {
            true => found.highest = Some(rate),
            false => failed = Some(rate),
        }
        rate = match (found.highest, failed) {
            (Some(held), Some(failed)) if failed / held <= NEAR => break,
            (Some(held), Some(failed)) => (held * failed).sqrt(),
            (Some(held), None) => held * 2.0,
            (None, _) if rate <= RATE_MIN => break,
            (None, _) => (rate / 2.0).max(RATE_MIN),
        };
        rate = rate.round();
    }
    Ok((found, best))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A target that accepts everything at once, and shows it within 10 ms up to a rate.
    fn holds_up_to(limit: f64) -> impl FnMut(f64) -> Result<Option<Measures>, Infallible> {
        move |rate| {
            let mut measures = Measures::new(1.0);
            let second = Duration::from_secs(1);
            measures.accepted(second, rate as u64);
            measures.last = second;
            let took = Duration::from_millis(if rate <= limit { 10 } else { 1_000 });
            measures.took(Kind::View, Duration::ZERO, took);
            Ok(Some(measures))
        }
    }

    #[test]
    fn it_finds_the_highest_rate() {
        let slo: Slo = "view p99 100ms".parse().expect("it is one");
        for (limit, first) in [
            (2_345.0, 100.0),
            (2_345.0, 50_000.0),
            (100.0, 100.0),
            (7.0, 1_000.0),
            (180_000.0, 1_000.0),
        ] {
            let Ok((found, best)) = search(&slo, first, holds_up_to(limit));
            let highest = found.highest.expect("one holds");
            assert!(highest <= limit && highest * 1.2 >= limit, "{limit} from {first}: {found:?}");
            if limit > 100.0 {
                assert!(highest * NEAR >= limit, "{limit} from {first}: {found:?}");
            }
            let best = best.expect("it was measured").counts().accepted;
            assert_eq!(best, highest as u64);
        }
    }

    #[test]
    fn it_ends_if_nothing_holds_or_everything_does() {
        let slo: Slo = "view p99 100ms".parse().expect("it is one");
        let Ok((nothing, _)) = search(&slo, 100.0, holds_up_to(0.0));
        assert_eq!(nothing.highest, None);
        assert!(nothing.steps.iter().all(|step| step.failed.is_some()));
        let Ok((everything, _)) = search(&slo, 1.0, holds_up_to(f64::MAX));
        assert_eq!(everything.steps.len(), STEPS_MAX);
    }

    #[test]
    fn what_was_not_accepted_does_not_hold() {
        let slo: Slo = "accept p99 1s".parse().expect("it is one");
        let mut slow = Measures::new(1.0);
        slow.accepted(Duration::from_secs(1), 90);
        slow.last = Duration::from_secs(1);
        assert_eq!(slo.failed(100.0, &slow).as_deref(), Some("accepted only 90/s"));
        assert_eq!(slo.failed(90.0, &slow), None);
        slow.counts.unsent = 1;
        assert_eq!(slo.failed(90.0, &slow).as_deref(), Some("1 not sent in time"));
    }

    #[test]
    fn an_slo_is_shown_as_it_is_meant() {
        for (text, shown) in [
            ("view p99 100ms", "view p99 < 100ms"),
            ("accept  p999 1s", "accept p999 < 1s"),
            ("entry p50 250us", "entry p50 < 250us"),
        ] {
            assert_eq!(text.parse::<Slo>().expect(text).to_string(), shown);
        }
    }
}
