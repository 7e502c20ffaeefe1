//! Splits and merges of a stream's shards: no item is lost, and keys keep their order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::hash_key::HashKey;
use crate::limit::Limit;
use crate::shards::{
    Layout, Mark, ReshardError, SHARDS_CLOSED_MAX, SHARDS_OPEN_MAX, ShardId, ShardInfo, ShardState,
    Shards,
};
use crate::transit::{Batch, Position};
use futures::FutureExt;
use proptest::prelude::*;

const MIDDLE: u128 = 1 << 127;

fn id(id: u64) -> ShardId {
    ShardId(id)
}

fn ids(infos: &[ShardInfo]) -> Vec<u64> {
    infos.iter().map(|info| info.id.0).collect()
}

/// Name, first key and last key of each open shard.
fn open<T: Clone>(shards: &Shards<T>) -> Vec<(u64, u128, u128)> {
    let layout = shards.layout();
    layout.open().iter().map(|o| (o.id.0, o.range.first.0, o.range.last.0)).collect()
}

fn readable<T: Clone>(shards: &Shards<T>) -> Vec<u64> {
    shards.readable().keys().map(|id| id.0).collect()
}

/// Trims a readable shard to its end.
fn drain<T: Clone>(shards: &Shards<T>, shard: u64) {
    let readable = shards.readable();
    let shard = readable.get(&id(shard)).expect("it is readable");
    shard.trim(shard.end());
}

#[test]
fn a_split_has_two_children_and_a_merge_one() {
    let shards = Shards::<()>::equal(2);
    assert_eq!(open(&shards), [(0, 0, MIDDLE - 1), (1, MIDDLE, u128::MAX)]);
    let children = shards.split(id(1), None).expect("it can be split");
    assert_eq!(ids(&children), [2, 3]);
    assert!(children.iter().all(|child| child.parents == [id(1)] && child.backlog == 0));
    let middle = MIDDLE + (MIDDLE >> 1);
    let expected = [(0, 0, MIDDLE - 1), (2, MIDDLE, middle - 1), (3, middle, u128::MAX)];
    assert_eq!(open(&shards), expected);
    // Merge in either order; split at a given key.
    let children = shards.merge(id(2), id(0)).expect("they can be merged");
    assert_eq!((ids(&children), &children[0].parents), (vec![4], &vec![id(0), id(2)]));
    shards.split(id(4), Some(HashKey(1))).expect("it can be split");
    assert_eq!(open(&shards), [(5, 0, 0), (6, 1, middle - 1), (3, middle, u128::MAX)]);
    assert_eq!(ids(&shards.list()), [3, 5, 6], "empty parents are drained at once");
    assert_eq!(shards.list()[1].parents, [id(4)], "and still known as parents");
}

#[test]
fn an_impossible_reshard_says_what_to_do() {
    let shards = Shards::<()>::equal(3);
    shards.split(id(0), Some(HashKey(1))).expect("it can be split");
    let third = 113_427_455_640_312_821_154_458_202_477_256_070_485;
    let before = shards.layout();
    let split = |shard, at: Option<u128>| shards.split(id(shard), at.map(HashKey));
    for (refused, expected) in [
        (
            split(9, None),
            "there is no shardId-000000000009: list the shards to see which there are".to_owned(),
        ),
        (
            split(0, None),
            "shardId-000000000000 is closed: list the shards, and use its children instead"
                .to_owned(),
        ),
        (
            split(3, None),
            "shardId-000000000003 has only one hash key, 0, and cannot be split: split another"
                .to_owned(),
        ),
        (
            split(1, Some(third)),
            format!(
                "shardId-000000000001 cannot be split at {third}: give a hash key from {} to {}, \
                 or none",
                third + 1,
                third * 2 - 1
            ),
        ),
        (
            split(4, Some(u128::MAX)),
            format!(
                "shardId-000000000004 cannot be split at {}: give a hash key from 2 to {}, or none",
                u128::MAX,
                third - 1
            ),
        ),
        (
            shards.merge(id(3), id(1)),
            "shardId-000000000003 and shardId-000000000001 are not neighbours: merge two \
             shards whose ranges touch"
                .to_owned(),
        ),
        (
            shards.merge(id(2), id(2)),
            "shardId-000000000002 and shardId-000000000002 are not neighbours: merge two \
             shards whose ranges touch"
                .to_owned(),
        ),
        (
            shards.merge(id(2), id(0)),
            "shardId-000000000000 is closed: list the shards, and use its children instead"
                .to_owned(),
        ),
        (
            shards.merge(id(5), id(2)),
            "there is no shardId-000000000005: list the shards to see which there are".to_owned(),
        ),
    ] {
        assert_eq!(refused.expect_err(&expected).to_string(), expected);
    }
    assert_eq!(shards.layout(), before, "nothing has changed");
}

