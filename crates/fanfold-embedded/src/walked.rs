//! How far a view's sweep has come.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the logs and the walks of one view's sweep. A walk goes over all logs of the view's services.
#[derive(Debug, Default)]
pub struct Walked {
    logs: AtomicU64,
    walks: AtomicU64,
    parked: AtomicU64,
}

impl Walked {
    /// How many logs the walk under way has inspected, or the last one, if none is under way.
    pub fn logs(&self) -> u64 {
        self.logs.load(Ordering::Relaxed)
    }

    /// How many walks of this process have ended and missed no log. After the first, the view has every entry that was ten
    /// seconds old when the walk came by (younger ones come as notifications), except in logs for which it is parked.
    pub fn walks(&self) -> u64 {
        self.walks.load(Ordering::Relaxed)
    }

    /// For how many logs the view is parked, as the last run of the sweep has listed them; 0 before the first has ended.
    pub fn parked(&self) -> u64 {
        self.parked.load(Ordering::Relaxed)
    }

    pub(crate) fn begin(&self) {
        self.logs.store(0, Ordering::Relaxed);
    }

    pub(crate) fn inspected(&self, logs: usize, parked: usize) {
        self.logs.fetch_add(logs as u64, Ordering::Relaxed);
        self.parked.store(parked as u64, Ordering::Relaxed);
    }

    pub(crate) fn end(&self, is_whole: bool) {
        self.walks.fetch_add(is_whole.into(), Ordering::Relaxed);
    }
}
