//! Limits in items and in bytes, and counts that are compared with them.

use std::sync::atomic::{AtomicUsize, Ordering};

/// At most so many items, and so many bytes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// At most so many items.
    pub items: usize,
    /// At most so many bytes together.
    pub bytes: usize,
}

impl Limit {
    /// Twice as much: a provider's own limit, beyond that of admission.
    pub(crate) fn twice(self) -> Self {
        Self { items: self.items.saturating_mul(2), bytes: self.bytes.saturating_mul(2) }
    }
}

/// How much lies in some shards together.
#[derive(Debug, Default)]
pub struct Backlog {
    items: AtomicUsize,
    bytes: AtomicUsize,
}

impl Backlog {
    /// How many items.
    pub fn items(&self) -> usize {
        self.items.load(Ordering::Relaxed)
    }

    /// How many bytes.
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