#[test]
fn shards_are_bounded() {
    let many = Shards::<()>::equal(SHARDS_OPEN_MAX + 5);
    assert_eq!(many.layout().open().len(), SHARDS_OPEN_MAX);
    assert!(matches!(many.split(id(0), None), Err(ReshardError::TooManyOpen)));
    many.merge(id(0), id(1)).expect("that makes them fewer");
    many.split(id(2), None).expect("now there is room");

    // One shard that is never read is split and merged repeatedly.
    let stuck = Shards::equal(1);
    stuck.append(HashKey(0), 1, ());
    let mut one = id(0);
    let refused = loop {
        let merged = stuck.split(one, None).and_then(|both| stuck.merge(both[0].id, both[1].id));
        match merged {
            Ok(merged) => one = merged[0].id,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, ReshardError::TooManyClosed), "{refused}");
    assert!(stuck.list().len() <= SHARDS_CLOSED_MAX + 2, "{}", stuck.list().len());
    drain(&stuck, 0);
    assert!(stuck.list().len() <= 2, "its closed descendants are drained with it");
}

#[test]
fn children_are_readable_when_their_ancestors_are_drained() {
    let shards = Shards::equal(1);
    shards.append(HashKey(0), 1, "of 0");
    shards.split(id(0), None).expect("it can be split");
    assert_eq!((readable(&shards), ids(&shards.list())), (vec![0], vec![0, 1, 2]));
    assert_eq!(shards.list()[0].state, ShardState::Closed);
    // Shard 1 is closed and empty, but must stay: the record in 0 precedes those in 3 and 4.
    shards.split(id(1), None).expect("it can be split");
    shards.append(HashKey(0), 1, "of 3");
    assert_eq!(readable(&shards), [0]);
    drain(&shards, 0);
    assert_eq!((readable(&shards), ids(&shards.list())), (vec![2, 3, 4], vec![2, 3, 4]));
    // A child of two parents, one of which is not drained.
    shards.merge(id(3), id(4)).expect("they can be merged");
    assert_eq!(readable(&shards), [2, 3], "4 was empty");
    drain(&shards, 3);
    assert_eq!(readable(&shards), [2, 5]);
    assert_eq!(shards.backlog().items(), 0);
}

#[test]
fn a_watcher_is_notified_when_a_shard_becomes_readable() {
    let shards = Shards::equal(1);
    shards.append(HashKey(0), 1, ());
    let known = shards.readable().into_keys().collect();
    let mut changed = Box::pin(shards.readable_unlike(&known));
    assert!((&mut changed).now_or_never().is_none());
    shards.split(id(0), None).expect("it can be split");
    assert!((&mut changed).now_or_never().is_none(), "its children wait");
    drain(&shards, 0);
    let now = changed.now_or_never().expect("its children are readable");
    assert_eq!(now.into_keys().collect::<Vec<_>>(), [id(1), id(2)]);
}

#[test]
fn a_mark_is_passed_when_all_items_before_it_are_trimmed() {
    let shards = Shards::equal(2);
    assert!(shards.has_passed(&shards.mark()), "nothing was there");
    shards.append(HashKey(0), 1, ());
    shards.append(HashKey(u128::MAX), 1, ());
    let mark = shards.mark();
    shards.append(HashKey(0), 1, ());
    shards.readable()[&id(0)].trim(Position(1));
    assert!(!shards.has_passed(&mark), "the other shard has an item from before the mark");
    drain(&shards, 1);
    assert!(shards.has_passed(&mark));
    let mark = shards.mark();
    shards.split(id(0), None).expect("it can be split");
    shards.append(HashKey(0), 1, ());
    assert!(!shards.has_passed(&mark));
    drain(&shards, 0);
    assert!(shards.has_passed(&mark), "the item in the child is from after the mark");
    assert_eq!(shards.backlog().items(), 1);
}

#[test]
fn a_layout_is_stored_before_it_is_applied() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let store = move |layout: &Layout| match seen.fetch_add(1, Ordering::Relaxed) {
        0 => Err("the disk is full".into()),
        _ if layout.open().len() == 2 => Ok(()),
        _ => Err("not the layout that was to come".into()),
    };
    let shards = Shards::equal(1).stored_by(store);
    shards.append(HashKey(7), 1, ());
    let before = (shards.layout(), shards.list());
    let error = shards.split(id(0), None).expect_err("it could not be stored");
    assert!(matches!(error, ReshardError::NotStored(_)), "{error}");
    assert_eq!((shards.layout(), shards.list()), before, "nothing has changed");
    let children = shards.split(id(0), None).expect("it was stored");
    assert_eq!(ids(&children), [1, 2], "no name was used up");
    shards.split(id(9), None).expect_err("there is none");
    assert_eq!(calls.load(Ordering::Relaxed), 2, "a refused split is not stored");
}

