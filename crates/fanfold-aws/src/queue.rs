//! A view's queue. The event source mapping reads it; this module sets when failed messages become
//! visible again, which the mapping cannot.

use std::time::Duration;

use aws_sdk_sqs::types::ChangeMessageVisibilityBatchRequestEntry as Entry;
use fanfold_pipeline::ports::Unavailable;
use futures::{StreamExt, stream};

use crate::Aws;
use crate::call::RetryPolicy;
use crate::error::Call;
use crate::events::Delivery;

const HOP: &str = "queue of a view";

/// The most messages of one call. Source: SQS, `ChangeMessageVisibilityBatch`.
const CHANGES_MAX: usize = 10;
/// Calls at the same time. Source: our choice; 10,000 failed messages, the most that a batch has, then
/// take some seconds.
const CALLS_AT_ONCE: usize = 16;

/// How long a message stays hidden after its first failure, in seconds. Source: our choice; longer
/// than most throttles and network faults.
const AGAIN_S: u64 = 10;
/// The longest time that a failed message stays hidden, in seconds. Source: our choice; the template's
/// alarm `QueueOld` has a higher threshold.
const AGAIN_S_MAX: u64 = 300;

/// How long a failed message stays hidden after it was received `times` times: 10 s, then twice as
/// long each time, up to 5 minutes.
pub fn hidden_for(times: u32) -> Duration {
    let doubled = AGAIN_S << times.saturating_sub(1).min(10);
    Duration::from_secs(doubled.min(AGAIN_S_MAX))
}

/// The queue that is the event source of a view's Lambda.
#[derive(Debug, Clone)]
pub struct SqsQueue {
    aws: Aws,
    url: String,
}

impl SqsQueue {
    /// The queue with this URL.
    pub fn new(aws: &Aws, url: impl Into<String>) -> Self {
        Self { aws: aws.clone(), url: url.into() }
    }

    /// Makes failed messages visible again after [`hidden_for`], instead of after the queue's
    /// visibility timeout, which is six times the function's timeout. Returns the first error. The
    /// messages of a call that failed become visible after the queue's timeout.
    pub async fn change_visibility(&self, failed: &[&Delivery]) -> Result<(), Unavailable> {
        let batches: Vec<Vec<Entry>> = failed.chunks(CHANGES_MAX).map(entries).collect();
        let calls = stream::iter(batches).map(|entries| self.change(entries));
        let results: Vec<_> = calls.buffer_unordered(CALLS_AT_ONCE).collect().await;
        results.into_iter().collect()
    }

    async fn change(&self, entries: Vec<Entry>) -> Result<(), Unavailable> {
        let request = self.aws.sqs.change_message_visibility_batch().queue_url(&self.url);
        let request = request.set_entries(Some(entries));
        let call = Call::new("ChangeMessageVisibilityBatch", &self.url);
        let output = self.aws.call(call, RetryPolicy::NONE, || request.clone().send()).await;
        let output = output.map_err(|error| error.unavailable(HOP))?;
        match output.failed().first() {
            None => Ok(()),
            Some(entry) => {
                let message =
                    format!("{}: {}", entry.code(), entry.message().unwrap_or("no message"));
                Err(Unavailable::Failed { hop: HOP, message })
            }
        }
    }
}

fn entries(failed: &[&Delivery]) -> Vec<Entry> {
    let entry = |(at, delivery): (usize, &&Delivery)| {
        let seconds = hidden_for(delivery.times).as_secs();
        Entry::builder()
            .id(at.to_string())
            .receipt_handle(&delivery.receipt_handle)
            .visibility_timeout(i32::try_from(seconds).unwrap_or(i32::MAX))
            .build()
            .ok() // Never fails, since both required fields are set.
    };
    failed.iter().enumerate().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_hidden_longer_after_each_failure() {
        for (times, seconds) in
            [(0, 10), (1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 300), (u32::MAX, 300)]
        {
            assert_eq!(hidden_for(times), Duration::from_secs(seconds), "received {times} times");
        }
    }
}
