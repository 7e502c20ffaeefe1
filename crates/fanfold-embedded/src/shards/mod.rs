//! A stream of shards, each with a range of hash keys. Shards can be split and merged while the
//! stream is written and read.
//!
//! - **One open shard for each key**: the open ranges cover each hash key exactly once. An item
//!   goes to the shard that is open for its key at that moment.
//! - **Resharding** closes the parents, which then take no more items, and opens their children.
//!   The items in the parents stay there until they are read and trimmed.
//! - **Order**: a shard is readable once all its ancestors are drained: closed, and trimmed to
//!   their end. So a consumer that reads only readable shards sees the items of a key in the order
//!   in which they were appended.
//! - A drained shard is forgotten once its parents are forgotten.

mod error;
mod id;
mod layout;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

pub(crate) use error::LayoutStoreError;
pub use error::ReshardError;
pub use id::{NotAShardId, ShardId};
pub(crate) use layout::{Layout, OpenShard, SHARDS_OPEN_MAX};

use crate::hash_key::{HashKey, HashKeyRange};
use crate::limit::Backlog;
use crate::striped::lock;
use crate::transit::{Position, Shard};

/// The largest number of closed shards that are not drained: enough to split all open ones at once.
pub(crate) const SHARDS_CLOSED_MAX: usize = SHARDS_OPEN_MAX;

/// Stores a new layout before it is applied.
type LayoutStore = Box<dyn Fn(&Layout) -> Result<(), LayoutStoreError> + Send + Sync>;

/// Whether a shard takes items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardState {
    /// It takes the items of its range.
    Open,
    /// It takes no more items, and it is not forgotten yet. Its children take the items of its
    /// range.
    Closed,
}

/// The description of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// Its name.
    pub id: ShardId,
    /// Its hash keys.
    pub range: HashKeyRange,
    /// Whether it takes items.
    pub state: ShardState,
    /// Its parents, forgotten or not: one shard that was split, or two that were merged.
    pub parents: Vec<ShardId>,
    /// The number of items in it.
    pub backlog: usize,
}

/// The ends of a stream's shards at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(Vec<(ShardId, Position)>);

/// A stream whose shards can be split and merged.
pub struct Shards<T> {
    table: RwLock<Table<T>>,
    backlog: Arc<Backlog>,
    /// Notified when another shard may have become readable.
    changed: Arc<Notify>,
    /// Held during a split or a merge.
    resharding: Mutex<()>,
    store: Option<LayoutStore>,
}

struct Table<T> {
    layout: Layout,
    /// The open shards, by the first key of their range.
    open: BTreeMap<HashKey, Arc<Shard<T>>>,
    /// The open shards, and the closed ones that are not forgotten.
    members: BTreeMap<ShardId, Member<T>>,
}

struct Member<T> {
    range: HashKeyRange,
    parents: Vec<ShardId>,
    shard: Arc<Shard<T>>,
}

impl<T: Clone> Shards<T> {
    /// A stream of `shards` empty shards (at least one, at most 1,024) of equal width.
    pub fn equal(shards: usize) -> Self {
        Self::from_layout(Layout::equal(shards))
    }

    /// A stream of the open shards of a layout, empty.
    pub fn from_layout(layout: Layout) -> Self {
        let (backlog, changed) = (Arc::<Backlog>::default(), Arc::<Notify>::default());
        let mut table =
            Table { layout: layout.clone(), open: BTreeMap::new(), members: BTreeMap::new() };
        for open in layout.open() {
            table.add(open, Arc::new(Shard::notifying(backlog.clone(), changed.clone())));
        }
        let table = RwLock::new(table);
        Self { table, backlog, changed, resharding: Mutex::new(()), store: None }
    }

    /// Passes every new layout to `store` before applying it. If `store` fails, the shards are
    /// unchanged. If the process crashes after `store`, the new layout must be restored: no item
    /// was in its new shards yet.
    #[must_use]
    pub fn stored_by(
        mut self,
        store: impl Fn(&Layout) -> Result<(), LayoutStoreError> + Send + Sync + 'static,
    ) -> Self {
        self.store = Some(Box::new(store));
        self
    }

    /// Appends an item, counted as `bytes` bytes, to the shard that is open for its key.
    pub fn append(&self, key: HashKey, bytes: usize, item: T) {
        // Held during the append, so that the shard cannot be closed before it.
        let table = self.read();
        // Always found, as the lowest range begins with the lowest key.
        if let Some((_, shard)) = table.open.range(..=key).next_back() {
            shard.append(key, bytes, item);
        }
    }

    /// All shards with their ranges, parents before their children.
    pub fn iter(&self) -> impl Iterator<Item = (HashKeyRange, Arc<Shard<T>>)> {
        let table = self.up_to_date();
        let shards = table.members.values().map(|member| (member.range, member.shard.clone()));
        shards.collect::<Vec<_>>().into_iter()
    }

    /// The descriptions of all shards, parents before their children.
    pub fn list(&self) -> Vec<ShardInfo> {
        let table = self.up_to_date();
        table.members.iter().map(|(id, member)| member.info(*id)).collect()
    }

    /// The layout in force.
    pub fn layout(&self) -> Layout {
        self.read().layout.clone()
    }

    /// The items and bytes in all shards, open or closed.
    pub fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// Splits an open shard at `at`, the first key of the upper child. `None` splits in the middle.
    /// Returns the children. Blocks while the layout is stored.
    pub fn split(
        &self,
        shard: ShardId,
        at: Option<HashKey>,
    ) -> Result<Vec<ShardInfo>, ReshardError> {
        self.reshard(|layout| layout.split(shard, at))
    }

