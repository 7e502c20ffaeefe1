//! A signal to stop.

use std::pin::pin;
use std::sync::Arc;

use futures::future::{Either, select};

use crate::rising::Rising;

/// Gives the signal; dropping it gives the signal, too.
#[derive(Debug)]
pub(crate) struct Stopper(Arc<Rising>);

/// Receives the signal. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Stop(Arc<Rising>);

impl Stopper {
    /// A pair; the signal is not given yet.
    pub(crate) fn new() -> (Self, Stop) {
        let signal = Arc::<Rising>::default();
        (Self(signal.clone()), Stop(signal))
    }

    /// Gives the signal.
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
    /// Whether the signal was given.
    pub(crate) fn is_given(&self) -> bool {
        self.0.is_at(1)
    }

    /// Does the work; `None` if the signal comes before it is done.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        match select(pin!(self.0.reaches(1)), pin!(work)).await {
            Either::Left(_) => None,
            Either::Right((done, _)) => Some(done),
        }
    }
}
