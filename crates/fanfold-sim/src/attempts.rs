//! Counts the crashes that really happened, per table and log. Leases, parked commands and faulted
//! entries must not count more.
//!
//! A crash is an invocation that the driver kills during an attempt. A call that writes or removes
//! a lease and gets no answer may also leave one that counts as a crash, so it raises the bound.

use std::collections::{BTreeMap, BTreeSet};

use fanfold::LogId;

use crate::executor::TaskId;

/// A table and a log in it.
type Place = (&'static str, LogId);

/// The attempts of a run.
#[derive(Debug, Default)]
pub struct Attempts {
    under_way: BTreeMap<Place, BTreeSet<TaskId>>,
    crashes: BTreeMap<Place, u32>,
}

impl Attempts {
    /// An invocation is about to note an attempt.
    pub fn begun(&mut self, table: &'static str, log: &LogId, task: TaskId) {
        self.under_way.entry((table, log.clone())).or_default().insert(task);
    }

    /// The lease was removed, or the table refused it.
    pub fn ended(&mut self, table: &'static str, log: &LogId, task: TaskId) {
        if let Some(tasks) = self.under_way.get_mut(&(table, log.clone())) {
            tasks.remove(&task);
        }
    }

    /// A write or removal of a lease got no answer, so the lease may count without a crash.
    pub fn unanswered(&mut self, table: &'static str, log: &LogId, attempts: u32) {
        *self.crashes.entry((table, log.clone())).or_default() += attempts.max(1);
    }

    /// The table stored a lease with a count of zero: earlier crashes no longer count.
    pub fn reset(&mut self, table: &'static str, log: &LogId) {
        self.crashes.remove(&(table, log.clone()));
    }

    /// The driver killed an invocation.
    pub fn killed(&mut self, task: TaskId) {
        for (place, tasks) in &mut self.under_way {
            if tasks.remove(&task) {
                *self.crashes.entry(place.clone()).or_default() += 1;
            }
        }
    }

    /// The number of crashes that may be counted.
    pub fn crashes(&self, table: &'static str, log: &LogId) -> u32 {
        self.crashes.get(&(table, log.clone())).copied().unwrap_or_default()
    }
}

/// The number of crashes in a text such as `the process ended 3 times while …`.
pub fn counted(text: &str) -> Option<u32> {
    let (_, behind) =
        text.split_once("process ended ").or_else(|| text.split_once("its process "))?;
    behind.split(' ').next()?.parse().ok()
}
