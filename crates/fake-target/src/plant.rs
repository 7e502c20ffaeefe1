//! What can be wrong with the fake target.

/// What is wrong with a target. Most of it happens once in each log; what is wrong with pages and
/// rows, for as long as it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A page leaves an entry out.
    Hole,
    /// A page holds an entry twice.
    EntryTwice,
    /// Commands get receipts, and nothing comes of them; nor are they counted.
    Forgets,
    /// More is accepted than ever gets entries.
    AcceptedAhead,
    /// Two commands get the same receipt.
    PromisedTwice,
    /// A command that comes again gets the receipt that it had, and no entry.
    PromisedAgain,
    /// A command is refused, and taken.
    RefusedAndTaken,
    /// A memo is cut.
    MemoCut,
    /// A memo is another of the same length.
    MemoSwapped,
    /// A memo gets lost.
    MemoLost,
    /// An entry belongs to another user than it was promised to.
    AnotherUser,
    /// An entry is of another command than was sent.
    AnotherCommand,
    /// An entry names another log.
    AnotherLog,
    /// An entry changes after it was read.
    EntryChanges,
    /// An entry alone is not what it is in its page.
    PagesDisagree,
    /// Pages do not say where they go on.
    NoNext,
    /// An entry of one of our users that has sent nothing.
    Invented,
    /// A command that comes again is decided again.
    AcceptedTwice,
    /// A duplicate names another entry than the first.
    WrongFirst,
    /// A new id is called a duplicate.
    NewIsDuplicate,
    /// A new id is called stale.
    NewIsStale,
    /// An id below the window is decided.
    StaleIsDecided,
    /// A command with the id of another one is called a duplicate: it is swallowed.
    ReusedIsDuplicate,
    /// A command that comes again is said to have the id of another one.
    SameIsReused,
    /// A command with the id of another one names another entry than the first of its id.
    ReusedWrongFirst,
    /// An entry does not say of which client it is.
    ClientForgotten,
    /// Clients of one user share their ids.
    ClientsMixed,
    /// Ids are known although no new one came for more than a week.
    NeverIdle,
    /// Ids are forgotten before no new one came for a week.
    IdleTooSoon,
    /// Looking up an id shows the entry before its own.
    LookupOfAnother,
    /// Looking up an id finds nothing.
    LookupFindsNothing,
    /// Looking up an id is refused, as if there were no such thing.
    LookupRefused,
    /// Looking up an id that was never sent shows an entry.
    LookupInvents,
    /// A deposit is of another amount.
    AmountChanged,
    /// Somebody withdraws more than there is.
    OverdrawnAccepted,
    /// A deposit is refused.
    FineRejected,
    /// What must be refused is refused for another reason.
    WrongCode,
    /// A transfer of somebody else's adds more than it takes.
    MoneyMade,
    /// A deposit of somebody else's leaves more than there can be.
    WrongSum,
    /// The cursor of a view stays behind.
    ViewStuck,
    /// The same, while somebody else goes on sending a little.
    ViewStuckGrows,
    /// A view stays behind, and says that it is parked.
    ViewStuckParked,
    /// A view is at the tail, and parked.
    ViewParked,
    /// A balance is not what it should be.
    WrongBalance,
    /// A row names another entry than the one that touched it last.
    WrongRowSeq,
    /// A row of an open account is missing.
    BalanceMissing,
    /// There is a row of an account that nobody has opened.
    BalanceExtra,
    /// A movement has no row.
    LineMissing,
    /// There is a row of no movement.
    LineExtra,
    /// A row of a movement has another time.
    LineTime,
    /// A row of a movement has another memo.
    LineMemo,
    /// Refusals are not counted rightly.
    WrongTotals,
    /// The sums have no row.
    TotalsMissing,
    /// While it is driven, a balance is one version older than its cursor says.
    StaleSeen,
    /// While it is driven, a balance has its newest seq and an older amount.
    OldAmountSeen,
    /// While it is driven, a row of a balance is missing.
    MissingSeen,
    /// While it is driven, the newest movement is missing.
    LineMissingSeen,
    /// While it is driven, the newest movement has another amount.
    WrongLineSeen,
    /// While it is driven, the sums are those of a moment before.
    WrongTotalsSeen,
    /// While it is driven, the sums have no row.
    TotalsMissingSeen,
    /// While it is driven, a cursor goes back.
    CursorBack,
    /// While it is driven, a cursor is far beyond everything that was accepted.
    CursorAhead,
    /// Once it is driven no more, a cursor is beyond the tail.
    CursorAheadLater,
    /// A view answers before it is where it was asked to be, and says so.
    ViewTooEarly,
    /// A page of rows goes on at another row than its last.
    RowsGoOnElsewhere,
    /// Rows come in no order.
    RowsDisordered,
    /// While it is driven, rows come in no order.
    DisorderedSeen,
    /// A page is of another log.
    PageOfAnother,
    /// Fewer commands are accepted than there are entries.
    AcceptedBehind,
    /// An entry has a status that there is not.
    UnknownStatus,
    /// An accepted entry is nobody's.
    Nobodys,
    /// An entry has no time.
    NoEntry,
    /// A page ends early.
    EndsEarly,
    /// The second page says that there is no such log.
    Gone,
    /// No fault: somebody sends a little while the auditor reads.
    GrowsLater,
    /// No fault: somebody sends each time the auditor reads.
    GrowsForEver,
    /// No fault: a command kills its processor, and is set aside.
    Faulted,
    /// No fault: an operator gives up a command.
    GivenUp,
}
