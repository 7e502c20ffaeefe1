//! The ids of one user, or one client of a user, in one log: which command is a repetition (F4).
//!
//! The rule of the ledger's makers, written again: the [`IDS_MAX`] highest ids with the seqs of
//! their entries, and a floor, the highest id that fell out. What is at or below the floor is not
//! known any more. When no new id came for [`IDLE_MS_MAX`] of the log's time, all ids fall out.

use std::collections::VecDeque;
use std::num::NonZeroU64;

/// Ids that a window holds.
const IDS_MAX: usize = 2_048;
/// Milliseconds of a log's time for which a window without a new id keeps its ids: a week.
const IDLE_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000;

/// What a window says of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// Its entry is decided upon.
    New,
    /// The first entry of the id is at this seq.
    Known {
        /// The seq.
        of: u64,
        /// Whether the command is the one of that entry; `None`: that is not known.
        is_same: Option<bool>,
    },
    /// Its entry is stale.
    BelowFloor,
}

/// An id that is known.
#[derive(Debug, Clone, Copy)]
struct Known {
    id: u64,
    seq: u64,
    /// Of the command, if that is known.
    content: Option<NonZeroU64>,
}

/// The ids of one user, or one client of a user, in one log.
#[derive(Debug, Default)]
pub(crate) struct Window {
    floor: u64,
    /// Ascending by id, all above the floor.
    ids: VecDeque<Known>,
    /// The time of the last entry with a new id.
    touched: u64,
}

impl Window {
    /// What becomes of a command with this `id` and a digest of its `content`, whose entry is at
    /// `seq` and has this `time`; it counts from now on.
    pub(crate) fn take(
        &mut self,
        id: u64,
        seq: u64,
        time: u64,
        content: Option<NonZeroU64>,
    ) -> Sighting {
        self.pass(time);
        if id <= self.floor {
            return Sighting::BelowFloor;
        }
        // Most often ids grow.
        let at = match self.ids.back() {
            Some(last) if last.id < id => self.ids.len(),
            _ => match self.ids.binary_search_by_key(&id, |known| known.id) {
                Ok(at) => {
                    let Known { seq: of, content: first, .. } = self.ids[at];
                    let is_same = first.zip(content).map(|(first, this)| first == this);
                    return Sighting::Known { of, is_same };
                }
                Err(at) => at,
            },
        };
        self.ids.insert(at, Known { id, seq, content });
        self.touched = time;
        if self.ids.len() > IDS_MAX
            && let Some(lowest) = self.ids.pop_front()
        {
            self.floor = lowest.id;
        }
        Sighting::New
    }

    /// The log has come to this `time`: if no new id came for too long, all ids fall out.
    pub(crate) fn pass(&mut self, time: u64) {
        if self.is_idle(time) {
            self.floor = self.highest();
            self.ids.clear();
        }
    }

    /// Whether no new id came for too long, at this `time`.
    pub(crate) fn is_idle(&self, time: u64) -> bool {
        time.saturating_sub(self.touched) > IDLE_MS_MAX
    }

    /// The highest id that ever came; zero: none has.
    pub(crate) fn highest(&self) -> u64 {
        self.ids.back().map_or(self.floor, |known| known.id)
    }

    /// The id at or below which nothing is known any more.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
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
        touched: u64,
    }

    impl Naive {
        fn take(&mut self, id: u64, seq: u64, time: u64) -> Sighting {
            if time > self.touched + IDLE_MS_MAX {
                self.floor = self.taken.keys().last().copied().unwrap_or(0).max(self.floor);
            }
            if let Some(seq) = self.taken.get(&id).filter(|_| id > self.floor) {
                return known(*seq);
            }
            if id <= self.floor {
                return Sighting::BelowFloor;
            }
            self.taken.insert(id, seq);
            self.touched = time;
            self.floor = self.taken.keys().rev().nth(IDS_MAX).copied().unwrap_or(0).max(self.floor);
            Sighting::New
        }
    }

    fn known(of: u64) -> Sighting {
        Sighting::Known { of, is_same: None }
    }

    proptest! {
        // A failure prints the case that it is shrunk to, and keeps its seed.
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_window_does_as_its_definition(
            stretches in prop::collection::vec((1u64..9_000, 1u64..700, 0..=IDLE_MS_MAX), 1..12)
        ) {
            let (mut window, mut naive, mut time) = (Window::default(), Naive::default(), 0);
            let mut seqs = 1..;
            for (first, len, pause) in stretches {
                time += 2 * pause;
                for (id, seq) in (first..first + len).zip(&mut seqs) {
                    let taken = window.take(id, seq, time, None);
                    prop_assert_eq!(taken, naive.take(id, seq, time), "id {}", id);
                }
            }
        }
    }

    #[test]
    fn the_lowest_of_too_many_becomes_the_floor() {
        let mut window = Window::default();
        let mut take = |id, seq| window.take(id, seq, 1, None);
        for id in 10..=2_057 {
            assert_eq!(take(id, id), Sighting::New);
        }
        assert_eq!(take(10, 1), known(10));
        // Too low to stay: it becomes the floor itself.
        assert_eq!(take(5, 1), Sighting::New);
        assert_eq!(take(5, 2), Sighting::BelowFloor);
        assert_eq!(take(10, 3), known(10));
        assert_eq!(take(2_058, 4), Sighting::New);
        assert_eq!(take(10, 5), Sighting::BelowFloor);
        assert_eq!(take(11, 6), known(11));
    }

    #[test]
    fn commands_are_compared_with_the_first_of_their_id() {
        let content = NonZeroU64::new;
        let mut window = Window::default();
        assert_eq!(window.take(1, 1, 1, content(7)), Sighting::New);
        assert_eq!(window.take(2, 2, 1, None), Sighting::New);
        for (id, this, is_same) in [
            (1, content(7), Some(true)),
            (1, content(8), Some(false)),
            (1, None, None),
            (2, content(7), None),
        ] {
            assert_eq!(window.take(id, 3, 1, this), Sighting::Known { of: id, is_same });
        }
    }

    #[test]
    fn a_week_without_a_new_id_empties_it() {
        let mut window = Window::default();
        assert_eq!(window.take(5, 1, 100, None), Sighting::New);
        // A repetition is no new id.
        assert_eq!(window.take(5, 2, 100 + IDLE_MS_MAX, None), known(1));
        assert_eq!(window.take(5, 3, 101 + IDLE_MS_MAX, None), Sighting::BelowFloor);
        assert_eq!(window.take(4, 4, 101 + IDLE_MS_MAX, None), Sighting::BelowFloor);
        assert_eq!(window.take(6, 5, 101 + IDLE_MS_MAX, None), Sighting::New);
        assert_eq!((window.highest(), window.floor()), (6, 5));
    }
}
