//! The pure core.
#![expect(missing_docs, reason = "wip")]
pub mod catch;
pub mod command;
pub mod entry;
pub mod limits;
pub mod names;
pub mod position;
pub mod reactor;
pub mod service;
mod tagged;
pub mod view;
pub mod window;
pub use catch::Fault;
pub use command::Command;
pub use entry::Entry;
pub use names::*;
pub use position::*;
pub use service::*;
pub use view::*;
pub use reactor::*;
