//! All ports in memory, for one process.
//!
//! Everything is gone when the process ends. What is stored (journal, state, rows, slots) grows
//! with the data; what is on its way is bounded: [`MemoryAdmission`] for commands,
//! [`MemoryTopic`] and [`MemoryDeadLetters`] by dropping the oldest, which the views' sweeps find
//! again in the journal.
//!
//! Every call takes effect, completely, in the moment it is made: none waits for anything, none
//! fails but for a broken limit or a full stream, and no lock is held over an await. Neither a
//! runtime nor a clock is needed, but the port [`Env`] for the time at which a record arrives. What
//! can be observed comes in an order that depends on the calls only.

mod admission;
mod commands;
mod dead_letters;
mod journal;
mod parked;
mod state;
mod stream;
mod topic;
mod view_table;

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfold_pipeline::ports::{Env, Unavailable};

pub use admission::{MemoryAdmission, Obstacle};
pub(crate) use commands::twice;
pub use commands::{Changing, MemoryCommands};
pub use dead_letters::MemoryDeadLetters;
pub use journal::MemoryJournal;
pub(crate) use journal::PAGE_BYTES;
pub use parked::MemoryParked;
pub(crate) use state::KEYS_MAX;
pub use state::MemoryState;
pub use stream::MemoryStream;
pub use topic::{MemoryTopic, Notification};
pub use view_table::MemoryViewTable;
pub(crate) use view_table::TOMBSTONE_MS;

use crate::shard::Bound;
use crate::waits::LocalWaits;

/// Bytes that an item on its way takes beside its key and body: an estimate, so that many small
/// ones count for what they are.
pub(crate) const ITEM_OVERHEAD_BYTES: usize = 128;

/// How the memory provider is laid out.
#[derive(Debug, Clone)]
pub struct MemoryConfig {
    /// Shards of the change stream and of the command stream, each.
    pub shards: usize,
    /// How much may be on its way before commands are refused.
    pub backlog: Bound,
    /// Bytes of notifications kept for subscribers that have not come to them yet.
    pub notifications_bytes_max: usize,
    /// How many dead letters of one view are kept, and how large they may be together.
    pub dead_letters: Bound,
}

impl Default for MemoryConfig {
    /// For a machine of 1 GiB: what is on its way takes at most about a quarter of it.
    fn default() -> Self {
        Self {
            // As many as cores, on the machines that one process is enough for.
            shards: 4,
            // Some seconds of work.
            backlog: Bound { items: 200_000, bytes: 128 * 1024 * 1024 },
            notifications_bytes_max: 64 * 1024 * 1024,
            // More than a sweep delivers in ten runs: a view with so many is broken.
            dead_letters: Bound { items: 1_000, bytes: 16 * 1024 * 1024 },
        }
    }
}

/// All ports.
#[derive(Clone)]
pub struct Memory {
    /// Slots, the catalogue, and the change stream.
    pub commands: Arc<MemoryCommands>,
    /// The command stream.
    pub stream: Arc<MemoryStream>,
    /// The event logs.
    pub journal: Arc<MemoryJournal>,
    /// Heads, documents, windows.
    pub state: Arc<MemoryState>,
    /// What waits.
    pub parked: Arc<MemoryParked>,
    /// The notifications.
    pub topic: Arc<MemoryTopic>,
    /// Those that could not be delivered.
    pub dead_letters: Arc<MemoryDeadLetters>,
    /// The views' tables, by the views' names.
    pub views: BTreeMap<String, Arc<MemoryViewTable>>,
    /// Whether commands are let in.
    pub admission: Arc<MemoryAdmission>,
    /// Waiting for logs and views.
    pub waits: Arc<LocalWaits>,
}

impl Memory {
    /// Empty, with a table for each view.
    pub fn new<'a>(
        config: &MemoryConfig,
        views: impl IntoIterator<Item = &'a str>,
        env: Arc<dyn Env>,
    ) -> Self {
        let commands = Arc::new(MemoryCommands::new(config.shards, config.backlog));
        let stream = Arc::new(MemoryStream::new(config.shards, config.backlog, env.clone()));
        let journal = Arc::new(MemoryJournal::default());
        let table = |view: &'a str| (view.to_owned(), Arc::new(MemoryViewTable::default()));
        let views: BTreeMap<String, Arc<MemoryViewTable>> = views.into_iter().map(table).collect();
        let waits = LocalWaits::new(env, journal.clone(), journal.waiters().clone());
        let waits = views.iter().fold(waits, |waits, (view, table)| {
            waits.with_view(view, table.clone(), table.waiters().clone())
        });
        let on_the_way = [commands.changes().backlog().clone(), stream.records().backlog().clone()];
        Self {
            admission: Arc::new(MemoryAdmission::new(on_the_way, config.backlog)),
            topic: Arc::new(MemoryTopic::new(config.notifications_bytes_max)),
            dead_letters: Arc::new(MemoryDeadLetters::new(config.dead_letters)),
            state: Arc::default(),
            parked: Arc::default(),
            waits: Arc::new(waits),
            commands,
            stream,
            journal,
            views,
        }
    }
}

/// A caller broke a limit of the port.
pub(crate) fn beyond_limit(hop: &'static str, found: usize, max: usize, what: &str) -> Unavailable {
    Unavailable::Failed { hop, message: format!("{found} {what}, at most {max} are taken") }
}
