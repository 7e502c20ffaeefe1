use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fanfold::{LogId, Seq};
use lru::LruCache;

/// Logs whose boundary is remembered, of about 100 bytes each.
const LOGS_MAX: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// Per log, where the last commit ends that this process has seen. The journal never changes, so
/// what is remembered stays true: nothing before a boundary has to be read to know what is behind.
#[derive(Debug)]
pub(super) struct Boundaries(Mutex<LruCache<LogId, Seq>>);

impl Default for Boundaries {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(LOGS_MAX)))
    }
}

impl Boundaries {
    /// A seq that is inside no commit, with commits up to it, if there are any: the highest known.
    /// Where nothing is known, 1.
    pub(super) fn of(&self, log: &LogId) -> Seq {
        self.logs().get(log).copied().unwrap_or(Seq(1))
    }

    /// A commit ends before `boundary`.
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
