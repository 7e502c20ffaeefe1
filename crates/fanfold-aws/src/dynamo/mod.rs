//! The ports on DynamoDB. Each adapter's docs say what its calls cost.
//!
//! The costs are DynamoDB's: a write unit per KB of the item, names and keys included, of the
//! larger of before and after; a read unit per 4 KB of the items that a call looks at, whatever it
//! returns of them, and one if it finds none. A write whose condition fails costs the same.

mod boundaries;
mod commands;
mod item;
mod journal;
mod parked;
mod positions;
mod state;
mod table;
mod together;
mod view_table;

pub use commands::{BUCKETS, DynamoCommands, bucket};
pub use journal::DynamoJournal;
pub use parked::DynamoParked;
pub use positions::Positions;
pub use state::DynamoState;
pub use view_table::DynamoViewTable;
