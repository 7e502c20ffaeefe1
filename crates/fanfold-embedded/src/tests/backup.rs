//! A backup that ends, or fails, at any call of the disk: the source stays whole, and the copy is
//! complete or refused.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use fanfold::host::knob;
use fanfold::{LogId, Seq, Time};
use fanfold_pipeline::ports::{Append, Commands, Env, Token};
use futures::executor::block_on;
use futures::future::BoxFuture;

use crate::TransitConfig;
use crate::backup::{BackupError, BackupState, Backups, restore_on};
use crate::disk::{Disk, DiskCall, DiskFault, DiskFaults, FileDisk, MemoryDisk};
use crate::ports::Ports;
use crate::stop::Stopper;
use crate::store::folder::Folder;
use crate::store::folder::copy::TargetError;
use crate::store::{Driver, OpenError, Store, Table};
use crate::tasks::{Spawner, Tasks};

use super::child::quick_folder;

const SOURCE: &str = "/data";
const TARGET: &str = "/backups/today";
const VIEW: &str = "view-balances-v1";
const LOGS: u64 = 3;
const ITEMS: u32 = 40;

/// A clock that stands still.
struct Still;

#[async_trait]
impl Env for Still {
    fn now(&self) -> Time {
        Time(1)
    }

    fn random(&self) -> u64 {
        1
    }

    async fn sleep(&self, _: u64) {}
}

/// Runs a task to its end before it returns.
struct Inline;

impl Spawner for Inline {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        block_on(task);
    }

    fn spawn_thread(&self, _: &str, task: BoxFuture<'static, ()>) -> io::Result<()> {
        block_on(task);
        Ok(())
    }
}

/// What happens at one call of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// The process ends before the call takes effect, or after.
    Ends { takes_effect: bool },
    /// The disk is full for this call.
    Full,
    /// The call takes effect and returns an error.
    Errs,
}

const EACH: [What; 4] =
    [What::Ends { takes_effect: false }, What::Ends { takes_effect: true }, What::Full, What::Errs];

/// Something happens at the call with this number, counted from 1.
struct At {
    call: u64,
    what: What,
    calls: AtomicU64,
}

impl DiskFaults for At {
    fn fault(&self, _: DiskCall) -> DiskFault {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        match self.what {
            _ if call < self.call => DiskFault::None,
            What::Ends { takes_effect: true } if call == self.call => {
                DiskFault::After(ErrorKind::Other)
            }
            What::Ends { .. } => DiskFault::Before(ErrorKind::Other, 0),
            _ if call > self.call => DiskFault::None,
            What::Full => DiskFault::Before(ErrorKind::StorageFull, 0),
            What::Errs => DiskFault::After(ErrorKind::Other),
        }
    }
}

/// The ports over an opened folder.
struct Host {
    store: Arc<Store>,
    ports: Ports,
    appended: BTreeMap<LogId, Seq>,
    _stopper: Stopper,
    backups: Backups,
}

impl Host {
    fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, OpenError> {
        let folder = Folder::take(disk, path)?;
        let store = Store::open(folder, &[VIEW.to_owned()], Arc::new(Still), Driver::Callers)?;
        let store = Arc::new(store);
        let views = BTreeMap::from([("balances".to_owned(), VIEW.to_owned())]);
        let ports = Ports::new(&TransitConfig::default(), &views, &store, Arc::new(Still));
        let ports = ports.map_err(|error| store.folder().explain(error))?;
        let (stopper, stop) = Stopper::new();
        let tasks = Tasks::new(Arc::new(Inline));
        let backups =
            Backups::new(store.clone(), ports.commands.clone(), Arc::new(Still), stop, tasks);
        Ok(Self { store, ports, appended: BTreeMap::new(), _stopper: stopper, backups })
    }

    fn append(&mut self, log: u64) -> bool {
        let log: LogId = format!("ledger/org:{log}").parse().expect("a log");
        let last = self.appended.entry(log.clone()).or_default();
        let (body, token) = (Bytes::from(vec![7; 300]), Token(u128::from(last.0) + 1));
        let append = Append { n: 1, body, at: Time(1), token };
        match block_on(self.ports.commands.append(&log, append)) {
            Ok(seq) => {
                *last = seq;
                true
            }
            Err(_) => false,
        }
    }

