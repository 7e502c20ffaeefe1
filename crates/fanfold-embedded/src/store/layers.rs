//! What was written to one table and is not stored yet, and what was stored last.

use std::sync::Arc;

use bytes::Bytes;

use super::items::Items;

/// From the newest to the oldest: a key's value is the first that is found. `None`: removed.
pub(super) struct Layers {
    /// Written since the last cut.
    active: Items,
    /// Being stored.
    sealed: Arc<Items>,
    /// Stored by the last checkpoint, and kept: what was written lately is read soon.
    clean: Arc<Items>,
}

/// Some items in order, over all layers.
pub(super) struct Page {
    pub items: Vec<(Bytes, Option<Bytes>)>,
    /// There are more: the items are all from the start to here (ascending: not included;
    /// descending: included). `None`: they are all.
    pub end: Option<Bytes>,
}

impl Layers {
    /// Empty; see [`Items::new`].
    pub(super) fn new(prefix_len: Option<usize>) -> Self {
        let (sealed, clean) = (Arc::default(), Arc::default());
        Self { active: Items::new(prefix_len), sealed, clean }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        let found = self.active.get(key).or_else(|| self.sealed.get(key));
        found.or_else(|| self.clean.get(key)).cloned()
    }

    /// What was written for the key since the last cut, if anything was.
    pub(super) fn set(&mut self, key: Bytes, value: Option<Bytes>) -> Option<Option<Bytes>> {
        self.active.insert(key, value)
    }

    pub(super) fn seal(&mut self) {
        let empty = self.active.empty();
        self.sealed = Arc::new(std::mem::replace(&mut self.active, empty));
    }

    pub(super) fn is_sealed(&self) -> bool {
        !self.sealed.is_empty()
    }

    pub(super) fn sealed(&self) -> Arc<Items> {
        self.sealed.clone()
    }

    /// What was sealed is in the tables now. Returns what was kept before: to be dropped by whoever
    /// holds no lock.
    pub(super) fn keep_clean(&mut self) -> Arc<Items> {
        let sealed = std::mem::take(&mut self.sealed);
        std::mem::replace(&mut self.clean, sealed)
    }

    /// At most about `max` items between two keys, from the one end or from the other.
    pub(super) fn page(&self, from: &Bytes, to: &Bytes, descending: bool, max: usize) -> Page {
        let layers = [&self.active, &*self.sealed, &*self.clean];
        let mut items: Vec<(Bytes, Option<Bytes>)> = Vec::new();
        // Of each layer up to `max`; where the first of them ends, the page ends.
        let mut ends: Vec<Bytes> = Vec::new();
        for layer in layers {
            let taken = layer.range(from, to, descending, max);
            if taken.len() == max
                && let Some((last, _)) = taken.last()
            {
                ends.push(last.clone());
            }
            items.extend(taken);
        }
        // Stable: of one key the newest layer's comes first, and stays.
        items.sort_by(|(a, _), (b, _)| if descending { b.cmp(a) } else { a.cmp(b) });
        items.dedup_by(|(later, _), (first, _)| later == first);
        let end = match descending {
            // Behind the key: the key with the lowest byte added.
            false => ends.into_iter().min().map(|end| [&end[..], &[0]].concat().into()),
            true => ends.into_iter().max(),
        };
        if let Some(end) = &end {
            items.retain(|(key, _)| if descending { key >= end } else { key < end });
        }
        Page { items, end }
    }
}
