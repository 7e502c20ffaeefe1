//! What operators need of the tables, beside the stages.

use async_trait::async_trait;
use fanfold::{LogId, Seq};

use super::{Cursor, ParkedItem, ParkedTable, ParkedView, Unavailable, ViewTable};

/// The parked table of all logs.
#[async_trait]
pub trait OperatorParked: ParkedTable {
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
    /// missing.
    async fn parked(
        &self,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<ParkedViewPage, Unavailable>;

    /// Lets a view go on that is parked for this log as `parked` says; false if it is not, or not as it says. With `to`,
    /// its cursor is moved there, if it is below. MUST be one atomic, conditional write, and MUST NOT change the lease.
    async fn release(
        &self,
        log: &LogId,
        parked: &ParkedView,
        to: Option<Seq>,
    ) -> Result<bool, Unavailable>;
}

/// A page of logs for which a view is parked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParkedViewPage {
    /// Logs, each with the view's cursor.
    pub logs: Vec<(LogId, Cursor)>,
    /// The log behind which the next page begins; `None` at the end.
    pub next: Option<LogId>,
}
