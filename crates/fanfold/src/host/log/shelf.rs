//! The memory of a log: documents and windows by their keys, and the commits above its head. Both keep running totals,
//! so no walk over all of them is needed.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use foldhash::fast::RandomState;

use crate::host::body::notification::Commit;
use crate::host::position::Seq;

use super::Sent;

/// An estimate of the bytes that a value in memory takes beside its content.
pub(super) const OVERHEAD_BYTES: usize = 128;

/// A value folded up to `seq`. The state table holds it as it was at `stored`.
pub(super) struct Held<T> {
    pub value: T,
    pub seq: Seq,
    pub stored: Seq,
    /// An estimate of the bytes of its JSON.
    pub bytes: usize,
}

impl<T> Held<T> {
    /// A value that is not stored.
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

    /// Adds or replaces a value.
    pub(super) fn put(&mut self, key: K, held: Held<T>) {
        self.bytes += held.bytes;
        if let Some(before) = self.held.insert(key, held) {
            self.bytes -= before.bytes;
        }
    }

    /// Changes a value, and makes it first if there is none.
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

    /// Marks a value as stored, unless it has changed since `head`.
    pub(super) fn stored(&mut self, key: &K, head: Seq) {
        if let Some(held) = self.held.get_mut(key).filter(|held| held.seq <= head) {
            held.stored = held.seq;
        }
    }

    /// Marks all values that have not changed since `head` as stored.
    pub(super) fn all_stored(&mut self, head: Seq) {
        for held in self.held.values_mut().filter(|held| held.seq <= head) {
            held.stored = held.seq;
        }
    }

    /// Evicts the values that equal their stored items, if all values together exceed so many bytes.
    pub(super) fn shrink(&mut self, bytes_max: usize) {
        if self.weight() > bytes_max {
            self.held.retain(|_, held| held.is_dirty());
            self.bytes = self.held.values().map(|held| held.bytes).sum();
        }
    }

    /// An estimate of the bytes that it takes in memory.
    pub(super) fn weight(&self) -> usize {
        self.held.len() * OVERHEAD_BYTES + self.bytes
    }
}

/// A commit above the head.
pub(super) struct Since {
    pub first: Seq,
    pub last: Seq,
    pub bytes: usize,
    /// The command of each entry, to compare repeats with.
    pub commands: Box<[Sent]>,
    /// The commit to publish; `None` once this process knows that it is published.
    pub unpublished: Option<Commit>,
}

/// The stored commits above the head.
#[derive(Default)]
pub(super) struct AboveHead {
    commits: VecDeque<Since>,
    bytes: usize,
    entries: usize,
    /// The number of those that are not known to be published.
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

    /// The commits up to `through` that are not known to be published, in order.
    pub(super) fn unpublished(&self, through: Seq) -> impl Iterator<Item = &Commit> {
        // Fast path: none, or only the last one.
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

    /// Marks the commit from `first` on as published.
    pub(super) fn published(&mut self, first: Seq) {
        // Fast path: it is the last one.
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

    /// Removes the commits up to a new head.
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

    /// An estimate of the bytes that they take in memory.
    pub(super) fn weight(&self) -> usize {
        self.entries * OVERHEAD_BYTES + 2 * self.unpublished_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::entry::{Entry, Outcome};
    use crate::host::body::head::Prev;
    use crate::host::position::CommandId;
    use crate::names::Origin;
    use crate::time::Time;

    #[derive(Debug, Clone)]
    enum Step {
        Push {
            entries: u64,
            bytes: usize,
            is_published: bool,
        },
        /// The commit with this index is published.
        Published(prop::sample::Index),
        /// A seq, perhaps not the first of a commit, is reported as published.
        PublishedAt(u64),
        Forget(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1u64..4, 0usize..100, prop::bool::weighted(0.3)).prop_map(
                |(entries, bytes, is_published)| Step::Push { entries, bytes, is_published }
            ),
            3 => any::<prop::sample::Index>().prop_map(Step::Published),
            1 => (0u64..60).prop_map(Step::PublishedAt),
            1 => (0u64..60).prop_map(Step::Forget),
        ];
        prop::collection::vec(step, 1..40)
    }

    fn commit(first: u64, n: u64, bytes: usize, is_published: bool) -> Since {
        let entry = |seq| Entry {
            seq: Seq(seq),
            time: Time(0),
            origin: Origin::nobody(),
            id: CommandId::NONE,
            command: None,
            digest: None,
            trace: None,
            outcome: Outcome::Stale,
        };
        let entries: Arc<[Entry]> = (first..first + n).map(entry).collect();
        let commands = entries.iter().map(Sent::from).collect();
        let log = "ledger/org:acme".parse().expect("a log");
        let commit = Commit { log, entries, prev: Arc::new(Prev::default()) };
        let (first, last) = (commit.first(), commit.last());
        Since { first, last, bytes, commands, unpublished: (!is_published).then_some(commit) }
    }

    /// A commit of the naive model.
    struct Naive {
        first: u64,
        last: u64,
        bytes: usize,
        is_published: bool,
    }

    proptest! {
        #[test]
        fn the_fast_paths_agree_with_a_plain_list(steps in steps()) {
            let (mut shelf, mut model, mut tail) = (AboveHead::default(), Vec::<Naive>::new(), 0);
            for step in steps {
                match step {
                    Step::Push { entries, bytes, is_published } => {
                        let first = tail + 1;
                        tail += entries;
                        shelf.push(commit(first, entries, bytes, is_published));
                        model.push(Naive { first, last: tail, bytes, is_published });
                    }
                    Step::Published(index) if !model.is_empty() => {
                        let at = index.index(model.len());
                        let commit = &mut model[at];
                        commit.is_published = true;
                        shelf.published(Seq(commit.first));
                    }
                    Step::Published(_) => {}
                    Step::PublishedAt(seq) => {
                        let at = model.iter_mut().find(|commit| commit.first == seq);
                        at.into_iter().for_each(|commit| commit.is_published = true);
                        shelf.published(Seq(seq));
                    }
                    Step::Forget(head) => {
                        model.retain(|commit| commit.last > head);
                        shelf.forget(Seq(head));
                    }
                }
                let entries: u64 = model.iter().map(|commit| commit.last + 1 - commit.first).sum();
                let bytes: usize = model.iter().map(|commit| commit.bytes).sum();
                let left = model.iter().filter(|commit| !commit.is_published);
                let left_bytes: usize = left.clone().map(|commit| commit.bytes).sum();
                prop_assert_eq!((shelf.entries(), shelf.bytes()), (entries as usize, bytes));
                prop_assert_eq!(shelf.weight(), entries as usize * OVERHEAD_BYTES + 2 * left_bytes);
                prop_assert_eq!(shelf.last(), model.last().map(|commit| Seq(commit.last)));
                for seq in 0..=tail + 1 {
                    let found: Vec<Seq> = shelf.unpublished(Seq(seq)).map(Commit::first).collect();
                    let expected = left.clone().map(|commit| Seq(commit.first));
                    let expected: Vec<Seq> = expected.take_while(|first| first.0 <= seq).collect();
                    prop_assert_eq!(found, expected);
                    let holds = |commit: &&Naive| commit.first <= seq && seq <= commit.last;
                    let expected = model.iter().find(holds).map(|commit| Seq(commit.first));
                    prop_assert_eq!(shelf.at(Seq(seq)).map(|commit| commit.first), expected);
                }
            }
        }
    }
}
