//! Event sourcing for high-volume multi-tenant systems: the pure core of Fanfold.
//!
//! # For authors
//!
//! | to write | see |
//! |---|---|
//! | a service: decides on commands, owns documents | [`Service`], [`Documents`], [`Context`], [`Code`] |
//! | a view: a read model | [`View`], [`Recorded`], [`Outcome`], [`RowKey`] |
//! | names and times in commands, events and rows | [`DocumentId`], [`Name`], [`Time`], [`Rfc3339`] |
//! | events of older versions | [`Service::upcast`], [`Raw`] |
//! | tests: given, when, then | [`testing`] |
//! | what a host runs | [`App`], [`Example`] |
//! | a reactor: answers events with commands (nothing runs reactors yet) | [`Reactor`], [`OutgoingCommand`] |
//!
//! The same log folds to the same documents and rows everywhere (F9). So authors' code has no I/O, no clock and no
//! randomness, and neither has this crate: no async, and no cloud in its dependency tree.
//!
//! Hosts and providers find the rest of the core in [`host`]; authors need none of it.

mod app;
mod causes;
pub mod entry;
pub mod host;
pub mod names;
pub mod reactor;
pub mod service;
mod services;
mod tagged;
pub mod testing;
mod time;
mod trace;
pub mod view;

pub use app::{App, AppBuilder, AppError, Example};
pub use causes::with_causes;
pub use entry::{Entry, Raw};
pub use host::catch::Fault;
pub use host::command::Command;
pub use host::digest::Digest;
pub use host::log::{Log, StateKey};
pub use host::position::{CommandId, Seq};
pub use host::request::{Request, RequestError};
pub use names::{DocumentId, LogId, Name, NameError, Origin, Partition, RowKey, ServiceName};
pub use reactor::{OutgoingCommand, Reactor, Reactors};
pub use service::{AnyService, Code, Context, Documents, Service};
pub use services::Services;
pub use time::{Rfc3339, Time, TimeError};
pub use trace::{TraceParent, TraceParentError};
pub use view::{AnyView, Outcome, Recorded, View, Views};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
