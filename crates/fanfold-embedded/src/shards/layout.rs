//! The open shards of a stream, and how splits and merges change them. Pure functions.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ReshardError, ShardId};
use crate::hash_key::{HashKey, HashKeyRange};

/// The largest number of open shards of one stream. An open shard is cheap, a queue and a task for
/// each lane: the bound only keeps a mistake from creating a million of them.
pub(crate) const SHARDS_OPEN_MAX: usize = 1_024;

/// The version of the stored form.
const VERSION: u32 = 1;

/// The description of an open shard, without its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenShard {
    /// Its name.
    pub id: ShardId,
    /// Its hash keys.
    pub range: HashKeyRange,
    /// Its parents: one shard that was split, or two that were merged. Empty for an initial shard.
    pub parents: Vec<ShardId>,
}

/// The open shards of a stream, and the next name. Each hash key is in exactly one open shard.
///
/// Serializable; deserializing checks it. The items and the closed shards are not part of it: a
/// stream is restored empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Layout {
    next: ShardId,
    /// The open shards, in the order of their ranges.
    open: Vec<OpenShard>,
}

impl Layout {
    /// A layout of `shards` shards (at least one, at most 1,024) of equal width.
    pub fn equal(shards: usize) -> Self {
        let ranges = HashKeyRange::equal(shards.min(SHARDS_OPEN_MAX));
        let ids = (0..).map(ShardId);
        let open = |(id, range)| OpenShard { id, range, parents: Vec::new() };
        let open: Vec<OpenShard> = ids.zip(ranges).map(open).collect();
        Self { next: ShardId(open.len() as u64), open }
    }

    /// The open shards, in the order of their ranges.
    pub fn open(&self) -> &[OpenShard] {
        &self.open
    }

    /// The layout after splitting a shard: one child has the keys below `at`, the other those from
    /// `at` on. `None` splits in the middle.
    pub fn split(&self, shard: ShardId, at: Option<HashKey>) -> Result<Self, ReshardError> {
        let index = self.index_of(shard)?;
        let HashKeyRange { first, last } = self.open[index].range;
        if first == last {
            return Err(ReshardError::TooNarrow { shard, key: first });
        }
        let at = at.unwrap_or(self.open[index].range.middle());
        if at <= first || at > last {
            return Err(ReshardError::OutOfRange { shard, at, least: first.0 + 1, most: last });
        }
        if self.open.len() >= SHARDS_OPEN_MAX {
            return Err(ReshardError::TooManyOpen);
        }
        let lower = HashKeyRange { first, last: HashKey(at.0 - 1) };
        let upper = HashKeyRange { first: at, last };
        Ok(self.replaced(index, 1, [lower, upper]))
    }

    /// The layout after merging two neighbours, in either order, into one child.
    pub fn merge(&self, one: ShardId, other: ShardId) -> Result<Self, ReshardError> {
        let (one_at, other_at) = (self.index_of(one)?, self.index_of(other)?);
        if one_at.abs_diff(other_at) != 1 {
            return Err(ReshardError::NotAdjacent { one, other });
        }
        let (lower, upper) = (one_at.min(other_at), one_at.max(other_at));
        let (first, last) = (self.open[lower].range.first, self.open[upper].range.last);
        Ok(self.replaced(lower, 2, [HashKeyRange { first, last }]))
    }

    fn index_of(&self, shard: ShardId) -> Result<usize, ReshardError> {
        match self.open.iter().position(|open| open.id == shard) {
            Some(index) => Ok(index),
            // Names are given in ascending order, so this one was in use.
            None if shard < self.next => Err(ReshardError::Closed { shard }),
            None => Err(ReshardError::Unknown { shard }),
        }
    }

    /// The layout with children of these ranges in place of `shards` shards from `index` on.
    fn replaced<const N: usize>(
        &self,
        index: usize,
        shards: usize,
        children: [HashKeyRange; N],
    ) -> Self {
        let Self { next, mut open } = self.clone();
        let replaced = index..index + shards;
        let parents: Vec<ShardId> = open[replaced.clone()].iter().map(|open| open.id).collect();
        let ids = (next.0..).map(ShardId);
        let child = |(id, range)| OpenShard { id, range, parents: parents.clone() };
        open.splice(replaced, ids.zip(children).map(child));
        Self { next: ShardId(next.0 + N as u64), open }
    }
}

/// Why a stored layout is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// Another version of this program wrote the layout.
    #[error("the shard layout has version {found}, this program reads only {VERSION}")]
    Version {
        /// The stored version.
        found: u32,
    },
    /// The layout has no open shards, or too many.
    #[error("the shard layout has {found} open shards, 1 to {SHARDS_OPEN_MAX} are allowed")]
    Count {
        /// The number of open shards.
        found: usize,
    },
    /// A hash key belongs to no shard, or to two.
    #[error("the open shards of the layout do not cover every hash key once: see {shard}")]
    Ranges {
        /// The shard at which the first gap or overlap is.
        shard: ShardId,
    },
    /// A name is used twice, or would be given again.
    #[error("the shard layout gives the name {shard} twice")]
    Names {
        /// The name.
        shard: ShardId,
    },
}

/// The stored form of a layout.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    next: ShardId,
    open: Vec<StoredShard>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredShard {
    id: ShardId,
    first: HashKey,
    last: HashKey,
    parents: Vec<ShardId>,
}

impl From<Layout> for Stored {
    fn from(Layout { next, open }: Layout) -> Self {
        let stored = |OpenShard { id, range: HashKeyRange { first, last }, parents }| StoredShard {
            id,
            first,
            last,
            parents,
        };
        Self { version: VERSION, next, open: open.into_iter().map(stored).collect() }
    }
}

impl TryFrom<Stored> for Layout {
    type Error = LayoutError;

    fn try_from(Stored { version, next, open }: Stored) -> Result<Self, LayoutError> {
        if version != VERSION {
            return Err(LayoutError::Version { found: version });
        }
        let Some(last) = open.last().filter(|_| open.len() <= SHARDS_OPEN_MAX) else {
            return Err(LayoutError::Count { found: open.len() });
        };
        if last.last != HashKey(u128::MAX) {
            return Err(LayoutError::Ranges { shard: last.id });
        }
        // The lowest key that no shard so far has; `None` after the highest key.
        let mut free = Some(0);
        for (index, StoredShard { id, first, last, .. }) in open.iter().enumerate() {
            if free != Some(first.0) || first > last {
                return Err(LayoutError::Ranges { shard: *id });
            }
            free = last.0.checked_add(1);
            if *id >= next || open[..index].iter().any(|before| before.id == *id) {
                return Err(LayoutError::Names { shard: *id });
            }
        }
        let checked = |StoredShard { id, first, last, parents }| OpenShard {
            id,
            range: HashKeyRange { first, last },
            parents,
        };
        Ok(Self { next, open: open.into_iter().map(checked).collect() })
    }
}
