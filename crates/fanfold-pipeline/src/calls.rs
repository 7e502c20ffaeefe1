//! When the calls of views' hosts have ended that began before some moment.
//!
//! A projector reads the log's cursor once, and may write rows until its call has ended. So only the end of all calls that
//! began before a view was parked shows that none of them writes any more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use fanfold::Time;
use serde::{Deserialize, Serialize};

use crate::leases::SKEW_MS;

/// How long a caller waits before it looks again whether counted calls have ended, in milliseconds. Source: our choice;
/// most calls end within it.
const LOOK_MS: u64 = 200;

/// What is known of the calls of views' hosts.
#[derive(Debug, Clone)]
pub enum ViewCalls {
    /// They run in other processes. So many milliseconds after a call began it has ended, and none of its writes takes
    /// effect any more.
    End {
        /// In milliseconds.
        within_ms: u64,
    },
    /// They run in this process, and are counted.
    Counted(Arc<CallCounter>),
}

/// A moment, as the calls of views' hosts know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallsMark {
    /// The time.
    pub at: Time,
    /// The process that counts its calls; 0 if none does.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub process: u64,
    /// How many calls that process had begun.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub calls: u64,
}

impl ViewCalls {
    /// This moment.
    pub fn mark(&self, now: Time) -> CallsMark {
        match self {
            Self::End { .. } => CallsMark { at: now, process: 0, calls: 0 },
            Self::Counted(counter) => {
                CallsMark { at: now, process: counter.process, calls: counter.counted().begun }
            }
        }
    }

    /// How long a caller should wait before it asks again whether all calls that began before `mark` have ended; 0 if they
    /// have, and none of their writes takes effect any more.
    pub fn left_ms(&self, mark: &CallsMark, now: Time) -> u64 {
        match self {
            Self::End { within_ms } => {
                mark.at.plus_ms(within_ms.saturating_add(SKEW_MS)).since_ms(now)
            }
            // The calls of a process end with it.
            Self::Counted(counter) if counter.process != mark.process => 0,
            Self::Counted(counter) => {
                let earliest = counter.counted().under_way.first().copied();
                if earliest.is_some_and(|call| call < mark.calls) { LOOK_MS } else { 0 }
            }
        }
    }
}

/// Counts the calls of the views' hosts in this process.
#[derive(Debug)]
pub struct CallCounter {
    process: u64,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    begun: u64,
    under_way: BTreeSet<u64>,
}

/// A call that is under way until this is dropped.
#[derive(Debug)]
pub struct CallUnderWay {
    counter: Arc<CallCounter>,
    number: u64,
}

impl CallCounter {
    /// For a process, by a random number that no other process has.
    pub fn new(process: u64) -> Arc<Self> {
        Arc::new(Self { process: process.max(1), counted: Mutex::default() })
    }

    /// A call begins. It must read cursors only after this.
    pub fn begin(self: &Arc<Self>) -> CallUnderWay {
        let mut counted = self.counted();
        let number = counted.begun;
        counted.begun += 1;
        counted.under_way.insert(number);
        CallUnderWay { counter: self.clone(), number }
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CallUnderWay {
    fn drop(&mut self) {
        self.counter.counted().under_way.remove(&self.number);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_elsewhere_have_ended_after_a_time() {
        let calls = ViewCalls::End { within_ms: 60_000 };
        let mark = calls.mark(Time(1_000));
        let left = |now| calls.left_ms(&mark, Time(now));
        assert_eq!((left(1_000), left(65_999), left(66_000)), (65_000, 1, 0));
    }

    #[test]
    fn counted_calls_have_ended_when_they_say_so() {
        let counter = CallCounter::new(7);
        let calls = ViewCalls::Counted(counter.clone());
        let (first, second) = (counter.begin(), counter.begin());
        let mark = calls.mark(Time(1_000));
        let later = counter.begin();
        let left = || calls.left_ms(&mark, Time(0));
        assert_eq!(left(), LOOK_MS);
        drop(second);
        assert_eq!(left(), LOOK_MS, "the first is under way");
        drop(first);
        assert_eq!(left(), 0, "a later one does not count");
        drop(later);
        let (other, _under_way) = (CallCounter::new(8), counter.begin());
        assert_eq!(ViewCalls::Counted(other).left_ms(&mark, Time(0)), 0, "that process has ended");
    }
}
