//! Simulated crashes. A test cannot end its own process. So after [`crash`] no port answers the
//! call any more, and the call is dropped.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::Poll;

use futures::future::{Either, select};

thread_local! {
    static HAS_CRASHED: Cell<bool> = const { Cell::new(false) };
    static CRASHES: Cell<usize> = const { Cell::new(0) };
}

/// Simulates a crash: for users' code, and for hooks of [`Faults`](super::Faults).
pub fn crash() {
    HAS_CRASHED.set(true);
    CRASHES.set(CRASHES.get() + 1);
}

/// How often a process crashed since the last call of this function.
pub fn crashes() -> usize {
    CRASHES.replace(0)
}

/// Never returns if the process has crashed.
pub(super) async fn hang_if_crashed() {
    if HAS_CRASHED.get() {
        pending::<()>().await;
    }
}

/// What the call returns; `None` if it crashed.
pub async fn survives<T>(call: impl Future<Output = T>) -> Option<T> {
    HAS_CRASHED.set(false);
    let crash = pin!(poll_fn(|context| {
        if HAS_CRASHED.get() {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }));
    let survived = match select(pin!(call), crash).await {
        Either::Left((returned, _)) => Some(returned),
        Either::Right(_) => None,
    };
    HAS_CRASHED.set(false);
    survived
}
