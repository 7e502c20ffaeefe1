use async_trait::async_trait;
use bytes::Bytes;
use fanfold::body::attempt::Lease;
use fanfold::{LogId, RowKey, Seq, Time};

use super::Unavailable;

/// The table of one view in one version: per log a cursor, and rows.
#[async_trait]
pub trait ViewTable: Send + Sync {
    /// The log's cursor; `None` if the view has never seen the log.
    async fn cursor(&self, log: &LogId) -> Result<Option<Cursor>, Unavailable>;

    /// The rows under these keys, in their order, tombstones included; at most 1,000 keys.
    async fn rows(
        &self,
        log: &LogId,
        keys: &[RowKey],
    ) -> Result<Vec<Option<StoredRow>>, Unavailable>;

    /// Stores a row. MUST be one atomic, conditional write: refused unless the row's seq is
    /// `loaded` (`None`: unless there is no such row, not even a tombstone).
    async fn put_row(
        &self,
        log: &LogId,
        key: &RowKey,
        row: &StoredRow,
        loaded: Option<Seq>,
    ) -> Result<(), PutRowError>;

    /// Moves the cursor to `to`. MUST be one atomic, conditional write: refused if it is there or
    /// further on already, or parked; what `behind` and `attempt` say stays.
    async fn advance(&self, log: &LogId, to: Seq) -> Result<Advanced, Unavailable>;

    /// Notes that the cursor has to reach `target` by the view's sweep: `behind` becomes the
    /// higher of both. Makes a cursor at zero if there is none.
    async fn mark_behind(&self, log: &LogId, target: Seq) -> Result<(), Unavailable>;

    /// Parks the view for this log, unless its cursor has moved away from `at` (zero: there is
    /// none, or one at zero), or is parked.
    async fn park(&self, log: &LogId, at: Seq, parked: &ParkedView) -> Result<(), Unavailable>;

    /// Notes an attempt to apply what is next, or its return, in place of what `before` says. MUST be
    /// one atomic, conditional write: refused if neither `before` stands there (`None`: nothing was
    /// ever noted) nor `lease` itself, which is an earlier try of the same call. MUST change nothing
    /// else, and nothing else MUST change it; whether the cursor is parked does not matter. Makes a
    /// cursor at zero if there is none.
    async fn attempt(
        &self,
        log: &LogId,
        before: Option<&Lease>,
        lease: &Lease,
    ) -> Result<Attempted, Unavailable>;

    /// The log's rows in a range, without tombstones: at most `range.limit`, at least one if there
    /// is one.
    async fn scan(&self, log: &LogId, range: &RowRange) -> Result<RowPage, Unavailable>;
}

/// How far a view has come in a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The last seq it has applied.
    pub seq: Seq,
    /// The view is behind while this is above `seq`: its sweep goes on from there.
    pub behind: Option<Seq>,
    /// Why it stands still, if it does.
    pub parked: Option<ParkedView>,
    /// The last attempt to apply what is next behind a lease. If it has not returned, it is under
    /// way, or has ended its process.
    pub attempt: Option<Lease>,
}

impl Cursor {
    /// Whether the view's sweep has to bring it on.
    pub fn is_behind(&self) -> bool {
        self.behind.is_some_and(|target| target > self.seq)
    }
}

/// Why a view stands still for a log.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ParkedView {
    /// The entry that it cannot apply.
    pub seq: Seq,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: Time,
}

/// A row, or the tombstone of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// The last entry folded into it.
    pub seq: Seq,
    /// Its JSON; `None` for a tombstone.
    pub body: Option<Bytes>,
    /// When a tombstone MAY be removed; by then no writer that knew the row is left.
    pub expires: Option<Time>,
}

/// Why a row was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutRowError {
    /// Somebody else has written the row meanwhile.
    #[error("the row has changed since it was loaded")]
    Conflict,
    /// It may have been stored.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What became of an advance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advanced {
    /// The cursor is where it should be.
    Moved,
    /// It was there, or further on, or is parked; as it is.
    Refused(Cursor),
}

/// What became of a note of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempted {
    /// It stands there.
    Noted,
    /// Another stands there.
    Refused(Option<Lease>),
}

/// Which rows, and in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowRange {
    /// Only keys that begin with this; empty for all.
    pub prefix: String,
    /// Only keys behind this one, in the order asked for.
    pub after: Option<RowKey>,
    /// From the last key to the first.
    pub descending: bool,
    /// At most this many, at least 1.
    pub limit: usize,
}

impl RowRange {
    /// Behind every key that begins with the prefix, in the order of their bytes: no key has the last
    /// of all code points.
    pub fn end(&self) -> String {
        format!("{}{}", self.prefix, char::MAX)
    }
}

/// A row of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: RowKey,
    /// The last entry folded into it.
    pub seq: Seq,
    /// Its JSON.
    pub body: Bytes,
}

/// Some rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowPage {
    /// In the order asked for.
    pub rows: Vec<Row>,
    /// Whether the range has more behind them.
    pub more: bool,
}
