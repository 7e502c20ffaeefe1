use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use aws_sdk_sqs::types::Message;
use fanfold_pipeline::ports::{DeadLetter, DeadLetters, Unavailable};

use crate::Aws;
use crate::call::RetryPolicy;
use crate::error::Call;
use crate::events::messages_of_dead_letter;

const HOP: &str = "dead letters";

/// The most messages that one call returns. Source: SQS, `ReceiveMessage`.
const RECEIVE_MAX: usize = 10;

/// The most letters whose handles are kept. Source: our choice; more than a sweep lists at a time. The
/// messages of older handles become visible again.
const HANDLES_MAX: usize = 1_000;

/// The dead letters of one view, in a queue.
///
/// A letter that was listed is hidden from others for the queue's visibility timeout. Unless it is
/// removed by then, it can be listed again.
#[derive(Debug)]
pub struct SqsDeadLetters {
    aws: Aws,
    url: String,
    handles: Mutex<Handles>,
}

/// The receipt handles of messages, by the ids of their letters.
#[derive(Debug, Default)]
struct Handles {
    last_id: u64,
    by_id: BTreeMap<u64, String>,
}

impl SqsDeadLetters {
    /// The queue with this URL.
    pub fn new(aws: &Aws, url: impl Into<String>) -> Self {
        Self { aws: aws.clone(), url: url.into(), handles: Mutex::default() }
    }

    async fn receive(&self, at_most: usize) -> Result<Vec<Message>, Unavailable> {
        let at_most = i32::try_from(at_most.min(RECEIVE_MAX)).unwrap_or(1);
        let request = self.aws.sqs.receive_message().queue_url(&self.url);
        let request = request.max_number_of_messages(at_most).wait_time_seconds(0);
        let call = Call::new("ReceiveMessage", &self.url);
        let output = self.aws.call(call, RetryPolicy::BRIEF, || request.clone().send()).await;
        Ok(output.map_err(|error| error.unavailable(HOP))?.messages.unwrap_or_default())
    }

    async fn delete(&self, handle: &str) -> Result<(), Unavailable> {
        let request = self.aws.sqs.delete_message().queue_url(&self.url).receipt_handle(handle);
        let call = Call::new("DeleteMessage", &self.url);
        let output = self.aws.call(call, RetryPolicy::BRIEF, || request.clone().send()).await;
        output.map(|_| ()).map_err(|error| error.unavailable(HOP))
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handles {
    /// Stores the handle of a letter's message; returns the letter's id.
    fn give(&mut self, handle: &str) -> u64 {
        self.last_id += 1;
        self.by_id.insert(self.last_id, handle.to_owned());
        while self.by_id.len() > HANDLES_MAX {
            self.by_id.pop_first();
        }
        self.last_id
    }

    /// Forgets a letter; returns the handle of its message if no other letter of the message is left.
    fn take(&mut self, id: u64) -> Option<String> {
        let handle = self.by_id.remove(&id)?;
        (!self.by_id.values().any(|other| *other == handle)).then_some(handle)
    }
}

#[async_trait]
impl DeadLetters for SqsDeadLetters {
    /// Ignores the view's name, since the queue is that of one view, and the position, since listed
    /// letters are hidden.
    async fn list(
        &self,
        _: &str,
        _: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, Unavailable> {
        let mut letters: Vec<DeadLetter> = Vec::new();
        // Each round receives at least one message, or is the last.
        for _ in 0..limit {
            if letters.len() >= limit {
                break;
            }
            let received = self.receive(limit - letters.len()).await?;
            if received.is_empty() {
                break;
            }
            for message in received {
                let handle = message.receipt_handle().unwrap_or_default();
                let bodies = messages_of_dead_letter(message.body().unwrap_or_default());
                if bodies.is_empty() {
                    self.delete(handle).await?;
                }
                let mut handles = self.handles();
                letters.extend(
                    bodies.into_iter().map(|body| DeadLetter { id: handles.give(handle), body }),
                );
            }
        }
        Ok(letters)
    }

    async fn remove(&self, _: &str, id: u64) -> Result<(), Unavailable> {
        let handle = self.handles().take(id);
        match handle {
            Some(handle) => self.delete(&handle).await,
            None => Ok(()),
        }
    }
}
