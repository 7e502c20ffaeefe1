//! Limits in items and in bytes, and counts that are compared with them.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit in items and in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The largest number of items.
    pub items: usize,
    /// The largest number of bytes of all items together.
    pub bytes: usize,
}

impl Limit {
    /// Twice this limit. The streams throttle there, above the limit of the admission.
    pub(crate) fn twice(self) -> Self {
        Self { items: self.items.saturating_mul(2), bytes: self.bytes.saturating_mul(2) }
    }
}

/// The items and bytes in some shards together.
#[derive(Debug, Default)]
pub struct Backlog {
    items: AtomicUsize,
    bytes: AtomicUsize,
}

impl Backlog {
    /// The number of items.
    pub fn items(&self) -> usize {
        self.items.load(Ordering::Relaxed)
    }

    /// The number of bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether items or bytes are above the limit.
    pub fn exceeds(&self, limit: Limit) -> bool {
        self.items() > limit.items || self.bytes() > limit.bytes
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.items.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, bytes: usize) {
        self.items.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
