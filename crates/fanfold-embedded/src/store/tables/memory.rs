use fanfold::host::knob::Knob;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::{Snapshot, Table, Tables, Write};
use crate::disk::MemoryDisk;
use crate::store::StoreError;

type Items = BTreeMap<Bytes, Bytes>;

/// All tables of a folder in memory, by name. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryItems(Arc<RwLock<Vec<(String, Items)>>>);

/// Open tables in memory.
pub(crate) struct MemoryTables {
    /// Its faults also apply to the tables.
    disk: MemoryDisk,
    by_name: MemoryItems,
    /// The index of each opened table in `by_name`.
    places: Vec<usize>,
}

/// Items that a range takes at a time, so that no lock is held while they are visited.
const PAGE_ITEMS: Knob = Knob::new(64, 1);

impl MemoryItems {
    /// An independent copy.
    pub(crate) fn copied(&self) -> Self {
        Self(Arc::new(RwLock::new(self.read().clone())))
    }

    /// The bytes of all keys and values.
    pub(crate) fn bytes(&self) -> u64 {
        let tables = self.read();
        let items = tables.iter().flat_map(|(_, items)| items);
        items.map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<(String, Items)>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<(String, Items)>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryTables {
    /// Opens the tables of these names, and creates missing ones.
    pub(crate) fn open(disk: MemoryDisk, by_name: MemoryItems, names: &[String]) -> Self {
        let mut tables = by_name.write();
        let place = |name: &String| match tables.iter().position(|(found, _)| found == name) {
            Some(place) => place,
            None => {
                tables.push((name.clone(), Items::new()));
                tables.len() - 1
            }
        };
        let places = names.iter().map(place).collect();
        drop(tables);
        Self { disk, by_name, places }
    }

    fn page(&self, table: Table, from: &[u8], to: &[u8], descending: bool) -> Vec<(Bytes, Bytes)> {
        let tables = self.by_name.read();
        let range =
            tables[self.places[table.index()]].1.range::<[u8], _>((Included(from), Excluded(to)));
        let owned = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        match descending {
            true => range.rev().take(PAGE_ITEMS.get()).map(owned).collect(),
            false => range.take(PAGE_ITEMS.get()).map(owned).collect(),
        }
    }
}

impl Tables for MemoryTables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.by_name.read()[self.places[table.index()]].1.get(key).cloned())
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        descending: bool,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let (mut from, mut to) = (from.to_vec(), to.to_vec());
        while from < to {
            let page = self.page(table, &from, &to, descending);
            let is_last = page.len() < PAGE_ITEMS.get();
            for (key, value) in page {
                if visit(&key, value).is_break() {
                    return Ok(());
                }
                match descending {
                    true => to = key.to_vec(),
                    // The next key in order: this key with a zero byte appended.
                    false => from = [&key[..], &[0]].concat(),
                }
            }
            if is_last {
                return Ok(());
            }
        }
        Ok(())
    }

    fn commit(&self, batch: &mut dyn Iterator<Item = Write>) -> Result<(), StoreError> {
        let committed = self.disk.commit(|| {
            let mut tables = self.by_name.write();
            for (table, key, value) in batch {
                let items = &mut tables[self.places[table.index()]].1;
                match value {
                    Some(value) => items.insert(key, value),
                    None => items.remove(&key),
                };
            }
        });
        Ok(committed?)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        let mut tables = self.by_name.read().clone();
        tables.sort_by(|(one, _), (other, _)| one.cmp(other));
        let (names, items) = tables.into_iter().unzip();
        Ok(Box::new(MemorySnapshot { names, items }))
    }
}

/// A copy of the tables: it shares their keys and values.
struct MemorySnapshot {
    names: Vec<String>,
    items: Vec<Items>,
}

impl Snapshot for MemorySnapshot {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn page(
        &self,
        name: &str,
        after: Option<&[u8]>,
        bytes: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let place = self.names.iter().position(|found| found == name);
        let Some(items) = place.map(|place| &self.items[place]) else { return Ok(Vec::new()) };
        let from = after.map_or(Unbounded, Excluded);
        let (mut page, mut total) = (Vec::new(), 0);
        for (key, value) in items.range::<[u8], _>((from, Unbounded)) {
            total += key.len() + value.len();
            page.push((key.clone(), value.clone()));
            if total >= bytes {
                break;
            }
        }
        Ok(page)
    }
}
