use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fanfold::{LogId, Seq};
use lru::LruCache;

/// The most logs whose boundary is remembered. Source: our choice; each takes about 100 bytes.
const LOGS_MAX: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// Per log, the end of the last commit that this process has seen. The journal is immutable, so a
/// boundary stays valid, and the commits after it can be read without those before it.
#[derive(Debug)]
pub(super) struct Boundaries(Mutex<LruCache<LogId, Seq>>);

impl Default for Boundaries {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(LOGS_MAX)))
    }
}

impl Boundaries {
    /// The highest known seq at which a commit begins or will begin; 1 if none is known.
    pub(super) fn of(&self, log: &LogId) -> Seq {
        self.logs().get(log).copied().unwrap_or(Seq(1))
    }

    /// Remembers that a commit ends before `boundary`.
    pub(super) fn note(&self, log: &LogId, boundary: Seq) {
        let mut logs = self.logs();
        match logs.get_mut(log) {
            Some(known) => *known = boundary.max(*known),
            None => _ = logs.put(log.clone(), boundary),
        }
    }

    fn logs(&self) -> MutexGuard<'_, LruCache<LogId, Seq>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
