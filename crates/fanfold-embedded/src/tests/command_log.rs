//! The command log alone: damage after the last sync loses no synced group.

use std::fs::{self, File};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk::{Disk, DiskCall, DiskFault, DiskFaults, FileDisk, MemoryDisk};
use crate::store::StoreError;
use crate::store::command_log::CommandLog;
use bytes::Bytes;
use fanfold::with_causes;
use proptest::prelude::*;
use proptest::sample::Index;

use super::child::quick_folder;

const SEGMENT_BYTES: u64 = 2_000;

type Groups = Vec<(u64, Bytes)>;

fn open(folder: &Path, done: u64) -> Result<(CommandLog, Groups), StoreError> {
    if segments(folder).is_empty() {
        CommandLog::make(&FileDisk, folder)?;
    }
    open_on(Arc::new(FileDisk), folder, done)
}

fn open_on(
    disk: Arc<dyn Disk>,
    folder: &Path,
    done: u64,
) -> Result<(CommandLog, Groups), StoreError> {
    let mut groups = Groups::new();
    let log = CommandLog::open(disk, folder, done, |position, group| {
        groups.push((position, group));
        Ok(())
    })?;
    Ok((log.with_segment_bytes(SEGMENT_BYTES), groups))
}

/// Appends payloads to the log, and to `groups`, the expected content of the log.
fn append(log: &mut CommandLog, groups: &mut Groups, payloads: &[Vec<u8>]) {
    for payload in payloads {
        let position = log.append(payload).expect("there is room");
        groups.push((position, payload.clone().into()));
    }
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).expect("a folder").flatten();
    let mut segments: Vec<PathBuf> = files.map(|file| file.path()).collect();
    segments.sort();
    segments
}

fn bytes(path: &Path) -> u64 {
    fs::metadata(path).expect("a file").len()
}

fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = File::options().write(true).open(path).expect("a file");
    file.seek(SeekFrom::Start(at)).expect("a place");
    file.write_all(bytes).expect("room");
}

/// Groups of different sizes and contents, including zeros, which look like the end of a file.
fn payloads(n: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..600),
        (0..600_usize).prop_map(|bytes| vec![0; bytes]),
    ];
    prop::collection::vec(payload, 0..n)
}

#[derive(Debug, Clone)]
enum Damage {
    CutOff,
    /// Replaces the rest of the file, and may make it longer.
    Zeros(usize),
    Garbage(Vec<u8>),
    /// Overwrites bytes within the file.
    Lost(Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        Just(Damage::CutOff),
        (0..2_000_usize).prop_map(Damage::Zeros),
        prop::collection::vec(any::<u8>(), 0..2_000).prop_map(Damage::Garbage),
        prop::collection::vec(any::<u8>(), 1..100).prop_map(Damage::Lost),
    ]
}