    /// Merges two open shards whose ranges meet. Returns the child. Blocks while the layout is
    /// stored.
    pub fn merge(&self, one: ShardId, other: ShardId) -> Result<Vec<ShardInfo>, ReshardError> {
        self.reshard(|layout| layout.merge(one, other))
    }

    fn reshard(
        &self,
        plan: impl FnOnce(&Layout) -> Result<Layout, ReshardError>,
    ) -> Result<Vec<ShardInfo>, ReshardError> {
        let _one_at_a_time = lock(&self.resharding);
        let layout = {
            let table = self.up_to_date();
            if table.members.len() - table.open.len() >= SHARDS_CLOSED_MAX {
                return Err(ReshardError::TooManyClosed);
            }
            plan(&table.layout)?
        };
        // Without the table's lock, so that appends continue while the layout is stored.
        if let Some(store) = &self.store {
            store(&layout).map_err(ReshardError::NotStored)?;
        }
        let children = self.come_into_force(layout);
        self.changed.notify_waiters();
        Ok(children)
    }

    fn come_into_force(&self, layout: Layout) -> Vec<ShardInfo> {
        let mut table = self.write();
        let stays: BTreeSet<ShardId> = layout.open().iter().map(|open| open.id).collect();
        let Table { open, members, .. } = &mut *table;
        for (id, member) in members.iter().filter(|(id, _)| !stays.contains(id)) {
            // Skip shards that were closed before: their first key may be an open shard's now.
            if !member.shard.is_closed() {
                tracing::debug!(shard = %id, "closed");
                open.remove(&member.range.first);
                member.shard.close();
            }
        }
        let mut children = Vec::new();
        for open in layout.open() {
            if !table.members.contains_key(&open.id) {
                let shard = Shard::notifying(self.backlog.clone(), self.changed.clone());
                table.add(open, Arc::new(shard));
                children.extend(table.members.get(&open.id).map(|member| member.info(open.id)));
            }
        }
        table.layout = layout;
        children
    }

    /// The readable shards: those whose ancestors are all drained.
    pub fn readable(&self) -> BTreeMap<ShardId, Arc<Shard<T>>> {
        let table = self.up_to_date();
        let readable = table.members.iter().filter(|(_, member)| !table.waits(member));
        readable.map(|(id, member)| (*id, member.shard.clone())).collect()
    }

    /// Waits until the readable shards differ from `known`, and returns them.
    pub async fn readable_unlike(
        &self,
        known: &BTreeSet<ShardId>,
    ) -> BTreeMap<ShardId, Arc<Shard<T>>> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Registered before the check, so that a change after the check is not missed.
            changed.as_mut().enable();
            let readable = self.readable();
            if !readable.keys().eq(known) {
                return readable;
            }
            changed.await;
        }
    }

    /// Marks the current end of every shard.
    pub fn mark(&self) -> Mark {
        let table = self.read();
        let ends = table.members.iter().map(|(id, member)| (*id, &member.shard));
        let ends = ends.filter(|(_, shard)| !shard.is_empty());
        Mark(ends.map(|(id, shard)| (id, shard.end())).collect())
    }

    /// Whether every item that was appended before `mark` is trimmed. Once true, it stays true. A
    /// mark is valid only for the stream object that made it.
    pub fn has_passed(&self, mark: &Mark) -> bool {
        let table = self.read();
        let has_passed = |(id, end): &(ShardId, Position)| match table.members.get(id) {
            Some(member) => member.shard.start() >= *end,
            // A shard is forgotten only after it is drained.
            None => true,
        };
        mark.0.iter().all(has_passed)
    }

    /// Locks the table for reading, after forgetting the shards that are over.
    fn up_to_date(&self) -> RwLockReadGuard<'_, Table<T>> {
        let table = self.read();
        if !table.members.values().any(|member| table.is_over(member)) {
            return table;
        }
        drop(table);
        self.write().forget_drained();
        self.read()
    }

    fn read(&self) -> RwLockReadGuard<'_, Table<T>> {
        // As in `striped::lock`: no code under the lock panics halfway through a change.
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table<T>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Table<T> {
    fn add(&mut self, open: &OpenShard, shard: Arc<Shard<T>>) {
        let OpenShard { id, range, parents } = open.clone();
        self.open.insert(range.first, shard.clone());
        self.members.insert(id, Member { range, parents, shard });
    }

    /// Whether one of its parents is not forgotten.
    fn waits(&self, member: &Member<T>) -> bool {
        member.parents.iter().any(|parent| self.members.contains_key(parent))
    }

    /// Whether it can be forgotten. A drained shard stays until its parents are forgotten, because
    /// its children also wait for those.
    fn is_over(&self, member: &Member<T>) -> bool {
        member.shard.is_drained() && !self.waits(member)
    }

    fn forget_drained(&mut self) {
        let ids: Vec<ShardId> = self.members.keys().copied().collect();
        // Ascending: parents have lower names, and are removed before their children.
        for id in ids {
            if self.members.get(&id).is_some_and(|member| self.is_over(member)) {
                self.members.remove(&id);
            }
        }
    }
}

impl<T: Clone> Member<T> {
    fn info(&self, id: ShardId) -> ShardInfo {
        let state = if self.shard.is_closed() { ShardState::Closed } else { ShardState::Open };
        let Self { range, parents, shard } = self;
        ShardInfo { id, range: *range, state, parents: parents.clone(), backlog: shard.len() }
    }
}
