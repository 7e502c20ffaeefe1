//! How a fake target answers, whatever it has in its logs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What is peculiar. Times are counted from the first `POST /command`: accounts are opened before,
/// by `POST /commands`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Plain,
    /// Who comes between these moments is answered at the second.
    Stalls {
        from_ms: u64,
        to_ms: u64,
    },
    /// Who comes before this moment is told to come again in a second.
    Busy {
        until_ms: u64,
    },
    /// Of the commands of a batch, each fifth is told to come again: the first time.
    PartlyBusy,
    /// Of the commands of a batch, each whose id can be divided by five is refused.
    PartlyRefused,
    /// A command whose id can be divided by ten is never answered.
    Deaf,
    /// Who reads is told so often that it went wrong.
    ReadsFail(u64),
    /// Views stand still, and who waits for them waits as long as he asked to.
    ViewsStand,
}

/// A manner, and what it needs to know.
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

    /// Before a command is taken; whether it is to come again.
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

    /// What a command of a batch gets instead of being taken.
    pub(crate) fn instead(&self, request: &Value) -> Option<u16> {
        let id = request["id"].as_u64().unwrap_or(0);
        match self.manner {
            Manner::PartlyBusy => self.next().is_multiple_of(5).then_some(503),
            Manner::PartlyRefused => id.is_multiple_of(5).then_some(400),
            _ => None,
        }
    }

    /// Whether reading goes wrong this time.
    pub(crate) fn read_fails(&self) -> bool {
        matches!(self.manner, Manner::ReadsFail(times) if self.next() < times)
    }
}
