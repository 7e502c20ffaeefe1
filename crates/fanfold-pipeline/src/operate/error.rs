use fanfold::host::limits::MESSAGE_BYTES_MAX;
use fanfold::{LogId, Seq};

use crate::ingest::IngestError;
use crate::ports::Unavailable;

/// Why an action was not done.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// The host has no such view.
    #[error("there is no view `{0}` here")]
    UnknownView(String),
    /// A list cannot begin behind it.
    #[error("`{0}` is no position in the list: take it from the field `next` of a page")]
    NoPosition(String),
    /// Nothing waits there.
    #[error("nothing waits at seq {seq} of {log}{}", ending(.hint))]
    NothingWaits {
        /// The log.
        log: LogId,
        /// The seq.
        seq: Seq,
        /// What there is instead.
        hint: Option<String>,
    },
    /// Several items wait at the seq.
    #[error("several items wait at seq {seq} of {log}: say which, by its `identity`: `{}`", .identities.join("`, `"))]
    Ambiguous {
        /// The log.
        log: LogId,
        /// The seq.
        seq: Seq,
        /// The items' identities.
        identities: Vec<String>,
    },
    /// The view is not parked for the log.
    #[error("the view `{view}` is not parked for {log}")]
    NotParked {
        /// The view.
        view: String,
        /// The log.
        log: LogId,
    },
    /// The view's log is being rebuilt, and its rows may be gone.
    #[error(
        "the view `{view}` is being rebuilt for {log}, and goes on by itself then: to end that, run `fanfold rebuild {log} --view {view}`"
    )]
    IsRebuilt {
        /// The view.
        view: String,
        /// The log.
        log: LogId,
    },
    /// The view has not applied all that stands before the entry.
    #[error(
        "the view `{view}` is at {cursor} of {log}, and parked at {seq}: let it go on first, and skip the entry when it is parked directly before it"
    )]
    NotDirectlyBefore {
        /// The view.
        view: String,
        /// The log.
        log: LogId,
        /// What it has applied.
        cursor: Seq,
        /// The entry that it is parked at.
        seq: Seq,
    },
    /// The action does not fit what waits.
    #[error("{0}")]
    Unfit(String),
    /// Only a faulted command is sent again.
    #[error("the entry {seq} of {log} is {status}, and only a faulted command is sent again")]
    NotFaulted {
        /// The log.
        log: LogId,
        /// The seq.
        seq: Seq,
        /// The entry's status.
        status: &'static str,
    },
    /// The reason is missing or too long.
    #[error(
        "a reason is needed, of 1 to {MESSAGE_BYTES_MAX} bytes: it is all that the log will say of the command"
    )]
    NoReason,
    /// What is stored cannot be read, or what is to be stored cannot be written.
    #[error("what is stored at seq {seq} of {log} cannot be read: {detail}")]
    Unreadable {
        /// The log.
        log: LogId,
        /// The seq.
        seq: Seq,
        /// Why.
        detail: String,
    },
    /// The command was not accepted again. It still waits.
    #[error("the command was not accepted again, and still waits")]
    NotAccepted(#[source] IngestError),
    /// A port does not answer. The action may be repeated.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

fn ending(hint: &Option<String>) -> String {
    hint.as_ref().map_or_else(String::new, |hint| format!(": {hint}"))
}
