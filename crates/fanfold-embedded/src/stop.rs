//! A signal to stop.

use std::pin::pin;
use std::sync::Arc;

use futures::future::{Either, select};

use crate::rising::Rising;

/// Signals stop. Dropping it also signals stop.
#[derive(Debug)]
pub(crate) struct Stopper(Arc<Rising>);

/// Receives the signal. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Stop(Arc<Rising>);

impl Stopper {
    /// A connected pair.
    pub(crate) fn new() -> (Self, Stop) {
        let signal = Arc::<Rising>::default();
        (Self(signal.clone()), Stop(signal))
    }

    /// Signals stop.
    pub(crate) fn stop(&self) {
        self.0.raise(1);
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Stop {
    /// Whether stop was signalled.
    pub(crate) fn is_given(&self) -> bool {
        self.0.is_at(1)
    }

    /// Runs `work`. `None`: stop was signalled before it was done.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        match select(pin!(self.0.reaches(1)), pin!(work)).await {
            Either::Left(_) => None,
            Either::Right((done, _)) => Some(done),
        }
    }
}
