//! Points between two steps of one call. In production other threads may run there. A test and the simulator have one
//! thread: they let other work run there with [`interleave`]. Without the feature `interleavings` a point does nothing.

#[cfg(not(any(test, feature = "interleavings")))]
pub(crate) use self::none::*;
#[cfg(any(test, feature = "interleavings"))]
pub use self::points::*;

/// Between which steps a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// Any steps, while no lock of `striped::lock` is held. Other locks are not counted.
    Steps,
    /// The steps of a checkpoint. Another checkpoint would wait for this one, so the other work must not make one.
    Checkpoint,
}

#[cfg(not(any(test, feature = "interleavings")))]
mod none {
    use super::Between;

    /// The guard of a lock.
    pub(crate) type Guard<'a, T> = std::sync::MutexGuard<'a, T>;

    pub(crate) fn guard<T>(guard: Guard<'_, T>) -> Guard<'_, T> {
        guard
    }

    pub(crate) fn reached(_between: Between) {}
}

#[cfg(any(test, feature = "interleavings"))]
mod points {
    use std::cell::{Cell, RefCell};
    use std::marker::PhantomData;
    use std::ops::{Deref, DerefMut};
    use std::rc::Rc;
    use std::sync::MutexGuard;

    use super::Between;

    type Others = Rc<dyn Fn(Between)>;

    thread_local! {
        static OTHERS: RefCell<Option<Others>> = const { RefCell::new(None) };
        /// The locks of `striped::lock` that this thread holds.
        static HELD: Cell<usize> = const { Cell::new(0) };
    }

    /// The guard of a lock, which is counted.
    pub(crate) struct Guard<'a, T>(MutexGuard<'a, T>);

    pub(crate) fn guard<T>(guard: MutexGuard<'_, T>) -> Guard<'_, T> {
        HELD.set(HELD.get() + 1);
        Guard(guard)
    }

    impl<T> Drop for Guard<'_, T> {
        fn drop(&mut self) {
            HELD.set(HELD.get() - 1);
        }
    }

    impl<T> Deref for Guard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.0
        }
    }

    /// Ends the interleaving when it is dropped.
    #[must_use = "nothing runs at the points after it is dropped"]
    pub struct Interleaved(PhantomData<Others>);

    /// Lets `others` run at each point that this thread reaches. While they run, points do nothing.
    pub fn interleave(others: impl Fn(Between) + 'static) -> Interleaved {
        OTHERS.set(Some(Rc::new(others)));
        Interleaved(PhantomData)
    }

    impl Drop for Interleaved {
        fn drop(&mut self) {
            OTHERS.set(None);
        }
    }

    /// A point. If a lock is held, nothing runs: the other work could wait for it for ever.
    pub(crate) fn reached(between: Between) {
        if between == Between::Steps && HELD.get() > 0 {
            return;
        }
        if let Some(others) = OTHERS.take() {
            others(between);
            OTHERS.set(Some(others));
        }
    }
}
