//! The ids of one origin in one log, which show whether a command is a repetition (F4).
//!
//! The rule of the design, written again: a window holds the [`IDS_MAX`] highest ids with the seqs
//! of their entries, and a floor, the highest id that fell out. An id at or below the floor is not
//! known any more. When no new id came for [`IDLE_MS_MAX`] of the log's time, all ids fall out.

use std::collections::VecDeque;
use std::num::NonZeroU64;

/// Ids that a window holds, by the design.
const IDS_MAX: usize = 2_048;
/// Milliseconds of the log's time without a new id after which a window forgets its ids: a week, by
/// the design.
const IDLE_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000;

/// The state of an id in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdState {
    /// It is new: its command is decided.
    New,
    /// It was used before.
    Known {
        /// The seq of its first entry.
        first: u64,
        /// Whether the first entry has the same command; `None`: that is unknown.
        is_same: Option<bool>,
    },
    /// It is at or below the floor: its entry is stale.
    BelowFloor,
}

/// An id in the window.
#[derive(Debug, Clone, Copy)]
struct Known {
    id: u64,
    seq: u64,
    /// The digest of its command, if that is known.
    content: Option<NonZeroU64>,
}

/// The window of one origin in one log.
#[derive(Debug, Default)]
pub(crate) struct Window {
    floor: u64,
    /// Ascending by id, all above the floor.
    ids: VecDeque<Known>,
    /// The time of the last entry with a new id.
    touched: u64,
}

impl Window {
    /// Uses an `id`, with a digest of the command's `content`, for an entry at `seq` with this
    /// `time`. Returns what the window knew of the id before.
    pub(crate) fn use_id(
        &mut self,
        id: u64,
        seq: u64,
        time: u64,
        content: Option<NonZeroU64>,
    ) -> IdState {
        self.forget_if_idle(time);
        if id <= self.floor {
            return IdState::BelowFloor;
        }
        // Fast path: ids mostly grow.
        let at = match self.ids.back() {
            Some(last) if last.id < id => self.ids.len(),
            _ => match self.ids.binary_search_by_key(&id, |known| known.id) {
                Ok(at) => {
                    let Known { seq: first, content: its_content, .. } = self.ids[at];
                    let is_same = its_content.zip(content).map(|(its, this)| its == this);
                    return IdState::Known { first, is_same };
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
        IdState::New
    }

    /// Forgets all ids if no new id came for too long before this `time`.
    pub(crate) fn forget_if_idle(&mut self, time: u64) {
        if self.is_idle(time) {
            self.floor = self.highest();
            self.ids.clear();
        }
    }

    /// Whether no new id came for too long before this `time`.
    pub(crate) fn is_idle(&self, time: u64) -> bool {
        time.saturating_sub(self.touched) > IDLE_MS_MAX
    }

    /// The highest id that was used; zero: none was.
    pub(crate) fn highest(&self) -> u64 {
        self.ids.back().map_or(self.floor, |known| known.id)
    }

    /// The id at or below which no id is known any more.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Remembers all ids, and computes the window at each use.
    #[derive(Default)]
    struct Naive {
        taken: BTreeMap<u64, u64>,
        floor: u64,
        touched: u64,
    }

    impl Naive {
        fn use_id(&mut self, id: u64, seq: u64, time: u64) -> IdState {
            if time > self.touched + IDLE_MS_MAX {
                self.floor = self.taken.keys().last().copied().unwrap_or(0).max(self.floor);
            }
            if let Some(seq) = self.taken.get(&id).filter(|_| id > self.floor) {
                return known(*seq);
            }
            if id <= self.floor {
                return IdState::BelowFloor;
            }
            self.taken.insert(id, seq);
            self.touched = time;
            self.floor = self.taken.keys().rev().nth(IDS_MAX).copied().unwrap_or(0).max(self.floor);
            IdState::New
        }
    }

    fn known(first: u64) -> IdState {
        IdState::Known { first, is_same: None }
    }

    proptest! {
        // A failure prints the case that it is shrunk to, and keeps its seed.
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_window_equals_its_definition(
            stretches in prop::collection::vec((1u64..9_000, 1u64..700, 0..=IDLE_MS_MAX), 1..12)
        ) {
            let (mut window, mut naive, mut time) = (Window::default(), Naive::default(), 0);
            let mut seqs = 1..;
            for (first, len, pause) in stretches {
                time += 2 * pause;
                for (id, seq) in (first..first + len).zip(&mut seqs) {
                    let taken = window.use_id(id, seq, time, None);
                    prop_assert_eq!(taken, naive.use_id(id, seq, time), "id {}", id);
                }
            }
        }
    }

    #[test]
    fn the_lowest_of_too_many_ids_becomes_the_floor() {
        let mut window = Window::default();
        let mut take = |id, seq| window.use_id(id, seq, 1, None);
        for id in 10..=2_057 {
            assert_eq!(take(id, id), IdState::New);
        }
        assert_eq!(take(10, 1), known(10));
        // It is the lowest of too many, so it becomes the floor.
        assert_eq!(take(5, 1), IdState::New);
        assert_eq!(take(5, 2), IdState::BelowFloor);
        assert_eq!(take(10, 3), known(10));
        assert_eq!(take(2_058, 4), IdState::New);
        assert_eq!(take(10, 5), IdState::BelowFloor);
        assert_eq!(take(11, 6), known(11));
    }

    #[test]
    fn a_command_is_compared_with_the_first_one_of_its_id() {
        let content = NonZeroU64::new;
        let mut window = Window::default();
        assert_eq!(window.use_id(1, 1, 1, content(7)), IdState::New);
        assert_eq!(window.use_id(2, 2, 1, None), IdState::New);
        for (id, this, is_same) in [
            (1, content(7), Some(true)),
            (1, content(8), Some(false)),
            (1, None, None),
            (2, content(7), None),
        ] {
            assert_eq!(window.use_id(id, 3, 1, this), IdState::Known { first: id, is_same });
        }
    }

    #[test]
    fn a_week_without_a_new_id_empties_the_window() {
        let mut window = Window::default();
        assert_eq!(window.use_id(5, 1, 100, None), IdState::New);
        // A repetition is not a new id.
        assert_eq!(window.use_id(5, 2, 100 + IDLE_MS_MAX, None), known(1));
        assert_eq!(window.use_id(5, 3, 101 + IDLE_MS_MAX, None), IdState::BelowFloor);
        assert_eq!(window.use_id(4, 4, 101 + IDLE_MS_MAX, None), IdState::BelowFloor);
        assert_eq!(window.use_id(6, 5, 101 + IDLE_MS_MAX, None), IdState::New);
        assert_eq!((window.highest(), window.floor()), (6, 5));
    }
}