/// Must not change, because engines have stored layouts in this form.
const GOLDEN: &str = r#"{"version":1,"next":"shardId-000000000005","open":[{"id":"shardId-000000000000","first":"0","last":"9","parents":[]},{"id":"shardId-000000000004","first":"10","last":"340282366920938463463374607431768211455","parents":["shardId-000000000001","shardId-000000000003"]}]}"#;

#[test]
fn a_stored_layout_is_read_back() {
    let layout: Layout = serde_json::from_str(GOLDEN).expect("it is a layout");
    assert_eq!(serde_json::to_string(&layout).expect("it can be written"), GOLDEN);
    let shards = Shards::<()>::from_layout(layout.clone());
    assert_eq!(shards.layout(), layout);
    assert_eq!(readable(&shards), [0, 4], "nothing is left of parents");
    assert_eq!(shards.list()[1].parents, [id(1), id(3)]);
    let children = shards.split(id(4), None).expect("it can be split");
    assert_eq!(ids(&children), [5, 6], "names continue");
}

#[test]
fn an_invalid_layout_is_refused() {
    let none = r#"{"version":1,"next":"shardId-000000000005","open":[]}"#.to_owned();
    for (stored, expected) in [
        (none, "0 open shards"),
        (GOLDEN.replace(r#""version":1"#, r#""version":2"#), "version 2"),
        (GOLDEN.replace(r#""first":"0""#, r#""first":"1""#), "see shardId-000000000000"),
        (GOLDEN.replace(r#""last":"9""#, r#""last":"8""#), "see shardId-000000000004"),
        (GOLDEN.replace(r#""last":"9""#, r#""last":"10""#), "see shardId-000000000004"),
        (GOLDEN.replace("11455", "11454"), "see shardId-000000000004"),
        (GOLDEN.replace("11455", "11456"), "a hash key is"),
        (GOLDEN.replace("000005", "000004"), "shardId-000000000004 twice"),
        (
            GOLDEN.replace(r#""id":"shardId-000000000000""#, r#""id":"shardId-000000000004""#),
            "twice",
        ),
        (GOLDEN.replace("shardId-000000000001", "1"), "a shard is named"),
        (GOLDEN.replace("next", "text"), "text"),
    ] {
        let error = serde_json::from_str::<Layout>(&stored).expect_err(&stored).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put {
        key: u8,
    },
    Split {
        which: usize,
        at: Option<u128>,
    },
    Merge {
        which: usize,
    },
    /// One lane of a readable shard reads a number of records, and finishes them.
    Read {
        which: usize,
        lane: usize,
        records: usize,
    },
    Mark,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..24).prop_map(|key| Step::Put { key }),
        1 => (any::<usize>(), any::<Option<u128>>())
            .prop_map(|(which, at)| Step::Split { which, at }),
        1 => any::<usize>().prop_map(|which| Step::Merge { which }),
        5 => (any::<usize>(), any::<usize>(), 1usize..8)
            .prop_map(|(which, lane, records)| Step::Read { which, lane, records }),
        1 => Just(Step::Mark),
    ]
}

/// A simple model of a stream, with the real one beside it.
struct Model {
    shards: Shards<(u8, u64)>,
    lanes: usize,
    /// The numbers of items that were put and read, by key.
    put: BTreeMap<u8, u64>,
    read: BTreeMap<u8, u64>,
    /// The number of unread items of each shard, and its parents.
    left: BTreeMap<ShardId, usize>,
    parents: BTreeMap<ShardId, Vec<ShardId>>,
    checkpoints: BTreeMap<ShardId, Vec<Position>>,
    marks: Vec<(Mark, BTreeMap<u8, u64>)>,
}

impl Model {
    fn new(shards: usize, lanes: usize) -> Self {
        Self {
            shards: Shards::equal(shards),
            lanes,
            put: BTreeMap::new(),
            read: BTreeMap::new(),
            left: BTreeMap::new(),
            parents: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            marks: Vec::new(),
        }
    }

    fn run(&mut self, step: &Step) {
        let layout = self.shards.layout();
        let open = |which: usize| layout.open()[which % layout.open().len()].clone();
        match *step {
            Step::Put { key } => self.put(key),
            Step::Split { which, at } => {
                let shard = open(which);
                // Anywhere inside of the range, if it has more than one key.
                let width = shard.range.last.0 - shard.range.first.0;
                let at = at.map(|at| HashKey(shard.range.first.0 + 1 + at % width.max(1)));
                if let Ok(children) = self.shards.split(shard.id, at) {
                    self.note(&children, &[shard.id]);
                }
            }
            Step::Merge { which } => {
                let (one, other) = (open(which), open(which.wrapping_add(1)));
                if let Ok(children) = self.shards.merge(one.id, other.id) {
                    self.note(&children, &[one.id, other.id]);
                }
            }
            Step::Read { which, lane, records } => {
                let readable = self.shards.readable();
                let id = readable.keys().nth(which % readable.len()).expect("one is readable");
                self.read(*id, lane % self.lanes, records);
            }
            Step::Mark => self.marks.push((self.shards.mark(), self.put.clone())),
        }
        self.check();
    }

    fn put(&mut self, key: u8) {
        let hash_key = HashKey::of(&key.to_string());
        let layout = self.shards.layout();
        let open = layout.open().iter().find(|open| open.range.contains(hash_key));
        *self.left.entry(open.expect("every key has a shard").id).or_default() += 1;
        let nth = self.put.entry(key).or_default();
        self.shards.append(hash_key, 10, (key, *nth));
        *nth += 1;
    }

    fn note(&mut self, children: &[ShardInfo], parents: &[ShardId]) {
        for child in children {
            assert!(parents.iter().all(|parent| child.parents.contains(parent)), "{child:?}");
            assert!(self.parents.insert(child.id, child.parents.clone()).is_none(), "{child:?}");
        }
    }

    fn read(&mut self, id: ShardId, lane: usize, records: usize) {
        let mut before = self.parents.get(&id).cloned().unwrap_or_default();
        while let Some(parent) = before.pop() {
            assert_eq!(self.left.get(&parent).copied().unwrap_or(0), 0, "{parent} before {id}");
            before.extend(self.parents.get(&parent).into_iter().flatten());
        }
        // The shard may be forgotten, if this lane had no items left in it.
        let Some(shard) = self.shards.readable().remove(&id) else { return };
        let checkpoints =
            self.checkpoints.entry(id).or_insert_with(|| vec![Position::START; self.lanes]);
        let mut batch = Batch::starting_at(checkpoints[lane]);
        let lanes = self.lanes;
        shard.fill(&mut batch, Limit { items: records, bytes: 1_000 }, |k| k.lane(lanes) == lane);
        checkpoints[lane] = batch.next;
        for (_, (key, nth)) in batch.items {
            let next = self.read.entry(key).or_default();
            assert_eq!(nth, *next, "of key {key}, from {id}");
            *next += 1;
            *self.left.get_mut(&id).expect("it was put there") -= 1;
        }
        shard.trim(*checkpoints.iter().min().expect("there is a lane"));
    }

    fn check(&self) {
        let layout = self.shards.layout();
        let mut free = Some(0);
        for open in layout.open() {
            assert_eq!(free, Some(open.range.first.0), "{layout:?}");
            free = open.range.last.0.checked_add(1);
        }
        assert_eq!(free, None, "{layout:?}");
        let list = self.shards.list();
        let listed = |state| list.iter().filter(move |info| info.state == state);
        assert_eq!(listed(ShardState::Open).count(), layout.open().len());
        assert!(listed(ShardState::Closed).all(|info| {
            info.backlog > 0 || info.parents.iter().any(|p| list.iter().any(|i| i.id == *p))
        }));
        let backlog: usize = list.iter().map(|info| info.backlog).sum();
        assert_eq!(self.shards.backlog().items(), backlog);
        assert_eq!(self.shards.backlog().bytes(), backlog * 10);
        for (mark, put) in &self.marks {
            let is_read = put.iter().all(|(key, n)| self.read.get(key).is_some_and(|r| r >= n));
            assert!(is_read || !self.shards.has_passed(mark), "{mark:?}");
        }
        let stored = serde_json::to_string(&layout).expect("it can be written");
        assert_eq!(serde_json::from_str::<Layout>(&stored).expect("it can be read"), layout);
    }

    fn finish(&mut self) {
        while self.shards.backlog().items() > 0 {
            let before = self.read.clone();
            let starts = |shards: &Shards<_>| -> u64 {
                shards.iter().map(|(_, shard)| shard.start().0).sum()
            };
            let started = (starts(&self.shards), self.shards.list().len());
            for id in self.shards.readable().into_keys() {
                (0..self.lanes).for_each(|lane| self.read(id, lane, 3));
            }
            let is_on =
                self.read != before || (starts(&self.shards), self.shards.list().len()) != started;
            assert!(is_on, "no progress");
        }
        assert_eq!(self.read, self.put, "everything was read");
        assert!(self.shards.list().iter().all(|info| info.state == ShardState::Open));
        assert!(self.marks.iter().all(|(mark, _)| self.shards.has_passed(mark)));
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn splits_and_merges_lose_nothing_and_keep_the_order_of_keys(
        shards in 1usize..5, lanes in 1usize..4, steps in prop::collection::vec(step(), 0..200)
    ) {
        let mut model = Model::new(shards, lanes);
        steps.iter().for_each(|step| model.run(step));
        model.finish();
    }
}
