use async_trait::async_trait;
use bytes::Bytes;
use fanfold::Time;
use fanfold::host::body::notification::Commit;

use super::Unavailable;

/// Why a commit, or a message, was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The topic refuses this very commit for its content or its size, and always would: it was not
    /// published, and will not be. This MUST NOT be said for what stops other commits, too (no
    /// right, no key, no such topic): that is [`Unavailable::Refused`].
    #[error("the topic refuses the commit: {0}")]
    Refused(String),
    /// It may be published later.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Where commits are published. Each reaches every subscriber, at least once, in any order.
///
/// Delivery is retried a few times; then the commit goes to the subscriber's dead letters.
#[async_trait]
pub trait Topic: Send + Sync {
    /// Publishes commits. One result per commit, in order: a part of them MAY fail while others are
    /// published. A commit that is refused for good MUST NOT stop the others.
    ///
    /// A provider retries what failed if a retry at once may help, but begins no attempt after
    /// `until`, unless nothing has failed so far. The processor does not retry: what was not
    /// published comes again with its batch.
    async fn publish(&self, commits: &[&Commit], until: Time) -> Vec<Result<(), PublishError>>;
}

/// The messages that a view's subscription could not deliver. A provider MAY drop the oldest if
/// there are too many, because the view's sweep finds their commits in the journal.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// At most `limit` of the oldest dead letters, behind the one with the id `after` of an earlier
    /// call.
    ///
    /// A provider MAY hide what it has listed from later calls for a while, as a queue hides what
    /// was received. Such a provider lists what is not hidden, and ignores `after`. A letter that
    /// is not removed MUST be listed again. Its id MUST be valid until then, and MAY be another one
    /// then.
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
    /// Unique per view; an argument of [`DeadLetters::remove`].
    pub id: u64,
    /// The message's body.
    pub body: Bytes,
}
