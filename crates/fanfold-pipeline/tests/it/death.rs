//! Users' code that ends its process. A test cannot end its own process. So a call that has called
//! [`die`] gets no answer from any port any more, and is dropped.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::Poll;

use futures::future::{Either, select};

use crate::world::{LEASE_MS, World};

thread_local! {
    static IS_DEAD: Cell<bool> = const { Cell::new(false) };
    static DEATHS: Cell<usize> = const { Cell::new(0) };
}

/// Ends the process.
pub(crate) fn die() {
    IS_DEAD.set(true);
    DEATHS.set(DEATHS.get() + 1);
}

/// How often a process was ended since the last call of this function.
pub(crate) fn deaths() -> usize {
    DEATHS.replace(0)
}

/// What comes next does not come, if the process has ended.
pub(crate) async fn or_never() {
    if IS_DEAD.get() {
        pending::<()>().await;
    }
}

/// What the call returns; `None` if it has ended its process, and nothing of it can be under way
/// any more.
pub(crate) async fn fate<T>(world: &World, call: impl Future<Output = T>) -> Option<T> {
    let survived = survives(call).await;
    if survived.is_none() {
        world.env.pass(LEASE_MS);
    }
    survived
}

/// What the call returns; `None` if it has ended its process.
pub(crate) async fn survives<T>(call: impl Future<Output = T>) -> Option<T> {
    IS_DEAD.set(false);
    let death = pin!(poll_fn(|context| {
        if IS_DEAD.get() {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }));
    let survived = match select(pin!(call), death).await {
        Either::Left((returned, _)) => Some(returned),
        Either::Right(_) => None,
    };
    IS_DEAD.set(false);
    survived
}
