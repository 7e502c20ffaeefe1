//! Reads queues: for mappings, and for functions that SNS invokes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::{Clock, Handle, Mode};
use crate::answer;
use crate::config;
use crate::event;
use crate::function::Function;

/// The most messages that one call receives, or deletes (SQS).
const AT_ONCE: usize = 10;
/// The pause after a call that failed.
const RETRY: Duration = Duration::from_millis(500);

/// Reads a queue.
pub struct Reader {
    /// The client.
    pub client: Client,
    /// The queue.
    pub url: String,
    /// The pause when the queue is empty.
    pub poll: Duration,
    /// The function that it invokes.
    pub function: Arc<Function>,
    /// Its control and counters.
    pub handle: Handle,
}

impl Reader {
    /// Receives messages once the mapping is not off. Returns none if the queue is empty.
    async fn receive(&self, at_most: usize) -> Vec<Message> {
        let mut mode = self.handle.mode();
        // The sender lives as long as the handle, so this cannot fail.
        let _ = mode.wait_for(|mode| *mode != Mode::Off).await;
        let request = self.client.receive_message().queue_url(&self.url).wait_time_seconds(0);
        let request = request.max_number_of_messages(at_most.min(AT_ONCE) as i32);
        let all = MessageSystemAttributeName::All;
        match request.message_system_attribute_names(all).send().await {
            Ok(received) => {
                let messages = received.messages.unwrap_or_default();
                self.handle.count(|counts| counts.read += messages.len() as u64);
                messages
            }
            Err(error) => {
                let name = self.function.name();
                tracing::warn!(name, ?error, "the queue cannot be read now");
                self.handle.count(|counts| counts.refused += 1);
                sleep(RETRY).await;
                Vec::new()
            }
        }
    }

    async fn delete(&self, messages: impl Iterator<Item = &Message>) {
        let entry = |(place, message): (usize, &Message)| {
            DeleteMessageBatchRequestEntry::builder()
                .id(place.to_string())
                .receipt_handle(message.receipt_handle().unwrap_or_default())
                .build()
        };
        let entries: Result<Vec<_>, _> = messages.enumerate().map(entry).collect();
        for entries in entries.unwrap_or_default().chunks(AT_ONCE) {
            let request = self.client.delete_message_batch().queue_url(&self.url);
            if let Err(error) = request.set_entries(Some(entries.to_vec())).send().await {
                // They will be delivered again, which a queue may do at any time.
                let name = self.function.name();
                tracing::warn!(name, ?error, "finished messages could not be deleted");
            }
        }
    }

    fn arn(&self, region: &str, account: &str) -> String {
        let name = self.url.rsplit('/').next().unwrap_or_default();
        format!("arn:aws:sqs:{region}:{account}:{name}")
    }
}

/// Invokes the function asynchronously with each message of a topic, without end.
pub async fn notify(reader: Reader) {
    loop {
        let messages = reader.receive(AT_ONCE).await;
        if messages.is_empty() {
            sleep(reader.poll).await;
            continue;
        }
        let mode = *reader.handle.mode().borrow();
        for message in &messages {
            match event::of_notification(message.body().unwrap_or_default()) {
                Some(event) if mode != Mode::Drop => {
                    reader.function.invoke_later(event).await;
                    reader.handle.count(|counts| counts.done += 1);
                }
                _ => reader.handle.count(|counts| counts.dropped += 1),
            }
        }
        // They are in the queue of asynchronous invocations now.
        reader.delete(messages.iter()).await;
    }
}

/// Runs the mapping of a queue, without end.
pub async fn map(reader: Reader, config: config::Queue, region: String, account: String) {
    let arn = reader.arn(&region, &account);
    let permits = Arc::new(Semaphore::new(config.concurrency.max(1)));
    let (reader, clock) = (Arc::new(reader), Clock::start());
    loop {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let mut batch: Vec<Message> = Vec::new();
        let mut due_ms = None;
        while batch.len() < config.batch_size && due_ms.is_none_or(|due| clock.now_ms() < due) {
            let received = reader.receive(config.batch_size - batch.len()).await;
            if received.is_empty() {
                sleep(reader.poll).await;
            }
            batch.extend(received);
            if !batch.is_empty() {
                due_ms.get_or_insert(clock.now_ms() + config.window_ms);
            }
        }
        let (reader, arn, region) = (reader.clone(), arn.clone(), region.clone());
        let report = config.report_failures;
        tokio::spawn(async move {
            invoke(&reader, &batch, &arn, &region, report).await;
            drop(permit);
        });
    }
}

/// Deletes the finished messages. The others stay invisible for the queue's visibility timeout, or
/// for the time that the function has set.
async fn invoke(reader: &Reader, batch: &[Message], arn: &str, region: &str, report: bool) {
    let events: Vec<Value> =
        batch.iter().map(|message| event::of_message(message, arn, region)).collect();
    let event = Bytes::from(event::of_records(&events).to_string());
    let answer = reader.function.invoke(event).await.ok();
    let ids: Vec<&str> =
        batch.iter().map(|message| message.message_id().unwrap_or_default()).collect();
    let failed = match (&answer, report) {
        (Some(_), false) => Some(BTreeSet::new()),
        (answer, _) => answer::failures(answer.as_deref(), &ids),
    };
    reader.handle.count(|counts| {
        let still = failed.as_ref().map_or(batch.len(), BTreeSet::len);
        counts.batches += 1;
        counts.done += (batch.len() - still) as u64;
        counts.failed += u64::from(failed.is_none());
        counts.partial += u64::from(failed.as_ref().is_some_and(|failed| !failed.is_empty()));
        counts.split += u64::from(failed.is_some() && still > 0 && still < batch.len());
    });
    if let Some(failed) = failed {
        let done = batch.iter().enumerate().filter(|(place, _)| !failed.contains(place));
        reader.delete(done.map(|(_, message)| message)).await;
    }
}
