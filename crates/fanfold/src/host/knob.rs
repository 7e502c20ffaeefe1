//! Limits that a simulation draws smaller than they ship.
//!
//! Most limits are so large that no simulated run would reach them, so code that splits, pages or
//! overflows would never run. With the feature `knobs`, [`draw`] gives every [`Knob`] of the thread
//! a value by a seed. Without the feature, or before a draw, a knob has its shipped value.

use std::fmt;

/// A limit of bytes, items or milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Knob {
    ships: u64,
    #[cfg(feature = "knobs")]
    least: u64,
    #[cfg(feature = "knobs")]
    place: u64,
}

impl Knob {
    /// A limit with the shipped value `ships`. A simulation draws values between `least` and
    /// `ships`.
    #[track_caller]
    pub const fn new(ships: u64, least: u64) -> Self {
        assert!(0 < least && least <= ships, "a knob's least is from 1 to its shipped value");
        Self {
            ships,
            #[cfg(feature = "knobs")]
            least,
            #[cfg(feature = "knobs")]
            place: drawn::place(std::panic::Location::caller()),
        }
    }

    /// The limit, in its own unit.
    pub fn get(self) -> usize {
        self.as_u64() as usize
    }

    /// The limit, in its own unit.
    #[cfg(not(feature = "knobs"))]
    pub fn as_u64(self) -> u64 {
        self.ships
    }

    /// The limit, in its own unit.
    #[cfg(feature = "knobs")]
    pub fn as_u64(self) -> u64 {
        drawn::value(self.place, self.least, self.ships)
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_u64().fmt(f)
    }
}

#[cfg(feature = "knobs")]
pub use drawn::draw;

#[cfg(feature = "knobs")]
mod drawn {
    use std::cell::Cell;
    use std::panic::Location;

    thread_local! {
        static SEED: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// Draws every limit of this thread by a seed. With `None`, all have their shipped values.
    pub fn draw(seed: Option<u64>) {
        SEED.set(seed);
    }

    /// The place where a knob is declared, as a number. It distinguishes knobs.
    pub(super) const fn place(at: &Location<'_>) -> u64 {
        // FNV-1a of the file, then the line.
        let (mut hash, mut i, file) = (0xcbf2_9ce4_8422_2325_u64, 0, at.file().as_bytes());
        while i < file.len() {
            hash = (hash ^ file[i] as u64).wrapping_mul(0x0100_0000_01b3);
            i += 1;
        }
        (hash ^ at.line() as u64).wrapping_mul(0x0100_0000_01b3)
    }

    /// Half of the limits keep their shipped values. Of the others, each size has the same chance:
    /// the least, its double, ….
    pub(super) fn value(place: u64, least: u64, ships: u64) -> u64 {
        let Some(seed) = SEED.get() else { return ships };
        let drawn = mix(seed ^ place);
        if drawn & 1 == 0 {
            return ships;
        }
        let sizes = u64::from((ships / least).ilog2()) + 1;
        least << ((drawn >> 1) % sizes)
    }

    /// The output function of SplitMix64.
    fn mix(mut z: u64) -> u64 {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(all(test, feature = "knobs"))]
mod tests {
    use super::*;

    const ONE: Knob = Knob::new(1_000, 10);
    const OTHER: Knob = Knob::new(1_000, 10);

    #[test]
    fn a_seed_draws_each_knob_between_its_least_and_its_shipped_value() {
        let mut seen = std::collections::BTreeSet::new();
        let mut differ = 0;
        for seed in 0..200 {
            draw(Some(seed));
            let (one, other) = (ONE.get(), OTHER.get());
            assert!((10..=1_000).contains(&one), "{one}");
            assert_eq!(one, ONE.get());
            seen.insert(one);
            differ += u32::from(one != other);
        }
        draw(None);
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [10, 20, 40, 80, 160, 320, 640, 1_000]);
        assert!(differ > 50, "{differ}");
        assert_eq!(ONE.get(), 1_000);
    }
}
