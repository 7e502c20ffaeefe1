//! The suite that every provider must pass: per port, functions that panic with a readable message
//! where a sentence of the port's docs does not hold.
//!
//! They need no particular runtime. All names are made from a prefix given by the caller, who
//! chooses a new one for each run, so that a shared database will do; and what else is in there
//! does not matter. What a port alone cannot show (what became of a change, a record, a message) is
//! observed through a closure that the provider's tests bring along.
//!
//! What it cannot show: that `Ok` survives a crash, and that nothing blocks its thread.

mod bodies;
mod commands;
mod cursors;
mod journal;
mod parked;
mod rows;
mod state;
mod streams;
mod waits;

pub use bodies::WithBodies;
pub use commands::{catalogue, changes, closed_slot, commands};
pub use cursors::cursors;
pub use journal::journal;
pub use parked::parked;
pub use rows::{rows, scans};
pub use state::state;
pub use streams::{command_stream, dead_letters, dead_letters_of_views, message_topics, topic};
pub use waits::{WaitsPorts, waits};

use std::fmt::Display;

use fanfold::{LogId, Name, Partition, RowKey, ServiceName};

use crate::ports::ViewTable;

/// Concurrent writers in a race: enough to collide anywhere, few enough for any database.
const RACERS: u64 = 16;

/// How often a suite looks for what must arrive, before it says that it was lost. Closures and
/// databases that need time take it at each look.
const LOOKS_MAX: usize = 200;

/// All of [`ViewTable`]: [`cursors`], [`rows`] and [`scans`].
pub async fn view_table(table: &dyn ViewTable, prefix: &str) {
    cursors(table, prefix).await;
    rows(table, prefix).await;
    scans(table, prefix).await;
}

/// A log of this run.
fn log(prefix: &str, name: &str) -> LogId {
    let service = must("the suite's service", ServiceName::new("conformance"));
    let org = must("the prefix must be of a name's letters", Name::new(format!("{prefix}.{name}")));
    LogId::new(&service, &Partition::org(&org))
}

fn row_key(text: &str) -> RowKey {
    must("a row key of the suite", RowKey::new(text))
}

/// What must not fail.
fn must<T, E: Display>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}
