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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::entry::{Entry, Outcome};
    use crate::names::Origin;
    use crate::position::{CommandId, Time};

    #[derive(Debug, Clone)]
    enum Step {
        Push { entries: u64, bytes: usize, is_published: bool },
        Publish { seq: u64 },
        Forget { head: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..4_u64, 0..1_000_usize, any::<bool>()).prop_map(
                |(entries, bytes, is_published)| Step::Push { entries, bytes, is_published }
            ),
            3 => (0..40_u64).prop_map(|seq| Step::Publish { seq }),
            1 => (0..40_u64).prop_map(|head| Step::Forget { head }),
        ]
    }

    fn entry(seq: u64) -> Entry {
        Entry {
            seq: Seq(seq),
            time: Time(0),
            origin: Origin::nobody(),
            id: CommandId::NONE,
            command: None,
            digest: None,
            outcome: Outcome::Stale,
        }
    }

    /// A commit of the naive model: its first and last seq, its bytes, and whether it is published.
    type Naive = (u64, u64, usize, bool);

    proptest! {
        /// The bookkeeping has fast paths and running sums; the model walks a list each time.
        #[test]
        fn commits_above_the_head_are_kept_as_in_a_plain_list(steps in vec(step(), 0..60)) {
            let mut above = AboveHead::default();
            let mut model: Vec<Naive> = Vec::new();
            let mut tail = 0;
            for step in steps {
                match step {
                    Step::Push { entries, bytes, is_published } => {
                        let (first, last) = (tail + 1, tail + entries);
                        let entries: Vec<Entry> = (first..=last).map(entry).collect();
                        let commands = entries.iter().map(Sent::from).collect();
                        let log = "ledger/org:acme".parse().expect("a log");
                        let commit =
                            Commit { log, entries: entries.into(), prev: Arc::default() };
                        let unpublished = (!is_published).then_some(commit);
                        let (first_seq, last_seq) = (Seq(first), Seq(last));
                        above.push(Since {
                            first: first_seq,
                            last: last_seq,
                            bytes,
                            commands,
                            unpublished,
                        });
                        model.push((first, last, bytes, is_published));
                        tail = last;
                    }
                    Step::Publish { seq } => {
                        above.published(Seq(seq));
                        let of = model.iter_mut().filter(|(first, ..)| *first == seq);
                        of.for_each(|(.., is_published)| *is_published = true);
                    }
                    Step::Forget { head } => {
                        above.forget(Seq(head));
                        model.retain(|(_, last, ..)| *last > head);
                    }
                }
                let of_all = |f: fn(&Naive) -> usize| model.iter().map(f).sum::<usize>();
                let entries = of_all(|(first, last, ..)| (last - first + 1) as usize);
                let unpublished_bytes = of_all(|(.., bytes, is_published)| {
                    if *is_published { 0 } else { *bytes }
                });
                prop_assert_eq!(above.last(), model.last().map(|(_, last, ..)| Seq(*last)));
                prop_assert_eq!(above.bytes(), of_all(|(_, _, bytes, _)| *bytes));
                prop_assert_eq!(above.entries(), entries);
                prop_assert_eq!(above.weight(), entries * OVERHEAD_BYTES + 2 * unpublished_bytes);
                for seq in 0..=tail + 1 {
                    let holds = |(first, last, ..): &&Naive| (*first..=*last).contains(&seq);
                    let at = model.iter().find(holds).map(|(first, ..)| Seq(*first));
                    prop_assert_eq!(above.at(Seq(seq)).map(|commit| commit.first), at);
                    let unpublished: Vec<Seq> =
                        above.unpublished(Seq(seq)).map(Commit::first).collect();
                    let of_model = model.iter().filter(|(first, _, _, is_published)| {
                        *first <= seq && !is_published
                    });
                    let of_model: Vec<Seq> = of_model.map(|(first, ..)| Seq(*first)).collect();
                    prop_assert_eq!(unpublished, of_model);
                }
            }
        }
    }
}
