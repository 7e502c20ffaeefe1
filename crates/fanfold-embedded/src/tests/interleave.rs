//! Reads of the store while other threads write, remove and make checkpoints. The other work runs at the points between
//! the steps of the read, and at those of a checkpoint.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use fanfold::host::knob;
use proptest::prelude::*;

use crate::SystemEnv;
use crate::disk::MemoryDisk;
use crate::interleave::{Between, interleave};
use crate::store::folder::Folder;
use crate::store::{Driver, Store, Table};

const TABLE: Table = Table::STATE;
/// So few that most steps meet, and enough for several pages of the smaller sizes.
const KEYS: u8 = 24;

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Remove(u8),
    Checkpoint,
    Get(u8),
    Scan { from: u8, to: u8, descending: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    prop_oneof![
        4 => (key(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => key().prop_map(Step::Remove),
        3 => Just(Step::Checkpoint),
        3 => key().prop_map(Step::Get),
        4 => (key(), key(), any::<bool>())
            .prop_map(|(from, to, descending)| Step::Scan { from, to, descending }),
    ]
}

type Value = Option<u8>;

/// The store, and the values that each key has had.
struct World {
    store: Store,
    history: RefCell<BTreeMap<u8, Vec<Value>>>,
    /// The steps that other threads have yet to take.
    others: RefCell<VecDeque<Step>>,
}

impl World {
    fn write(&self, key: u8, value: Value) {
        match value {
            Some(value) => self.store.put(TABLE, vec![key].into(), vec![value].into()),
            None => self.store.remove(TABLE, vec![key].into()),
        }
        self.history.borrow_mut().entry(key).or_insert_with(|| vec![None]).push(value);
    }

    /// How many values each key has had.
    fn versions(&self) -> BTreeMap<u8, usize> {
        self.history.borrow().iter().map(|(key, values)| (*key, values.len())).collect()
    }

    /// A read that began at `before` must have found a value that the key has had since.
    fn check(&self, before: &BTreeMap<u8, usize>, key: u8, found: Value) {
        let history = self.history.borrow();
        let values = history.get(&key).map_or(&[None][..], Vec::as_slice);
        let first = before.get(&key).map_or(0, |versions| versions - 1);
        assert!(values[first..].contains(&found), "{key}: {found:?} of {:?}", &values[first..]);
    }

    fn take(&self, step: Step) {
        let before = self.versions();
        match step {
            Step::Put(key, value) => self.write(key, Some(value)),
            Step::Remove(key) => self.write(key, None),
            Step::Checkpoint => self.store.checkpoint(0).expect("memory"),
            Step::Get(key) => {
                let found = self.store.get(TABLE, &[key]).expect("memory");
                self.check(&before, key, found.map(|value| value[0]));
            }
            Step::Scan { from, to, descending } => {
                let mut found = Vec::new();
                let visit = |key: &[u8], value: bytes::Bytes| {
                    found.push((key[0], value[0]));
                    ControlFlow::Continue(())
                };
                self.store.scan(TABLE, &[from], &[to], descending, visit).expect("memory");
                if descending {
                    found.reverse();
                }
                assert!(found.is_sorted_by(|(a, _), (b, _)| a < b), "{found:?}");
                let found: BTreeMap<u8, u8> = found.into_iter().collect();
                (from..to).for_each(|key| self.check(&before, key, found.get(&key).copied()));
                assert!(found.keys().all(|key| (from..to).contains(key)), "{found:?}");
            }
        }
    }

    /// What other threads do at a point.
    fn others(&self, between: Between) {
        for _ in 0..2 {
            let Some(step) = self.others.borrow_mut().pop_front() else { return };
            match (between, &step) {
                (Between::Steps, _) | (_, Step::Get(_) | Step::Scan { .. }) => self.take(step),
                // It waits for the checkpoint under way.
                (Between::Checkpoint, Step::Checkpoint) => {}
                (Between::Checkpoint, Step::Put(..) | Step::Remove(_)) => self.take(step),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A read finds each key as it was at some time during the read, whatever other threads do meanwhile.
    #[test]
    fn a_read_beside_checkpoints_finds_what_was_there(
        steps in prop::collection::vec(step(), 1..60),
        others in prop::collection::vec(step(), 0..120),
        // Draws how many items a page has, in memory and in the tables.
        seed in 0..1_000_u64,
    ) {
        knob::draw(Some(seed));
        let folder = Folder::take(Arc::new(MemoryDisk::default()), Path::new("/data")).expect("a folder");
        let store = Store::open(folder, &[], Arc::new(SystemEnv), Driver::Loops).expect("a store");
        let (history, others) = (RefCell::default(), RefCell::new(others.into()));
        let world = Rc::new(World { store, history, others });
        let beside = world.clone();
        let interleaved = interleave(move |between| beside.others(between));
        steps.into_iter().for_each(|step| world.take(step));
        drop(interleaved);
        knob::draw(None);
    }
}
