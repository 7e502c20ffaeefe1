//! Runs many futures, a limited number of them at the same time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::{FuturesUnordered, StreamExt};

/// How many futures run at a time.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// The most that run at the same time.
    pub limit: usize,
    /// After so many futures the executor may run other tasks, even if none of the futures waited.
    pub turn: usize,
}

impl Pace {
    /// At most `limit` at the same time, without yielding to other tasks.
    pub(crate) const fn of(limit: usize) -> Self {
        Self { limit, turn: usize::MAX }
    }
}

/// Runs all futures, and calls `ended` with the result of each when it ends.
///
/// Fast path: a future that does not wait is polled once and costs no task. A log is usually in
/// memory, and a thousand small tasks would cost more than their work.
pub(crate) async fn at_once<F: Future>(
    pace: Pace,
    futures: impl IntoIterator<Item = F>,
    mut ended: impl FnMut(F::Output),
) {
    let mut futures = futures.into_iter();
    let mut waiting = FuturesUnordered::new();
    let mut started = 0;
    let mut slot = Slot(Box::pin(None));
    loop {
        while waiting.len() < pace.limit.max(1)
            && let Some(future) = futures.next()
        {
            slot.0.set(Some(future));
            match poll_fn(|context| Poll::Ready(slot.poll(context))).await {
                Poll::Ready(result) => ended(result),
                Poll::Pending => {
                    waiting.push(std::mem::replace(&mut slot, Slot(Box::pin(None))));
                }
            }
            started += 1;
            if started % pace.turn == 0 {
                yield_now().await;
            }
        }
        match waiting.next().await {
            Some(result) => ended(result),
            None => return,
        }
    }
}

/// The memory of one future, reused for the next one if the future did not wait.
struct Slot<F>(Pin<Box<Option<F>>>);

impl<F: Future> Slot<F> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<F::Output> {
        match self.0.as_mut().as_pin_mut() {
            Some(future) => future.poll(context),
            None => Poll::Pending,
        }
    }
}

impl<F: Future> Future for Slot<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.get_mut().poll(context)
    }
}

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::executor::block_on;

    use super::*;

    /// A future that yields `n` times.
    async fn turns(n: u64, running: &Cell<usize>, most: &Cell<usize>) -> u64 {
        running.set(running.get() + 1);
        most.set(most.get().max(running.get()));
        for _ in 0..n {
            yield_now().await;
        }
        running.set(running.get() - 1);
        n
    }

    #[test]
    fn all_futures_end_and_at_most_the_limit_run_at_a_time() {
        for (limit, expected) in [(0, 1), (1, 1), (3, 3), (100, 67)] {
            let (running, most) = (Cell::default(), Cell::default());
            let waits = (0..100).map(|n| turns(n % 3, &running, &most));
            let mut ended = Vec::new();
            block_on(at_once(Pace { limit, turn: 7 }, waits, |n| ended.push(n)));
            ended.sort_unstable();
            assert_eq!(ended, [vec![0; 34], vec![1; 33], vec![2; 33]].concat());
            assert_eq!(most.get(), expected, "of {limit}");
        }
        let nothing = Vec::<std::future::Ready<()>>::new();
        block_on(at_once(Pace::of(3), nothing, |()| panic!("there is none")));
    }

    #[test]
    fn futures_that_do_not_wait_end_in_order() {
        let mut ended = Vec::new();
        block_on(at_once(Pace::of(2), (0..100).map(std::future::ready), |n| ended.push(n)));
        assert_eq!(ended, (0..100).collect::<Vec<_>>());
    }

    /// Other tasks run after every `turn` futures, even if none of them waits.
    #[test]
    fn the_executor_runs_other_tasks_after_every_turn() {
        for (turn, count, expected) in [(3, 10, 3), (1, 5, 5), (10, 10, 1), (11, 10, 0)] {
            let futures = (0..count).map(std::future::ready);
            let mut running = Box::pin(at_once(Pace { limit: 4, turn }, futures, |_: u64| {}));
            let mut context = Context::from_waker(std::task::Waker::noop());
            let polls = std::iter::from_fn(|| {
                running.as_mut().poll(&mut context).is_pending().then_some(())
            });
            assert_eq!(polls.take(100).count(), expected, "{count} futures by turns of {turn}");
        }
    }
}
