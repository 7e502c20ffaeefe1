//! Which attempts have really ended their processes: what may be counted as a crash, and what may
//! be parked, or faulted, for it.
//!
//! A crash is an invocation that is ended while its attempt stands. What was noted, or taken back,
//! without an answer may be counted as one, too: the two cannot be told apart.

use std::collections::{BTreeMap, BTreeSet};

use fanfold::LogId;

use crate::executor::TaskId;

/// A table, and a log in it.
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

    /// It was taken back, or refused.
    pub fn ended(&mut self, table: &'static str, log: &LogId, task: TaskId) {
        if let Some(tasks) = self.under_way.get_mut(&(table, log.clone())) {
            tasks.remove(&task);
        }
    }

    /// A note had no answer: it may take effect, or stay, without a crash.
    pub fn unanswered(&mut self, table: &'static str, log: &LogId, attempts: u32) {
        *self.crashes.entry((table, log.clone())).or_default() += attempts.max(1);
    }

    /// Nothing is counted any more.
    pub fn reset(&mut self, table: &'static str, log: &LogId) {
        self.crashes.remove(&(table, log.clone()));
    }

    /// An invocation was ended where it stood.
    pub fn killed(&mut self, task: TaskId) {
        for (place, tasks) in &mut self.under_way {
            if tasks.remove(&task) {
                *self.crashes.entry(place.clone()).or_default() += 1;
            }
        }
    }

    /// How many may be counted.
    pub fn crashes(&self, table: &'static str, log: &LogId) -> u32 {
        self.crashes.get(&(table, log.clone())).copied().unwrap_or_default()
    }
}

/// The number in `the process ended 3 times while …`, and in what else says so.
pub fn counted(text: &str) -> Option<u32> {
    let (_, behind) =
        text.split_once("process ended ").or_else(|| text.split_once("its process "))?;
    behind.split(' ').next()?.parse().ok()
}
