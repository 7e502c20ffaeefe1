//! Fanfold's stages as Lambdas: one bootstrap for all of them, and a function for each, so that a
//! `main` is a line.
//!
//! | function | Lambda | behind |
//! |---|---|---|
//! | [`api`] | HTTP API | `POST /command` and all that can be read |
//! | [`relay`] | changes to the command stream | the stream of the commands table |
//! | [`processor`] | decides, folds, publishes | the command stream |
//! | [`view`] | one view, and its sweep | a topic or a queue of it, and a schedule |
//! | [`sweep`] | finds what stands still | a schedule |
//!
//! It guarantees that an invocation ends before Lambda ends it and leaves nothing under way; that
//! an event source is told exactly what has to come again; that a panic fails one invocation and
//! not the process; and that what is wrong with the environment is said at the start, all at once.
//!
//! It knows nothing of what services decide, and nothing of the template but the names in
//! [`fanfold_aws::names`] and in [`metrics`].

mod api;
mod budget;
mod error;
mod handler;
mod host;
pub mod metrics;
mod processor;
mod relay;
pub mod settings;
mod start;
mod sweep;
mod view;

pub use api::ApiHandler;
pub use budget::Budget;
pub use error::{InvocationError, StartError};
pub use handler::{Bookmark, Handler, Reply};
pub use host::lines;
pub use metrics::{Dimensions, Metrics};
pub use processor::ProcessorHandler;
pub use relay::RelayHandler;
pub use start::{api, processor, relay, sweep, view};
pub use sweep::SweepHandler;
pub use view::ViewHandler;
