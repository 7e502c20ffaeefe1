use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{Disk, DiskFile};
use crate::interleave::Guard;
use crate::store::tables::{MemoryItems, MemoryTables};
use crate::store::{StoreError, Tables};
use crate::striped::lock;

/// A call that changes what is on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskCall {
    /// Makes, empties, cuts off, renames or removes a file, or makes or removes a folder.
    Change,
    /// Writes this many bytes to a file.
    Write(usize),
    /// Makes a file's bytes, or the names in a folder, durable.
    Sync,
    /// Stores a batch in the tables.
    Commit,
}

/// The fault of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// No fault.
    None,
    /// The call fails without an effect, except that a write stores this many bytes.
    Before(ErrorKind, usize),
    /// The call takes effect, and returns an error.
    After(ErrorKind),
}

/// Chooses the faults.
pub trait DiskFaults: Send + Sync + 'static {
    /// The fault of the next call. The disk is locked meanwhile, so this must not use it.
    fn fault(&self, call: DiskCall) -> DiskFault;
}

/// A disk in memory that tracks what is durable. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    shared: Arc<Mutex<Shared>>,
    faults: Option<Arc<dyn DiskFaults>>,
}

type Number = u64;

#[derive(Default, Clone)]
struct Shared {
    /// Files, and folders as `None`.
    names: BTreeMap<PathBuf, Option<Number>>,
    /// The same, as of the last sync of each folder.
    durable_names: BTreeMap<PathBuf, Option<Number>>,
    /// Changes of names since then, oldest first.
    changes: Vec<NameChange>,
    files: BTreeMap<Number, Content>,
    tables: BTreeMap<PathBuf, MemoryItems>,
    next: Number,
}

/// Paths that appear (with what is there), and paths that disappear, in one step.
#[derive(Clone)]
struct NameChange {
    appears: Option<(PathBuf, Option<Number>)>,
    disappears: Option<PathBuf>,
}

/// The bytes of a file. Its durable content is `bytes` below `clean`, followed by `old`.
#[derive(Default, Clone)]
struct Content {
    bytes: Vec<u8>,
    clean: usize,
    old: Vec<u8>,
}

impl Content {
    /// Keeps the durable bytes from `at` on in `old`, because they are about to change.
    fn soil(&mut self, at: usize) {
        if at < self.clean {
            let mut old = self.bytes[at..self.clean].to_vec();
            old.append(&mut self.old);
            (self.clean, self.old) = (at, old);
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.soil(at);
        let end = at + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(bytes);
    }

    fn set_len(&mut self, bytes: usize) {
        self.soil(bytes);
        self.bytes.resize(bytes, 0);
    }

    fn sync(&mut self) {
        self.clean = self.bytes.len();
        self.old.clear();
    }

    /// Cuts power: each unsynced sector then has the old bytes, the new ones, or zeros.
    fn cut_power(&mut self, pick: &mut dyn FnMut(u64) -> u64) {
        const SECTOR_BYTES: usize = 512;
        let new = self.bytes.split_off(self.clean);
        let (shorter, longer) =
            (new.len().min(self.old.len()) as u64, new.len().max(self.old.len()) as u64);
        // Of a file that grows or shrinks, any length in between may be the durable one.
        let len = (shorter + pick(longer - shorter + 1)) as usize;
        for at in (0..len).step_by(SECTOR_BYTES) {
            let end = len.min(at + SECTOR_BYTES);
            let source: &[u8] = match pick(3) {
                0 => &self.old,
                1 => &new,
                _ => &[],
            };
            let there = source.get(at..end.min(source.len())).unwrap_or_default();
            self.bytes.extend_from_slice(there);
            self.bytes.resize(self.clean + end, 0);
        }
        self.sync();
    }
}

impl Shared {
    fn number(&self, file: &Path) -> io::Result<Number> {
        match self.names.get(file) {
            Some(Some(number)) => Ok(*number),
            Some(None) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    /// Makes the names in a folder durable.
    fn sync_names(&mut self, folder: &Path) {
        let changes = std::mem::take(&mut self.changes);
        let (synced, others): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| is_of(change, folder));
        synced.iter().for_each(|change| apply(&mut self.durable_names, change));
        self.changes = others;
    }

    fn make_file(&mut self, path: &Path) -> Number {
        self.next += 1;
        let number = self.next;
        self.files.insert(number, Content::default());
        let appears = Some((path.to_owned(), Some(number)));
        self.change(NameChange { appears, disappears: None });
        number
    }

    fn below(&self, folder: &Path) -> Vec<PathBuf> {
        self.names.keys().filter(|path| path.starts_with(folder)).cloned().collect()
    }
}

fn apply(names: &mut BTreeMap<PathBuf, Option<Number>>, change: &NameChange) {
    if let Some(path) = &change.disappears {
        names.remove(path);
    }
    if let Some((path, what)) = change.appears.clone() {
        names.insert(path, what);
    }
}

fn is_of(change: &NameChange, folder: &Path) -> bool {
    let paths = change.appears.iter().map(|(path, _)| path).chain(&change.disappears);
    paths.into_iter().any(|path| path.parent() == Some(folder))
}

impl MemoryDisk {
    /// The same disk, with faults.
    #[must_use]
    pub fn with_faults(&self, faults: Arc<dyn DiskFaults>) -> Self {
        Self { shared: self.shared.clone(), faults: Some(faults) }
    }

