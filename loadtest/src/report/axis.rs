//! The axes of the charts: the position of a value, and the ticks.

use std::ops::Range;

use plotters::coord::ranged1d::{
    KeyPointHint, KeyPointWeight, NoDefaultFormatting, Ranged, ValueFormatter,
};

use super::figures;

/// The greatest drawn value: greater ones are drawn as this, so that arithmetic does not overflow.
const DRAWN_MAX: f64 = 1e15;

/// The least drawn latency, in ms: lower ones are drawn as this.
const DRAWN_MIN_MS: f64 = 1e-3;

/// An axis from a least to a greatest value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Scale {
    /// Per second, from 0.
    Rate,
    /// Seconds from 0, with ticks in a unit of that many seconds.
    Time { unit: &'static str, seconds: f64 },
    /// Milliseconds, with the same length for each decade.
    Latency,
    /// Per cent, with the same distance between 90, 99, 99.9 …
    Percentile,
}

/// The value to draw; `None` if it is not finite.
pub(super) fn drawn(value: f64) -> Option<f64> {
    value.is_finite().then(|| value.clamp(0.0, DRAWN_MAX))
}

impl Axis {
    /// An axis of rates from 0 to a round number above all values.
    pub(super) fn rate(values: impl Iterator<Item = f64>) -> Self {
        let most = values.filter_map(drawn).fold(1.0, f64::max);
        let step = round_step(most / 10.0);
        Self { scale: Scale::Rate, low: 0.0, high: (most / step).ceil() * step }
    }

    /// An axis of time from 0 to `end_s`, at least one second.
    pub(super) fn time(end_s: f64) -> Self {
        let high = drawn(end_s).unwrap_or(0.0).max(1.0);
        let (unit, seconds) = match high {
            s if s <= 300.0 => ("s", 1.0),
            s if s <= 3.0 * 3600.0 => ("min", 60.0),
            _ => ("h", 3600.0),
        };
        Self { scale: Scale::Time { unit, seconds }, low: 0.0, high }
    }

    /// An axis of latencies. It begins and ends at a 1, 2 or 5 of a decade, and contains all
    /// values.
    pub(super) fn latency(values: impl Iterator<Item = f64>) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0f64);
        for value in values.filter_map(drawn) {
            least = least.min(value.max(DRAWN_MIN_MS));
            most = most.max(value.max(DRAWN_MIN_MS));
        }
        if most == 0.0 {
            (least, most) = (1.0, 10.0);
        }
        let low = round_log(least * 0.999, f64::floor);
        let mut high = round_log(most * 1.001, f64::ceil);
        if high < low * 9.0 {
            high = round_log(low * 9.0, f64::ceil);
        }
        Self { scale: Scale::Latency, low, high }
    }

    /// An axis of percentiles from 0 to the one above which one of `count` values lies.
    pub(super) fn percentile(count: u64) -> Self {
        let high = last_percentile(count).clamp(99.0, 99.999);
        Self { scale: Scale::Percentile, low: 0.0, high }
    }

    /// The position of a value: 0 at the beginning of the axis, 1 at its end.
    pub(super) fn position(&self, value: f64) -> f64 {
        let length = self.scaled(self.high) - self.scaled(self.low);
        let along = (self.scaled(value) - self.scaled(self.low)) / length;
        if along.is_finite() { along.clamp(0.0, 1.0) } else { 0.0 }
    }

    pub(super) fn low(&self) -> f64 {
        self.low
    }

    pub(super) fn high(&self) -> f64 {
        self.high
    }

    fn scaled(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Rate | Scale::Time { .. } => value,
            Scale::Latency => value.max(DRAWN_MIN_MS).log10(),
            Scale::Percentile => -(1.0 - value.clamp(0.0, self.high) / 100.0).log10(),
        }
    }

    /// The ticks, ascending: about `max` at most.
    pub(super) fn ticks(&self, max: usize) -> Vec<f64> {
        match self.scale {
            Scale::Rate => linear(self.high, 1.0, max),
            Scale::Time { seconds, .. } => linear(self.high, seconds, max),
            Scale::Latency => self.decades(max),
            Scale::Percentile => [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999]
                .into_iter()
                .filter(|tick| *tick <= self.high + 1e-9)
                .collect(),
        }
    }

    fn decades(&self, max: usize) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let within = |tick: &f64| *tick >= self.low * 0.999 && *tick <= self.high * 1.001;
        let all = |digits: &[f64], every: usize| -> Vec<f64> {
            let decades = (first..=last).step_by(every).map(power_of_ten);
            decades
                .flat_map(|decade| digits.iter().map(move |d| d * decade))
                .filter(within)
                .collect()
        };
        let finest = all(&[1.0, 2.0, 5.0], 1);
        if finest.len() <= max {
            return finest;
        }
        all(&[1.0], ((last - first) as usize).div_ceil(max.max(1)).max(1))
    }

    pub(super) fn label(&self, tick: f64) -> String {
        match self.scale {
            Scale::Rate if self.high >= 1e6 && tick > 0.0 => {
                format!("{}M", figures::plain(tick / 1e6))
            }
            Scale::Rate => figures::plain(tick),
            Scale::Time { unit, seconds } => format!("{} {unit}", figures::plain(tick / seconds)),
            Scale::Latency => figures::round_duration(tick),
            Scale::Percentile => format!("{tick}"),
        }
    }
}

