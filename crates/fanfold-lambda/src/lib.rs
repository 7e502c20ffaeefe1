//! The functions of an app as Lambdas. All are one program, whose `main` of one line calls [`main`].
//! The environment variable `FANFOLD_ROLE` says which function a process is.
//!
//! | role | what the Lambda does | event source |
//! |---|---|---|
//! | `api` | accepts commands, reads logs and views | HTTP API |
//! | `relay` | puts changes on the command stream | stream of the commands table |
//! | `processor` | decides, folds and publishes | command stream |
//! | `view:<name>` | applies notifications to one view, and sweeps it | topic or queue, and a schedule |
//! | `sweep` | finds logs that stand still | schedule |
//!
//! The crate guarantees:
//!
//! - An invocation ends before Lambda ends it, and leaves no task behind.
//! - The answer to an event source names exactly the records to deliver again.
//! - A panic fails one invocation, not the process.
//! - A start with wrong environment variables reports all of them at once.
//!
//! The crate does not depend on any service. It shares with the template only the names in
//! [`fanfold_aws::names`] and in [`metrics`].

mod api;
mod budget;
mod error;
mod handler;
mod host;
pub mod metrics;
mod role;
pub mod settings;
mod start;
mod streams;
mod sweep;
mod view;

pub use api::ApiHandler;
pub use budget::Budget;
pub use error::{InvocationError, StartError};
pub use handler::{Handler, Reply, SweepPosition};
pub use host::lines;
pub use metrics::{Dimensions, Metrics};

pub use start::main;
pub use streams::{ProcessorHandler, RelayHandler};
pub use sweep::SweepHandler;
pub use view::{Announcer, ViewHandler};