    /// A copy of the state that a new process finds after this one was killed, without faults.
    #[must_use]
    pub fn copied(&self) -> Self {
        let mut shared = self.lock().clone();
        shared.tables.values_mut().for_each(|tables| *tables = tables.copied());
        Self { shared: Arc::new(Mutex::new(shared)), faults: None }
    }

    /// A copy of the state after a power cut. `pick(n)` chooses a number from 0 to `n - 1`.
    #[must_use]
    pub fn after_power_cut(&self, pick: &mut dyn FnMut(u64) -> u64) -> Self {
        let left = self.copied();
        {
            let mut shared = left.lock();
            let changes = std::mem::take(&mut shared.changes);
            let kept = pick(changes.len() as u64 + 1) as usize;
            changes.iter().take(kept).for_each(|change| apply(&mut shared.durable_names, change));
            let Shared { names, durable_names, files, .. } = &mut *shared;
            names.clone_from(durable_names);
            files.values_mut().for_each(|content| content.cut_power(pick));
        }
        left
    }

    fn call<T>(
        &self,
        call: DiskCall,
        effect: impl FnOnce(&mut Shared) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut shared = self.lock();
        match self.fault(call) {
            DiskFault::None => effect(&mut shared),
            DiskFault::Before(kind, _) => Err(kind.into()),
            DiskFault::After(kind) => effect(&mut shared).and_then(|_| Err(kind.into())),
        }
    }

    /// Runs the effect of a batch of the tables, unless there is a fault.
    pub(crate) fn commit(&self, effect: impl FnOnce()) -> io::Result<()> {
        self.call(DiskCall::Commit, |_| {
            effect();
            Ok(())
        })
    }

    fn fault(&self, call: DiskCall) -> DiskFault {
        self.faults.as_ref().map_or(DiskFault::None, |faults| faults.fault(call))
    }

    fn file(&self, path: &Path, number: Number) -> Box<dyn DiskFile> {
        Box::new(MemoryFile { disk: self.clone(), path: path.to_owned(), number })
    }

    fn lock(&self) -> Guard<'_, Shared> {
        lock(&self.shared)
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    path: PathBuf,
    number: Number,
}

impl MemoryFile {
    fn call(&self, call: DiskCall, effect: impl FnOnce(&mut Content)) -> io::Result<()> {
        self.disk.call(call, |shared| {
            effect(shared.files.entry(self.number).or_default());
            Ok(())
        })
    }
}

impl DiskFile for MemoryFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files.get(&self.number).map_or(0, |file| file.bytes.len() as u64))
    }

    fn read_at(&self, from: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let shared = self.disk.lock();
        let bytes = shared.files.get(&self.number).map_or(&[][..], |file| &file.bytes);
        let there = bytes.get(from as usize..).unwrap_or_default();
        let read = there.len().min(buffer.len());
        buffer[..read].copy_from_slice(&there[..read]);
        Ok(read)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut shared = self.disk.lock();
        let fault = self.disk.fault(DiskCall::Write(bytes.len()));
        let written = match fault {
            DiskFault::Before(_, written) => written.min(bytes.len()),
            DiskFault::None | DiskFault::After(_) => bytes.len(),
        };
        shared.files.entry(self.number).or_default().write(at as usize, &bytes[..written]);
        match fault {
            DiskFault::None => Ok(()),
            DiskFault::Before(kind, _) | DiskFault::After(kind) => Err(kind.into()),
        }
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.call(DiskCall::Change, |content| content.set_len(bytes as usize))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.call(DiskCall::Sync, Content::sync)
    }

    fn is_linked(&self) -> bool {
        self.disk.lock().number(&self.path).is_ok_and(|number| number == self.number)
    }
}

