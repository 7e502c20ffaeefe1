use async_trait::async_trait;
use bytes::Bytes;
use fanfold::host::body::parked::Parked;
use fanfold::{LogId, Seq};

use super::Unavailable;

/// Parked commands and commits, and the processor's leases. They cannot be rebuilt.
#[async_trait]
pub trait ParkedTable: Send + Sync {
    /// Parks an item under its seq and identity, and replaces one with the same seq and identity.
    /// There MUST be room for several identities under one seq.
    async fn park(&self, log: &LogId, item: &ParkedItem) -> Result<(), Unavailable>;

    /// The items at or above `from`, a seq and an identity, by seq and then identity: at most
    /// `limit`, and fewer only if there are no more. The empty identity is below all others.
    ///
    /// An item that is stored only in part MUST NOT hide others. It is listed, too, with a body
    /// that cannot be decoded, so that it waits for an operator. A park that takes effect after its
    /// item was removed may leave such an item behind.
    async fn list(
        &self,
        log: &LogId,
        from: (Seq, &str),
        limit: usize,
    ) -> Result<Vec<ParkedItem>, Unavailable>;

    /// Removes an item; not an error if it is not there.
    async fn remove(&self, log: &LogId, seq: Seq, identity: &str) -> Result<(), Unavailable>;
}

/// A parked item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedItem {
    /// The seq that it waits for.
    pub seq: Seq,
    /// Tells apart the items under one seq: `<origin>#<id>`, or an identity of the body's own.
    pub identity: String,
    /// The parked body.
    pub body: Bytes,
}

impl ParkedItem {
    /// The item that waits for `seq`. Fails if it cannot be written.
    pub fn of(seq: Seq, parked: &Parked) -> Result<Self, serde_json::Error> {
        Ok(Self { seq, identity: parked.identity(), body: parked.encode()?.into() })
    }
}
