//! The shards of a stream: which of them may be read, and the lanes of each.

use std::collections::{BTreeMap, BTreeSet};

use crate::answer::BatchAnswer;
use crate::lane::{Finished, Lane, Rules};

/// The lanes of one shard.
#[derive(Debug)]
pub struct Shard<R> {
    lanes: Vec<Lane<R>>,
}

impl<R: Clone> Shard<R> {
    /// A shard with this many lanes: the parallelization factor.
    pub fn new(rules: Rules, lanes: usize) -> Self {
        Self { lanes: (0..lanes.max(1)).map(|_| Lane::new(rules)).collect() }
    }

    /// Adds a record that was read now. All records of a key are in one lane.
    pub fn push(&mut self, key: &[u8], record: R, now_ms: u64) {
        let place = hash(key) % self.lanes.len() as u64;
        self.lanes[place as usize].push(record, now_ms);
    }

    /// Records that are not done.
    pub fn len(&self) -> usize {
        self.lanes.iter().map(Lane::len).sum()
    }

    /// Whether all records are done.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the next batch is due.
    pub fn due_ms(&self) -> Option<u64> {
        self.lanes.iter().filter_map(Lane::due_ms).min()
    }

    /// The batches that are due, with their lanes.
    pub fn take(&mut self, now_ms: u64) -> Vec<(usize, Vec<R>)> {
        let lanes = self.lanes.iter_mut().enumerate();
        lanes.filter_map(|(place, lane)| Some((place, lane.take(now_ms)?))).collect()
    }

    /// Ends the invocation of a lane.
    pub fn finish(&mut self, lane: usize, outcome: BatchAnswer, now_ms: u64) -> Finished {
        self.lanes[lane].finish(outcome, now_ms)
    }
}

/// FNV-1a, which is the same in every run.
fn hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The shards of a stream that are known, being read, and finished. A shard is read once each of
/// its parents is finished or gone from the stream.
#[derive(Debug, Default)]
pub struct Family {
    parents: BTreeMap<String, Vec<String>>,
    started: BTreeSet<String>,
    finished: BTreeSet<String>,
}

impl Family {
    /// Replaces the list of shards, each with its parents. Shards that are gone are forgotten.
    pub fn set_shards(&mut self, shards: Vec<(String, Vec<String>)>) {
        self.parents = shards.into_iter().collect();
        self.started.retain(|shard| self.parents.contains_key(shard));
        self.finished.retain(|shard| self.parents.contains_key(shard));
    }

    /// The shards to begin to read. Each is returned once.
    pub fn start(&mut self) -> Vec<String> {
        let is_past =
            |parent: &String| self.finished.contains(parent) || !self.parents.contains_key(parent);
        let ready = self.parents.iter().filter(|(shard, parents)| {
            !self.started.contains(*shard) && parents.iter().all(is_past)
        });
        let ready: Vec<String> = ready.map(|(shard, _)| shard.clone()).collect();
        self.started.extend(ready.iter().cloned());
        ready
    }

    /// Marks a shard as finished: all its records are done, and it is closed.
    pub fn finish(&mut self, shard: &str) {
        if self.parents.contains_key(shard) {
            self.finished.insert(shard.to_owned());
        }
    }
}