/// The percentile above which one of `count` values lies.
pub(super) fn last_percentile(count: u64) -> f64 {
    100.0 * (1.0 - 1.0 / count.max(1) as f64)
}

fn linear(high: f64, unit: f64, max: usize) -> Vec<f64> {
    let step = round_step(high / unit / max.max(1) as f64) * unit;
    (0..=max).map(|n| n as f64 * step).take_while(|tick| *tick <= high * 1.0001).collect()
}

/// The least 1, 2 or 5 of a decade that is not less than `least`.
fn round_step(least: f64) -> f64 {
    round_log(least.clamp(1e-6, DRAWN_MAX) * 0.999_999, f64::ceil)
}

/// The nearest 1, 2 or 5 of a decade, in the direction of `towards`: `floor` or `ceil`.
fn round_log(value: f64, towards: fn(f64) -> f64) -> f64 {
    let decade = power_of_ten(value.log10().floor() as i32);
    let digit = value / decade;
    let up = towards(0.5) > 0.0;
    let digits = [1.0, 2.0, 5.0, 10.0];
    let chosen = if up {
        digits.into_iter().find(|d| *d >= digit).unwrap_or(10.0)
    } else {
        digits.into_iter().rev().find(|d| *d <= digit).unwrap_or(1.0)
    };
    chosen * decade
}

fn power_of_ten(power: i32) -> f64 {
    10f64.powi(power)
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let length = f64::from(limit.1 - limit.0);
        limit.0 + (length * self.position(*value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight() {
            KeyPointWeight::Bold => self.ticks(hint.max_num_points()),
            KeyPointWeight::Any => Vec::new(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.label(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis, max: usize) -> String {
        axis.ticks(max).into_iter().map(|tick| axis.label(tick)).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn ticks_are_round() {
        for (axis, text) in [
            (Axis::rate([1990.0, 2100.0].into_iter()), "0, 500, 1,000, 1,500, 2,000, 2,500"),
            (Axis::rate([0.0].into_iter()), "0, 0.2, 0.4, 0.6, 0.8, 1"),
            (Axis::rate([3e6].into_iter()), "0, 0.5M, 1M, 1.5M, 2M, 2.5M, 3M"),
            (Axis::time(20.0), "0 s, 5 s, 10 s, 15 s, 20 s"),
            (Axis::time(1200.0), "0 min, 5 min, 10 min, 15 min, 20 min"),
            (Axis::time(0.0), "0 s, 0.2 s, 0.4 s, 0.6 s, 0.8 s, 1 s"),
            (Axis::latency([3.0, 41.0].into_iter()), "2 ms, 5 ms, 10 ms, 20 ms, 50 ms"),
            (Axis::latency([5.0].into_iter()), "2 ms, 5 ms, 10 ms, 20 ms"),
            (Axis::latency([0.3, 7000.0].into_iter()), "1 ms, 10 ms, 100 ms, 1 s, 10 s"),
            (Axis::latency([].into_iter()), "0.5 ms, 1 ms, 2 ms, 5 ms, 10 ms, 20 ms"),
            (Axis::percentile(40_000), "0, 50, 90, 99, 99.9, 99.99"),
            (Axis::percentile(3), "0, 50, 90, 99"),
        ] {
            assert_eq!(labels(&axis, 6), text, "{axis:?}");
        }
    }

    #[test]
    fn a_value_lies_on_its_axis() {
        let axis = Axis::percentile(10_000);
        assert!((axis.position(90.0) - 0.25).abs() < 1e-9);
        assert!((axis.position(99.0) - 0.5).abs() < 1e-9);
        for axis in [axis, Axis::rate([7.0].into_iter()), Axis::latency([7.0].into_iter())] {
            for value in [-1.0, 0.0, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                assert!((0.0..=1.0).contains(&axis.position(value)), "{value} {axis:?}");
            }
        }
    }
}
