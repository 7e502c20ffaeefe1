//! The tables: maps from keys to values, which only checkpoints write.

pub(crate) mod fjall;
mod memory;

use std::ops::ControlFlow;

use bytes::Bytes;

pub(crate) use memory::{MemoryItems, MemoryTables};

use super::StoreError;

/// Which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Table(usize);

impl Table {
    /// What the engine knows of itself.
    pub const META: Self = Self(0);
    /// Slots, in the order of the catalogue.
    pub const SLOTS: Self = Self(1);
    /// Commits.
    pub const JOURNAL: Self = Self(2);
    /// Heads, documents, windows.
    pub const STATE: Self = Self(3);
    /// Parked commands, and attempt markers.
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

    /// The bytes of a key by which its items are hashed in memory: a slot's bucket, none in the small meta table.
    /// `None`, in all others: up to the first zero byte, which ends the name of a log or of a view.
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

/// One item of a batch; without a value it is removed.
pub(crate) type Write = (Table, Bytes, Option<Bytes>);

/// Tables that are stored. Readers never see a part of a batch.
pub trait Tables: Send + Sync {
    /// The value under a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the items from `from` (included) to `to` (not included), in their order or from the last to the first,
    /// until `visit` breaks.
    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        descending: bool,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Stores all of a batch, or nothing, durably. After an error either may be the case, and a later batch can still be
    /// stored. One batch at a time.
    fn commit(&self, batch: &mut dyn Iterator<Item = Write>) -> Result<(), StoreError>;
}
