use async_trait::async_trait;
use bytes::Bytes;
use fanfold::host::body::commit;
use fanfold::host::log::FoldError;
use fanfold::{Entry, LogId, Seq, Time, invariant};

use super::Unavailable;

/// Identifies an attempt to append a commit: 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nonce(pub u128);

/// The journal: per log, immutable commits under the seq of their first entry.
///
/// Writers append only behind a boundary that they have read, or written with an acknowledgement.
/// So the condition on `first` alone makes the chain linear (F3).
#[async_trait]
pub trait Journal: Send + Sync {
    /// Stores a commit. MUST be one atomic, conditional write. It is refused if the log has a
    /// commit with this `first`, and the refusal MUST contain that commit. It MUST NOT depend on
    /// anything else, and MUST NOT change or remove what is stored.
    async fn append(&self, log: &LogId, commit: &CommitItem) -> Result<(), JournalAppendError>;

    /// The commits that have an entry at or above `from`, ascending: at most `limit`, and at least
    /// one if there is one. `from` MAY be inside a commit. A page SHOULD end with about 1 MiB of
    /// bodies, as DynamoDB's do, because readers hold a page in memory.
    async fn read(&self, log: &LogId, from: Seq, limit: usize) -> Result<JournalPage, Unavailable>;

    /// The seq of the last entry; zero if there is none.
    async fn tail(&self, log: &LogId) -> Result<Seq, Unavailable>;
}

/// A stored commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitItem {
    /// The seq of its first entry.
    pub first: Seq,
    /// The number of its entries, at least 1.
    pub n: u64,
    /// The time of its last entry.
    pub at: Time,
    /// The attempt that stored it.
    pub nonce: Nonce,
    /// The commit body.
    pub body: Bytes,
}

impl CommitItem {
    /// Its entries, and the bytes of its payload. There must be as many entries as it says (F3).
    pub fn entries(&self) -> Result<(Vec<Entry>, usize), FoldError> {
        let (entries, bytes) = commit::decode(self.first, &self.body)?;
        let Self { first, n, .. } = self;
        let found = entries.len();
        invariant!(F3, found as u64 == *n, "the commit from {first} has {found} entries, not {n}")?;
        Ok((entries, bytes))
    }

    /// The seq of its last entry.
    pub fn last(&self) -> Seq {
        Seq((self.first.0 + self.n).saturating_sub(1))
    }
}

/// A page of commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalPage {
    /// Ascending.
    pub commits: Vec<CommitItem>,
    /// Whether the log has more commits behind them.
    pub more: bool,
}

/// Why a commit was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalAppendError {
    /// The log has a commit with this `first`.
    #[error("the journal has another commit that begins at {}", .0.first)]
    Exists(CommitItem),
    /// It may have been stored.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
