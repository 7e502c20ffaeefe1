//! The batches of one lane of a shard: in order, retried until they are done.
//!
//! The parallelization factor of a mapping is the number of lanes per shard. The records of one key
//! are all in one lane, and a lane has one batch at a time. The lane retries a failed batch before
//! it takes anything else; a retried batch holds only the records of it that are left.

use std::collections::VecDeque;

use crate::answer::BatchAnswer;

/// How a mapping makes batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The most records of a batch.
    pub size: usize,
    /// How long a batch that is not full waits for more, in milliseconds.
    pub window_ms: u64,
    /// Whether a batch whose invocation failed is retried in two halves.
    pub bisect: bool,
    /// The pause before the first retry of a batch, in milliseconds. It doubles with each try that
    /// finishes no record.
    pub retry_ms: u64,
    /// The longest pause, in milliseconds.
    pub retry_ms_max: u64,
}

/// One lane. Times are milliseconds since some fixed moment.
#[derive(Debug)]
pub struct Lane<R> {
    rules: Rules,
    /// The records in no batch yet, and when the first of them arrived.
    waiting: VecDeque<R>,
    since_ms: u64,
    /// What is left of the batch under way, in the parts in which it is retried.
    parts: VecDeque<Vec<R>>,
    /// Whether the function is processing the first part.
    is_running: bool,
    /// Consecutive tries of the first part that finished no record.
    vain_tries: u32,
    not_before_ms: u64,
}

/// The effect of an invocation's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Records that are done.
    pub done: usize,
    /// Whether the rest was bisected.
    pub bisected: bool,
}

impl<R: Clone> Lane<R> {
    /// An empty lane.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            waiting: VecDeque::new(),
            since_ms: 0,
            parts: VecDeque::new(),
            is_running: false,
            vain_tries: 0,
            not_before_ms: 0,
        }
    }

    /// Adds a record that was read now, behind all others.
    pub fn push(&mut self, record: R, now_ms: u64) {
        if self.waiting.is_empty() {
            self.since_ms = now_ms;
        }
        self.waiting.push_back(record);
    }

    /// Records that are not done.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.parts.iter().map(Vec::len).sum::<usize>()
    }

    /// Whether all records are done.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the next batch is due. `None`: not before a record is pushed or an invocation ends.
    pub fn due_ms(&self) -> Option<u64> {
        if self.is_running {
            None
        } else if !self.parts.is_empty() {
            Some(self.not_before_ms)
        } else if self.waiting.is_empty() {
            None
        } else if self.waiting.len() >= self.rules.size {
            Some(self.since_ms)
        } else {
            Some(self.since_ms + self.rules.window_ms)
        }
    }

    /// Takes the next batch, if one is due. [`finish`](Self::finish) must follow.
    pub fn take(&mut self, now_ms: u64) -> Option<Vec<R>> {
        if self.due_ms().is_none_or(|due_ms| due_ms > now_ms) {
            return None;
        }
        if self.parts.is_empty() {
            let size = self.rules.size.max(1).min(self.waiting.len());
            self.parts.push_back(self.waiting.drain(..size).collect());
            self.since_ms = now_ms;
        }
        self.is_running = true;
        self.parts.front().cloned()
    }

    /// Ends the invocation with the batch that was taken.
    pub fn finish(&mut self, outcome: BatchAnswer, now_ms: u64) -> Finished {
        self.is_running = false;
        let mut part = self.parts.pop_front().unwrap_or_default();
        let (done, bisected) = match outcome {
            BatchAnswer::Done => (part.len(), false),
            BatchAnswer::From(index) => {
                let index = index.min(part.len());
                part.drain(..index);
                (index, false)
            }
            BatchAnswer::Failed => (0, self.rules.bisect && part.len() > 1),
        };
        if outcome != BatchAnswer::Done && !part.is_empty() {
            if bisected {
                let behind = part.split_off(part.len() / 2);
                self.parts.push_front(behind);
            }
            self.parts.push_front(part);
        }
        self.vain_tries = if done > 0 { 0 } else { self.vain_tries + 1 };
        self.not_before_ms = match outcome {
            BatchAnswer::Done => now_ms,
            _ => now_ms + self.pause_ms(),
        };
        Finished { done, bisected }
    }

    fn pause_ms(&self) -> u64 {
        let doublings = self.vain_tries.saturating_sub(1).min(30);
        self.rules.retry_ms.saturating_mul(1 << doublings).min(self.rules.retry_ms_max)
    }
}
