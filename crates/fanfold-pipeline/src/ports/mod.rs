//! What the stages need from the world. The docs of each trait are its specification; the
//! conformance suite checks it on every provider.
//!
//! What holds for all of them:
//! - A call that returns `Ok` has taken effect, durably: it survives a crash of the provider. A
//!   provider that keeps one order of the effects on all of its ports MAY lose some by a crash,
//!   if what is left is a prefix of that order, and if what led to them comes to the stages again:
//!   never an accepted command, what was parked, or an attempt.
//! - A call that fails with [`Unavailable`] MAY have taken effect, and MAY still take effect later.
//!   Only [`Unavailable::Throttled`], [`Unavailable::Full`] and [`Unavailable::Refused`] promise
//!   that it has not and will not.
//! - A call that is dropped before it returns counts as one that failed.
//! - Reads are strongly consistent: they see every write acknowledged before they began. (The
//!   catalogue, and [`State::heads`], say what they may miss.)
//! - Calls MUST NOT block their thread.

mod admission;
mod commands;
mod env;
mod journal;
mod parked;
mod state;
mod stream;
mod topic;
mod view_table;
mod waits;

pub use admission::{Admission, NotAdmitted};
pub use commands::{
    Append, AppendError, CataloguePage, CataloguePosition, Change, Commands, Slot, Token,
};
pub use env::Env;
pub use journal::{CommitItem, Journal, JournalAppendError, JournalPage, Nonce};
pub use parked::{ParkedItem, ParkedTable};
pub use state::{Guarded, State, StateItem};
pub(crate) use stream::put_len;
pub use stream::{CommandStream, StreamRecord};
pub use topic::{DeadLetter, DeadLetters, PublishError, Topic};
pub use view_table::{
    Advanced, Attempted, Cursor, ParkedView, PutRowError, Row, RowPage, RowRange, StoredRow,
    ViewTable,
};
pub use waits::Waits;

/// A port could not do what was asked of it, now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Too much at once: it has not happened. Ask again, later.
    #[error("the {hop} is throttled")]
    Throttled {
        /// Which port.
        hop: &'static str,
    },
    /// There is no room: it has not happened. Ask again when somebody has made some.
    #[error("the {hop} has no room: the disk is full")]
    Full {
        /// Which port.
        hop: &'static str,
    },
    /// The provider refuses this very call: there is no right to make it, no such table, or it is not
    /// valid. It has not happened. Asking again makes no sense before somebody has changed that.
    #[error("the {hop} refuses the call: {message}")]
    Refused {
        /// Which port.
        hop: &'static str,
        /// What it said.
        message: String,
    },
    /// No answer in time: it may have happened.
    #[error("the {hop} did not answer in time")]
    TimedOut {
        /// Which port.
        hop: &'static str,
    },
    /// What is stored was not written by Fanfold, or only in part: to ask again makes no sense.
    #[error("what is in the {hop} cannot be read: {message}")]
    Damaged {
        /// Which port.
        hop: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// An error: it may have happened.
    #[error("the {hop} failed: {message}")]
    Failed {
        /// Which port.
        hop: &'static str,
        /// What it said.
        message: String,
    },
}

impl Unavailable {
    /// Whether it is certain that nothing has happened, and nothing will.
    pub fn has_not_happened(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Full { .. } | Self::Refused { .. })
    }

    /// Whether the same call may succeed a moment later. What may not is not retried at once: the
    /// batch comes again later, and an operator may have mended the cause by then.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::Damaged { .. })
    }
}