    /// Commands that are processed, and dropped from the command log; others that are not; and items,
    /// some of which no checkpoint has stored.
    fn fill(&mut self) {
        for round in 0..12 {
            assert!(self.append(round % LOGS));
            if round == 5 {
                (0..ITEMS).for_each(|n| self.put(n));
                let done = self.ports.commands.shown();
                self.store.checkpoint(done).expect("a disk");
                self.ports.commands.trim(done).expect("a disk");
            }
        }
        (ITEMS..ITEMS + 5).for_each(|n| self.put(n));
    }

    fn put(&self, n: u32) {
        let value = Bytes::from(n.to_be_bytes().repeat(20));
        self.store.put(Table::STATE, key(n), value.clone());
        self.store.put(self.store.view(VIEW).expect("a view"), key(n), value);
    }

    /// Panics if something is missing that was acknowledged before.
    fn check(&self, appended: &BTreeMap<LogId, Seq>, stored: u32, what: &str) {
        for (log, seq) in appended {
            let slot = block_on(self.ports.commands.slot(log)).expect("a disk");
            assert!(slot.is_some_and(|slot| slot.seq >= *seq), "{what}: {log} {seq}");
        }
        for n in 0..stored {
            for table in [Table::STATE, self.store.view(VIEW).expect("a view")] {
                let found = self.store.get(table, &key(n)).expect("a disk");
                assert_eq!(found, Some(n.to_be_bytes().repeat(20).into()), "{what}: {n}");
            }
        }
    }
}

fn key(n: u32) -> Bytes {
    [b"item\0", &n.to_be_bytes()[..]].concat().into()
}

/// Opens what a backup has left. Panics if it was reported as complete and is not, or is neither
/// complete nor refused. Returns whether it is complete.
fn check_target(disk: MemoryDisk, host: &Host, is_reported: bool, what: &str) -> bool {
    let is_there = !disk.is_missing(Path::new(TARGET));
    let names = disk.list(Path::new(TARGET)).unwrap_or_default();
    if names.iter().all(|(name, _)| name == "LOCK") {
        assert!(!is_reported, "{what}: it is gone");
        return false;
    }
    assert!(is_there);
    match Host::open(Arc::new(disk), Path::new(TARGET)) {
        Ok(copy) => {
            copy.check(&host.appended, ITEMS + 5, what);
            true
        }
        Err(error) => {
            assert!(matches!(error, OpenError::IncompleteCopy(_)), "{what}: {error:?} {names:?}");
            assert!(!is_reported, "{what}: {error}");
            false
        }
    }
}

fn powers() -> [Box<dyn FnMut(u64) -> u64>; 3] {
    let mut state = 1_u64;
    let random = move |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % n
    };
    [Box::new(|_| 0), Box::new(|n| n - 1), Box::new(random)]
}

#[test]
fn a_backup_that_ends_or_fails_at_any_call_leaves_the_source_whole() {
    let mut complete = 0;
    for seed in 0..4 {
        knob::draw(Some(seed));
        for what in EACH {
            // The first run shows at which call the backup begins.
            let mut begins = u64::MAX;
            loop {
                let disk = MemoryDisk::default();
                let at = Arc::new(At { call: begins, what, calls: AtomicU64::new(0) });
                let faulty = disk.with_faults(at.clone());
                let mut host =
                    Host::open(Arc::new(faulty), Path::new(SOURCE)).expect("a new folder");
                host.fill();
                if begins == u64::MAX {
                    begins = at.calls.load(Ordering::Relaxed) + 1;
                    continue;
                }
                let begun = host.backups.begin(Path::new(TARGET), None);
                let is_over = at.calls.load(Ordering::Relaxed) < begins;
                let last = host.backups.last().filter(|_| begun.is_ok());
                let is_reported =
                    last.as_ref().is_some_and(|last| last.state == BackupState::Complete);
                let shown = format!("seed {seed}, {what:?} at {begins}: {begun:?} {last:?}");
                for mut power in powers() {
                    let left = disk.after_power_cut(&mut *power);
                    check_target(left.copied(), &host, is_reported, &shown);
                    let source = Host::open(Arc::new(left), Path::new(SOURCE)).expect(&shown);
                    source.check(&host.appended, ITEMS, &shown);
                }
                complete += u32::from(check_target(disk.copied(), &host, is_reported, &shown));
                if !is_over && !matches!(what, What::Ends { .. }) {
                    // The process goes on, and removes what it has written, but not at a call that
                    // fails.
                    assert!(host.append(0), "{shown}");
                    host.check(&host.appended, ITEMS + 5, &shown);
                    let again = host.backups.begin(Path::new("/backups/again"), None);
                    again.expect(&shown);
                    let last = host.backups.last().expect("a backup");
                    assert_eq!(last.state, BackupState::Complete, "{shown}");
                    assert!(is_reported || disk.is_missing(Path::new(TARGET)) || begun.is_err());
                }
                if is_over {
                    assert!(is_reported, "{shown}");
                    break;
                }
                begins += 1;
                assert!(begins < 10_000, "a backup that never ends");
            }
        }
    }
    knob::draw(None);
    println!("{complete} copies were complete");
    assert!(complete > 8);
}

