use std::error::Error as StdError;

use thiserror::Error;

use super::{SHARDS_CLOSED_MAX, SHARDS_OPEN_MAX, ShardId};
use crate::hash_key::HashKey;

/// The error with which storing a layout failed.
pub(crate) type LayoutStoreError = Box<dyn StdError + Send + Sync>;

/// Why a split or a merge failed. The shards are unchanged.
#[derive(Debug, Error)]
pub enum ReshardError {
    /// The stream never had a shard of this name.
    #[error("there is no {shard}: list the shards to see which there are")]
    Unknown {
        /// The name.
        shard: ShardId,
    },
    /// The shard was split or merged before.
    #[error("{shard} is closed: list the shards, and use its children instead")]
    Closed {
        /// The shard.
        shard: ShardId,
    },
    /// The shard has only one hash key, which cannot be split.
    #[error("{shard} has only one hash key, {key}, and cannot be split: split another")]
    TooNarrow {
        /// The shard.
        shard: ShardId,
        /// Its key.
        key: HashKey,
    },
    /// The split key is not inside of the shard's range, or one child would be empty.
    #[error("{shard} cannot be split at {at}: give a hash key from {least} to {most}, or none")]
    OutOfRange {
        /// The shard.
        shard: ShardId,
        /// The requested first key of the upper child.
        at: HashKey,
        /// The lowest possible split key.
        least: u128,
        /// The highest possible split key.
        most: HashKey,
    },
    /// The two are the same shard, or their ranges do not meet.
    #[error("{one} and {other} are not neighbours: merge two shards whose ranges touch")]
    NotAdjacent {
        /// One shard.
        one: ShardId,
        /// The other shard.
        other: ShardId,
    },
    /// There would be more than 1,024 open shards.
    #[error("there are {SHARDS_OPEN_MAX} open shards, no more are possible: merge some first")]
    TooManyOpen,
    /// 1,024 closed shards still have unprocessed items.
    #[error(
        "{SHARDS_CLOSED_MAX} closed shards are not drained yet: try again when stages have processed more"
    )]
    TooManyClosed,
    /// The new layout could not be stored, so it was not applied.
    #[error("the new layout of the shards could not be stored: try again")]
    NotStored(#[source] LayoutStoreError),
}
