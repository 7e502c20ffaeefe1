//! The current numbers of a load, for the progress display, and the flag that stops it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by the threads of a run. The numbers count from its beginning.
#[derive(Default)]
pub(crate) struct Live {
    accepted: AtomicU64,
    errors: AtomicU64,
    late_us: AtomicU64,
    view_us: AtomicU64,
    under_way: AtomicU64,
    stopped: AtomicBool,
}

/// A snapshot of the numbers.
pub(crate) struct Numbers {
    pub(crate) accepted: u64,
    /// Failed requests.
    pub(crate) errors: u64,
    /// How late the last request was sent, in ms.
    pub(crate) late_ms: f64,
    /// How long the last sample of a view took, in ms.
    pub(crate) view_ms: f64,
    /// Requests that have no final answer yet.
    pub(crate) under_way: u64,
}

impl Live {
    pub(crate) fn add_accepted(&self, commands: u64) {
        self.accepted.fetch_add(commands, Ordering::Relaxed);
    }

    pub(crate) fn add_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, late_us: u64) {
        self.late_us.store(late_us, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn finished(&self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn saw_in_view(&self, us: u64) {
        self.view_us.store(us, Ordering::Relaxed);
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(crate) fn numbers(&self) -> Numbers {
        let ms = |us: &AtomicU64| us.load(Ordering::Relaxed) as f64 / 1e3;
        Numbers {
            accepted: self.accepted.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            late_ms: ms(&self.late_us),
            view_ms: ms(&self.view_us),
            under_way: self.under_way.load(Ordering::Relaxed),
        }
    }
}
