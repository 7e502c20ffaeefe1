use async_trait::async_trait;
use bytes::Bytes;
use fanfold::{LogId, Seq};

use super::Unavailable;

/// Commands that wait, and the markers of attempts. Cannot be rebuilt from anything.
#[async_trait]
pub trait ParkedTable: Send + Sync {
    /// Parks an item under its seq and identity, in place of one with the same identity. Several
    /// identities MUST be able to wait under one seq.
    async fn park(&self, log: &LogId, item: &ParkedItem) -> Result<(), Unavailable>;

    /// What waits at or above `from`, by seq and then identity: at most `limit`, fewer only if there
    /// is no more.
    ///
    /// What is stored only in part MUST NOT hide the others: it is listed, too, with a body that
    /// nobody can decode, so that it waits for an operator. An attempt to park that takes effect
    /// after its item was removed may leave that behind.
    async fn list(
        &self,
        log: &LogId,
        from: Seq,
        limit: usize,
    ) -> Result<Vec<ParkedItem>, Unavailable>;

    /// Removes an item; not an error if it is not there.
    async fn remove(&self, log: &LogId, seq: Seq, identity: &str) -> Result<(), Unavailable>;
}

/// Something that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedItem {
    /// The position it waits for.
    pub seq: Seq,
    /// What it is, among those under one seq: `<origin>#<id>`, or the body's own.
    pub identity: String,
    /// The parked body.
    pub body: Bytes,
}
