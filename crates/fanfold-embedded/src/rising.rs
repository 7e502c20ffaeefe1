//! A number that only rises, for which tasks wait.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A number that only rises. It wakes waiters in the order in which they came: `tokio`'s `watch` wakes them in a random
/// one, and a simulated run must be its seed's.
#[derive(Debug, Default)]
pub(crate) struct Rising {
    number: AtomicUsize,
    risen: Notify,
}

impl Rising {
    /// Raises it, and says whether it was lower.
    pub(crate) fn raise(&self, to: usize) -> bool {
        let is_higher = self.number.fetch_max(to, Ordering::AcqRel) < to;
        self.risen.notify_waiters();
        is_higher
    }

    /// Whether it has reached `least`.
    pub(crate) fn is_at(&self, least: usize) -> bool {
        self.number.load(Ordering::Acquire) >= least
    }

    /// Returns once it has reached `least`.
    pub(crate) async fn reaches(&self, least: usize) {
        loop {
            let mut risen = pin!(self.risen.notified());
            // Before the look: a rise after it then wakes this waiter.
            risen.as_mut().enable();
            if self.is_at(least) {
                return;
            }
            risen.await;
        }
    }
}
