//! Where a durable engine keeps its data: a folder with two things in it.
//!
//! - The [`command_log`]: everything that was accepted, in one order, synced before anybody is told
//!   or sees anything of it. It is the only thing that a command waits for.
//! - The tables: what the stages have made of that, up to the last [`Store::checkpoint`].
//!
//! In between, writes live in memory, where all readers see them. A checkpoint cuts them
//! off at one moment, for all tables, and stores them in one atomic batch, together with the place
//! in the command log up to which everything had then been done. So there is one order of effects, a
//! crash leaves a prefix of it, and what is lost is made again from the command log.

pub mod command_log;
pub mod folder;
mod items;
mod layers;
mod tables;
mod torn_log;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use fanfold_pipeline::ports::Unavailable;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

pub use self::folder::OpenError;
pub use self::tables::{Space, StoreError};

use self::command_log::CommandLog;
use self::folder::Folder;
use self::layers::Layers;
use self::tables::Tables;
use crate::faults;
use crate::striped::lock;

/// Unsaved bytes beyond which a checkpoint is due: at 100,000 commands per second some tenths of a
/// second of work, and little to make again after a crash.
pub const CHECKPOINT_BYTES: usize = 8 * 1024 * 1024;
/// Unsaved bytes beyond which writers wait for a checkpoint: what a stalled disk may cost in memory.
const UNSAVED_BYTES_MAX: usize = 24 * 1024 * 1024;
/// How long a write waits for a checkpoint, in milliseconds, before it is given up: less than a
/// stage's invocation has.
const WAIT_MS_MAX: u64 = 20_000;
/// Bytes that an unsaved item takes beside its key and value: an estimate.
const ITEM_OVERHEAD_BYTES: usize = 192;
/// Items that a scan takes from memory at a time.
const SCAN_ITEMS: usize = 256;

/// The meta table's key of the place in the command log below which everything is in the tables.
const DONE_KEY: &[u8] = b"done";

/// The tables, with what is not stored yet.
pub struct Store {
    folder: Folder,
    tables: Tables,
    layers: Vec<Mutex<Layers>>,
    /// Held by whoever writes, so that a checkpoint cuts between two calls and not inside of one.
    cut: RwLock<()>,
    /// One checkpoint at a time.
    checkpointing: Mutex<()>,
    unsaved_bytes: AtomicUsize,
    room: Notify,
    /// Checkpoints begun; what is written now is in the next one.
    begun: AtomicUsize,
    /// Checkpoints ended.
    saved: watch::Sender<usize>,
    /// For whoever makes checkpoints: somebody waits for one.
    pub(crate) wanted: Notify,
}

/// Writes of one call: together in one checkpoint.
pub struct Writes<'a> {
    store: &'a Store,
    bytes: usize,
}

impl Writes<'_> {
    /// Stores a value.
    pub fn put(&mut self, space: Space, key: Bytes, value: Bytes) {
        self.set(space, key, Some(value));
    }

    /// Removes one.
    pub fn remove(&mut self, space: Space, key: Bytes) {
        self.set(space, key, None);
    }

    fn set(&mut self, space: Space, key: Bytes, value: Option<Bytes>) {
        let (key_bytes, value_bytes) = (key.len(), value.as_ref().map_or(0, Bytes::len));
        self.bytes += match lock(&self.store.layers[space.index()]).set(key, value) {
            None => ITEM_OVERHEAD_BYTES + key_bytes + value_bytes,
            Some(before) => value_bytes.saturating_sub(before.map_or(0, |value| value.len())),
        };
    }
}

impl Store {
    /// Opens a folder, or makes one. `views` are the names of the views' tables.
    pub fn open(folder: Folder, views: &[String]) -> Result<Self, OpenError> {
        let tables = match folder.is_unfinished() {
            true => Self::make(&folder, views),
            false => Tables::open(&folder, views),
        };
        let tables = tables.map_err(|error| folder.explain(error))?;
        let layers =
            (0..tables.len()).map(|index| Mutex::new(Layers::new(Space::prefix_len(index))));
        let layers = layers.collect();
        Ok(Self {
            folder,
            tables,
            layers,
            cut: RwLock::default(),
            checkpointing: Mutex::default(),
            unsaved_bytes: AtomicUsize::new(0),
            room: Notify::new(),
            begun: AtomicUsize::new(0),
            saved: watch::Sender::new(0),
            wanted: Notify::new(),
        })
    }

    /// Makes everything that belongs into a new folder: all of it is there, or the next start makes
    /// it again.
    fn make(folder: &Folder, views: &[String]) -> Result<Tables, StoreError> {
        folder.begin()?;
        CommandLog::make(&folder.commands())?;
        let tables = Tables::open(folder, views)?;
        folder.finish()?;
        Ok(tables)
    }

    /// The folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The table of a view.
    pub fn view(&self, name: &str) -> Option<Space> {
        self.tables.view(name)
    }

    /// The place in the command log from which it must be read again.
    pub fn done(&self) -> Result<u64, StoreError> {
        let stored = self.get(Space::META, DONE_KEY)?;
        let number = stored.and_then(|bytes| bytes.as_ref().try_into().ok());
        Ok(number.map_or(0, u64::from_be_bytes))
    }

