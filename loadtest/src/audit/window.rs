//! The ids of one user in one log: which command is a repetition (F4).
//!
//! The rule of the ledger's makers, written again: the [`IDS_MAX`] highest ids with the seqs of
//! their entries, and a floor, the highest id that fell out. What is at or below the floor nobody
//! knows any more.

use std::collections::VecDeque;

/// Ids that a window holds.
const IDS_MAX: usize = 2_048;

/// What a window says of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sighting {
    /// Its entry is decided upon.
    New,
    /// Its entry is a duplicate of the one at this seq.
    Known(u64),
    /// Its entry is stale.
    BelowFloor,
}

/// The ids of one user in one log.
#[derive(Debug, Default)]
pub(super) struct Window {
    floor: u64,
    /// (id, seq), ascending by id, all above the floor.
    ids: VecDeque<(u64, u64)>,
}

impl Window {
    /// What becomes of a command with this `id`, whose entry is at `seq`; it counts from now on.
    pub(super) fn take(&mut self, id: u64, seq: u64) -> Sighting {
        if id <= self.floor {
            return Sighting::BelowFloor;
        }
        // Most often ids grow.
        let at = match self.ids.back() {
            Some((last, _)) if *last < id => self.ids.len(),
            _ => match self.ids.binary_search_by_key(&id, |(id, _)| *id) {
                Ok(at) => return Sighting::Known(self.ids[at].1),
                Err(at) => at,
            },
        };
        self.ids.insert(at, (id, seq));
        if self.ids.len() > IDS_MAX
            && let Some((lowest, _)) = self.ids.pop_front()
        {
            self.floor = lowest;
        }
        Sighting::New
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Remembers everything, and works out the window each time it is asked.
    #[derive(Default)]
    struct Naive {
        taken: BTreeMap<u64, u64>,
        floor: u64,
    }

    impl Naive {
        fn take(&mut self, id: u64, seq: u64) -> Sighting {
            if let Some(seq) = self.taken.get(&id).filter(|_| id > self.floor) {
                return Sighting::Known(*seq);
            }
            if id <= self.floor {
                return Sighting::BelowFloor;
            }
            self.taken.insert(id, seq);
            self.floor = self.taken.keys().rev().nth(IDS_MAX).copied().unwrap_or(0).max(self.floor);
            Sighting::New
        }
    }

    proptest! {
        // A failure prints the case that it is shrunk to, and keeps its seed.
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_window_does_as_its_definition(
            stretches in prop::collection::vec((1u64..9_000, 1u64..700), 1..12)
        ) {
            let (mut window, mut naive) = (Window::default(), Naive::default());
            let ids = stretches.into_iter().flat_map(|(first, len)| first..first + len);
            for (id, seq) in ids.zip(1..) {
                prop_assert_eq!(window.take(id, seq), naive.take(id, seq), "id {}", id);
            }
        }
    }

    #[test]
    fn the_lowest_of_too_many_becomes_the_floor() {
        let mut window = Window::default();
        for id in 10..=2_057 {
            assert_eq!(window.take(id, id), Sighting::New);
        }
        assert_eq!(window.take(10, 1), Sighting::Known(10));
        // Too low to stay: it becomes the floor itself.
        assert_eq!(window.take(5, 1), Sighting::New);
        assert_eq!(window.take(5, 2), Sighting::BelowFloor);
        assert_eq!(window.take(10, 3), Sighting::Known(10));
        assert_eq!(window.take(2_058, 4), Sighting::New);
        assert_eq!(window.take(10, 5), Sighting::BelowFloor);
        assert_eq!(window.take(11, 6), Sighting::Known(11));
    }
}
