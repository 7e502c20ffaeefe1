use async_trait::async_trait;
use bytes::Bytes;
use fanfold::{LogId, Seq, Time};

use super::Unavailable;

/// Told apart from every other append: 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u128);

/// The commands table: one slot per log, and the catalogue of logs.
///
/// Every append overwrites the log's slot, and makes one [`Change`]. Changes reach the relay at
/// least once, those of one log in the order of their seqs.
#[async_trait]
pub trait Commands: Send + Sync {
    /// Adds a batch to the log: `seq` grows by `append.n`. Returns the new `seq`, that of the
    /// batch's last command.
    ///
    /// MUST be one atomic, conditional write: refused if the slot is closed, or if its token is
    /// `append.token`; the refusal MUST show the slot as it is. MUST make exactly one change if it
    /// takes effect, none otherwise.
    async fn append(&self, log: &LogId, append: Append) -> Result<Seq, AppendError>;

    /// The slot; `None` if nothing was ever appended.
    async fn slot(&self, log: &LogId) -> Result<Option<Slot>, Unavailable>;

    /// The last append that took effect, as its change says it: what the slot holds. `None` if there
    /// was none, and in a provider that never loses a change and need not keep it.
    async fn batch(&self, log: &LogId) -> Result<Option<Change>, Unavailable>;

    /// Logs, in the catalogue's order, from `after` on: at most `limit`. A log MUST be listed
    /// soon after its first append, for ever, and once in a walk over an unchanging catalogue.
    async fn catalogue(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
    ) -> Result<CataloguePage, Unavailable>;
}

/// A batch of commands to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The number of commands, at least 1.
    pub n: u64,
    /// The slot body.
    pub body: Bytes,
    /// When they were accepted.
    pub at: Time,
    /// The same in all attempts of one append.
    pub token: Token,
}

/// A slot, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The seq of the last command accepted.
    pub seq: Seq,
    /// The number of commands in the last batch.
    pub n: u64,
    /// When that was accepted.
    pub at: Time,
    /// Whose append it was.
    pub token: Token,
    /// Whether the log is frozen.
    pub closed: bool,
}

impl Slot {
    /// The seq of the first command of the last batch.
    pub fn first(&self) -> Seq {
        first(self.seq, self.n)
    }
}

fn first(last: Seq, n: u64) -> Seq {
    Seq(last.0.saturating_sub(n)).next()
}

/// Why a batch was not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The condition failed; the slot as it is.
    #[error("the slot refused")]
    Refused(Slot),
    /// It may have been appended.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What the table's stream says of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose slot changed.
    pub log: LogId,
    /// The seq of the batch's last command.
    pub last: Seq,
    /// The number of commands in the batch.
    pub n: u64,
    /// When they were accepted.
    pub at: Time,
    /// Whose append it was.
    pub token: Token,
    /// The slot body.
    pub body: Bytes,
}

impl Change {
    /// The seq of the batch's first command.
    pub fn first(&self) -> Seq {
        first(self.last, self.n)
    }
}

/// A place in the catalogue, behind the log it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CataloguePosition {
    /// The bucket: hash(log) % 64.
    pub bucket: u8,
    /// The log within the bucket; `None`: before its first.
    pub log: Option<LogId>,
}

/// Some logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CataloguePage {
    /// In the catalogue's order.
    pub logs: Vec<LogId>,
    /// Where to go on; `None` at the end.
    pub next: Option<CataloguePosition>,
}
