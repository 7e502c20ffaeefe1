//! Data in transit between stages: shards, the command stream, the topic, and the admission that
//! bounds them. All of it is in memory; after a crash the engine rebuilds it from the command log
//! and the journal.

mod admission;
mod shard;
mod stream;
mod topic;

pub(crate) use admission::{MemoryAdmission, Obstacle};
pub use shard::Position;
pub(crate) use shard::{Batch, Shard};
pub(crate) use stream::MemoryStream;
pub(crate) use topic::{MemoryTopic, Notification};

/// Bytes that an item in transit takes beside its key and body. An estimate, so that bounds in
/// bytes also hold for many small items.
pub(crate) const ITEM_OVERHEAD_BYTES: usize = 128;
