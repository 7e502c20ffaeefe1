//! What is done at a time: the commits of a log, and the entries that touch a row.

use std::collections::HashMap;

use fanfold::body::notification::Received;
use fanfold::view::AnyRecorded;
use fanfold::{LogId, RowKey, Seq};
use foldhash::fast::RandomState;

use crate::ports::StoredRow;

/// What messages say of one log.
pub(super) struct Told {
    pub log: LogId,
    /// In the order of their seqs, each with the index of its message.
    pub commits: Vec<(Received, usize)>,
}

/// Only logs of these services.
pub(super) fn by_log(messages: &[&[Received]], services: &[&str]) -> Vec<Told> {
    let n = messages.iter().map(|commits| commits.len()).sum();
    let mut logs: Vec<Told> = Vec::with_capacity(n);
    let mut place_of: HashMap<&LogId, usize, RandomState> =
        HashMap::with_capacity_and_hasher(n, RandomState::default());
    for (index, commits) in messages.iter().enumerate() {
        for commit in commits.iter().filter(|commit| services.contains(&commit.log.service())) {
            let at = *place_of.entry(&commit.log).or_insert_with(|| {
                logs.push(Told { log: commit.log.clone(), commits: Vec::with_capacity(1) });
                logs.len() - 1
            });
            logs[at].commits.push((commit.clone(), index));
        }
    }
    for told in &mut logs {
        told.commits.sort_by_key(|(commit, _)| commit.last);
    }
    logs
}

/// An entry, and the rows it touches.
pub(super) struct Touched {
    pub recorded: AnyRecorded,
    pub rows: Vec<RowKey>,
}

/// The rows that entries touch, each with those that touch it, in order.
pub(super) struct Touching<'a> {
    /// In order.
    pub keys: Vec<RowKey>,
    /// Of each key, where its entries end.
    ends: Vec<usize>,
    entries: Vec<&'a AnyRecorded>,
}

impl<'a> Touching<'a> {
    /// Of the entries up to `end`.
    pub(super) fn group(entries: &'a [Touched], end: Seq) -> Self {
        let entries = entries.iter().take_while(|entry| entry.recorded.seq <= end);
        let mut touches: Vec<(&RowKey, &AnyRecorded)> =
            entries.flat_map(|entry| entry.rows.iter().map(|key| (key, &entry.recorded))).collect();
        // Stable: those of one key stay in their order.
        touches.sort_by_key(|(key, _)| *key);
        let mut touching = Self { keys: Vec::new(), ends: Vec::new(), entries: Vec::new() };
        touching.entries.reserve_exact(touches.len());
        for (key, entry) in touches {
            if touching.keys.last() != Some(key) {
                touching.keys.push(key.clone());
                touching.ends.push(0);
            }
            touching.entries.push(entry);
            if let Some(end) = touching.ends.last_mut() {
                *end = touching.entries.len();
            }
        }
        touching
    }

    /// The entries that touch the row in this place.
    pub(super) fn of(&self, at: usize) -> &[&'a AnyRecorded] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.entries[start..self.ends[at]]
    }
}

/// A row to store.
pub(super) struct Folded {
    /// Which of those that are touched.
    pub at: usize,
    /// The row's seq as it was loaded.
    pub loaded: Option<Seq>,
    pub row: StoredRow,
}
