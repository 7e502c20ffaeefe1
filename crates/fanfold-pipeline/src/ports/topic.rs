use async_trait::async_trait;
use bytes::Bytes;
use fanfold::body::notification::{Message, Notice};

use super::Unavailable;

/// Why a message was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The topic refuses this very message for its content or its size, and always would: it was not
    /// published, and will not be. This MUST NOT be said for what stops other messages, too (no
    /// right, no key, no such topic): that is [`Unavailable::Refused`].
    #[error("the topic refuses the message: {0}")]
    Refused(String),
    /// It may be published later.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The topics: what is published reaches every subscriber, at least once, in any order.
///
/// Delivery is retried a few times; then the message goes to the subscriber's dead letters.
#[async_trait]
pub trait Topic: Send + Sync {
    /// How many topics there are, at least 1. A log always uses the same one, by hash.
    fn topics(&self) -> usize;

    /// Publishes messages to one topic: at most 10, at most 240 KiB together. One result per
    /// message, in order: a part of them MAY fail while others are published. A topic that refuses
    /// one for good MUST NOT refuse the others of the call with it.
    async fn publish(
        &self,
        topic: usize,
        messages: &[Message],
    ) -> Result<Vec<Result<(), PublishError>>, Unavailable>;

    /// Takes commits as they are, instead of the messages that tell of them: for a topic whose
    /// subscribers are in the same process, and need no bytes. It takes all or none, and MUST
    /// answer at once, from memory. What reaches the subscribers MUST be what they would read from
    /// the messages ([`pack`](fanfold::body::notification::pack)).
    ///
    /// `None`, as provided: it takes messages only, and these commits MUST be published.
    fn hand_over(&self, topic: usize, notices: &[&Notice]) -> Option<Result<(), Unavailable>> {
        let _ = (topic, notices);
        None
    }
}

/// The messages that a view's subscription could not deliver. A provider MAY drop the oldest when
/// there are too many: the journal has what they say, and the view's sweep finds it there.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// The oldest, at most `limit`; behind the one with the id `after`, which an earlier call has
    /// shown.
    ///
    /// What it shows MAY be hidden from later calls for a while, as a queue hides what somebody has
    /// received; such a provider shows what is not hidden, whatever `after` says. Unless it is removed, it MUST be shown again; its id MAY be another one then, and
    /// MUST be good until then.
    async fn list(
        &self,
        view: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, Unavailable>;

    /// Removes one; not an error if it is not there.
    async fn remove(&self, view: &str, id: u64) -> Result<(), Unavailable>;
}

/// A message that was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Unique per view: how [`DeadLetters::remove`] knows it.
    pub id: u64,
    /// The message's body.
    pub body: Bytes,
}
