//! The writes to one table that no checkpoint has stored yet, and those that the last one stored.

use std::sync::Arc;

use bytes::Bytes;

use super::items::Items;

/// Layers of writes, from the newest to the oldest. The newest layer that has a key determines its
/// value. A value of `None` means that the key was removed.
pub(super) struct Layers {
    /// The writes since the last cut.
    active: Items,
    /// The writes that a checkpoint is storing.
    sealed: Arc<Items>,
    /// The writes that the last checkpoint stored: a cache, because recent writes are read soon.
    clean: Arc<Items>,
}

/// Items of a range in order, merged from all layers.
pub(super) struct Page {
    pub items: Vec<(Bytes, Option<Bytes>)>,
    /// Where the page ends if the range has more items. Ascending, the page has the items below
    /// this key; descending, those at and above it. `None`: the page has all items of the range.
    pub end: Option<Bytes>,
}

impl Layers {
    /// Empty layers; see [`Items::new`].
    pub(super) fn new(prefix_len: Option<usize>) -> Self {
        let (sealed, clean) = (Arc::default(), Arc::default());
        Self { active: Items::new(prefix_len), sealed, clean }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        let found = self.active.get(key).or_else(|| self.sealed.get(key));
        found.or_else(|| self.clean.get(key)).cloned()
    }

    /// Writes a value. Returns what was written for the key since the last cut, if anything.
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

    /// Keeps the sealed items, which are stored now, as the cache. Returns the previous cache, so
    /// that the caller can drop it after releasing its lock.
    pub(super) fn keep_clean(&mut self) -> Arc<Items> {
        let sealed = std::mem::take(&mut self.sealed);
        std::mem::replace(&mut self.clean, sealed)
    }

    /// A page of the items from `from` (included) to `to` (excluded). Takes at most `max` items
    /// from each layer.
    pub(super) fn page(&self, from: &Bytes, to: &Bytes, descending: bool, max: usize) -> Page {
        let layers = [&self.active, &*self.sealed, &*self.clean];
        let mut items: Vec<(Bytes, Option<Bytes>)> = Vec::new();
        // The page ends where the first layer reaches `max` items: its further ones are unknown.
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
        // The sort is stable, so of equal keys the newest layer's item comes first, and is kept.
        items.sort_by(|(a, _), (b, _)| if descending { b.cmp(a) } else { a.cmp(b) });
        items.dedup_by(|(later, _), (first, _)| later == first);
        let end = match descending {
            // The next key in order: this key with a zero byte appended.
            false => ends.into_iter().min().map(|end| [&end[..], &[0]].concat().into()),
            true => ends.into_iter().max(),
        };
        if let Some(end) = &end {
            items.retain(|(key, _)| if descending { key >= end } else { key < end });
        }
        Page { items, end }
    }
}
