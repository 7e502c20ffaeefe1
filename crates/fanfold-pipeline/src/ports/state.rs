use async_trait::async_trait;
use bytes::Bytes;
use fanfold::{LogId, Seq, StateKey};

use super::Unavailable;

/// The state table: heads, documents, windows. Can be rebuilt from the journal.
#[async_trait]
pub trait State: Send + Sync {
    /// The items under these keys, in their order; at most 1,000 keys.
    async fn get(
        &self,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable>;

    /// As [`State::get`], for heads: MAY show an item as it was a little while ago, or none where
    /// there was none then. What is loaded from an older head reads more of the journal, and is the
    /// same. On DynamoDB such a read costs half.
    async fn heads(
        &self,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable> {
        self.get(log, keys).await
    }

    /// Stores an item, unless one is there whose seq is not lower. MUST be one atomic, conditional
    /// write.
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
    /// Folded up to here.
    pub seq: Seq,
    /// The body.
    pub body: Bytes,
}

/// What became of a guarded put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarded {
    /// It is stored.
    Stored,
    /// One that is as new, or newer, was there, and stays.
    Newer,
}
