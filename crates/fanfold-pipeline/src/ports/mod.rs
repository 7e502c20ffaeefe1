//! What the stages need from the outside. The docs of each trait are its specification, and the
//! conformance suite checks it on every provider.
//!
//! For all ports:
//! - A call that returns `Ok` has taken effect durably: the effect survives a crash of the
//!   provider. A provider that keeps one order of the effects on all of its ports MAY lose the last
//!   ones by a crash, if their causes come to the stages again. It MUST NOT lose an accepted
//!   command, a parked item or a lease.
//! - A call that fails with [`Unavailable`] MAY have taken effect, and MAY still take effect later.
//!   Only [`Unavailable::Throttled`], [`Unavailable::Full`] and [`Unavailable::Refused`] promise
//!   that it has not and will not.
//! - A call that is dropped before it returns counts as failed.
//! - Reads are strongly consistent: they see every write acknowledged before they began. (The docs
//!   of the catalogue and of [`State::heads`] say what these may miss.)
//! - Calls MUST NOT block their thread.

mod admission;
mod arrivals;
mod commands;
mod env;
mod host_checks;
mod journal;
mod operator;
mod parked;
mod state;
mod stream;
mod timeline;
mod topic;
mod view_registry;
mod view_table;
mod waits;

pub use admission::{Admission, NotAdmitted};
pub use arrivals::Arrivals;
pub use commands::{
    Append, AppendError, CataloguePage, CataloguePosition, Change, Commands, Slot, Token,
};
pub use env::Env;
pub use host_checks::{HostChecked, HostChecks, HostFinding};
pub use journal::{CommitItem, Journal, JournalAppendError, JournalPage, Nonce};
pub use operator::{
    JournalLogs, OperatorCommands, OperatorJournal, OperatorParked, OperatorView, ParkedPage,
    ParkedPosition, ParkedViewPage, SlotRaise,
};
pub use parked::{ParkedItem, ParkedTable};
pub use state::{Guarded, State, StateItem};
pub(crate) use stream::put_len;
pub use stream::{CommandStream, StreamRecord};
pub use timeline::{ActionId, NoActionId, OperatorTimeline, TimelinePage};
pub use topic::{DeadLetter, DeadLetters, PublishError, Topic};
pub use view_registry::ViewRegistry;
pub use view_table::{
    Cursor, CursorMove, LeaseWrite, ParkedView, PutRowError, Rebuild, Row, RowPage, RowRange,
    StoredRow, ViewTable,
};
pub use waits::Waits;

/// Why a port did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// There were too many calls. The call has not happened; try again later.
    #[error("the {hop} is throttled")]
    Throttled {
        /// The port.
        hop: &'static str,
    },
    /// The disk is full. The call has not happened; try again when there is room.
    #[error("the {hop} has no room: the disk is full")]
    Full {
        /// The port.
        hop: &'static str,
    },
    /// The provider refuses this call: a permission or the table is missing, or the call is not
    /// valid. The call has not happened. A retry fails until an operator removes the cause.
    #[error("the {hop} refuses the call: {message}")]
    Refused {
        /// The port.
        hop: &'static str,
        /// The provider's message.
        message: String,
    },
    /// There was no answer in time. The call may have happened.
    #[error("the {hop} did not answer in time")]
    TimedOut {
        /// The port.
        hop: &'static str,
    },
    /// What is stored was not written by Fanfold, or only in part. A retry fails, too.
    #[error("an item of the {hop} cannot be read: {message}")]
    Damaged {
        /// The port.
        hop: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The call failed, but may have happened.
    #[error("the {hop} failed: {message}")]
    Failed {
        /// The port.
        hop: &'static str,
        /// The provider's message.
        message: String,
    },
}

impl Unavailable {
    /// Whether it is certain that the call has no effect, now or later.
    pub fn has_not_happened(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Full { .. } | Self::Refused { .. })
    }

    /// Whether the same call may succeed a moment later. Otherwise a stage does not retry it at
    /// once: the batch comes again later, when an operator may have removed the cause.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::Damaged { .. })
    }
}
