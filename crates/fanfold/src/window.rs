//! The ids seen per (log, origin): how repeats are recognised (F4).
//!
//! Kept are the [`WINDOW_IDS_MAX`] highest ids, each with the seq of its entry, as runs in which id
//! and seq grow together; and a floor, the highest id that fell out. A window is folded from the
//! log like a document: no clock, no expiry.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::limits::{COMMAND_ID_END, SEQ_END, WINDOW_IDS_MAX};
use crate::position::{CommandId, Seq};

/// What a window knows of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// Never seen: the command may be decided.
    New,
    /// Seen before: its entry stands at this seq.
    Known(Seq),
    /// At or below the floor: seen or not, nobody knows.
    Unknown,
}

/// `len` ids from `id` on, whose entries stand at `seq`, `seq + 1`, ….
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
    /// The highest id that fell out; zero while none has.
    #[serde(rename = "f")]
    floor: u64,
    /// Ascending by id, not overlapping, all above the floor.
    #[serde(rename = "r")]
    runs: VecDeque<Run>,
    /// The ids in `runs`.
    #[serde(rename = "n")]
    ids: usize,
}

/// A window as it was read, before its rules are checked.
#[derive(Deserialize)]
struct Stored {
    f: u64,
    r: VecDeque<Run>,
    n: usize,
}

impl TryFrom<Stored> for Window {
    type Error = &'static str;

    fn try_from(Stored { f: floor, r: runs, n: ids }: Stored) -> Result<Self, Self::Error> {
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
        if counted != ids as u64 || ids > WINDOW_IDS_MAX {
            return Err("a window has another number of ids than its runs");
        }
        Ok(Self { floor, runs, ids })
    }
}

impl Window {
    /// Whether `id` was seen before.
    pub fn sight(&self, id: CommandId) -> Sighting {
        let id = id.get();
        if id <= self.floor {
            return Sighting::Unknown;
        }
        match self.place(id).checked_sub(1) {
            Some(at) if id <= self.runs[at].last_id() => {
                Sighting::Known(Seq(self.runs[at].1 + (id - self.runs[at].0)))
            }
            _ => Sighting::New,
        }
    }

    /// Remembers that the entry of `id` stands at `seq`. An id that is known or below the floor
    /// changes nothing: the first sighting counts.
    pub fn insert(&mut self, id: CommandId, seq: Seq) {
        if self.sight(id) != Sighting::New {
            return;
        }
        let (id, seq) = (id.get(), seq.0);
        let at = self.place(id);
        match at.checked_sub(1).map(|before| &mut self.runs[before]) {
            Some(run) if run.is_followed_by(id, seq) => run.2 += 1,
            _ => self.runs.insert(at, Run(id, seq, 1)),
        }
        self.ids += 1;
        while self.ids > WINDOW_IDS_MAX {
            self.drop_lowest();
        }
    }

    /// Behind the last run that begins at or below `id`.
    fn place(&self, id: u64) -> usize {
        match self.runs.back() {
            // Most often ids grow.
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

    /// About the bytes that this takes when stored: a run is three numbers.
    pub fn weight(&self) -> usize {
        24 + self.runs.len() * 24
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

    /// The definition, word for word: the highest ids with their seqs, and a floor.
    #[derive(Default)]
    struct Model {
        floor: u64,
        ids: BTreeMap<u64, u64>,
    }

    impl Model {
        fn sight(&self, id: u64) -> Sighting {
            match self.ids.get(&id) {
                Some(seq) => Sighting::Known(Seq(*seq)),
                None if id <= self.floor => Sighting::Unknown,
                None => Sighting::New,
            }
        }

        fn insert(&mut self, id: u64, seq: u64) {
            if self.sight(id) == Sighting::New {
                self.ids.insert(id, seq);
                if self.ids.len() > WINDOW_IDS_MAX {
                    self.floor = self.ids.pop_first().map_or(self.floor, |(id, _)| id);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_window_does_as_its_definition(
            starts in prop::collection::vec((1u64..20_000, 1u64..400), 1..60)
        ) {
            let (mut window, mut model) = (Window::default(), Model::default());
            let mut seq = 0;
            for (start, len) in starts {
                for n in start..start + len {
                    seq += 1;
                    prop_assert_eq!(window.sight(id(n)), model.sight(n));
                    window.insert(id(n), Seq(seq));
                    model.insert(n, seq);
                    prop_assert_eq!(window.sight(id(n)), model.sight(n));
                }
            }
            for n in 1..20_500 {
                prop_assert_eq!(window.sight(id(n)), model.sight(n));
            }
            let stored = serde_json::to_string(&window).unwrap();
            prop_assert_eq!(serde_json::from_str::<Window>(&stored).unwrap(), window);
        }
    }

    #[test]
    fn consecutive_ids_are_one_run() {
        let mut window = Window::default();
        for n in 1..=10_000 {
            window.insert(id(n), Seq(n));
        }
        assert_eq!(window.runs.len(), 1);
        assert_eq!(window.sight(id(10_000 - WINDOW_IDS_MAX as u64)), Sighting::Unknown);
        assert_eq!(window.sight(id(10_001 - WINDOW_IDS_MAX as u64)), Sighting::Known(Seq(7_953)));
    }
}