#[test]
fn the_command_log_is_kept_while_it_is_held_and_trimmed_after_that() {
    let disk = Arc::new(MemoryDisk::default());
    let mut host = Host::open(disk, Path::new(SOURCE)).expect("a new folder");
    host.fill();
    let done = host.ports.commands.shown();
    let held = host.ports.commands.hold();
    let (parts, next) = held.parts();
    host.ports.commands.trim(done).expect("a disk");
    assert_eq!(held.parts(), (parts.clone(), next));
    assert!(next == done && parts.iter().map(|(_, bytes)| bytes).sum::<u64>() > 8);
    drop(held);
    host.ports.commands.trim(done).expect("a disk");
    let (parts, _) = host.ports.commands.hold().parts();
    assert_eq!(parts.iter().map(|(_, bytes)| bytes).sum::<u64>(), 8, "only a header");
}

#[test]
fn a_snapshot_of_the_tables_shows_no_later_batch() {
    let folder = quick_folder();
    let memory: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    for (disk, path) in [(memory, Path::new(SOURCE)), (Arc::new(FileDisk) as _, folder.path())] {
        let mut host = Host::open(disk, path).expect("a new folder");
        host.fill();
        host.store.checkpoint(3).expect("a disk");
        let (done, snapshot) = host.store.snapshot().expect("tables");
        assert_eq!(done, 3);
        let table = host.store.view(VIEW).expect("a view");
        host.store.put(table, key(0), Bytes::from_static(b"later"));
        host.store.remove(table, key(1));
        host.store.checkpoint(4).expect("a disk");
        let mut found = Vec::new();
        let mut after: Option<Bytes> = None;
        loop {
            let page = snapshot.page(VIEW, after.as_deref(), 200).expect("a disk");
            let Some((last, _)) = page.last() else { break };
            assert!(page.len() <= 3, "bounded: {}", page.len());
            after = Some(last.clone());
            found.extend(page);
        }
        let expected: Vec<(Bytes, Bytes)> =
            (0..ITEMS + 5).map(|n| (key(n), n.to_be_bytes().repeat(20).into())).collect();
        assert_eq!(found, expected);
        let names = ["dead-letters", "journal", "meta", "parked", "slots", "state", VIEW];
        assert_eq!(snapshot.names(), names);
    }
}

#[test]
fn a_folder_that_cannot_become_a_backup_is_refused() {
    let place = quick_folder();
    let place = place.path();
    let mut host = Host::open(Arc::new(FileDisk), &place.join("data")).expect("a new folder");
    host.fill();
    let full = place.join("full");
    std::fs::create_dir(&full).expect("a folder");
    std::fs::write(full.join("notes"), "").expect("a file");
    std::os::unix::fs::symlink(place.join("data"), place.join("link")).expect("a link");
    std::fs::write(place.join("file"), "").expect("a file");
    let begin = |path: &Path| match host.backups.begin(path, None) {
        Err(BackupError::Folder(error)) => error,
        begun => panic!("{begun:?}"),
    };
    assert!(matches!(begin(Path::new("backup")), TargetError::Relative(_)));
    assert!(matches!(begin(&full), TargetError::NotEmpty(_)));
    for inside in ["data", "data/backup", "data/new/backup", "link/backup", "full/../data/backup"] {
        assert!(matches!(begin(&place.join(inside)), TargetError::Inside { .. }), "{inside}");
    }
    for unwritable in ["file", "file/backup", "missing/../backup"] {
        assert!(matches!(begin(&place.join(unwritable)), TargetError::Unwritable { .. }));
    }
    assert!(matches!(begin(place), TargetError::NotEmpty(_)));
    assert_eq!(host.backups.last(), None, "none has begun");
    assert_eq!(std::fs::read_dir(&full).expect("a folder").count(), 1, "it is as it was");
    // The lock of a folder in which another process makes a backup.
    let locked = place.join("locked");
    std::fs::create_dir(&locked).expect("a folder");
    let lock = FileDisk.lock(&locked.join("LOCK")).expect("a file");
    assert!(matches!(begin(&locked), TargetError::Locked(_)));
    drop(lock);
    host.backups.begin(&locked, None).expect("it is empty");
    let last = host.backups.last().expect("a backup");
    assert_eq!(last.state, BackupState::Complete);
    assert_eq!(last.position, Some(12));
    Host::open(Arc::new(FileDisk), &locked).expect("it opens").check(
        &host.appended,
        ITEMS + 5,
        "the copy",
    );
}

