use async_trait::async_trait;
use bytes::Bytes;
use fanfold::host::body::lease::Lease;
use fanfold::{LogId, RowKey, Seq, Time};

use super::Unavailable;
use crate::calls::CallsMark;

/// The table of one view in one version: per log a cursor, and rows.
#[async_trait]
pub trait ViewTable: Send + Sync {
    /// The log's cursor; `None` if the view has not applied anything of the log.
    async fn cursor(&self, log: &LogId) -> Result<Option<Cursor>, Unavailable>;

    /// The rows under these keys, in their order, including tombstones; at most 1,000 keys.
    async fn rows(
        &self,
        log: &LogId,
        keys: &[RowKey],
    ) -> Result<Vec<Option<StoredRow>>, Unavailable>;

    /// Stores a row. MUST be one atomic, conditional write. It is refused unless the stored row's
    /// seq is `loaded` (`None`: unless there is neither a row nor a tombstone).
    async fn put_row(
        &self,
        log: &LogId,
        key: &RowKey,
        row: &StoredRow,
        loaded: Option<Seq>,
    ) -> Result<(), PutRowError>;

    /// Moves the cursor to `to`. MUST be one atomic, conditional write. It is refused if the cursor
    /// is at `to` or beyond, or parked. `behind` and `lease` do not change.
    async fn move_cursor(&self, log: &LogId, to: Seq) -> Result<CursorMove, Unavailable>;

    /// Leaves it to the view's sweep to bring the cursor to `target`: `behind` becomes the higher
    /// of both. Makes a cursor at zero if there is none.
    async fn mark_behind(&self, log: &LogId, target: Seq) -> Result<(), Unavailable>;

    /// Parks the view for this log, unless its cursor is not at `at` any more (zero: no cursor, or
    /// one at zero), or is parked.
    async fn park(&self, log: &LogId, at: Seq, parked: &ParkedView) -> Result<(), Unavailable>;

    /// Lets a view go on that is parked for this log as `parked` says; false if it is not, or not as it says. With `to`,
    /// its cursor is moved there, if it is below. MUST be one atomic, conditional write, and MUST NOT change the lease.
    async fn release(
        &self,
        log: &LogId,
        parked: &ParkedView,
        to: Option<Seq>,
    ) -> Result<bool, Unavailable>;

    /// Replaces the lease `before` (`None`: no lease was ever stored) by `lease`, which begins or
    /// ends an attempt to apply what is next. MUST be one atomic, conditional write. It is refused
    /// unless `before` is stored, or `lease` itself by an earlier try of the same call. It MUST
    /// change nothing else, no other call may change the lease, and it does not matter whether the
    /// cursor is parked. Makes a cursor at zero if there is none.
    async fn replace_lease(
        &self,
        log: &LogId,
        before: Option<&Lease>,
        lease: &Lease,
    ) -> Result<LeaseWrite, Unavailable>;

    /// The log's rows in a range, without tombstones: at most `range.limit`, and at least one if
    /// there is one.
    async fn scan(&self, log: &LogId, range: &RowRange) -> Result<RowPage, Unavailable>;
}

/// What a view has applied of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The last seq it has applied.
    pub seq: Seq,
    /// While this is above `seq`, the view's sweep has to catch up.
    pub behind: Option<Seq>,
    /// Why it is parked, if it is.
    pub parked: Option<ParkedView>,
    /// The lease of the last attempt to apply what is next. If its call has not returned, that is
    /// under way or has ended its process.
    pub lease: Option<Lease>,
}

impl Cursor {
    /// Whether the view's sweep has to catch up.
    pub fn is_behind(&self) -> bool {
        self.behind.is_some_and(|target| target > self.seq)
    }
}

/// Why a view is parked for a log.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ParkedView {
    /// The entry that it cannot apply.
    pub seq: Seq,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: Time,
    /// The build that parked it; `None` if that build did not know its name. Another build tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// How far it is, if an operator has the log rebuilt. Nothing but the rebuild releases such a view: its rows may be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<Rebuild>,
}

/// How far the rebuild of a view's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rebuild {
    /// A moment from which on the view was seen to be parked; `None` before it was seen. Calls that began before may still
    /// write rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<CallsMark>,
}

/// A row, or the tombstone of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// The last entry folded into it.
    pub seq: Seq,
    /// Its JSON; `None` for a tombstone.
    pub body: Option<Bytes>,
    /// When a tombstone MAY be removed. By then every call that had loaded the row has ended.
    pub expires: Option<Time>,
}

/// Why a row was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutRowError {
    /// Another call has written the row since it was loaded.
    #[error("the row has changed since it was loaded")]
    Conflict,
    /// It may have been stored.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The result of moving a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CursorMove {
    /// The cursor was moved.
    Moved,
    /// The cursor was there or beyond, or is parked. Contains it.
    Refused(Cursor),
}

/// The result of replacing a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseWrite {
    /// The new lease is stored.
    Stored,
    /// Another lease is stored. Contains it.
    Refused(Option<Lease>),
}

/// Which rows, and in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowRange {
    /// Only keys that begin with this; empty for all.
    pub prefix: String,
    /// Only keys behind this one, in the requested order.
    pub after: Option<RowKey>,
    /// From the last key to the first.
    pub descending: bool,
    /// At most this many, at least 1.
    pub limit: usize,
}

impl RowRange {
    /// A text behind every key that begins with the prefix, by bytes: no key contains the last code
    /// point.
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

/// A page of rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowPage {
    /// In the requested order.
    pub rows: Vec<Row>,
    /// Whether the range has more rows behind them.
    pub more: bool,
}
