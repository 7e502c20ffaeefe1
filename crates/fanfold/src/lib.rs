//! Event sourcing for high-volume multi-tenant systems: the pure core of Fanfold.
//!
//! Authors write a [`Service`] (decides on commands, owns documents), [`View`]s (read models) and [`Reactor`]s (answer
//! events with commands). [`testing`] has given/when/then for all three.
//!
//! Hosts use [`request`]s and their validation, the [`window`] that recognises repeats, the state machine of one
//! [`log`], the [`body`] of everything that is stored or sent, the [`limits`], and the [invariants](mod@invariant).
//!
//! The crate guarantees that the same log folds to the same documents and rows everywhere (F9). It has no I/O, no
//! clock, no randomness, no async, and depends on no cloud.

mod app;
pub mod body;
pub mod canary;
pub mod catch;
mod causes;
pub mod command;
pub mod describe;
pub mod digest;
pub mod entry;
pub mod invariant;
pub mod knob;
pub mod limits;
pub mod log;
pub mod names;
pub mod position;
pub mod reactor;
pub mod request;
pub mod service;
mod tagged;
pub mod testing;
mod time;
pub mod view;
pub mod window;

pub use app::{App, AppBuilder, AppError, Example};
pub use catch::Fault;
pub use causes::with_causes;
pub use command::Command;
pub use digest::Digest;
pub use entry::Entry;
pub use log::{Log, StateKey};
pub use names::{DocumentId, LogId, Name, NameError, Origin, Partition, RowKey, ServiceName};
pub use position::{CommandId, Seq};
pub use reactor::{OutgoingCommand, Reactor, Reactors};
pub use request::{Request, RequestError};
pub use service::{AnyService, Code, Context, Documents, Service, Services};
pub use time::{Rfc3339, Time, TimeError};
pub use view::{AnyView, Outcome, Recorded, View, Views};