#[test]
fn a_backup_is_restored_whole_or_not_at_all() {
    let place = quick_folder();
    let place = place.path();
    let mut host = Host::open(Arc::new(FileDisk), &place.join("data")).expect("a new folder");
    host.fill();
    let (backup, again) = (place.join("backup"), place.join("again"));
    host.backups.begin(&backup, None).expect("a backup");
    let disk: Arc<dyn Disk> = Arc::new(FileDisk);
    let before = files(&backup);
    let restored = restore_on(disk.clone(), &backup, &again, "ledger").expect("a backup");
    assert_eq!(restored.position, 12);
    assert_eq!(files(&backup), before, "nothing is written into the backup");
    let opened = Host::open(disk.clone(), &again).expect("it opens");
    opened.check(&host.appended, ITEMS + 5, "restored");
    assert_eq!(opened.store.get(Table::META, crate::recovery::RUN_KEY).expect("a disk"), None);

    let refused = |backup: &Path, folder: &Path| {
        let error = restore_on(disk.clone(), backup, folder, "ledger").expect_err("an error");
        fanfold::with_causes(&error)
    };
    let error = refused(&backup, &again);
    assert!(error.contains("is not empty"), "{error}");
    let error = refused(&backup, &backup.join("inside"));
    assert!(error.contains("is inside of the folder"), "{error}");
    let error = refused(&place.join("data"), &place.join("new"));
    assert!(error.contains("another process uses the folder"), "{error}");
    let error = refused(&place.join("nowhere"), &place.join("new"));
    assert!(error.contains("there is no backup"), "{error}");

    // A bit of the command log has changed.
    let log = std::fs::read_dir(backup.join("commands")).expect("a folder").flatten();
    let log = log.map(|file| file.path()).next().expect("a file");
    let whole = std::fs::read(&log).expect("a file");
    let mut damaged = whole.clone();
    damaged[40] ^= 1;
    std::fs::write(&log, damaged).expect("a file");
    let error = refused(&backup, &place.join("new"));
    assert!(error.contains("damaged in the middle of the log"), "{error}");
    assert!(!place.join("new").exists(), "nothing is left");

    // Its end is damaged, or missing: that looks like an append that a crash has interrupted.
    let mut damaged = whole.clone();
    *damaged.last_mut().expect("it is not empty") ^= 1;
    for ending in [&damaged[..], &whole[..whole.len() - 1], &whole[..whole.len() / 2]] {
        std::fs::write(&log, ending).expect("a file");
        let error = refused(&backup, &place.join("new"));
        assert!(error.contains("the command log ends at position"), "{error}");
        assert!(!place.join("new").exists(), "nothing is left");
    }
    std::fs::remove_file(&log).expect("a file");
    let error = refused(&backup, &place.join("new"));
    assert!(error.contains("could not be restored"), "{error}");
    std::fs::write(&log, whole).expect("a file");

    std::fs::rename(backup.join("FORMAT"), backup.join("FORMAT.copy")).expect("a file");
    let error = refused(&backup, &place.join("new"));
    assert!(error.contains("is not a complete copy"), "{error}");
}

/// All files below a folder, with their content.
fn files(folder: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for file in std::fs::read_dir(folder).expect("a folder").flatten() {
        match file.path().is_dir() {
            true => found.extend(files(&file.path())),
            false => drop(found.insert(file.path(), std::fs::read(file.path()).expect("a file"))),
        }
    }
    found
}
