use async_trait::async_trait;
use bytes::Bytes;
use fanfold::{LogId, Seq, Time};

use super::Unavailable;

/// Identifies an append: 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u128);

/// The commands table: one slot per log, and the catalogue of logs.
///
/// Every append overwrites the log's slot and makes one [`Change`]. Changes reach the relay at
/// least once, and those of one log in the order of their seqs. An operator can
/// [raise](super::OperatorCommands::raise) a slot; such a change has no commands.
#[async_trait]
pub trait Commands: Send + Sync {
    /// Appends a batch to the log: `seq` grows by `append.n`. Returns the new `seq`, which is that
    /// of the batch's last command.
    ///
    /// MUST be one atomic, conditional write. It is refused if the slot is closed or its token is
    /// `append.token`, and the refusal MUST contain the slot. It MUST make exactly one change if it
    /// takes effect, and none otherwise.
    async fn append(&self, log: &LogId, append: Append) -> Result<Seq, AppendError>;

    /// The slot; `None` if the log has no append, and no operator has raised it.
    async fn slot(&self, log: &LogId) -> Result<Option<Slot>, Unavailable>;

    /// The change of the last append, which the slot holds. `None` if there was no append, if an
    /// operator has raised the slot since, or if the provider never loses a change and does not keep
    /// it.
    async fn batch(&self, log: &LogId) -> Result<Option<Change>, Unavailable>;

    /// At most `limit` logs, in the catalogue's order, from `after` on. From soon after its first
    /// append or raise, a log MUST be listed for ever, and once per walk over a catalogue that does not
    /// change.
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
    /// The same in all attempts of an append.
    pub token: Token,
}

/// A slot, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The seq of the last command accepted.
    pub seq: Seq,
    /// The number of commands in the last batch; zero after an operator has raised the slot.
    pub n: u64,
    /// When that was accepted, or the slot was raised.
    pub at: Time,
    /// The token of that append, or of the raise.
    pub token: Token,
    /// Whether the log is frozen.
    pub closed: bool,
}

impl Slot {
    /// The seq of the first command of the last batch; that of the next command if the batch has none.
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
    /// The condition failed. Contains the slot.
    #[error("the slot refused the append")]
    Refused(Slot),
    /// It may have been appended.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// An append, as the table's change stream shows it; or a raise, which has no commands and no body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The log whose slot changed.
    pub log: LogId,
    /// The seq of the batch's last command.
    pub last: Seq,
    /// The number of commands in the batch; zero if an operator has raised the slot.
    pub n: u64,
    /// When they were accepted.
    pub at: Time,
    /// The token of the append.
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

/// A position in the catalogue, behind the log that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CataloguePosition {
    /// The bucket: hash(log) % 64.
    pub bucket: u8,
    /// The log within the bucket; `None`: before its first log.
    pub log: Option<LogId>,
}

/// A page of logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CataloguePage {
    /// In the catalogue's order.
    pub logs: Vec<LogId>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<CataloguePosition>,
}
