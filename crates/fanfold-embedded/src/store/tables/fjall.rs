//! The tables on disk: one `fjall` database.

use std::fs;
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

use super::{NAMES, Table, Tables, Write};
use crate::disk::sync_folder;
use crate::store::{StoreError, torn_log};

/// Bytes of a table in memory before `fjall` writes it out; there are as many as tables.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of blocks read from disk that are kept in memory.
const CACHE_BYTES: u64 = 24 * 1024 * 1024;
/// Bytes of `fjall`'s own log: the least it takes. It is read whole at every start.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Commits from this size on are stored beside the keys, and never moved again: they are immutable, and would otherwise
/// be rewritten whenever keys are merged.
const SEPARATE_BYTES: u32 = 128;

/// The file that `fjall` makes when it has made everything else.
const MARKER: &str = "version";
/// The folder with what is in the tables.
const KEYSPACES: &str = "keyspaces";

struct Opened {
    keyspaces: Vec<Keyspace>,
    database: Database,
}

pub(crate) struct FjallTables {
    path: PathBuf,
    names: Vec<String>,
    /// `None` if it could not be opened again: `fjall` takes no more writes after one that failed.
    opened: RwLock<Option<Opened>>,
}

impl FjallTables {
    pub(crate) fn open(path: &Path, names: &[String], is_new: bool) -> Result<Self, StoreError> {
        let opened = if is_new { open_whole(path, names)? } else { open(path, names)? };
        Ok(Self { path: path.to_owned(), names: names.to_vec(), opened: RwLock::new(Some(opened)) })
    }

    fn with<T>(
        &self,
        call: impl FnOnce(&Opened) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        call(opened.as_ref().ok_or(StoreError::Closed)?)
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
            // Readers need the tables also while nothing can be written. If they cannot be opened, the next commit tries
            // again.
            self.close();
            let _ = self.reopen();
        }
        committed
    }
}

/// Whether the making of tables broke off: `fjall` writes its marker when the folder for what is in the tables is there,
/// and still empty.
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

/// Opens tables that were made before. If their log cannot be read, what a power cut can have left behind its last whole
/// batch is set aside, and they are opened without it.
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
        match name == NAMES[Table::JOURNAL.index()] {
            true => options.with_kv_separation(Some(separate)),
            false => options,
        }
    };
    let keyspaces = names.iter().map(|name| database.keyspace(name, || options(name)));
    let keyspaces = keyspaces.collect::<Result<_, _>>()?;
    // `fjall` syncs what is in each keyspace, but not that they are there.
    sync_folder(&path.join(KEYSPACES))?;
    Ok(Opened { keyspaces, database })
}
