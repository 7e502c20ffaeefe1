//! The suite that every provider must pass. For each port it has functions that panic with a
//! readable message if a sentence of the port's docs does not hold.
//!
//! The functions need no particular runtime. All names begin with a prefix. The caller gives a new
//! one for each run, so a shared database can be used, and other data in it does not matter. What a
//! port alone cannot show (where a change, a record or a message arrives), the suite observes
//! through a closure of the provider's tests.
//!
//! The suite cannot show that `Ok` survives a crash, or that a call does not block its thread.

mod bodies;
mod commands;
mod cursors;
mod journal;
mod operator;
mod parked;
mod raises;
mod rows;
mod state;
mod streams;
mod timeline;
mod view_registry;
mod waits;

pub use bodies::WithBodies;
pub use commands::{catalogue, changes, closed_slot, commands};
pub use cursors::cursors;
pub use journal::{journal, operator_journal};
pub use operator::{operator_parked, operator_view};
pub use parked::parked;
pub use raises::{operator_commands, raised_changes, raised_closed_slot};
pub use rows::{rows, scans};
pub use state::state;
pub use streams::{command_stream, dead_letters, dead_letters_of_views, message_topics, topic};
pub use timeline::operator_timeline;
pub use view_registry::view_registry;
pub use waits::{WaitsPorts, waits};

use std::fmt::Display;

use fanfold::{LogId, Name, Partition, RowKey, ServiceName};

use crate::ports::ViewTable;

/// Concurrent writers in a race. Source: enough to collide anywhere, and few enough for any
/// database.
const RACERS: u64 = 16;

/// How often the suite polls for what must arrive before it reports a loss. Closures and databases
/// may wait a little at each poll.
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

/// Unwraps a result that must be `Ok`.
fn must<T, E: Display>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}