impl Disk for MemoryDisk {
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        self.call(DiskCall::Change, |shared| {
            let mut missing: Vec<&Path> = folder.ancestors().collect();
            missing.retain(|path| !shared.names.contains_key(*path));
            for path in missing.into_iter().rev() {
                let appears = Some((path.to_owned(), None));
                shared.change(NameChange { appears, disappears: None });
                path.parent().into_iter().for_each(|above| shared.sync_names(above));
            }
            Ok(())
        })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<(String, u64)>> {
        let shared = self.lock();
        if shared.names.get(folder) != Some(&None) {
            return Err(ErrorKind::NotFound.into());
        }
        let within = shared.names.iter().filter(|(path, _)| path.parent() == Some(folder));
        let entry = |(path, number): (&PathBuf, &Option<Number>)| {
            let file = number.and_then(|number| shared.files.get(&number));
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, file.map_or(0, |file| file.bytes.len() as u64))
        };
        Ok(within.map(entry).collect())
    }

    fn is_missing(&self, path: &Path) -> bool {
        !self.lock().names.contains_key(path)
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        let shared = self.lock();
        let number = shared.number(file)?;
        Ok(shared.files.get(&number).map_or_else(Vec::new, |file| file.bytes.clone()))
    }

    fn open(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        let number = self.lock().number(file)?;
        Ok(self.file(file, number))
    }

    fn open_to_read(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open(file)
    }

    fn create(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        let number = self.call(DiskCall::Change, |shared| match shared.number(file) {
            Ok(number) => {
                shared.files.entry(number).or_default().set_len(0);
                Ok(number)
            }
            Err(_) => Ok(shared.make_file(file)),
        })?;
        Ok(self.file(file, number))
    }

    /// Always succeeds, because no other process has this disk.
    fn lock(&self, file: &Path) -> io::Result<Option<Box<dyn DiskFile>>> {
        let number = self.call(DiskCall::Change, |shared| {
            Ok(shared.number(file).unwrap_or_else(|_| shared.make_file(file)))
        })?;
        Ok(Some(self.file(file, number)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(DiskCall::Change, |shared| {
            let number = shared.number(from)?;
            let appears = Some((to.to_owned(), Some(number)));
            shared.change(NameChange { appears, disappears: Some(from.to_owned()) });
            Ok(())
        })
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        self.call(DiskCall::Change, |shared| {
            shared.number(file)?;
            shared.change(NameChange { appears: None, disappears: Some(file.to_owned()) });
            Ok(())
        })
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        self.call(DiskCall::Change, |shared| {
            if shared.names.get(folder) != Some(&None) {
                return Err(ErrorKind::NotFound.into());
            }
            shared.tables.remove(folder);
            for path in shared.below(folder) {
                shared.change(NameChange { appears: None, disappears: Some(path) });
            }
            Ok(())
        })
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.call(DiskCall::Sync, |shared| {
            shared.sync_names(folder);
            Ok(())
        })
    }

    fn bytes_below(&self, folder: &Path) -> u64 {
        let shared = self.lock();
        let below = shared.names.iter().filter(|(path, _)| path.starts_with(folder));
        let files = below.filter_map(|(_, number)| shared.files.get(number.as_ref()?));
        let tables = shared.tables.iter().filter(|(path, _)| path.starts_with(folder));
        files.map(|file| file.bytes.len() as u64).sum::<u64>()
            + tables.map(|(_, tables)| tables.bytes()).sum::<u64>()
    }

    fn open_tables(
        &self,
        folder: &Path,
        names: &[String],
        is_new: bool,
    ) -> Result<Box<dyn Tables>, StoreError> {
        if is_new {
            self.make_folder(folder)?;
        }
        let stored = self.call(DiskCall::Change, |shared| {
            let is_there = is_new || shared.tables.contains_key(folder);
            Ok(is_there.then(|| shared.tables.entry(folder.to_owned()).or_default().clone()))
        })?;
        let missing =
            || StoreError::damaged(format!("the tables {} are missing", folder.display()));
        let stored = stored.ok_or_else(missing)?;
        Ok(Box::new(MemoryTables::open(self.clone(), stored, names)))
    }

    fn copy_tables(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.make_folder(to)?;
        self.call(DiskCall::Change, |shared| {
            let tables = shared.tables.get(from).ok_or(ErrorKind::NotFound)?.copied();
            shared.tables.insert(to.to_owned(), tables);
            Ok(())
        })
    }

    fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    fn are_tables_unfinished(&self, folder: &Path) -> io::Result<bool> {
        Ok(!self.lock().tables.contains_key(folder))
    }
}
