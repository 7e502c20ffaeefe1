//! A map by log, split into stripes with a lock each, so that logs rarely contend for a lock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use fanfold::LogId;
use foldhash::fast::RandomState;

use crate::interleave::{Guard, guard};

/// Enough that a few dozen threads rarely contend. At most 64, as [`stripe`] takes 6 bits.
const STRIPES: usize = 64;

/// One stripe: the values of some of the logs, unordered.
pub(crate) type Stripe<T> = HashMap<LogId, T, RandomState>;

/// A map from log to value, in [`STRIPES`] stripes.
pub(crate) struct Striped<T> {
    stripes: Vec<Mutex<Stripe<T>>>,
}

impl<T> Default for Striped<T> {
    fn default() -> Self {
        Self { stripes: (0..STRIPES).map(|_| Mutex::default()).collect() }
    }
}

impl<T> Striped<T> {
    /// Locks the stripe of `log`.
    pub(crate) fn of(&self, log: &LogId) -> Guard<'_, Stripe<T>> {
        lock(&self.stripes[stripe(log)])
    }

    /// Locks all stripes, one after another.
    pub(crate) fn stripes(&self) -> impl Iterator<Item = Guard<'_, Stripe<T>>> {
        self.stripes.iter().map(lock)
    }
}

/// The stripe of a log. Hashes only the last 8 bytes of the name, where names differ most. A
/// collision costs only a shared lock.
fn stripe(log: &LogId) -> usize {
    let last = log.as_str().as_bytes().iter().rev().take(8);
    let last = last.fold(0u64, |last, byte| last << 8 | u64::from(*byte));
    // Fibonacci hashing: the highest bits depend on all other bits.
    (last.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize % STRIPES
}

/// Locks, and ignores poisoning: no code under the crate's locks panics halfway through a change,
/// so the data is consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> Guard<'_, T> {
    guard(mutex.lock().unwrap_or_else(PoisonError::into_inner))
}
