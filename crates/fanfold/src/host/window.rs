//! The ids used per (log, origin), by which repeats are recognised (F4).
//!
//! A window holds the [`WINDOW_IDS_MAX`] highest ids, each with the seq of its entry, as runs in which id and seq grow
//! together. It also holds a floor: the highest id that fell out. A window without a new id for [`WINDOW_IDLE_MS_MAX`]
//! forgets its ids, and its highest id becomes the floor. A window is folded from the log like a document. Its only
//! clock is the time of the log's entries, which never goes back, so it makes no difference whether an idle window was
//! stored with its ids or as its floor.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::host::limits::{COMMAND_ID_END, SEQ_END, WINDOW_IDLE_MS_MAX, WINDOW_IDS_MAX};
use crate::host::position::{CommandId, Seq};
use crate::time::Time;

/// A window's answer about an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// The id is new: the command may be decided.
    New,
    /// The id was used by the entry at this seq.
    Known(Seq),
    /// The id is at or below the floor, so it is not known whether it was used.
    Unknown,
}

/// `len` ids from `id` on, whose entries are at `seq`, `seq + 1`, ….
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Run(u64, u64, u64);

impl Run {
    fn last_id(&self) -> u64 {
        self.0 + self.2 - 1
    }

    fn is_followed_by(&self, id: u64, seq: u64) -> bool {
        self.0 + self.2 == id && self.1 + self.2 == seq
    }
}

/// The ids of one origin in one log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Window {
    /// The highest id that fell out; zero if none has.
    #[serde(rename = "f")]
    floor: u64,
    /// Ascending by id, not overlapping, all above the floor.
    #[serde(rename = "r")]
    runs: VecDeque<Run>,
    /// The ids in `runs`.
    #[serde(rename = "n")]
    ids: usize,
    /// The time of the entry that brought the last new id.
    #[serde(rename = "t")]
    touched: Time,
}

/// A window as it was read, before its rules are checked.
#[derive(Deserialize)]
struct Stored {
    f: u64,
    r: VecDeque<Run>,
    n: usize,
    t: Time,
}

impl TryFrom<Stored> for Window {
    type Error = &'static str;

    fn try_from(
        Stored { f: floor, r: runs, n: ids, t: touched }: Stored,
    ) -> Result<Self, Self::Error> {
        let mut below = floor;
        let mut counted = 0u64;
        for Run(id, seq, len) in &runs {
            let (ids_end, seqs_end) = (id.saturating_add(*len), seq.saturating_add(*len));
            if *id <= below || *len == 0 || ids_end > COMMAND_ID_END || seqs_end > SEQ_END {
                return Err("the runs of a window are not ascending, or out of range");
            }
            below = ids_end - 1;
            counted += len;
        }
        if counted != ids as u64 || ids > WINDOW_IDS_MAX.get() {
            return Err("a window has another number of ids than its runs");
        }
        Ok(Self { floor, runs, ids, touched })
    }
}

impl Window {
    /// Whether `id` was used before. `now` is the time of an entry that is not older than any folded so far.
    pub fn sight(&self, id: CommandId, now: Time) -> Sighting {
        let floor = if self.is_idle(now) { self.highest() } else { self.floor };
        if id.get() <= floor { Sighting::Unknown } else { self.find(id.get()) }
    }

    fn find(&self, id: u64) -> Sighting {
        match self.place(id).checked_sub(1) {
            Some(at) if id <= self.runs[at].last_id() => {
                Sighting::Known(Seq(self.runs[at].1 + (id - self.runs[at].0)))
            }
            _ => Sighting::New,
        }
    }

    /// Adds an id with the seq and time of its entry. Returns `false`, and changes nothing, if the id is known or not
    /// above the floor: its first entry counts.
    pub fn insert(&mut self, id: CommandId, seq: Seq, time: Time) -> bool {
        if self.sight(id, time) != Sighting::New {
            return false;
        }
        self.forget_if_idle(time);
        self.touched = time;
        let (id, seq) = (id.get(), seq.0);
        let at = self.place(id);
        match at.checked_sub(1).map(|before| &mut self.runs[before]) {
            Some(run) if run.is_followed_by(id, seq) => run.2 += 1,
            _ => self.runs.insert(at, Run(id, seq, 1)),
        }
        self.ids += 1;
        while self.ids > WINDOW_IDS_MAX.get() {
            self.drop_lowest();
        }
        true
    }

    fn highest(&self) -> u64 {
        self.runs.back().map_or(self.floor, Run::last_id)
    }

    fn is_idle(&self, now: Time) -> bool {
        now.since_ms(self.touched) > WINDOW_IDLE_MS_MAX.as_u64()
    }

