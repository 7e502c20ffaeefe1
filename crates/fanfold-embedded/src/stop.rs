//! A signal to stop.

use std::pin::pin;

use futures::future::{Either, select};
use tokio::sync::watch;

/// Gives the signal; dropping it gives the signal, too.
#[derive(Debug)]
pub(crate) struct Stopper(watch::Sender<bool>);

/// Receives the signal. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stopper {
    /// A pair; the signal is not given yet.
    pub(crate) fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Stop(receiver))
    }

    /// Gives the signal.
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether the signal was given.
    pub(crate) fn is_given(&self) -> bool {
        // Dropping the `Stopper` also signals stop.
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Does the work; `None` if the signal comes before it is done.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut receiver = self.0.clone();
        let stopped = async move { receiver.wait_for(|stop| *stop).await.is_ok() };
        match select(pin!(stopped), pin!(work)).await {
            Either::Left(_) => None,
            Either::Right((done, _)) => Some(done),
        }
    }
}
