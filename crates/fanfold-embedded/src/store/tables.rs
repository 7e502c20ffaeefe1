//! The tables on disk: one `fjall` database, which only checkpoints write.

use std::fs;
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

use super::folder::{Folder, sync_folder};
use super::items::Items;
use super::torn_log;
use crate::faults;

/// Bytes of a table in memory before it is written out; there are as many as tables.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of blocks read from disk that are kept in memory.
const CACHE_BYTES: u64 = 24 * 1024 * 1024;
/// Bytes of `fjall`'s own log: the least it takes; it is read whole at every start.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Commits from this size on are stored beside the keys, and never moved again: they are
/// immutable, and would otherwise be rewritten whenever keys are merged.
const SEPARATE_BYTES: u32 = 128;

/// The file that `fjall` makes when it has made everything else.
const MARKER: &str = "version";
/// The folder with what is in the tables.
const KEYSPACES: &str = "keyspaces";

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Space(usize);

impl Space {
    /// What the engine knows of itself.
    pub const META: Self = Self(0);
    /// Slots, in the order of the catalogue.
    pub const SLOTS: Self = Self(1);
    /// Commits.
    pub const JOURNAL: Self = Self(2);
    /// Heads, documents, windows.
    pub const STATE: Self = Self(3);
    /// What waits.
    pub const PARKED: Self = Self(4);
    /// Messages that could not be delivered.
    pub const DEAD_LETTERS: Self = Self(5);

    pub(super) fn index(self) -> usize {
        self.0
    }

    /// The bytes of a key by which the items of the table with this index are hashed: a slot's
    /// bucket, nothing of the few items of the meta table, a log or a view in all others.
    pub(super) fn prefix_len(index: usize) -> Option<usize> {
        match Self(index) {
            Self::META => Some(0),
            Self::SLOTS => Some(1),
            _ => None,
        }
    }
}

const NAMES: [&str; 6] = ["meta", "slots", "journal", "state", "parked", "dead-letters"];

/// What went wrong on disk.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or the quota, is full.
    #[error("the disk is full")]
    Full,
    /// Everything else that the operating system says.
    #[error("the disk failed: {0}")]
    Io(io::Error),
    /// What `fjall` says.
    #[error("the tables failed: {0}")]
    Tables(fjall::Error),
    /// The folder's path does not lead to it any more.
    #[error(
        "the folder {} was removed, moved or replaced while it was in use: nothing more is accepted; \
         start again on the folder where it is now", .0.display()
    )]
    Gone(PathBuf),
    /// The tables could not be opened again after an error; the next checkpoint tries.
    #[error("the tables are closed after an error")]
    Closed,
    /// `fjall` panicked.
    #[error("the tables panicked: {0}")]
    Panicked(String),
}

impl StoreError {
    /// What is on disk cannot be read.
    pub(crate) fn damaged(message: String) -> Self {
        Self::Io(io::Error::new(io::ErrorKind::InvalidData, message))
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(error),
        }
    }
}

impl From<fjall::Error> for StoreError {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Io(error) => error.into(),
            fjall::Error::Storage(fjall::LsmError::Io(error)) => error.into(),
            error => Self::Tables(error),
        }
    }
}

struct Opened {
    keyspaces: Vec<Keyspace>,
    database: Database,
}

pub(super) struct Tables {
    path: PathBuf,
    names: Vec<String>,
    /// `None` if it could not be opened again: `fjall` takes no more writes after one that failed.
    opened: RwLock<Option<Opened>>,
}

impl Tables {
    pub(super) fn open(folder: &Folder, views: &[String]) -> Result<Self, StoreError> {
        let names = NAMES.iter().map(|&name| name.to_owned()).chain(views.iter().cloned());
        let names: Vec<String> = names.collect();
        let path = folder.tables();
        let opened = match folder.is_unfinished() {
            true => open_whole(&path, &names)?,
            false => open(&path, &names)?,
        };
        Ok(Self { path, names, opened: RwLock::new(Some(opened)) })
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn view(&self, name: &str) -> Option<Space> {
        let views = self.names.iter().enumerate().skip(NAMES.len());
        views.into_iter().find(|(_, found)| *found == name).map(|(index, _)| Space(index))
    }

    pub(super) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        let opened = opened.as_ref().ok_or(StoreError::Closed)?;
        Ok(opened.keyspaces[space.0].get(key)?.map(Bytes::from))
    }

