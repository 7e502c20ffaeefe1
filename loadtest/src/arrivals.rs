//! When requests are due: decided before the run, independent of the target (open loop).
//!
//! The rate is a function of time, made of straight pieces. The n-th request is due when the
//! integral of the rate reaches n. With Poisson arrivals it is due when the integral reaches the
//! sum of n random waits with the mean 1.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rand_distr::Exp1;

/// A piece of time in which the rate changes linearly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Piece {
    /// Seconds.
    pub(crate) seconds: f64,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape(pub(crate) Vec<Piece>);

impl Shape {
    pub(crate) fn constant(rate: f64, seconds: f64) -> Self {
        Self(vec![Piece { seconds, from: rate, to: rate }])
    }

    pub(crate) fn ramp(from: f64, to: f64, seconds: f64) -> Self {
        Self(vec![Piece { seconds, from, to }])
    }

    /// A rate, with another one in the middle third of the time.
    pub(crate) fn spike(rate: f64, spike: f64, seconds: f64) -> Self {
        let third = |rate| Piece { seconds: seconds / 3.0, from: rate, to: rate };
        Self(vec![third(rate), third(spike), third(rate)])
    }

    pub(crate) fn highest(&self) -> f64 {
        self.0.iter().map(|piece| piece.from.max(piece.to)).fold(0.0, f64::max)
    }

    /// Seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.0.iter().map(|piece| piece.seconds).sum()
    }

    /// The same shape with every rate multiplied by a factor.
    pub(crate) fn times(&self, factor: f64) -> Self {
        let scaled = |piece: &Piece| Piece {
            from: piece.from * factor,
            to: piece.to * factor,
            seconds: piece.seconds,
        };
        Self(self.0.iter().map(scaled).collect())
    }

    /// The second at which the integral of the rate reaches `n`; `None`: it never does.
    fn reaches(&self, n: f64) -> Option<f64> {
        let (mut began, mut left) = (0.0, n);
        for piece in &self.0 {
            let all = (piece.from + piece.to) / 2.0 * piece.seconds;
            if left < all {
                // from·t + slope·t²/2 = left, in the form that stays exact for a slope of nearly 0.
                let slope = (piece.to - piece.from) / piece.seconds;
                let root = (piece.from * piece.from + 2.0 * slope * left).max(0.0).sqrt();
                let t = if left > 0.0 { 2.0 * left / (piece.from + root) } else { 0.0 };
                return Some(began + t.min(piece.seconds));
            }
            (began, left) = (began + piece.seconds, left - all);
        }
        None
    }
}

/// The times at which requests are due, ascending, from the beginning of the run.
pub(crate) struct Arrivals {
    shape: Shape,
    reached: f64,
    random: Option<SmallRng>,
}

impl Arrivals {
    /// Evenly spaced arrivals. `offset` (0 to 1) is the place of the first one in its gap, so that
    /// several threads take turns.
    pub(crate) fn even(shape: Shape, offset: f64) -> Self {
        Self { shape, reached: offset, random: None }
    }

    /// Random arrivals, as of independent users.
    pub(crate) fn poisson(shape: Shape, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let reached = random.sample(Exp1);
        Self { shape, reached, random: Some(random) }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let due = self.shape.reaches(self.reached)?;
        self.reached += self.random.as_mut().map_or(1.0, |random| random.sample(Exp1));
        Some(Duration::from_secs_f64(due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(arrivals: Arrivals, from_s: f64, to_s: f64) -> usize {
        arrivals.map(|due| due.as_secs_f64()).filter(|due| (from_s..to_s).contains(due)).count()
    }

    #[test]
    fn even_arrivals_are_evenly_spaced() {
        let due: Vec<_> = Arrivals::even(Shape::constant(4.0, 1.0), 0.0).collect();
        assert_eq!(due, [0, 250, 500, 750].map(Duration::from_millis));
        let due: Vec<_> = Arrivals::even(Shape::constant(4.0, 1.0), 0.5).collect();
        assert_eq!(due, [125, 375, 625, 875].map(Duration::from_millis));
    }

    #[test]
    fn each_shape_has_its_rate() {
        let ramp = || Arrivals::even(Shape::ramp(0.0, 1_000.0, 10.0), 0.0);
        assert_eq!((within(ramp(), 0.0, 10.0), within(ramp(), 9.0, 10.0)), (5_000, 950));
        let down = || Arrivals::even(Shape::ramp(1_000.0, 0.0, 10.0), 0.0);
        assert_eq!((within(down(), 0.0, 10.0), within(down(), 0.0, 1.0)), (5_000, 950));
        let spike = || Arrivals::even(Shape::spike(100.0, 1_000.0, 30.0), 0.5);
        let thirds = [0.0, 10.0, 20.0].map(|from| within(spike(), from, from + 10.0));
        assert_eq!(thirds, [1_000, 10_000, 1_000]);
        assert_eq!(within(Arrivals::even(Shape::constant(0.0, 5.0), 0.0), 0.0, 5.0), 0);
    }

    #[test]
    fn arrivals_are_ascending() {
        for shape in [
            Shape::constant(977.0, 3.0),
            Shape::ramp(0.0, 5_000.0, 3.0),
            Shape::ramp(5_000.0, 0.0, 3.0),
            Shape::spike(10.0, 7_000.0, 3.0),
        ] {
            for arrivals in [Arrivals::even(shape.clone(), 0.3), Arrivals::poisson(shape, 7)] {
                assert!(arrivals.is_sorted());
            }
        }
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_its_variance() {
        let poisson = || Arrivals::poisson(Shape::constant(1_000.0, 100.0), 7);
        let all = poisson().count() as f64;
        // Six standard deviations of a Poisson count of 100,000.
        assert!((all - 100_000.0).abs() < 6.0 * 100_000_f64.sqrt(), "{all}");
        let per_second: Vec<_> = (0..100)
            .map(|s| within(poisson(), f64::from(s), f64::from(s) + 1.0) as f64 - all / 100.0)
            .collect();
        let variance = per_second.iter().map(|off| off * off).sum::<f64>() / 100.0;
        assert!(
            (500.0..2_000.0).contains(&variance),
            "a Poisson count varies by its mean: {variance}"
        );
        assert!(poisson().eq(poisson()), "the same seed, the same moments");
    }

    #[test]
    fn threads_together_have_even_arrivals() {
        let shape = Shape::constant(1_000.0, 2.0);
        let mut arrivals: Vec<_> = (0..4)
            .flat_map(|thread| Arrivals::even(shape.times(0.25), f64::from(thread) / 4.0))
            .collect();
        arrivals.sort();
        let off = arrivals.iter().zip(Arrivals::even(shape, 0.0)).map(|(a, b)| a.abs_diff(b)).max();
        assert_eq!(arrivals.len(), 2_000);
        assert!(off < Some(Duration::from_micros(1)), "{off:?}");
    }
}
