//! A view's queue, for what the mapping does not do: say when a message that failed comes again.

use std::time::Duration;

use aws_sdk_sqs::types::ChangeMessageVisibilityBatchRequestEntry as Entry;
use fanfold_pipeline::ports::Unavailable;
use futures::{StreamExt, stream};

use crate::Aws;
use crate::call::Tries;
use crate::error::Call;
use crate::events::Delivery;

const HOP: &str = "queue of a view";

/// Messages of one call (SQS, ChangeMessageVisibilityBatch).
const CHANGES_MAX: usize = 10;
/// Calls at the same time: 10,000 failed messages, the most that a batch has, take some seconds.
const CALLS_AT_ONCE: usize = 16;

/// When a message comes again that failed for the first time, in seconds: longer than a throttle
/// or a network fault lasts.
const AGAIN_S: u64 = 10;
/// When one comes again at the latest, in seconds. The alarm `QueueOld` of the template is above it.
const AGAIN_S_MAX: u64 = 300;

/// How long a message that has been received so often stays hidden when it has failed: 10 s, then
/// twice as long each time, up to 5 minutes.
pub fn hidden_for(times: u32) -> Duration {
    let doubled = AGAIN_S << times.saturating_sub(1).min(10);
    Duration::from_secs(doubled.min(AGAIN_S_MAX))
}

/// The queue that a view's Lambda is behind.
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
    /// visibility time-out, which is six times the function's time-out. Those of a call that fails
    /// come again after the latter: nothing else depends on it. The first error is returned.
    pub async fn show_again(&self, failed: &[&Delivery]) -> Result<(), Unavailable> {
        let batches: Vec<Vec<Entry>> = failed.chunks(CHANGES_MAX).map(entries).collect();
        let calls = stream::iter(batches).map(|entries| self.change(entries));
        let results: Vec<_> = calls.buffer_unordered(CALLS_AT_ONCE).collect().await;
        results.into_iter().collect()
    }

    async fn change(&self, entries: Vec<Entry>) -> Result<(), Unavailable> {
        let request = self.aws.sqs.change_message_visibility_batch().queue_url(&self.url);
        let request = request.set_entries(Some(entries));
        let call = Call::new("ChangeMessageVisibilityBatch", &self.url);
        let output = self.aws.call(call, Tries::ONE, || request.clone().send()).await;
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
            .ok() // Both that it requires are set.
    };
    failed.iter().enumerate().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_and_again_comes_ever_later() {
        for (times, seconds) in
            [(0, 10), (1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 300), (u32::MAX, 300)]
        {
            assert_eq!(hidden_for(times), Duration::from_secs(seconds), "received {times} times");
        }
    }
}
