//! The tables on disk: one `fjall` database.

use std::fs;
use std::io::{self, ErrorKind};
use std::ops::Bound::{Excluded, Unbounded};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Readable,
};

use super::{NAMES, Snapshot, Table, Tables, Write};
use crate::disk::sync_folder;
use crate::store::{StoreError, torn_log};

/// Bytes of a table's memtable, which `fjall` then flushes. Each table has its own.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of the cache of blocks.
const CACHE_BYTES: u64 = 24 * 1024 * 1024;
/// Bytes of `fjall`'s own log: its minimum, because every start reads the whole log.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Commits from this size on are stored apart from their keys, so that compactions do not rewrite
/// them: they are immutable.
const SEPARATE_BYTES: u32 = 128;

/// The file that `fjall` creates last.
const MARKER: &str = "version";
/// The folder of the tables' content.
const KEYSPACES: &str = "keyspaces";

struct Opened {
    keyspaces: Vec<Keyspace>,
    database: Database,
}

pub(crate) struct FjallTables {
    path: PathBuf,
    names: Vec<String>,
    /// `None`: reopening failed. After a failed write, `fjall` must be reopened for the next one.
    opened: RwLock<Option<Opened>>,
    /// How often the tables were closed.
    closed: AtomicU64,
}

/// It is gone once the tables are closed: the database of its files is then another one.
struct FjallSnapshot<'a> {
    tables: &'a FjallTables,
    closed: u64,
    names: Vec<String>,
    snapshot: fjall::Snapshot,
}

impl FjallTables {
    pub(crate) fn open(path: &Path, names: &[String], is_new: bool) -> Result<Self, StoreError> {
        let opened = if is_new { open_whole(path, names)? } else { open(path, names)? };
        Ok(Self {
            path: path.to_owned(),
            names: names.to_vec(),
            opened: RwLock::new(Some(opened)),
            closed: AtomicU64::new(0),
        })
    }

    fn with<T>(
        &self,
        call: impl FnOnce(&Opened) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        call(opened.as_ref().ok_or(StoreError::Closed)?)
    }

    fn close(&self) {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        self.closed.fetch_add(1, Ordering::Relaxed);
        opened.take();
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        if opened.is_none() {
            *opened = Some(open(&self.path, &self.names)?);
        }
        Ok(())
    }
}

impl Tables for FjallTables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.with(|opened| Ok(opened.keyspaces[table.index()].get(key)?.map(Bytes::from)))
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        descending: bool,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.with(|opened| {
            let range = opened.keyspaces[table.index()].range(from..to);
            let items: Box<dyn Iterator<Item = fjall::Guard>> =
                if descending { Box::new(range.rev()) } else { Box::new(range) };
            for item in items {
                let (key, value) = item.into_inner()?;
                if visit(&key, value.into()).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn commit(&self, batch: &mut dyn Iterator<Item = Write>) -> Result<(), StoreError> {
        self.reopen()?;
        let committed = self.with(|opened| {
            #[cfg(test)]
            if crate::faults::full_disk::is_full(&self.path) {
                return Err(StoreError::Full);
            }
            let mut stored = opened.database.batch().durability(Some(PersistMode::SyncData));
            for (table, key, value) in batch {
                let keyspace = &opened.keyspaces[table.index()];
                match value {
                    Some(value) => stored.insert(keyspace, key, value),
                    None => stored.remove(keyspace, key),
                }
            }
            Ok(stored.commit()?)
        });
        if committed.is_err() {
            // Reopen at once, because readers need the tables even while writes fail. If that
            // fails, the next commit tries again.
            self.close();
            let _ = self.reopen();
        }
        committed
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        self.with(|opened| {
            let names = opened.database.list_keyspace_names();
            let mut names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
            names.sort_unstable();
            let closed = self.closed.load(Ordering::Relaxed);
            let snapshot = opened.database.snapshot();
            Ok(Box::new(FjallSnapshot { tables: self, closed, names, snapshot }) as Box<_>)
        })
    }
}

impl Snapshot for FjallSnapshot<'_> {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn page(
        &self,
        name: &str,
        after: Option<&[u8]>,
        bytes: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.tables.with(|opened| {
            if self.tables.closed.load(Ordering::Relaxed) != self.closed {
                return Err(StoreError::Reopened);
            }
            // It exists, so the options have no effect.
            let keyspace = opened.database.keyspace(name, KeyspaceCreateOptions::default)?;
            let items = match after {
                Some(after) => {
                    self.snapshot.range::<&[u8], _>(&keyspace, (Excluded(after), Unbounded))
                }
                None => self.snapshot.iter(&keyspace),
            };
            let (mut page, mut total) = (Vec::new(), 0);
            for item in items {
                let (key, value) = item.into_inner()?;
                total += key.len() + value.len();
                page.push((Bytes::from(key), Bytes::from(value)));
                if total >= bytes {
                    break;
                }
            }
            Ok(page)
        })
    }
}

/// Whether the creation of tables was interrupted. `fjall` writes its marker while the folder of
/// the tables' content is still empty, so without marker and content nothing was stored.
pub(crate) fn are_unfinished(tables: &Path) -> io::Result<bool> {
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

/// Opens existing tables. If their log cannot be read, sets aside the torn end that a power cut may
/// have left after the last whole batch, and opens them without it.
fn open(path: &Path, names: &[String]) -> Result<Opened, StoreError> {
    // Without them, `fjall` would create empty ones.
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
        // A second one would spin while the first compacts.
        .worker_threads(1)
        .open()?;
    let options = |name: &str| {
        let options = KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let separate = KvSeparationOptions::default().separation_threshold(SEPARATE_BYTES);
        match name == NAMES[Table::JOURNAL.index()] {
            true => options.with_kv_separation(Some(separate)),
            false => options,
        }
    };
    let keyspaces = names.iter().map(|name| database.keyspace(name, || options(name)));
    let keyspaces = keyspaces.collect::<Result<_, _>>()?;
    // `fjall` syncs the content of each keyspace, but not its name.
    sync_folder(&path.join(KEYSPACES))?;
    Ok(Opened { keyspaces, database })
}