    /// Shrinks to the floor if it is idle at this time of the log.
    pub fn forget_if_idle(&mut self, now: Time) {
        if self.is_idle(now) {
            self.floor = self.highest();
            self.runs = VecDeque::new();
            self.ids = 0;
        }
    }

    /// The index behind the last run that begins at or below `id`.
    fn place(&self, id: u64) -> usize {
        match self.runs.back() {
            // Fast path: ids grow.
            Some(last) if last.0 <= id => self.runs.len(),
            _ => self.runs.partition_point(|run| run.0 <= id),
        }
    }

    fn drop_lowest(&mut self) {
        if let Some(run) = self.runs.front_mut() {
            self.floor = run.0;
            self.ids -= 1;
            *run = Run(run.0 + 1, run.1 + 1, run.2 - 1);
            if run.2 == 0 {
                self.runs.pop_front();
            }
        }
    }

    /// An estimate of its stored bytes: a run is three numbers.
    pub fn weight(&self) -> usize {
        32 + self.runs.len() * 24
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn id(id: u64) -> CommandId {
        CommandId::new(id).expect("ids in these tests are in range")
    }

    /// The definition as a plain model: the highest ids with their seqs, a floor, and the time of
    /// the last new id.
    #[derive(Default)]
    struct Model {
        floor: u64,
        ids: BTreeMap<u64, u64>,
        touched: u64,
    }

    impl Model {
        fn pass(&mut self, now: u64) {
            if now > self.touched + WINDOW_IDLE_MS_MAX.as_u64() {
                self.floor = self.ids.last_key_value().map_or(self.floor, |(id, _)| *id);
                self.ids.clear();
            }
        }

        fn sight(&mut self, id: u64, now: u64) -> Sighting {
            self.pass(now);
            match self.ids.get(&id) {
                Some(seq) => Sighting::Known(Seq(*seq)),
                None if id <= self.floor => Sighting::Unknown,
                None => Sighting::New,
            }
        }

        fn insert(&mut self, id: u64, seq: u64, now: u64) {
            if self.sight(id, now) == Sighting::New {
                self.touched = now;
                self.ids.insert(id, seq);
                if self.ids.len() > WINDOW_IDS_MAX.get() {
                    self.floor = self.ids.pop_first().map_or(self.floor, |(id, _)| id);
                }
            }
        }
    }

    /// The window after it was stored, perhaps as its floor, and read.
    fn stored(window: &Window, now: Time) -> Window {
        let mut window = window.clone();
        window.forget_if_idle(now);
        let json = serde_json::to_string(&window).unwrap();
        let read = serde_json::from_str(&json).unwrap();
        assert_eq!(window, read);
        read
    }

    proptest! {
        #[test]
        fn a_window_answers_as_the_plain_model(
            starts in prop::collection::vec(
                (1u64..20_000, 1u64..400, prop_oneof![
                    20 => 0..WINDOW_IDLE_MS_MAX.as_u64() / 4,
                    1 => WINDOW_IDLE_MS_MAX.as_u64() - 1..WINDOW_IDLE_MS_MAX.as_u64() + 2,
                ], any::<bool>()),
                1..60,
            )
        ) {
            let (mut window, mut model) = (Window::default(), Model::default());
            let (mut seq, mut now) = (0, 1_000_000);
            for (start, len, passed_ms, is_stored) in starts {
                now += passed_ms;
                if is_stored {
                    window = stored(&window, Time(now));
                }
                for n in start..start + len {
                    seq += 1;
                    prop_assert_eq!(window.sight(id(n), Time(now)), model.sight(n, now));
                    window.insert(id(n), Seq(seq), Time(now));
                    model.insert(n, seq, now);
                    prop_assert_eq!(window.sight(id(n), Time(now)), model.sight(n, now));
                }
            }
            let stored = stored(&window, Time(now));
            for n in 1..20_500 {
                prop_assert_eq!(window.sight(id(n), Time(now)), model.sight(n, now));
                prop_assert_eq!(stored.sight(id(n), Time(now)), model.sight(n, now));
            }
        }
    }

    #[test]
    fn consecutive_ids_are_one_run() {
        let mut window = Window::default();
        for n in 1..=10_000 {
            window.insert(id(n), Seq(n), Time(n));
        }
        assert_eq!(window.runs.len(), 1);
        let sight = |n: u64| window.sight(id(n), Time(10_000));
        assert_eq!(sight(10_000 - WINDOW_IDS_MAX.get() as u64), Sighting::Unknown);
        assert_eq!(sight(10_001 - WINDOW_IDS_MAX.get() as u64), Sighting::Known(Seq(7_953)));
    }
}
