//! A map by log in stripes, each with a lock of its own, so that logs seldom wait for each other.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fanfold::LogId;
use foldhash::fast::RandomState;

/// Enough that two of a few dozen threads seldom meet; a power of two.
const STRIPES: usize = 64;

/// A stripe: some of the logs, in no order.
pub(crate) type Stripe<T> = HashMap<LogId, T, RandomState>;

/// All stripes.
pub(crate) struct Striped<T> {
    stripes: Vec<Mutex<Stripe<T>>>,
}

impl<T> Default for Striped<T> {
    fn default() -> Self {
        Self { stripes: (0..STRIPES).map(|_| Mutex::default()).collect() }
    }
}

impl<T> Striped<T> {
    /// The logs among which `log` is.
    pub(crate) fn of(&self, log: &LogId) -> MutexGuard<'_, Stripe<T>> {
        lock(&self.stripes[stripe(log)])
    }

    /// All of them, one after another.
    pub(crate) fn stripes(&self) -> impl Iterator<Item = MutexGuard<'_, Stripe<T>>> {
        self.stripes.iter().map(lock)
    }
}

/// By the end of the name, where logs differ: two that share a stripe by it only share a lock.
fn stripe(log: &LogId) -> usize {
    let last = log.as_str().as_bytes().iter().rev().take(8);
    let last = last.fold(0u64, |last, byte| last << 8 | u64::from(*byte));
    // Fibonacci hashing: the highest bits depend on all others.
    (last.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize % STRIPES
}

/// Nothing that runs under the crate's locks can stop halfway: a poisoned one is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
