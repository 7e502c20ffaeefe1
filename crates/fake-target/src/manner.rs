//! How a fake target answers, whatever is in its logs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How a target answers. Times count from the first `POST /command`; the generator opens its accounts before that,
/// with `POST /commands`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Every request is answered at once.
    Plain,
    /// A command that arrives between these two moments is answered at the second.
    Stalls {
        /// The first moment, in ms.
        from_ms: u64,
        /// The second moment, in ms.
        to_ms: u64,
    },
    /// A command that arrives before this moment is answered with 503 and `Retry-After: 1`.
    Busy {
        /// The moment, in ms.
        until_ms: u64,
    },
    /// In batches, every fifth command is answered with 503, counted over all batches.
    PartlyBusy,
    /// In batches, every command whose id is a multiple of five is refused.
    PartlyRefused,
    /// A command whose id is a multiple of ten is never answered.
    Deaf,
    /// That many reads of entries are answered with 500.
    ReadsFail(u64),
    /// Views never advance, and every read of one takes the whole time of its `wait`.
    ViewsStand,
}

/// A manner with its state.
#[derive(Clone)]
pub(crate) struct Mannered {
    pub(crate) manner: Manner,
    first: Arc<OnceLock<Instant>>,
    count: Arc<AtomicU64>,
}

impl Mannered {
    pub(crate) fn new(manner: Manner) -> Self {
        Self { manner, first: Arc::default(), count: Arc::default() }
    }

    fn next(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    /// Delays a command if the manner requires it. Returns whether to answer it with 503.
    pub(crate) async fn is_busy(&self, request: &Value) -> bool {
        let first = *self.first.get_or_init(Instant::now);
        let since = first.elapsed();
        match self.manner {
            Manner::Stalls { from_ms, to_ms } => {
                let (from, to) = (Duration::from_millis(from_ms), Duration::from_millis(to_ms));
                if (from..to).contains(&since) {
                    tokio::time::sleep(to - since).await;
                }
            }
            Manner::Deaf if request["id"].as_u64().is_some_and(|id| id.is_multiple_of(10)) => {
                std::future::pending().await
            }
            Manner::Busy { until_ms } => return since < Duration::from_millis(until_ms),
            _ => {}
        }
        false
    }

    /// The status that refuses this command of a batch, if the manner refuses it.
    pub(crate) fn refusal_in_batch(&self, request: &Value) -> Option<u16> {
        let id = request["id"].as_u64().unwrap_or(0);
        match self.manner {
            Manner::PartlyBusy => self.next().is_multiple_of(5).then_some(503),
            Manner::PartlyRefused => id.is_multiple_of(5).then_some(400),
            _ => None,
        }
    }

    /// Whether this read is answered with 500.
    pub(crate) fn read_fails(&self) -> bool {
        matches!(self.manner, Manner::ReadsFail(times) if self.next() < times)
    }
}
