//! Makes checkpoints, and after a crash processes the commands again that the last one lacks.

mod checkpoints;
mod gaps;
mod replay;
mod run;
mod watchdog;

pub(crate) use checkpoints::Downstream;
pub(crate) use gaps::{StoredGaps, ViewGaps};
pub(crate) use replay::Replay;
pub use run::Durability;
pub(crate) use run::RUN_KEY;
pub(crate) use watchdog::Watchdog;
