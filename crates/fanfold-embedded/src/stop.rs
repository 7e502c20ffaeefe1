//! Telling everything that runs to stop.

use std::pin::pin;

use futures::future::{Either, select};
use tokio::sync::watch;

/// Who says when. Dropping it says so, too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Who is told. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stopper {
    /// Nobody has been told yet.
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Stop(receiver))
    }

    /// Tells everybody.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether it is time to stop.
    pub fn is_told(&self) -> bool {
        // A stopper that was dropped is as good as one that spoke.
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Does the work; `None` if it is time to stop before it is done.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut receiver = self.0.clone();
        let told = async move { receiver.wait_for(|stop| *stop).await.is_ok() };
        match select(pin!(told), pin!(work)).await {
            Either::Left(_) => None,
            Either::Right((done, _)) => Some(done),
        }
    }
}
