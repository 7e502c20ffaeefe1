//! The ports on DynamoDB. Each adapter's docs say what its calls cost.
//!
//! DynamoDB bills a write by the larger of the item before and after, one write unit per KB with names
//! and keys. A write whose condition fails costs the same. It bills a read by the items that the call
//! reads, one read unit per 4 KB, whatever it returns of them, and one unit if there are none.

mod boundaries;
mod buckets;
mod commands;
mod item;
mod joined_reads;
mod journal;
mod parked;
mod state;
mod sweep_position;
mod table;
mod timeline;
mod view_registry;
mod view_table;

pub use buckets::{BUCKETS, bucket};
pub use commands::DynamoCommands;
pub use journal::DynamoJournal;
pub use parked::DynamoParked;
pub use state::DynamoState;
pub use sweep_position::{DynamoArrivals, DynamoSweepPosition};
pub use timeline::DynamoTimeline;
pub use view_registry::DynamoViewRegistry;
pub use view_table::DynamoViewTable;
