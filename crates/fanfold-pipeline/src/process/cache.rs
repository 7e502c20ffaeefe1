//! Logs that a warm processor keeps between batches. Only a saving: dropping one loses nothing,
//! and one that another environment has overtaken finds out at its next append.

use std::sync::{Mutex, PoisonError};

use fanfold::{Log, LogId};
use lru::LruCache;

/// What all logs in the cache may weigh: about this many small values (documents, windows, ids),
/// some hundred bytes each.
const WEIGHT_MAX: usize = 400_000;

pub(super) struct Cache(Mutex<Held>);

struct Held {
    logs: LruCache<LogId, (Log, usize)>,
    weight: usize,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Held { logs: LruCache::unbounded(), weight: 0 }))
    }

    /// Takes the log out: whoever works on it has it alone, and puts it back if it may be kept.
    pub(super) fn take(&self, id: &LogId) -> Option<Log> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (log, weight) = held.logs.pop(id)?;
        held.weight -= weight;
        Some(log)
    }

    pub(super) fn keep(&self, mut log: Log) {
        log.shrink();
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let weight = log.weight();
        held.weight += weight;
        if let Some((_, (_, replaced))) = held.logs.push(log.id().clone(), (log, weight)) {
            held.weight -= replaced;
        }
        while held.weight > WEIGHT_MAX
            && let Some((_, (_, weight))) = held.logs.pop_lru()
        {
            held.weight -= weight;
        }
    }
}
