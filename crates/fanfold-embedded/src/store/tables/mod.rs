//! The stored tables: maps from keys to values.

pub(crate) mod fjall;
mod memory;

use std::ops::ControlFlow;

use bytes::Bytes;

pub(crate) use memory::{MemoryItems, MemoryTables};

use super::StoreError;

/// The index of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Table(usize);

impl Table {
    /// The engine's own state.
    pub const META: Self = Self(0);
    /// Slots, in the order of the catalogue.
    pub const SLOTS: Self = Self(1);
    /// Commits.
    pub const JOURNAL: Self = Self(2);
    /// Heads, documents, windows.
    pub const STATE: Self = Self(3);
    /// Parked commands, and leases.
    pub const PARKED: Self = Self(4);
    /// Messages that could not be delivered.
    pub const DEAD_LETTERS: Self = Self(5);

    /// The name of [`Table::META`].
    pub(crate) const META_NAME: &'static str = NAMES[0];

    /// Its place among all tables.
    pub fn index(self) -> usize {
        self.0
    }

    /// The table at a place.
    pub(crate) fn at(index: usize) -> Self {
        Self(index)
    }

    /// The length of the key prefix by which items are hashed in memory: a slot's bucket, nothing
    /// in the small meta table. `None`, for all others: up to the first zero byte, which ends the
    /// name of a log or of a view.
    pub(super) fn prefix_bytes(self) -> Option<usize> {
        match self {
            Self::META => Some(0),
            Self::SLOTS => Some(1),
            _ => None,
        }
    }
}

/// The names of the tables that every engine has, by their index. Those of the views follow.
pub(crate) const NAMES: [&str; 6] = ["meta", "slots", "journal", "state", "parked", "dead-letters"];

/// The meta table's key of the position in the command log below which everything is in the tables.
pub(super) const DONE_KEY: &[u8] = b"done";

/// The meta table's key, in a copy of a folder, of the position behind the command log that was copied.
const COPIED_KEY: &[u8] = b"copied";

/// The item that says up to where the command log was copied: it was whole at `next`.
pub(crate) fn copied(next: u64) -> (Bytes, Bytes) {
    (Bytes::from_static(COPIED_KEY), Bytes::copy_from_slice(&next.to_be_bytes()))
}

/// Refuses a command log that ends before what was copied of it. A group that is cut off at the end looks like an append that
/// a crash has interrupted; a copy has none.
pub(crate) fn check_copied(tables: &dyn Tables, next: u64) -> Result<(), StoreError> {
    match number(tables, COPIED_KEY)? {
        copied if next < copied => {
            let message = format!(
                "the command log ends at position {}, and {} was copied: use another copy",
                next.saturating_sub(1),
                copied - 1
            );
            Err(StoreError::damaged(message))
        }
        _ => Ok(()),
    }
}

/// The position from which the command log must be read again.
pub(crate) fn done(tables: &dyn Tables) -> Result<u64, StoreError> {
    number(tables, DONE_KEY)
}

/// A number in the meta table; 0 if it is not there.
fn number(tables: &dyn Tables, key: &[u8]) -> Result<u64, StoreError> {
    let stored = tables.get(Table::META, key)?;
    let number = stored.and_then(|bytes| bytes.as_ref().try_into().ok());
    Ok(number.map_or(0, u64::from_be_bytes))
}

/// One item of a batch. Without a value, the key is removed.
pub(crate) type Write = (Table, Bytes, Option<Bytes>);

/// Stored tables. Readers never see a part of a batch.
pub trait Tables: Send + Sync {
    /// The value under a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the items from `from` (included) to `to` (excluded), in ascending or descending
    /// order, until `visit` breaks.
    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        descending: bool,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Stores a batch atomically and durably. After an error, all of it or nothing is stored, and
    /// later batches can still be stored. The caller stores one batch at a time.
    fn commit(&self, batch: &mut dyn Iterator<Item = Write>) -> Result<(), StoreError>;

    /// The state after the last batch. Later batches do not change it. A snapshot holds the space of
    /// what they replace until it is dropped.
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError>;
}

/// All tables as of one moment, also those that this process has not opened.
pub trait Snapshot: Send + Sync {
    /// The names of the tables, in their order.
    fn names(&self) -> &[String];

    /// The next items behind `after` of the table with this name, in ascending order: as many as have
    /// about `bytes` bytes, but at least one. Empty: there are no more.
    fn page(
        &self,
        name: &str,
        after: Option<&[u8]>,
        bytes: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
}
