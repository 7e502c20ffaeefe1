//! A map by log in stripes, each with a lock of its own, so that logs seldom wait for each other.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fanfold::LogId;

use crate::hash_key::{BUCKETS, HashKey};

/// One stripe a bucket of the catalogue: for the commands table, a stripe is a bucket.
pub(crate) struct Striped<T> {
    stripes: Vec<Mutex<BTreeMap<LogId, T>>>,
}

impl<T> Default for Striped<T> {
    fn default() -> Self {
        Self { stripes: (0..BUCKETS).map(|_| Mutex::default()).collect() }
    }
}

impl<T> Striped<T> {
    /// The logs among which `log` is.
    pub(crate) fn of(&self, log: &LogId) -> MutexGuard<'_, BTreeMap<LogId, T>> {
        lock(&self.stripes[usize::from(HashKey::of_log(log).bucket())])
    }

    /// The logs of each bucket from `bucket` on, in order.
    pub(crate) fn buckets_from(
        &self,
        bucket: u8,
    ) -> impl Iterator<Item = (u8, MutexGuard<'_, BTreeMap<LogId, T>>)> {
        let stripes = (0..BUCKETS).zip(&self.stripes).skip(usize::from(bucket));
        stripes.map(|(bucket, stripe)| (bucket, lock(stripe)))
    }
}

/// Nothing that runs under the crate's locks can stop halfway: a poisoned one is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
