//! The store of an engine: a folder with a command log and tables.
//!
//! - The [`command_log`] has every accepted command, in one order, synced before it is acknowledged
//!   or visible. A command waits for no other disk access.
//! - The [`tables`] have the results of the stages, up to the last [`Store::checkpoint`].
//!
//! Later results are in memory, in layers that all readers see. A checkpoint cuts the layers of all
//! tables off at one moment, and stores them in one atomic batch, together with the position in the
//! command log below which everything was processed at that moment. So all effects have one order,
//! a crash leaves a prefix of it, and the engine computes the rest again from the command log.

pub(crate) mod command_log;
mod error;
pub(crate) mod folder;
mod items;
mod layers;
pub(crate) mod tables;
pub(crate) mod torn_log;

use fanfold::host::knob::Knob;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use fanfold_pipeline::ports::{Env, Unavailable};
use futures::future::{Either, select};
use tokio::sync::Notify;

pub use self::error::StoreError;
pub use self::folder::OpenError;
pub(crate) use self::tables::{Snapshot, Table, Tables};

use self::command_log::CommandLog;
use self::folder::Folder;
use self::layers::Layers;
use crate::faults;
use crate::interleave::{self, Between};
use crate::rising::Rising;
use crate::striped::lock;

/// Unsaved bytes beyond which a checkpoint is due: at 100,000 commands per second some tenths of a
/// second of work, and little to do again after a crash.
pub(crate) const CHECKPOINT_BYTES: Knob = Knob::new(8 * 1024 * 1024, 10_000);
/// Unsaved bytes beyond which writers wait for a checkpoint: what a stalled disk may cost in
/// memory.
const UNSAVED_BYTES_MAX: Knob = Knob::new(24 * 1024 * 1024, 40_000);
/// How long a write waits for a checkpoint, in milliseconds: less than an invocation has.
const WAIT_MS_MAX: u64 = 20_000;
/// Bytes that an unsaved item takes beside its key and value: an estimate.
const ITEM_OVERHEAD_BYTES: usize = 192;
/// Items that a scan takes from memory at a time.
const SCAN_ITEMS: Knob = Knob::new(256, 1);

/// The tables, with the writes that are not stored yet.
pub struct Store {
    folder: Folder,
    tables: Box<dyn Tables>,
    /// The names of the tables, by their index.
    names: Vec<String>,
    env: Arc<dyn Env>,
    driver: Driver,
    layers: Vec<Mutex<Layers>>,
    /// Every write holds it for reading, so that a checkpoint never cuts inside of a write.
    cut: RwLock<()>,
    /// Held during a checkpoint.
    checkpointing: Mutex<()>,
    unsaved_bytes: AtomicUsize,
    room: Notify,
    /// The number of checkpoints begun. A write now will be in the next one.
    begun: AtomicUsize,
    /// The number of checkpoints ended.
    saved: Rising,
    /// Notifies the checkpoint loop that a caller waits for a checkpoint.
    pub(crate) wanted: Notify,
}

/// Where the work runs that callers share: syncs of the command log, and checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// In the loops of an engine, for which callers wait.
    Loops,
    /// In the call that needs it, for ports without an engine.
    Callers,
}

/// Writes that are in the same checkpoint.
pub struct Writes<'a> {
    store: &'a Store,
    bytes: usize,
}

impl Writes<'_> {
    /// Stores a value.
    pub fn put(&mut self, table: Table, key: Bytes, value: Bytes) {
        self.set(table, key, Some(value));
    }

    /// Removes a value.
    pub fn remove(&mut self, table: Table, key: Bytes) {
        self.set(table, key, None);
    }

    fn set(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        let (key_bytes, value_bytes) = (key.len(), value.as_ref().map_or(0, Bytes::len));
        self.bytes += match lock(&self.store.layers[table.index()]).set(key, value) {
            None => ITEM_OVERHEAD_BYTES + key_bytes + value_bytes,
            Some(before) => value_bytes.saturating_sub(before.map_or(0, |value| value.len())),
        };
    }
}

impl Store {
    /// Opens the store in a folder, or creates it. `views` are the names of the views' tables.
    pub fn open(
        folder: Folder,
        views: &[String],
        env: Arc<dyn Env>,
        driver: Driver,
    ) -> Result<Self, OpenError> {
        let names = tables::NAMES.iter().map(|&name| name.to_owned()).chain(views.iter().cloned());
        let names: Vec<String> = names.collect();
        let tables = match folder.is_unfinished() {
            true => Self::make(&folder, &names),
            false => folder.disk().open_tables(&folder.tables(), &names, false),
        };
        let tables = tables.map_err(|error| folder.explain(error))?;
        let layers = (0..names.len())
            .map(|index| Mutex::new(Layers::new(Table::at(index).prefix_bytes())))
            .collect();
        Ok(Self {
            folder,
            tables,
            names,
            env,
            driver,
            layers,
            cut: RwLock::default(),
            checkpointing: Mutex::default(),
            unsaved_bytes: AtomicUsize::new(0),
            room: Notify::new(),
            begun: AtomicUsize::new(0),
            saved: Rising::default(),
            wanted: Notify::new(),
        })
    }

