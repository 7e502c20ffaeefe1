//! A map by log in stripes, each with a lock of its own, so that logs seldom wait for each other.

use std::collections::HashMap;
use std::hash::BuildHasher;
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
    /// Not that of the maps: all logs of one stripe would lie close together there.
    hasher: RandomState,
}

impl<T> Default for Striped<T> {
    fn default() -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Self { stripes, hasher: RandomState::default() }
    }
}

impl<T> Striped<T> {
    /// The logs among which `log` is.
    pub(crate) fn of(&self, log: &LogId) -> MutexGuard<'_, Stripe<T>> {
        let stripe = self.hasher.hash_one(log) as usize % STRIPES;
        lock(&self.stripes[stripe])
    }

    /// All of them, one after another.
    pub(crate) fn stripes(&self) -> impl Iterator<Item = MutexGuard<'_, Stripe<T>>> {
        self.stripes.iter().map(lock)
    }
}

/// Nothing that runs under the crate's locks can stop halfway: a poisoned one is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
