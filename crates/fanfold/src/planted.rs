//! Bugs that can be switched on. Each undoes one sentence of the design, and the tests and the
//! simulator must find it: a test that cannot fail shows nothing. Without the feature `planted`
//! all of this is `false`, and compiled away.

/// A sentence of the design, undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// Ingest: a retried append takes a new token.
    NewTokenOnRetry,
    /// Relay: a log's next record does not wait for the acknowledgement of the last.
    RelayRetriesOutOfOrder,
    /// Relay: what failed for good is not reported.
    RelayAcknowledgesFailures,
    /// Process: done commands' commits are not published again.
    NoRepublish,
    /// Process: after a cold load, replayed commits count as published.
    NoRepublishOnColdLoad,
    /// Process: the batch is acknowledged although publishing failed.
    AcknowledgeBeforePublishing,
    /// Process: a commit that the topic refuses for good is not parked.
    DropRefused,
    /// Process: after an unacknowledged append the cached log stays.
    KeepAfterUnacknowledged,
    /// Process: after a conflict the commit is put behind the other one, without a reload.
    CommitWithoutReload,
    /// Process: an append refused because of our own first attempt counts as a conflict for ever.
    IgnoreNonce,
    /// Process: parked commands are removed before their commit is published.
    UnparkBeforePublishing,
    /// Process: commands above a gap are dropped instead of parked.
    DropBeyond,
    /// Process: no look at the journal before parking.
    NoCatchUp,
    /// Process: after parking, the tail is not read again.
    NoLookAfterParking,
    /// Process: after parking, no nudge is put on the stream.
    NoNudgeAfterParking,
    /// Process: ids of rejected commands are not remembered when the log is folded.
    WindowWithoutRejected,
    /// Process: a repeat at its own seq is not compared with what stands there.
    NoIdentityCheck,
    /// Snapshot: the head is stored before its documents.
    HeadBeforeDocuments,
    /// Snapshot: documents touched by replayed commits are left out.
    ReplayedStayClean,
    /// Snapshot: puts are not guarded.
    UnguardedSnapshot,
    /// Snapshot: the head passes commits that are not known to be published.
    HeadBeforePublishing,
    /// Project: the cursor moves before the rows are written.
    CursorBeforeRows,
    /// Project: rows are written without a guard.
    UnguardedRow,
    /// Project: a commit beyond the cursor is applied as if nothing were missing.
    ApplyBeyond,
    /// Project: a message is acknowledged although its commits were not applied.
    AcknowledgeUnapplied,
    /// Process, project: an attempt that is under way in another process counts as one that has
    /// ended its process.
    LeaseWithoutUntil,
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

#[cfg(feature = "planted")]
impl Bug {
    /// Plants the bug in this thread while `run` runs.
    pub fn plant<T>(self, run: impl FnOnce() -> T) -> T {
        let before = PLANTED.replace(Some(self));
        let result = run();
        PLANTED.set(before);
        result
    }
}

/// Whether the bug is planted in this thread.
#[cfg(feature = "planted")]
pub fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether the bug is planted in this thread: never.
#[cfg(not(feature = "planted"))]
pub const fn planted(_: Bug) -> bool {
    false
}
