use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fanfold::LogId;
use fanfold_pipeline::ports::{Admission, NotAdmitted};

use crate::limit::{Backlog, Limit};

/// About the time in which a stage that lags this far processes some of its backlog.
const RETRY_AFTER_S: u64 = 1;

/// Refuses commands while the backlog of unconsumed changes and records exceeds a limit in items or
/// in bytes.
///
/// Concurrent requests are not counted until they are appended, so they can exceed the limit
/// together: by at most one request of 1 MiB for each concurrent caller.
pub struct MemoryAdmission {
    on_the_way: [Arc<Backlog>; 2],
    limit: Limit,
    closed: AtomicBool,
    obstacle: Option<Box<dyn Fn() -> Option<Obstacle> + Send + Sync>>,
}

/// Why no command can be accepted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// The disk was full a moment ago.
    Full,
    /// Too many accepted commands are unprocessed. Holds the reason as text.
    Behind(String),
    /// The engine's folder is gone. Holds the reason as text.
    Gone(String),
}

impl MemoryAdmission {
    /// Limits the sum of two backlogs: of the change stream and of the command stream.
    pub fn new(on_the_way: [Arc<Backlog>; 2], limit: Limit) -> Self {
        Self { on_the_way, limit, closed: AtomicBool::new(false), obstacle: None }
    }

    /// Also refuses while `obstacle` returns one.
    #[must_use]
    pub fn refuse_while(
        mut self,
        obstacle: impl Fn() -> Option<Obstacle> + Send + Sync + 'static,
    ) -> Self {
        self.obstacle = Some(Box::new(obstacle));
        self
    }

    /// Refuses everything from now on, because the engine is about to stop.
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
