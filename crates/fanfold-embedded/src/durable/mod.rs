//! All ports, durable in one [`Store`](crate::store::Store).
//!
//! What is on its way (the command stream, the notifications) is in memory as in [`crate::memory`]:
//! after a crash it is made again from the command log. What cannot be made again is on disk before
//! it is acknowledged: accepted commands, what is parked, why a view stands still, closed slots.
//! Everything else is on disk with the next checkpoint.

mod checkpoints;
mod commands;
mod group;
mod run;
mod tables;
mod view_table;

use fanfold_pipeline::ports::Unavailable;

pub use checkpoints::{Checkpoints, Stages};
pub use commands::{Counts, DurableCommands};
pub use run::Durability;
pub use tables::{DurableDeadLetters, DurableJournal, DurableParked, DurableState};
pub use view_table::DurableViewTable;

use crate::store::StoreError;

fn unavailable(hop: &'static str, error: &StoreError) -> Unavailable {
    match error {
        StoreError::Full => Unavailable::Full { hop },
        error => Unavailable::Failed { hop, message: error.to_string() },
    }
}
