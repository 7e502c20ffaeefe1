//! What operators need of the tables, beside the stages.

use async_trait::async_trait;
use fanfold::{LogId, Seq, Time};

use super::{
    Commands, Cursor, Journal, ParkedItem, ParkedTable, ParkedView, Slot, Token, Unavailable,
    ViewTable,
};

/// The commands table, with what mends its slots.
#[async_trait]
pub trait OperatorCommands: Commands {
    /// Raises the log's slot to `to`, which is at least 1, if it is below or missing. The slot then has no command: `n` is
    /// zero, and `at` and `token` are these. The next append gets the seqs behind `to`.
    ///
    /// MUST be one atomic, conditional write. It is refused if the slot is at `to` or beyond, and the refusal MUST contain
    /// the slot; so no seq goes back, and no append at the same time is overwritten. If the answer of an earlier try was lost,
    /// the slot in the refusal has `token`. It MUST leave a closed slot closed. It
    /// MAY make a change without commands, which stands in the order of the log's changes.
    async fn raise(
        &self,
        log: &LogId,
        to: Seq,
        at: Time,
        token: Token,
    ) -> Result<SlotRaise, Unavailable>;
}

/// The result of raising a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotRaise {
    /// The slot was raised.
    Raised,
    /// The slot was there or beyond. Contains it.
    Refused(Slot),
}

/// The journal of all logs.
#[async_trait]
pub trait OperatorJournal: Journal {
    /// The logs that have an entry, in an order of the journal's own, behind the log `after`: at most `limit`. A walk MUST
    /// list each log once whose first entry was acknowledged before the walk began. It reads only one commit of each log,
    /// however long it is.
    async fn logs(&self, after: Option<&LogId>, limit: usize) -> Result<JournalLogs, Unavailable>;
}

/// A page of the logs that have an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalLogs {
    /// In the journal's order.
    pub logs: Vec<LogId>,
    /// The log behind which the next page begins; `None` at the end. The last page may be empty.
    pub next: Option<LogId>,
}

/// The parked table of all logs.
#[async_trait]
pub trait OperatorParked: ParkedTable {
    /// Whether it has the form of this table's positions. A scan behind another one fails.
    fn is_position(&self, after: &ParkedPosition) -> bool;

    /// The items of all logs, in an order of the table's own, behind the position `after`: at most `limit`. A page may
    /// have fewer items although others follow, and none. What is parked or removed meanwhile may be missing.
    async fn scan(
        &self,
        after: Option<&ParkedPosition>,
        limit: usize,
    ) -> Result<ParkedPage, Unavailable>;
}

/// A position in the parked table, behind an item. Its text is the table's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedPosition(pub String);

/// A page of parked items.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParkedPage {
    /// Items, each with its log.
    pub items: Vec<(LogId, ParkedItem)>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<ParkedPosition>,
}

/// The table of a view, for all logs.
#[async_trait]
pub trait OperatorView: ViewTable {
    /// The logs for which the view is parked, in an order of the table's own, behind the log `after`: at most `limit`. A
    /// page may have fewer logs although others follow, and none. A log that is parked or released meanwhile may be
    /// missing. A log that was released MAY be listed until its cursor moves, so that the view's sweep finds it soon.
    async fn parked(
        &self,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<ParkedViewPage, Unavailable>;

    /// Of a view that is parked for the log as `parked` says, sets the cursor to `to`, which may be below, and the reason to
    /// `then`; `None` releases the view. False if it is not parked, or not as `parked` says. MUST be one atomic, conditional
    /// write, and MUST NOT change the lease and `behind`.
    async fn replace_parked(
        &self,
        log: &LogId,
        parked: &ParkedView,
        to: Seq,
        then: Option<&ParkedView>,
    ) -> Result<bool, Unavailable>;

    /// Removes rows of the log, and tombstones: at most `limit`, and fewer only if no more are left. Returns how many;
    /// `None` if the view is not parked for the log as `parked` says.
    ///
    /// MUST NOT remove anything unless the view is parked so at that moment, also if the call takes effect late: a row that
    /// is stored after a release stays. What a call has removed before it fails stays removed.
    async fn clear(
        &self,
        log: &LogId,
        parked: &ParkedView,
        limit: usize,
    ) -> Result<Option<usize>, Unavailable>;
}

/// A page of logs for which a view is parked, or was until it was released.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParkedViewPage {
    /// Logs, each with the view's cursor.
    pub logs: Vec<(LogId, Cursor)>,
    /// The log behind which the next page begins; `None` at the end.
    pub next: Option<LogId>,
}
