use async_trait::async_trait;
use bytes::Bytes;
use fanfold::{LogId, Seq, StateKey};

use super::Unavailable;

/// The state table: heads, documents and windows. It can be rebuilt from the journal.
#[async_trait]
pub trait State: Send + Sync {
    /// The items under these keys, in their order; at most 1,000 keys.
    async fn get(
        &self,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable>;

    /// As [`State::get`], for heads, but eventually consistent: it MAY return an older item, or
    /// none where there was none a little earlier. A log loaded from an older head reads more of
    /// the journal, and is the same. On DynamoDB such a read costs half.
    async fn heads(
        &self,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable> {
        self.get(log, keys).await
    }

    /// Stores an item, unless the stored one has the same or a higher seq. MUST be one atomic,
    /// conditional write.
    async fn put(
        &self,
        log: &LogId,
        key: &StateKey,
        item: &StateItem,
    ) -> Result<Guarded, Unavailable>;
}

/// An item of the state table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateItem {
    /// The seq up to which it is folded.
    pub seq: Seq,
    /// The body.
    pub body: Bytes,
}

/// The result of a guarded put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarded {
    /// The item is stored.
    Stored,
    /// The stored item is as new or newer, and stays.
    Newer,
}