fn inflict(damage: &Damage, path: &Path, at: u64) {
    let cut_off = || File::options().write(true).open(path).and_then(|file| file.set_len(at));
    match damage {
        Damage::CutOff => cut_off().expect("a file"),
        Damage::Zeros(count) => {
            cut_off().expect("a file");
            write_at(path, at, &vec![0; *count]);
        }
        Damage::Garbage(garbage) => {
            cut_off().expect("a file");
            write_at(path, at, garbage);
        }
        Damage::Lost(garbage) => {
            let fits = (bytes(path) - at) as usize;
            write_at(path, at, &garbage[..garbage.len().min(fits)]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_power_cut_loses_only_unacknowledged_groups(
        acknowledged in payloads(12),
        unsynced in prop::collection::vec(any::<u8>(), 1..900),
        damage in damage(),
        at in any::<Index>(),
        later in payloads(6),
    ) {
        let folder = quick_folder();
        let (mut log, mut groups) = open(folder.path(), 0).expect("an empty log");
        append(&mut log, &mut groups, &acknowledged);
        let before = segments(folder.path());
        let newest = before.last().expect("a segment").clone();
        let synced = bytes(&newest);
        // This group is synced, but not acknowledged.
        append(&mut log, &mut groups, &[unsynced]);
        drop(log);
        let torn = segments(folder.path()).pop().expect("a segment");
        let synced = if torn == newest { synced } else { 0 };
        let at = synced + at.index((bytes(&torn) - synced) as usize + 1) as u64;
        inflict(&damage, &torn, at);

        let (mut log, found) = open(folder.path(), 0).expect("synced groups are whole");
        prop_assert!(found.len() >= acknowledged.len(), "{} of {}", found.len(), acknowledged.len());
        prop_assert_eq!(&found[..], &groups[..found.len()]);
        // Later groups are appended after these.
        groups.truncate(found.len());
        append(&mut log, &mut groups, &later);
        drop(log);
        prop_assert_eq!(open(folder.path(), 0).expect("it is whole").1, groups);
    }

    #[test]
    fn damage_in_the_middle_is_an_error(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..600), 20..30),
        segment in any::<Index>(),
        at in any::<Index>(),
        is_cut_off: bool,
    ) {
        let folder = quick_folder();
        let (mut log, mut groups) = open(folder.path(), 0).expect("an empty log");
        append(&mut log, &mut groups, &payloads);
        drop(log);
        let segments = segments(folder.path());
        prop_assume!(segments.len() > 1);
        let damaged = &segments[segment.index(segments.len() - 1)];
        let at = at.index(bytes(damaged) as usize) as u64;
        if is_cut_off {
            inflict(&Damage::CutOff, damaged, at);
        } else {
            let byte = fs::read(damaged).expect("a file")[at as usize];
            write_at(damaged, at, &[!byte]);
        }
        let error = open(folder.path(), 0).err().expect("it is damaged");
        let error = with_causes(&error);
        prop_assert!(error.contains("damaged in the middle of the log")
            || error.contains("groups are missing"), "{error}");
    }

    #[test]
    fn damage_before_a_whole_group_of_the_last_segment_is_an_error(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..600), 2..20),
        damaged in any::<Index>(),
        at in any::<Index>(),
    ) {
        let folder = quick_folder();
        let (log, mut groups) = open(folder.path(), 0).expect("an empty log");
        let mut log = log.with_segment_bytes(u64::MAX);
        append(&mut log, &mut groups, &payloads);
        drop(log);
        let segment = &segments(folder.path())[0];
        // In any group except the last. A segment's header has 8 bytes, a group's 16.
        let damaged = damaged.index(payloads.len() - 1);
        let before: usize = payloads[..damaged].iter().map(|payload| 16 + payload.len()).sum();
        let at = (8 + before + at.index(16 + payloads[damaged].len())) as u64;
        let byte = fs::read(segment).expect("a file")[at as usize];
        write_at(segment, at, &[!byte]);
        let error = open(folder.path(), 0).err().expect("it is damaged");
        let error = with_causes(&error);
        prop_assert!(error.contains("damaged in the middle of the log"), "{error}");
    }

    #[test]
    fn trimming_keeps_unprocessed_groups(
        rounds in prop::collection::vec((payloads(12), any::<Index>(), any::<bool>()), 1..8),
    ) {
        let folder = quick_folder();
        let (mut log, mut groups) = open(folder.path(), 0).expect("an empty log");
        let mut done = 0;
        for (payloads, trim_to, is_opened_again) in rounds {
            append(&mut log, &mut groups, &payloads);
            done = done.max(trim_to.index(log.next() as usize) as u64 + 1);
            log.trim(done).expect("it can be trimmed");
            groups.retain(|(position, _)| *position >= done);
            if groups.is_empty() {
                prop_assert_eq!(log.bytes(), 8);
                prop_assert_eq!(segments(folder.path()).len(), 1);
            }
            if is_opened_again {
                drop(log);
                let (opened, found) = open(folder.path(), done).expect("it is whole");
                prop_assert_eq!(&found, &groups);
                log = opened;
            }
        }
    }
}

#[test]
fn damage_in_processed_groups_is_no_error() {
    let folder = quick_folder();
    let (mut log, mut groups) = open(folder.path(), 0).expect("an empty log");
    append(&mut log, &mut groups, &vec![vec![7; 50]; 10]);
    drop(log);
    write_at(&segments(folder.path())[0], 300, &[0; 10]);
    let (mut log, found) = open(folder.path(), 11).expect("all groups are processed");
    assert_eq!(found, []);
    let mut groups = Groups::new();
    append(&mut log, &mut groups, &[vec![8; 50]]);
    drop(log);
    assert_eq!(groups[0].0, 11);
    assert_eq!(open(folder.path(), 11).expect("it is whole").1, groups);
}

/// A disk on which writes store their first half, and then find it full.
#[derive(Default)]
struct FullDisk(AtomicBool);

impl DiskFaults for FullDisk {
    fn fault(&self, call: DiskCall) -> DiskFault {
        match call {
            DiskCall::Write(bytes) if self.0.load(Ordering::Relaxed) => {
                DiskFault::Before(ErrorKind::StorageFull, bytes / 2)
            }
            _ => DiskFault::None,
        }
    }
}

#[test]
fn a_failed_append_leaves_no_group() {
    let (full, folder) = (Arc::new(FullDisk::default()), Path::new("/commands"));
    let disk = MemoryDisk::default().with_faults(full.clone());
    CommandLog::make(&disk, folder).expect("there is room");
    let open = || open_on(Arc::new(disk.clone()), folder, 0).expect("it is whole");
    let (mut log, mut groups) = open();
    for n in 1..=50 {
        append(&mut log, &mut groups, &[vec![n; 100]]);
        full.0.store(true, Ordering::Relaxed);
        assert!(matches!(log.append(&[n; 200]), Err(StoreError::Full)));
        assert!(matches!(log.append(&[n; 20]), Err(StoreError::Full)));
        full.0.store(false, Ordering::Relaxed);
        if n % 7 == 0 {
            // Reopening also cuts off the partly written group.
            drop(log);
            let found;
            (log, found) = open();
            assert_eq!(found, groups);
        }
    }
    drop(log);
    assert_eq!(open().1, groups);
}
