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
//! # For hosts and providers
//!
//! Authors need none of this. Requests and their validation ([`request`]), the services and views of an app behind an
//! object-safe form ([`Services`], [`Views`]), the state machine of one [`log`], the [`window`] that recognises repeats, the
//! [`body`] of everything that is stored or sent, the [`limits`], the [invariants](mod@invariant), and the
//! [descriptions](describe) of an app.

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
pub use entry::{Entry, Raw};
pub use log::{Log, StateKey};
pub use names::{DocumentId, LogId, Name, NameError, Origin, Partition, RowKey, ServiceName};
pub use position::{CommandId, Seq};
pub use reactor::{OutgoingCommand, Reactor, Reactors};
pub use request::{Request, RequestError};
pub use service::{AnyService, Code, Context, Documents, Service, Services};
pub use time::{Rfc3339, Time, TimeError};
pub use view::{AnyView, Outcome, Recorded, View, Views};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
