//! Markers of attempts: what is stored before something that perhaps ends its process, and removed
//! by every call that returns. The processor's stand in the parked table, the views' in their
//! cursors.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use fanfold::LogId;
use lru::LruCache;

use crate::backoff::Backoff;

/// Removing a marker that stays tells of a death that was none: it is tried for some seconds.
pub(crate) const CLOSE_BACKOFF: Backoff =
    Backoff { attempts_max: 5, first_ms: 50, longest_ms: 800 };

/// Logs of which a process remembers that; about 100 bytes each.
const LOGS_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

/// Logs whose marker this process has perhaps written, and not removed with an acknowledgement. What
/// stands there tells of no death: whoever remembers it lives.
pub(crate) struct Unclosed(Mutex<LruCache<LogId, ()>>);

impl Unclosed {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(LruCache::new(LOGS_MAX)))
    }

    pub(crate) fn has(&self, log: &LogId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(log)
    }

    /// From now on; or not any more, since the marker was removed.
    pub(crate) fn note(&self, log: &LogId, unclosed: bool) {
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if unclosed {
            logs.put(log.clone(), ());
        } else {
            logs.pop(log);
        }
    }
}