    /// The value under a key.
    pub fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let unsaved = lock(&self.layers[space.index()]).get(key);
        match unsaved {
            Some(value) => Ok(value),
            None => self.tables.get(space, key),
        }
    }

    /// Writes something, in one piece.
    pub fn write(&self, write: impl FnOnce(&mut Writes<'_>)) {
        let cut = self.cut.read().unwrap_or_else(PoisonError::into_inner);
        let mut writes = Writes { store: self, bytes: 0 };
        write(&mut writes);
        self.unsaved_bytes.fetch_add(writes.bytes, Ordering::Relaxed);
        drop(cut);
    }

    /// Stores a value.
    pub fn put(&self, space: Space, key: Bytes, value: Bytes) {
        self.write(|writes| writes.put(space, key, value));
    }

    /// Removes one.
    pub fn remove(&self, space: Space, key: Bytes) {
        self.write(|writes| writes.remove(space, key));
    }

    /// Visits the items between two keys, `from` included and `to` not, in their order or from the
    /// last to the first, until it is told to stop.
    pub fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        descending: bool,
        mut visit: impl FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let (mut from, mut to) = (Bytes::copy_from_slice(from), Bytes::copy_from_slice(to));
        while from < to {
            let page = lock(&self.layers[space.index()]).page(&from, &to, descending, SCAN_ITEMS);
            // Where memory was cut off, the tables are, too.
            let (low, high) = match (&page.end, descending) {
                (None, _) => (from.clone(), to.clone()),
                (Some(end), false) => (from.clone(), end.clone()),
                (Some(end), true) => (end.clone(), to.clone()),
            };
            if self.tables.merge(space, &low, &high, descending, page.items, &mut visit)?.is_break()
            {
                return Ok(());
            }
            if page.end.is_none() {
                return Ok(());
            }
            (from, to) = if descending { (from, low) } else { (high, to) };
        }
        Ok(())
    }

    /// The number of items in a table.
    pub fn count(&self, space: Space) -> Result<usize, StoreError> {
        let mut count = 0;
        self.scan(space, &[], &[0xff; 256], false, |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// Bytes that are only in memory.
    pub fn unsaved_bytes(&self) -> usize {
        self.unsaved_bytes.load(Ordering::Relaxed)
    }

    /// Returns once there is room for more writes.
    pub async fn room(&self) -> Result<(), Unavailable> {
        if self.unsaved_bytes() < UNSAVED_BYTES_MAX {
            return Ok(());
        }
        let waited = async {
            loop {
                let mut room = std::pin::pin!(self.room.notified());
                room.as_mut().enable();
                if self.unsaved_bytes() < UNSAVED_BYTES_MAX {
                    return;
                }
                self.wanted.notify_one();
                room.await;
            }
        };
        let waited = timeout(Duration::from_millis(WAIT_MS_MAX), waited).await;
        waited.map_err(|_| Unavailable::Throttled { hop: "store" })
    }

    /// Returns once everything written so far is on disk.
    pub async fn durable(&self) -> Result<(), Unavailable> {
        let next = {
            let _between = self.cut.read().unwrap_or_else(PoisonError::into_inner);
            self.begun.load(Ordering::Relaxed) + 1
        };
        let mut saved = self.saved.subscribe();
        self.wanted.notify_one();
        let waited = saved.wait_for(|saved| *saved >= next);
        match timeout(Duration::from_millis(WAIT_MS_MAX), waited).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Unavailable::TimedOut { hop: "store" }),
        }
    }

    /// Stores everything written so far, and that all commands below `done` need not be read again.
    /// After an error everything is still in memory, and the next checkpoint tries again.
    pub fn checkpoint(&self, done: u64) -> Result<(), StoreError> {
        self.folder.check()?;
        let _alone = lock(&self.checkpointing);
        // What could not be stored the last time comes first: it is older.
        if self.layers.iter().any(|layers| lock(layers).is_sealed()) {
            self.save(None)?;
        }
        let number = {
            let _nobody_writes = self.cut.write().unwrap_or_else(PoisonError::into_inner);
            self.layers.iter().for_each(|layers| lock(layers).seal());
            self.unsaved_bytes.store(0, Ordering::Relaxed);
            self.begun.fetch_add(1, Ordering::Relaxed) + 1
        };
        self.room.notify_waiters();
        self.save(Some(done))?;
        self.saved.send_replace(number);
        Ok(())
    }

    /// Whether a checkpoint has something to store.
    pub fn is_unsaved(&self) -> bool {
        self.unsaved_bytes() > 0 || self.layers.iter().any(|layers| lock(layers).is_sealed())
    }

    fn save(&self, done: Option<u64>) -> Result<(), StoreError> {
        faults::reached("checkpoint.cut");
        let sealed: Vec<_> = self.layers.iter().map(|layers| lock(layers).sealed()).collect();
        let done = done.map(|done| (DONE_KEY, Bytes::copy_from_slice(&done.to_be_bytes())));
        self.tables.commit(&sealed, done)?;
        faults::reached("checkpoint.saved");
        faults::synced_tables(self.folder.path());
        let before: Vec<_> = self.layers.iter().map(|layers| lock(layers).keep_clean()).collect();
        drop(before);
        Ok(())
    }

    /// Writes at once, and syncs: for what is known before anything runs.
    pub(crate) fn put_now(
        &self,
        space: Space,
        key: &[u8],
        value: Option<Bytes>,
    ) -> Result<(), StoreError> {
        self.folder.check()?;
        let _alone = lock(&self.checkpointing);
        self.tables.put_now(space, key, value)?;
        faults::synced_tables(self.folder.path());
        Ok(())
    }
}
