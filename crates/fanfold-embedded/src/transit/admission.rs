use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fanfold::LogId;
use fanfold_pipeline::ports::{Admission, NotAdmitted};

use crate::limit::{Backlog, Limit};

/// A stage that lags by so much catches up with some of it in about this time.
const RETRY_AFTER_S: u64 = 1;

/// Refuses commands while the changes and records that no stage has consumed yet are more, in
/// items or in bytes, than a bound.
///
/// Requests that are asked for at the same moment do not see each other, so the bound is exceeded
/// by what comes in together: a request of 1 MiB for each caller, at most.
pub struct MemoryAdmission {
    on_the_way: [Arc<Backlog>; 2],
    limit: Limit,
    closed: AtomicBool,
    obstacle: Option<Box<dyn Fn() -> Option<Obstacle> + Send + Sync>>,
}

/// Why nothing can be taken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// The disk was full a moment ago.
    Full,
    /// What was taken is too far from being done; says how far.
    Behind(String),
    /// There is no place for it any more; says why.
    Gone(String),
}

impl MemoryAdmission {
    /// Looks at what lies in the change stream and in the command stream, together.
    pub fn new(on_the_way: [Arc<Backlog>; 2], limit: Limit) -> Self {
        Self { on_the_way, limit, closed: AtomicBool::new(false), obstacle: None }
    }

    /// Also refuses while there is an obstacle.
    #[must_use]
    pub fn unless(
        mut self,
        obstacle: impl Fn() -> Option<Obstacle> + Send + Sync + 'static,
    ) -> Self {
        self.obstacle = Some(Box::new(obstacle));
        self
    }

    /// Lets nothing in any more: the engine is about to stop.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

impl Admission for MemoryAdmission {
    fn admit(&self, _: &LogId) -> Result<(), NotAdmitted> {
        let refused = |reason: String| {
            Err(NotAdmitted { reason, retry_after_s: RETRY_AFTER_S, is_full: false })
        };
        if self.closed.load(Ordering::Relaxed) {
            return refused("the engine is shutting down".to_owned());
        }
        if let Some(obstacle) = self.obstacle.as_ref().and_then(|obstacle| obstacle()) {
            let (reason, is_full) = match obstacle {
                Obstacle::Full => ("the disk is full".to_owned(), true),
                Obstacle::Behind(reason) | Obstacle::Gone(reason) => (reason, false),
            };
            return Err(NotAdmitted { reason, retry_after_s: RETRY_AFTER_S, is_full });
        }
        let items: usize = self.on_the_way.iter().map(|backlog| backlog.items()).sum();
        let bytes: usize = self.on_the_way.iter().map(|backlog| backlog.bytes()).sum();
        if items > self.limit.items || bytes > self.limit.bytes {
            return refused(format!(
                "{items} batches of commands, {bytes} bytes, are waiting to be processed"
            ));
        }
        Ok(())
    }
}
