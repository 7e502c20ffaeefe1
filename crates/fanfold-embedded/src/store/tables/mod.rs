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

    /// Its place among all tables.
    pub fn index(self) -> usize {
        self.0
    }

    pub(super) fn at(index: usize) -> Self {
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
pub(super) const NAMES: [&str; 6] = ["meta", "slots", "journal", "state", "parked", "dead-letters"];

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
}
