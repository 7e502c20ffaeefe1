//! What comes by a queue: the mapping of a queue, and what SNS invokes a function with.

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

/// Messages that one receive returns, and one call deletes (SQS).
const AT_ONCE: usize = 10;
/// The pause after a call that failed.
const RETRY: Duration = Duration::from_millis(500);

/// A queue, as it is read and controlled.
pub struct Reader {
    /// The client.
    pub client: Client,
    /// The queue.
    pub url: String,
    /// The pause when there is nothing.
    pub poll: Duration,
    /// What it invokes.
    pub function: Arc<Function>,
    /// By which it is controlled and watched.
    pub handle: Handle,
}

impl Reader {
    /// Some messages, once it is not switched off; none if there are none.
    async fn receive(&self, at_most: usize) -> Vec<Message> {
        let mut mode = self.handle.mode();
        // It lives as long as the handle.
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
                tracing::warn!(name, ?error, "a queue cannot be read at the moment");
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
                // They come again, which a queue may do at any time.
                let name = self.function.name();
                tracing::warn!(name, ?error, "messages that are done are not deleted");
            }
        }
    }

    fn arn(&self, region: &str, account: &str) -> String {
        let name = self.url.rsplit('/').next().unwrap_or_default();
        format!("arn:aws:sqs:{region}:{account}:{name}")
    }
}

/// The messages of a topic, each an asynchronous invocation: for ever.
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
        // Lambda's own queue has them now.
        reader.delete(messages.iter()).await;
    }
}

/// The mapping of a queue: for ever.
pub async fn map(reader: Reader, config: config::Queue, region: String, account: String) {
    let arn = reader.arn(&region, &account);
    let permits = Arc::new(Semaphore::new(config.concurrency.max(1)));
    let (reader, clock) = (Arc::new(reader), Clock::start());
    loop {
        // As for a function's: it is never closed.
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

/// What is done is deleted; the rest stays invisible until the queue's time-out is over, or
/// whatever the function has set instead.
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