    /// Visits what is stored between two keys, with what is in memory in its place.
    pub(super) fn merge(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        descending: bool,
        memory: Vec<(Bytes, Option<Bytes>)>,
        visit: &mut impl FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        let opened = opened.as_ref().ok_or(StoreError::Closed)?;
        let range = opened.keyspaces[space.0].range(from..to);
        let stored: Box<dyn Iterator<Item = fjall::Guard>> =
            if descending { Box::new(range.rev()) } else { Box::new(range) };
        let mut memory = memory.into_iter().peekable();
        let is_before = |a: &[u8], b: &[u8]| if descending { a > b } else { a < b };
        for item in stored {
            let (key, value) = item.into_inner()?;
            while let Some((found, value)) = memory.next_if(|(found, _)| is_before(found, &key)) {
                if let Some(value) = value
                    && visit(&found, value).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            }
            let visited = match memory.next_if(|(found, _)| found[..] == key[..]) {
                Some((_, None)) => continue,
                Some((_, Some(value))) => visit(&key, value),
                None => visit(&key, value.into()),
            };
            if visited.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        for (key, value) in memory {
            if let Some(value) = value
                && visit(&key, value).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Stores all of it, or nothing. After an error the tables are opened again.
    pub(super) fn commit(
        &self,
        items: &[Arc<Items>],
        meta: Option<(&[u8], Bytes)>,
    ) -> Result<(), StoreError> {
        self.reopen()?;
        let committed = self.commit_opened(items, meta);
        if committed.is_err() {
            // Readers need them also while nothing can be written. If that fails, the next
            // checkpoint tries again.
            self.close();
            let _ = self.reopen();
        }
        committed
    }

    pub(super) fn put_now(
        &self,
        space: Space,
        key: &[u8],
        value: Option<Bytes>,
    ) -> Result<(), StoreError> {
        let mut items = vec![Arc::<Items>::default(); self.len()];
        let mut item = Items::new(None);
        item.insert(Bytes::copy_from_slice(key), value);
        items[space.0] = Arc::new(item);
        self.commit(&items, None)
    }

    fn commit_opened(
        &self,
        items: &[Arc<Items>],
        meta: Option<(&[u8], Bytes)>,
    ) -> Result<(), StoreError> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        let opened = opened.as_ref().ok_or(StoreError::Closed)?;
        faults::disk(&self.path, &mut io::sink(), &[])?;
        let mut batch = opened.database.batch().durability(Some(PersistMode::SyncData));
        for (keyspace, items) in opened.keyspaces.iter().zip(items) {
            for (key, value) in items.iter() {
                match value {
                    Some(value) => batch.insert(keyspace, key.clone(), value.clone()),
                    None => batch.remove(keyspace, key.clone()),
                }
            }
        }
        if let Some((key, value)) = meta {
            batch.insert(&opened.keyspaces[Space::META.0], key, value);
        }
        Ok(batch.commit()?)
    }

    fn close(&self) {
        self.opened.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        if opened.is_none() {
            *opened = Some(open(&self.path, &self.names)?);
        }
        Ok(())
    }
}

/// Where the log of some tables is tried out.
pub(super) fn probe(tables: &Path) -> PathBuf {
    tables.with_extension("probe")
}

/// Whether the making of tables broke off: `fjall` writes its marker when the folder for what is in
/// them is there, and still empty.
pub(super) fn are_unfinished(tables: &Path) -> io::Result<bool> {
    let is_marked = match fs::metadata(tables.join(MARKER)) {
        Ok(marker) => marker.len() > 0,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if is_marked {
        return Ok(false);
    }
    match fs::read_dir(tables.join(KEYSPACES)) {
        Ok(mut found) => Ok(found.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Opens tables that were made before. If their log cannot be read, what a power cut can have left behind its last
/// whole batch is set aside, and they are opened without.
fn open(path: &Path, names: &[String]) -> Result<Opened, StoreError> {
    // `fjall` would make new ones, without what was accepted.
    if !path.join(MARKER).exists() {
        return Err(StoreError::damaged(format!("the tables {} are missing", path.display())));
    }
    let try_open = || torn_log::catch(|| open_whole(path, names));
    match try_open() {
        Err(error) if torn_log::may_be_torn(&error) => match torn_log::cut(path, &error)? {
            true => try_open(),
            false => Err(error),
        },
        opened => opened,
    }
}

fn open_whole(path: &Path, names: &[String]) -> Result<Opened, StoreError> {
    let database = Database::builder(path)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(LOG_BYTES_MAX)
        .manual_journal_persist(true)
        // A second one would spin while the first merges.
        .worker_threads(1)
        .open()?;
    let options = |name: &str| {
        let options = KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let separate = KvSeparationOptions::default().separation_threshold(SEPARATE_BYTES);
        match name {
            "journal" => options.with_kv_separation(Some(separate)),
            _ => options,
        }
    };
    let keyspaces = names.iter().map(|name| database.keyspace(name, || options(name)));
    let keyspaces = keyspaces.collect::<Result<_, _>>()?;
    // `fjall` syncs what is in each, but not that they are there.
    sync_folder(&path.join(KEYSPACES))?;
    Ok(Opened { keyspaces, database })
}
