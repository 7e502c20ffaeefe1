//! The tables' log after a power cut: the tables open with all batches except the last.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::SystemEnv;
use crate::disk::FileDisk;
use crate::faults::full_disk;
use crate::store::folder::Folder;
use crate::store::torn_log::{data_end, newest};
use crate::store::{Driver, Store, StoreError, Table};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::child::quick_folder;

const BATCHES: u64 = 3;
const CUTS: u64 = 40;

/// The newest log of the tables.
fn newest_log(folder: &Path) -> PathBuf {
    newest(&folder.join("tables")).expect("a folder").expect("a log")
}

fn open(folder: &Path) -> Result<Store, crate::store::OpenError> {
    let folder = Folder::take(Arc::new(FileDisk), folder)?;
    Store::open(folder, &[], Arc::new(SystemEnv), Driver::Loops)
}

/// Creates a store with some batches. Returns the start and the end of the last batch in the log.
fn fill(folder: &Path, chance: &mut SmallRng) -> (u64, u64) {
    // A reopened log is exactly as long as its data; a new one ends with zeros.
    if chance.random() {
        drop(open(folder).expect("a store"));
    }
    let store = open(folder).expect("a store");
    let (mut from, mut end) = (0, 0);
    for batch in 1..=BATCHES {
        for key in 0..20_u8 {
            let value: Vec<u8> =
                (0..chance.random_range(0..200)).map(|_| chance.random()).collect();
            store.put(Table::STATE, Bytes::from(vec![batch as u8, key]), value.into());
        }
        store.checkpoint(batch).expect("a checkpoint");
        from = end;
        end = data_end(&newest_log(folder)).expect("a log");
    }
    (from, end)
}

fn items(store: &Store) -> usize {
    store.count(Table::STATE).expect("it can be read")
}

#[test]
fn a_torn_batch_is_cut_off() {
    let seed = std::env::var("FANFOLD_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    println!("FANFOLD_SEED={seed}");
    let mut chance = SmallRng::seed_from_u64(seed);
    let mut set_aside = 0;
    for cut in 0..CUTS {
        let folder = quick_folder();
        let folder = folder.path();
        let (from, end) = fill(folder, &mut chance);
        let log = newest_log(folder);
        let at = chance.random_range(from..end);
        let bytes = chance.random_range(1..=end - at);
        let is_garbage: bool = chance.random();
        let is_cut_off: bool = chance.random();
        println!(
            "{cut}: {from}..{end}, {bytes} bytes at {at}, garbage {is_garbage}, cut {is_cut_off}"
        );
        let mut file = File::options().write(true).open(&log).expect("a log");
        if is_cut_off {
            file.set_len(at).expect("it can be cut");
        }
        let bad: Vec<u8> =
            (0..bytes).map(|_| if is_garbage { chance.random() } else { 0 }).collect();
        file.seek(SeekFrom::Start(at)).expect("a place");
        file.write_all(&bad).expect("room");
        drop(file);

        let store = open(folder).expect("it opens");
        // One or two random bytes may equal the original ones, and then damage nothing.
        let done = store.done().expect("it can be read");
        assert!(done == BATCHES - 1 || (done == BATCHES && bytes < 3), "{done}");
        assert_eq!(items(&store), 20 * done as usize);
        set_aside += usize::from(log.with_extension("jnl.cut").exists());
        assert!(!folder.join("tables.probe").exists());
        // The store accepts new writes.
        store.put(Table::STATE, Bytes::from_static(b"later"), Bytes::from_static(b"1"));
        store.checkpoint(9).expect("a checkpoint");
        drop(store);
        let store = open(folder).expect("it opens");
        assert_eq!((items(&store), store.done().ok()), (20 * done as usize + 1, Some(9)));
    }
    println!("of {CUTS} torn logs, the end of {set_aside} was set aside");
    assert!(set_aside > 0);
}

#[test]
fn the_cut_bytes_are_kept() {
    let folder = quick_folder();
    let folder = folder.path();
    let (from, end) = fill(folder, &mut SmallRng::seed_from_u64(1));
    let log = newest_log(folder);
    let mut bytes = fs::read(&log).expect("a log");
    // The last byte of the batch's checksum. Four bytes after it mark the end of the batch.
    bytes[end as usize - 5] ^= 1;
    fs::write(&log, &bytes).expect("a log");
    let store = open(folder).expect("it opens");
    assert_eq!(items(&store), 20 * (BATCHES as usize - 1));
    let kept = fs::read(log.with_extension("jnl.cut")).expect("it is kept");
    // `fjall` itself cuts off the rest of the batch.
    assert!(!kept.is_empty() && bytes[from as usize..end as usize].ends_with(&kept));
}

#[test]
fn a_full_disk_keeps_the_tables_readable() {
    let folder = quick_folder();
    let store = open(folder.path()).expect("a store");
    store.put(Table::STATE, Bytes::from_static(b"a"), Bytes::from_static(b"1"));
    store.checkpoint(1).expect("there is room");
    store.put(Table::STATE, Bytes::from_static(b"b"), Bytes::from_static(b"2"));
    full_disk::fill(folder.path(), true);
    for _ in 0..3 {
        assert!(matches!(store.checkpoint(2), Err(StoreError::Full)));
        assert!(store.is_unsaved());
        assert_eq!(items(&store), 2);
        // An item that is only in the tables, and in no layer in memory.
        assert_eq!(store.done().ok(), Some(1));
    }
    full_disk::fill(folder.path(), false);
    store.checkpoint(2).expect("there is room");
    drop(store);
    let store = open(folder.path()).expect("a store");
    assert_eq!((items(&store), store.done().ok()), (2, Some(2)));
}
