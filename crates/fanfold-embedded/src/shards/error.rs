use std::error::Error as StdError;

use thiserror::Error;

use super::{SHARDS_CLOSED_MAX, SHARDS_OPEN_MAX, ShardId};
use crate::hash_key::HashKey;

/// Whatever kept a layout from being stored.
pub(crate) type LayoutStoreError = Box<dyn StdError + Send + Sync>;

/// Why shards were not split or merged. Nothing has changed.
#[derive(Debug, Error)]
pub enum ReshardError {
    /// No shard ever had this name.
    #[error("there is no {shard}: list the shards to see which there are")]
    Unknown {
        /// The name.
        shard: ShardId,
    },
    /// It was split or merged before.
    #[error("{shard} is closed: list the shards, and take those that came from it")]
    Closed {
        /// The shard.
        shard: ShardId,
    },
    /// One hash key cannot be divided.
    #[error("{shard} has only one hash key, {key}, and cannot be split: split another")]
    TooNarrow {
        /// The shard.
        shard: ShardId,
        /// Its key.
        key: HashKey,
    },
    /// One of the children would be empty, or beyond the shard.
    #[error("{shard} cannot be split at {at}: give a hash key from {least} to {most}, or none")]
    OutOfRange {
        /// The shard.
        shard: ShardId,
        /// Where it should have been split.
        at: HashKey,
        /// The lowest key at which it can be.
        least: u128,
        /// The highest.
        most: HashKey,
    },
    /// There are other shards between them, or they are the same.
    #[error("{one} and {other} are not neighbours: merge two of which one begins where one ends")]
    NotAdjacent {
        /// The one.
        one: ShardId,
        /// The other.
        other: ShardId,
    },
    /// There would be more than [`SHARDS_OPEN_MAX`].
    #[error("there are {SHARDS_OPEN_MAX} open shards, no more are possible: merge some first")]
    TooManyOpen,
    /// Too many were split and merged before what is in them was processed.
    #[error("{SHARDS_CLOSED_MAX} closed shards are not drained yet: try again when some are gone")]
    TooManyClosed,
    /// The new layout could not be stored, so it is not in force.
    #[error("the new layout of the shards could not be stored: try again")]
    NotStored(#[source] LayoutStoreError),
}