    /// Creates the content of a new folder. If that is interrupted, the next start repeats it.
    fn make(folder: &Folder, names: &[String]) -> Result<Box<dyn Tables>, StoreError> {
        folder.begin()?;
        CommandLog::make(&**folder.disk(), &folder.commands())?;
        let tables = folder.disk().open_tables(&folder.tables(), names, true)?;
        folder.finish()?;
        Ok(tables)
    }

    /// The folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Where shared work runs.
    pub(crate) fn driver(&self) -> Driver {
        self.driver
    }

    /// The table of a view.
    pub fn view(&self, name: &str) -> Option<Table> {
        let views = self.names.iter().enumerate().skip(tables::NAMES.len());
        views.into_iter().find(|(_, found)| *found == name).map(|(index, _)| Table::at(index))
    }

    /// The position from which the command log must be read again.
    pub fn done(&self) -> Result<u64, StoreError> {
        // It is never in the layers.
        tables::done(&*self.tables)
    }

    /// Refuses the folder if it is a copy, and the command log has lost its end since.
    pub fn check_copied(&self, next: u64) -> Result<(), StoreError> {
        tables::check_copied(&*self.tables, next)
    }

    /// The value under a key.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let unsaved = lock(&self.layers[table.index()]).get(key);
        match unsaved {
            Some(value) => Ok(value),
            None => {
                interleave::reached(Between::Steps);
                self.tables.get(table, key)
            }
        }
    }

    /// Makes several writes, which are then in the same checkpoint.
    pub fn write(&self, write: impl FnOnce(&mut Writes<'_>)) {
        let cut = self.cut.read().unwrap_or_else(PoisonError::into_inner);
        let mut writes = Writes { store: self, bytes: 0 };
        write(&mut writes);
        self.unsaved_bytes.fetch_add(writes.bytes, Ordering::Relaxed);
        drop(cut);
    }

    /// Stores a value.
    pub fn put(&self, table: Table, key: Bytes, value: Bytes) {
        self.write(|writes| writes.put(table, key, value));
    }

    /// Removes a value.
    pub fn remove(&self, table: Table, key: Bytes) {
        self.write(|writes| writes.remove(table, key));
    }

    /// Visits the items from `from` (included) to `to` (excluded), in ascending or descending
    /// order, until `visit` breaks.
    pub fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        descending: bool,
        mut visit: impl FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let (mut from, mut to) = (Bytes::copy_from_slice(from), Bytes::copy_from_slice(to));
        while from < to {
            let page =
                lock(&self.layers[table.index()]).page(&from, &to, descending, SCAN_ITEMS.get());
            interleave::reached(Between::Steps);
            // If the page ends before the range, read the tables only up to its end, too.
            let (low, high) = match (&page.end, descending) {
                (None, _) => (from.clone(), to.clone()),
                (Some(end), false) => (from.clone(), end.clone()),
                (Some(end), true) => (end.clone(), to.clone()),
            };
            let visited = self.merge(table, (&low, &high), descending, page.items, &mut visit)?;
            if visited.is_break() || page.end.is_none() {
                return Ok(());
            }
            (from, to) = if descending { (from, low) } else { (high, to) };
        }
        Ok(())
    }

    /// Visits the stored items between two keys. Items in memory replace those of the same key.
    fn merge(
        &self,
        table: Table,
        (from, to): (&[u8], &[u8]),
        descending: bool,
        memory: Vec<(Bytes, Option<Bytes>)>,
        visit: &mut impl FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut memory = memory.into_iter().peekable();
        let is_before = |a: &[u8], b: &[u8]| if descending { a > b } else { a < b };
        let mut visited = ControlFlow::Continue(());
        self.tables.range(table, from, to, descending, &mut |key, value| {
            while let Some((found, value)) = memory.next_if(|(found, _)| is_before(found, key)) {
                if let Some(value) = value {
                    visited = visit(&found, value);
                    visited?;
                }
            }
            visited = match memory.next_if(|(found, _)| found[..] == *key) {
                Some((_, None)) => ControlFlow::Continue(()),
                Some((_, Some(value))) => visit(key, value),
                None => visit(key, value),
            };
            visited
        })?;
        if visited.is_continue() {
            visited = memory.try_for_each(|(key, value)| match value {
                Some(value) => visit(&key, value),
                None => ControlFlow::Continue(()),
            });
        }
        Ok(visited)
    }

    /// The number of items in a table.
    pub fn count(&self, table: Table) -> Result<usize, StoreError> {
        let mut count = 0;
        self.scan(table, &[], &[0xff; 256], false, |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// Bytes that are only in memory.
    pub fn unsaved_bytes(&self) -> usize {
        self.unsaved_bytes.load(Ordering::Relaxed)
    }

    /// Waits until there is room for more writes.
    pub async fn room(&self) -> Result<(), Unavailable> {
        if self.unsaved_bytes() < UNSAVED_BYTES_MAX.get() {
            return Ok(());
        }
        if self.driver == Driver::Callers {
            return self.checkpoint_now();
        }
        let waited = pin!(async {
            loop {
                let mut room = pin!(self.room.notified());
                room.as_mut().enable();
                if self.unsaved_bytes() < UNSAVED_BYTES_MAX.get() {
                    return;
                }
                self.wanted.notify_one();
                room.await;
            }
        });
        match select(waited, self.env.sleep(WAIT_MS_MAX)).await {
            Either::Left(((), _)) => Ok(()),
            Either::Right(((), _)) => Err(Unavailable::Throttled { hop: "store" }),
        }
    }

    /// Waits until everything written so far is on disk.
    pub async fn durable(&self) -> Result<(), Unavailable> {
        if self.driver == Driver::Callers {
            return self.checkpoint_now();
        }
        let next = {
            let _between = self.cut.read().unwrap_or_else(PoisonError::into_inner);
            self.begun.load(Ordering::Relaxed) + 1
        };
        self.wanted.notify_one();
        match select(pin!(self.saved.reaches(next)), self.env.sleep(WAIT_MS_MAX)).await {
            Either::Left(((), _)) => Ok(()),
            Either::Right(((), _)) => Err(Unavailable::TimedOut { hop: "store" }),
        }
    }

    fn checkpoint_now(&self) -> Result<(), Unavailable> {
        let made = self.done().and_then(|done| self.checkpoint(done));
        made.map_err(|error| error.unavailable("store"))
    }

    /// Stores everything written so far, and `done`, below which the command log need not be read
    /// again. After an error everything is still in memory, and the next checkpoint tries again.
    pub fn checkpoint(&self, done: u64) -> Result<(), StoreError> {
        self.folder.check()?;
        let _alone = lock(&self.checkpointing);
        // First store the layers that the last checkpoint could not store, because they are older.
        if self.layers.iter().any(|layers| lock(layers).is_sealed()) {
            self.save(None)?;
        }
        let number = {
            let _no_writes = self.cut.write().unwrap_or_else(PoisonError::into_inner);
            self.layers.iter().for_each(|layers| lock(layers).seal());
            self.unsaved_bytes.store(0, Ordering::Relaxed);
            self.begun.fetch_add(1, Ordering::Relaxed) + 1
        };
        self.room.notify_waiters();
        self.save(Some(done))?;
        self.saved.raise(number);
        Ok(())
    }

    /// Whether a checkpoint has something to store.
    pub fn is_unsaved(&self) -> bool {
        self.unsaved_bytes() > 0 || self.layers.iter().any(|layers| lock(layers).is_sealed())
    }

    fn save(&self, done: Option<u64>) -> Result<(), StoreError> {
        faults::reached("checkpoint.cut");
        interleave::reached(Between::Checkpoint);
        let sealed: Vec<_> = self.layers.iter().map(|layers| lock(layers).sealed()).collect();
        let items = sealed.iter().enumerate().flat_map(|(index, items)| {
            items.iter().map(move |(key, value)| (Table::at(index), key.clone(), value.clone()))
        });
        let done = done.map(|done| Bytes::copy_from_slice(&done.to_be_bytes()));
        let done = done.map(|done| (Table::META, Bytes::from_static(tables::DONE_KEY), Some(done)));
        self.tables.commit(&mut items.chain(done))?;
        faults::reached("checkpoint.saved");
        interleave::reached(Between::Checkpoint);
        let before: Vec<_> = self.layers.iter().map(|layers| lock(layers).keep_clean()).collect();
        drop(before);
        Ok(())
    }

    /// The tables as of the last checkpoint, and the position from which the command log must be read
    /// after it.
    pub(crate) fn snapshot(&self) -> Result<(u64, Box<dyn Snapshot + '_>), StoreError> {
        let _alone = lock(&self.checkpointing);
        Ok((self.done()?, self.tables.snapshot()?))
    }

    /// Stores and syncs a value at once, for keys that are never in the layers.
    pub(crate) fn put_now(
        &self,
        table: Table,
        key: &[u8],
        value: Option<Bytes>,
    ) -> Result<(), StoreError> {
        self.folder.check()?;
        let _alone = lock(&self.checkpointing);
        let key = Bytes::copy_from_slice(key);
        self.tables.commit(&mut std::iter::once((table, key, value)))
    }
}
