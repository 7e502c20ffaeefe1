//! The faults that tests plant.

/// A fault of a target. Most faults happen once in each log. Faults of pages and rows persist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A page leaves an entry out.
    Hole,
    /// A page holds an entry twice.
    EntryTwice,
    /// Commands get receipts and no entries, and are not counted as accepted.
    Forgets,
    /// `accepted` is higher than the number of commands.
    AcceptedAhead,
    /// Two commands get the same receipt.
    PromisedTwice,
    /// A repeated command gets its old receipt, and no entry.
    PromisedAgain,
    /// A command is refused, and has an entry.
    RefusedAndTaken,
    /// A memo is cut.
    MemoCut,
    /// A memo is replaced by another of the same length.
    MemoSwapped,
    /// A memo is lost.
    MemoLost,
    /// An entry has another user than its command.
    AnotherUser,
    /// An entry has another command than was sent.
    AnotherCommand,
    /// The data of a command change before it is decided.
    DataChanged,
    /// A decided entry has no digest of the data.
    NoDigest,
    /// An entry names another log.
    AnotherLog,
    /// An entry changes after it was read.
    EntryChanges,
    /// A read of one entry differs from its page.
    PagesDisagree,
    /// Pages lack `next`.
    NoNext,
    /// An entry has a user of the run, and a command that was never sent.
    Invented,
    /// A repeated command is decided again.
    AcceptedTwice,
    /// A duplicate names an entry other than the first.
    WrongFirst,
    /// A new id is a duplicate.
    NewIsDuplicate,
    /// A new id is stale.
    NewIsStale,
    /// An id below the window is decided.
    StaleIsDecided,
    /// A different command with a known id is a duplicate, so it is lost.
    ReusedIsDuplicate,
    /// A repeated command is `id_reused`.
    SameIsReused,
    /// An `id_reused` entry names an entry other than the first.
    ReusedWrongFirst,
    /// An entry lacks its client.
    ClientForgotten,
    /// The clients of a user share one window.
    ClientsMixed,
    /// A window keeps its ids after a week without a new one.
    NeverIdle,
    /// A window forgets its ids too early.
    IdleTooSoon,
    /// A lookup returns the entry before the right one.
    LookupOfAnother,
    /// A lookup of a known id returns 404.
    LookupFindsNothing,
    /// A lookup of a known id returns 400.
    LookupRefused,
    /// A lookup of an id that was never sent returns an entry.
    LookupInvents,
    /// A deposit has another amount.
    AmountChanged,
    /// A withdrawal exceeds the balance.
    OverdrawnAccepted,
    /// A valid deposit is rejected.
    FineRejected,
    /// A command is rejected with a wrong code.
    WrongCode,
    /// A transfer of another client adds more than it takes.
    MoneyMade,
    /// A deposit of another client leaves too high a balance.
    WrongSum,
    /// The cursor of a view does not advance.
    ViewStuck,
    /// The same, while another client sends a command.
    ViewStuckGrows,
    /// The cursor of a view does not advance, and the view is parked.
    ViewStuckParked,
    /// A view is at the tail, and parked.
    ViewParked,
    /// A balance is wrong.
    WrongBalance,
    /// A row has a wrong seq.
    WrongRowSeq,
    /// A row of an open account is missing.
    BalanceMissing,
    /// A row exists for an account that was never opened.
    BalanceExtra,
    /// A movement has no row.
    LineMissing,
    /// A row exists without a movement.
    LineExtra,
    /// A row of a movement has another time.
    LineTime,
    /// A row of a movement has another memo.
    LineMemo,
    /// The number of rejections is wrong.
    WrongTotals,
    /// The row of the sums is missing.
    TotalsMissing,
    /// During the run, a balance is one version older than the cursor.
    StaleSeen,
    /// During the run, a balance has the newest seq and an older amount.
    OldAmountSeen,
    /// During the run, the row of a balance is missing.
    MissingSeen,
    /// During the run, the newest movement is missing.
    LineMissingSeen,
    /// During the run, the newest movement has another amount.
    WrongLineSeen,
    /// During the run, the sums are wrong.
    WrongTotalsSeen,
    /// During the run, the row of the sums is missing.
    TotalsMissingSeen,
    /// During the run, a cursor goes back.
    CursorBack,
    /// During the run, a cursor is far beyond all accepted commands.
    CursorAhead,
    /// After the run, a cursor is beyond the tail.
    CursorAheadLater,
    /// A view answers before it has reached the wanted seq.
    ViewTooEarly,
    /// The `next` of a page of rows is not its last key.
    RowsGoOnElsewhere,
    /// Rows are out of order.
    RowsDisordered,
    /// During the run, rows are out of order.
    DisorderedSeen,
    /// A page of entries names another log.
    PageOfAnother,
    /// `accepted` is lower than the tail.
    AcceptedBehind,
    /// An entry has an unknown status.
    UnknownStatus,
    /// An accepted entry has no user.
    NoUser,
    /// An entry is earlier than the one before it.
    TimeGoesBack,
    /// A rejected entry has events.
    RejectedWithEvents,
    /// An accepted entry names the first entry of its id, as a duplicate does.
    AcceptedWithFirst,
    /// A page of rows names another log.
    RowsOfAnotherLog,
    /// A page of rows names another view.
    RowsOfAnotherView,
    /// An entry has no time.
    NoTime,
    /// A page ends early.
    EndsEarly,
    /// The second page is 404.
    Gone,
    /// No fault: another client sends a command while the auditor reads.
    GrowsLater,
    /// No fault: another client sends a command at each read of the auditor.
    GrowsForEver,
    /// No fault: a command is `faulted`.
    Faulted,
    /// No fault: a command is `lost`.
    GivenUp,
}
