//! What is on its way: shards, the command stream, the topic, and the admission that keeps them small. All of it is in
//! memory; after a crash it is made again from the command log and the journal.

mod admission;
mod shard;
mod stream;
mod topic;

pub(crate) use admission::{MemoryAdmission, Obstacle};
pub use shard::Position;
pub(crate) use shard::{Batch, Shard};
pub(crate) use stream::MemoryStream;
pub(crate) use topic::{MemoryTopic, Notification};

/// Bytes that an item on its way takes beside its key and body: an estimate, so that many small items count for what they
/// are.
pub(crate) const ITEM_OVERHEAD_BYTES: usize = 128;
