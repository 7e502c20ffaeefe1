//! The store against a map as the model: reads find all writes, and after a crash the writes up to
//! the last checkpoint.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::SystemEnv;
use crate::disk::FileDisk;
use crate::faults::full_disk;
use crate::store::folder::Folder;
use crate::store::{Driver, Store, StoreError, Table};
use bytes::Bytes;
use proptest::prelude::*;

use super::child::quick_folder;

/// The tables under test. One of them stores its values separately from its keys.
const SPACES: [Table; 2] = [Table::STATE, Table::JOURNAL];

type Map = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

#[derive(Debug, Clone)]
enum Step {
    Put(usize, Vec<u8>, Vec<u8>),
    /// Writes more items than a scan takes from memory at a time.
    PutMany(usize, u16),
    Remove(usize, Vec<u8>),
    Get(usize, Vec<u8>),
    Scan {
        space: usize,
        from: Vec<u8>,
        to: Vec<u8>,
        descending: bool,
        limit: usize,
    },
    Checkpoint,
    FailedCheckpoint,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let space = || 0..SPACES.len();
    let key = || prop::collection::vec(0..6_u8, 1..4);
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(any::<u8>(), 100..400),
    ];
    let scan = (space(), key(), key(), any::<bool>(), prop_oneof![1..20_usize, Just(1_000_000)]);
    prop_oneof![
        8 => (space(), key(), value).prop_map(|(space, key, value)| Step::Put(space, key, value)),
        1 => (space(), 0..600_u16).prop_map(|(space, n)| Step::PutMany(space, n)),
        4 => (space(), key()).prop_map(|(space, key)| Step::Remove(space, key)),
        4 => (space(), key()).prop_map(|(space, key)| Step::Get(space, key)),
        6 => scan.prop_map(|(space, from, to, descending, limit)| {
            Step::Scan { space, from, to, descending, limit }
        }),
        3 => Just(Step::Checkpoint),
        1 => Just(Step::FailedCheckpoint),
        1 => Just(Step::Crash),
    ]
}

fn open(folder: &Path) -> Store {
    let folder = Folder::take(Arc::new(FileDisk), folder).expect("a folder");
    Store::open(folder, &[], Arc::new(SystemEnv), Driver::Loops).expect("a store")
}

fn many_key(n: u16) -> Vec<u8> {
    [&[3], &n.to_be_bytes()[..]].concat()
}

fn scan(
    store: &Store,
    space: usize,
    (from, to): (&[u8], &[u8]),
    descending: bool,
    limit: usize,
) -> Vec<(Vec<u8>, Bytes)> {
    let mut found = Vec::new();
    let scanned = store.scan(SPACES[space], from, to, descending, |key, value| {
        found.push((key.to_vec(), value));
        if found.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    scanned.expect("it can be read");
    found
}

fn check(folder: &Path, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut store = open(folder);
    let (mut model, mut saved) = (Map::new(), Map::new());
    let mut checkpoints = 0;
    for step in steps {
        match step {
            Step::Put(space, key, value) => {
                store.put(SPACES[space], key.clone().into(), value.clone().into());
                model.insert((space, key), value);
            }
            Step::PutMany(space, n) => store.write(|writes| {
                for key in (0..n).map(many_key) {
                    writes.put(SPACES[space], key.clone().into(), key.clone().into());
                    model.insert((space, key.clone()), key);
                }
            }),
            Step::Remove(space, key) => {
                store.remove(SPACES[space], key.clone().into());
                model.remove(&(space, key));
            }
            Step::Get(space, key) => {
                let found = store.get(SPACES[space], &key).expect("it can be read");
                prop_assert_eq!(found.as_deref(), model.get(&(space, key)).map(Vec::as_slice));
            }
            Step::Scan { space, from, to, descending, limit } => {
                let range = (space, from.clone())..(space, to.clone());
                let between = from < to;
                let within = between.then(|| model.range(range)).into_iter().flatten();
                let mut expected: Vec<_> =
                    within.map(|((_, key), value)| (key.clone(), value.clone().into())).collect();
                if descending {
                    expected.reverse();
                }
                expected.truncate(limit);
                prop_assert_eq!(scan(&store, space, (&from, &to), descending, limit), expected);
            }
            Step::Checkpoint => {
                checkpoints += 1;
                store.checkpoint(checkpoints).expect("there is room");
                saved.clone_from(&model);
                prop_assert!(!store.is_unsaved());
            }
            Step::FailedCheckpoint => {
                full_disk::fill(folder, true);
                let failed = store.checkpoint(checkpoints + 1);
                full_disk::fill(folder, false);
                prop_assert!(matches!(failed, Err(StoreError::Full)), "{failed:?}");
            }
            Step::Crash => {
                drop(store);
                store = open(folder);
                model.clone_from(&saved);
                prop_assert_eq!(store.done().expect("it can be read"), checkpoints);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_store_is_a_map_and_a_crash_restores_the_last_checkpoint(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let folder = quick_folder();
        let checked = check(folder.path(), steps);
        full_disk::fill(folder.path(), false);
        checked?;
    }
}
