//! A number that only rises, for which tasks wait.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A number that only rises. Wakes waiters in the order of their registration, so that a simulated
/// run depends only on its seed (`tokio`'s `watch` wakes them in random order).
#[derive(Debug, Default)]
pub(crate) struct Rising {
    number: AtomicUsize,
    risen: Notify,
}

impl Rising {
    /// Raises the number to `to`. Returns whether it was lower.
    pub(crate) fn raise(&self, to: usize) -> bool {
        let is_higher = self.number.fetch_max(to, Ordering::AcqRel) < to;
        self.risen.notify_waiters();
        is_higher
    }

    /// Whether the number has reached `least`.
    pub(crate) fn is_at(&self, least: usize) -> bool {
        self.number.load(Ordering::Acquire) >= least
    }

    /// Waits until the number has reached `least`.
    pub(crate) async fn reaches(&self, least: usize) {
        loop {
            let mut risen = pin!(self.risen.notified());
            // Registered before the check, so that a rise after the check is not missed.
            risen.as_mut().enable();
            if self.is_at(least) {
                return;
            }
            risen.await;
        }
    }
}
