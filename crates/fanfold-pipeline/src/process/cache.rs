//! The logs that a warm processor keeps between batches. The cache only saves loads: dropping a log
//! loses nothing. If another environment has appended to a cached log, the next append is refused.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use fanfold::{Log, LogId};
use foldhash::fast::RandomState;
use lru::LruCache;

/// The bytes that all logs in the cache may take. Source: an eighth of a Lambda of 1,024 MB, which
/// holds some hundred thousand small logs.
pub(super) const WEIGHT_MAX: usize = 128 * 1024 * 1024;

/// Logs that this process remembers to have parked something of; about 100 bytes each.
const PARKED_LOGS_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

pub(super) struct Cache(Mutex<Held>);

struct Held {
    logs: LruCache<LogId, (Box<Log>, usize), RandomState>,
    weight: usize,
    weight_max: usize,
    /// Logs of which this process has parked something. It can take that up without a nudge.
    parked: LruCache<LogId, (), RandomState>,
}

impl Cache {
    pub(super) fn new(weight_max: usize) -> Self {
        Self(Mutex::new(Held {
            logs: LruCache::unbounded_with_hasher(RandomState::default()),
            weight: 0,
            weight_max,
            parked: LruCache::with_hasher(PARKED_LOGS_MAX, RandomState::default()),
        }))
    }

    /// Takes the log out of the cache, so that one call has it alone. [`Cache::keep`] puts it back.
    pub(super) fn take(&self, id: &LogId) -> Option<Box<Log>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (log, weight) = held.logs.pop(id)?;
        held.weight -= weight;
        Some(log)
    }

    /// Whether this process has parked something of the log, and has not taken it up since.
    pub(super) fn has_parked(&self, id: &LogId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).parked.contains(id)
    }

    pub(super) fn note_parked(&self, id: &LogId, parked: bool) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if parked {
            held.parked.put(id.clone(), ());
        } else {
            held.parked.pop(id);
        }
    }

    pub(super) fn keep(&self, mut log: Box<Log>) {
        log.shrink();
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let weight = log.weight();
        held.weight += weight;
        if let Some((_, (_, replaced))) = held.logs.push(log.id().clone(), (log, weight)) {
            held.weight -= replaced;
        }
        while held.weight > held.weight_max
            && let Some((_, (_, weight))) = held.logs.pop_lru()
        {
            held.weight -= weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use fanfold::{Seq, Services};
    use ledger::Ledger;

    use super::*;

    const LOGS: usize = 3;

    fn log(n: usize) -> Box<Log> {
        let services = Services::new().with::<Ledger>();
        let service = services.get("ledger").expect("just added").clone();
        let id = format!("ledger/org:{n}").parse().expect("a log");
        Box::new(Log::new(id, service, None, Seq::ZERO))
    }

    /// Every sequence of seven calls on three logs, of which two fit, beside a list of the logs by when
    /// they were kept.
    #[test]
    fn the_logs_that_were_kept_last_stay() {
        for sequence in 0..(2 * LOGS).pow(7) {
            let cache = Cache::new(2 * log(0).weight());
            let mut model: Vec<usize> = Vec::new();
            for call in 0..7 {
                let call = sequence / (2 * LOGS).pow(call) % (2 * LOGS);
                let n = call % LOGS;
                let place = model.iter().position(|kept| *kept == n);
                place.map(|at| model.remove(at));
                if call < LOGS {
                    cache.keep(log(n));
                    model.push(n);
                    model.drain(..model.len().saturating_sub(2));
                } else {
                    let taken = cache.take(log(n).id());
                    assert_eq!(taken.is_some(), place.is_some(), "sequence {sequence}");
                }
            }
        }
    }
}
