//! What a log keeps in memory: documents and windows by their keys, and the commits above its head.
//! Both count as they go, so that nobody has to add up.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use foldhash::fast::RandomState;

use crate::body::notification::Commit;
use crate::position::Seq;

use super::Sent;

/// Bytes that anything in memory takes beside its content: an estimate, so that many small things
/// count for what they are.
pub(super) const OVERHEAD_BYTES: usize = 128;

/// A value folded up to `seq`, of which the state table holds what was there at `stored`.
pub(super) struct Held<T> {
    pub value: T,
    pub seq: Seq,
    pub stored: Seq,
    /// About the bytes of its JSON.
    pub bytes: usize,
}

impl<T> Held<T> {
    /// Of something that is not stored.
    pub(super) fn new(value: T) -> Self {
        Self { value, seq: Seq::ZERO, stored: Seq::ZERO, bytes: 0 }
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.seq > self.stored
    }
}

/// Values by their keys.
pub(super) struct Shelf<K, T> {
    held: HashMap<K, Held<T>, RandomState>,
    bytes: usize,
}

impl<K, T> Default for Shelf<K, T> {
    fn default() -> Self {
        Self { held: HashMap::default(), bytes: 0 }
    }
}

impl<K: Hash + Eq + Clone, T> Shelf<K, T> {
    pub(super) fn get(&self, key: &K) -> Option<&Held<T>> {
        self.held.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &Held<T>)> {
        self.held.iter()
    }

    /// Puts a value in the place of another.
    pub(super) fn put(&mut self, key: K, held: Held<T>) {
        self.bytes += held.bytes;
        if let Some(before) = self.held.insert(key, held) {
            self.bytes -= before.bytes;
        }
    }

    /// Changes a value; makes it first, if there is none.
    pub(super) fn change<R>(
        &mut self,
        key: &K,
        make: impl FnOnce() -> T,
        change: impl FnOnce(&mut Held<T>) -> R,
    ) -> R {
        let (before, result, after) = match self.held.get_mut(key) {
            Some(held) => (held.bytes, change(held), held.bytes),
            None => {
                let held = self.held.entry(key.clone()).or_insert(Held::new(make()));
                (0, change(held), held.bytes)
            }
        };
        self.bytes = self.bytes - before + after;
        result
    }

    /// Changes all values.
    pub(super) fn change_all(&mut self, change: impl Fn(&mut Held<T>)) {
        self.held.values_mut().for_each(change);
        self.bytes = self.held.values().map(|held| held.bytes).sum();
    }

    /// What was there at `seq` is stored, unless it has changed since `head`.
    pub(super) fn stored(&mut self, key: &K, head: Seq) {
        if let Some(held) = self.held.get_mut(key).filter(|held| held.seq <= head) {
            held.stored = held.seq;
        }
    }

    /// Everything as it was at `head` is stored.
    pub(super) fn all_stored(&mut self, head: Seq) {
        for held in self.held.values_mut().filter(|held| held.seq <= head) {
            held.stored = held.seq;
        }
    }

    /// Forgets what is stored as it is, if all of it is more than so many bytes.
    pub(super) fn shrink(&mut self, bytes_max: usize) {
        if self.weight() > bytes_max {
            self.held.retain(|_, held| held.is_dirty());
            self.bytes = self.held.values().map(|held| held.bytes).sum();
        }
    }

    /// About the bytes that it takes in memory.
    pub(super) fn weight(&self) -> usize {
        self.held.len() * OVERHEAD_BYTES + self.bytes
    }
}

/// A commit above the head.
pub(super) struct Since {
    pub first: Seq,
    pub last: Seq,
    pub bytes: usize,
    /// Per entry: repeats, of the record stream and of clients, are compared with it.
    pub commands: Box<[Sent]>,
    /// `None` once this process knows that it was published.
    pub unpublished: Option<Commit>,
}

/// The stored commits above the head.
#[derive(Default)]
pub(super) struct AboveHead {
    commits: VecDeque<Since>,
    bytes: usize,
    entries: usize,
    /// Those not known to be published.
    unpublished: usize,
    unpublished_bytes: usize,
}

impl AboveHead {
    pub(super) fn push(&mut self, commit: Since) {
        self.bytes += commit.bytes;
        self.entries += commit.commands.len();
        if commit.unpublished.is_some() {
            self.unpublished += 1;
            self.unpublished_bytes += commit.bytes;
        }
        self.commits.push_back(commit);
    }

    /// The seq of the last entry.
    pub(super) fn last(&self) -> Option<Seq> {
        self.commits.back().map(|commit| commit.last)
    }

    /// The commit that holds `seq`.
    pub(super) fn at(&self, seq: Seq) -> Option<&Since> {
        let at = self.commits.partition_point(|commit| commit.last < seq);
        self.commits.get(at).filter(|commit| commit.first <= seq)
    }

    /// Those up to `through` that are not known to be published, in order.
    pub(super) fn unpublished(&self, through: Seq) -> impl Iterator<Item = &Commit> {
        // Most often it is the last one only, or none.
        let first = match self.unpublished {
            0 => self.commits.len(),
            1 if self.commits.back().is_some_and(|commit| commit.unpublished.is_some()) => {
                self.commits.len() - 1
            }
            _ => 0,
        };
        let commits = self.commits.range(first..);
        let commits = commits.take_while(move |commit| commit.first <= through);
        commits.filter_map(|commit| commit.unpublished.as_ref())
    }

    /// The commit that starts at `first` is published.
    pub(super) fn published(&mut self, first: Seq) {
        // Most often it is the last.
        let at = match self.commits.back() {
            Some(last) if last.first == first => self.commits.len() - 1,
            _ => self.commits.partition_point(|commit| commit.last < first),
        };
        if let Some(commit) = self.commits.get_mut(at).filter(|commit| commit.first == first)
            && commit.unpublished.take().is_some()
        {
            self.unpublished -= 1;
            self.unpublished_bytes -= commit.bytes;
        }
    }

    /// The head has moved on.
    pub(super) fn forget(&mut self, head: Seq) {
        while self.commits.front().is_some_and(|commit| commit.last <= head)
            && let Some(commit) = self.commits.pop_front()
        {
            self.bytes -= commit.bytes;
            self.entries -= commit.commands.len();
            if commit.unpublished.is_some() {
                self.unpublished -= 1;
                self.unpublished_bytes -= commit.bytes;
            }
        }
    }

    /// The bytes of their payloads.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    /// About the bytes that they take in memory.
    pub(super) fn weight(&self) -> usize {
        self.entries * OVERHEAD_BYTES + 2 * self.unpublished_bytes
    }
}
