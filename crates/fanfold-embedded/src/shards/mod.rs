//! A stream: shards, each for a range of hash keys, that can be split and merged while it is
//! written and read.
//!
//! - **A key has one open shard** at any time: the open ranges leave no key out, and share none.
//!   An item goes to the shard that is open for its key at that moment.
//! - **Resharding** closes the parents, which take nothing any more, and opens their children.
//!   What is in the parents stays there, until it is read and trimmed.
//! - **Order**: a shard is readable once all that it came from are drained: closed, and trimmed
//!   to their end. So whoever reads readable shards only sees the items of a key in the order in
//!   which they were appended.
//! - A drained shard is forgotten when the last of its own parents is.

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

/// Closed shards that may wait to be drained: so many that all open ones can be split at once.
pub(crate) const SHARDS_CLOSED_MAX: usize = SHARDS_OPEN_MAX;

/// Keeps a new layout before it comes into force.
type LayoutStore = Box<dyn Fn(&Layout) -> Result<(), LayoutStoreError> + Send + Sync>;

/// Whether a shard takes items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardState {
    /// It takes those of its range.
    Open,
    /// Its children take them; it has some left.
    Closed,
}

/// What there is to know of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// Its name.
    pub id: ShardId,
    /// Its hash keys.
    pub range: HashKeyRange,
    /// Whether it takes items.
    pub state: ShardState,
    /// What it came from, be it forgotten or not: one shard that was split, or two that were merged.
    pub parents: Vec<ShardId>,
    /// How many items are in it.
    pub backlog: usize,
}

/// What had been appended to a stream at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(Vec<(ShardId, Position)>);

/// A stream.
pub struct Shards<T> {
    table: RwLock<Table<T>>,
    backlog: Arc<Backlog>,
    /// Told when another shard may have become readable.
    changed: Arc<Notify>,
    /// Held by who splits or merges.
    resharding: Mutex<()>,
    store: Option<LayoutStore>,
}

struct Table<T> {
    layout: Layout,
    /// The open shards, by their first keys.
    open: BTreeMap<HashKey, Arc<Shard<T>>>,
    /// These, and the closed ones that are not forgotten.
    members: BTreeMap<ShardId, Member<T>>,
}

struct Member<T> {
    range: HashKeyRange,
    parents: Vec<ShardId>,
    shard: Arc<Shard<T>>,
}

impl<T: Clone> Shards<T> {
    /// So many empty shards (at least one, at most [`SHARDS_OPEN_MAX`]) of equal width.
    pub fn equal(shards: usize) -> Self {
        Self::from_layout(Layout::equal(shards))
    }

    /// The open shards of a layout, empty.
    pub fn from_layout(layout: Layout) -> Self {
        let (backlog, changed) = (Arc::<Backlog>::default(), Arc::<Notify>::default());
        let mut table =
            Table { layout: layout.clone(), open: BTreeMap::new(), members: BTreeMap::new() };
        for open in layout.open() {
            table.add(open, Arc::new(Shard::telling(backlog.clone(), changed.clone())));
        }
        let table = RwLock::new(table);
        Self { table, backlog, changed, resharding: Mutex::new(()), store: None }
    }

    /// The same; every new layout is given to `store` before it comes into force. If that fails,
    /// nothing changes. If it succeeds and the process dies, the new layout is the one to restore:
    /// nothing was in its shards.
    #[must_use]
    pub fn stored_by(
        mut self,
        store: impl Fn(&Layout) -> Result<(), LayoutStoreError> + Send + Sync + 'static,
    ) -> Self {
        self.store = Some(Box::new(store));
        self
    }

    /// Appends an item that counts as so many bytes to the shard that is open for its key.
    pub fn append(&self, key: HashKey, bytes: usize, item: T) {
        // Held until the item is there: the shard cannot be closed before.
        let table = self.read();
        // The lowest range begins with the lowest key.
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

    /// All shards, as people want to see them: parents before their children.
    pub fn list(&self) -> Vec<ShardInfo> {
        let table = self.up_to_date();
        table.members.iter().map(|(id, member)| member.info(*id)).collect()
    }

    /// The open shards, to be stored.
    pub fn layout(&self) -> Layout {
        self.read().layout.clone()
    }

    /// What lies in them, open or closed.
    pub fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// Splits an open shard at `at`, the first key of the upper child; in the middle, if nothing
    /// is said. Gives the children. Blocks as long as it takes to store the layout.
    pub fn split(
        &self,
        shard: ShardId,
        at: Option<HashKey>,
    ) -> Result<Vec<ShardInfo>, ReshardError> {
        self.reshard(|layout| layout.split(shard, at))
    }

    /// Merges two open shards whose ranges meet. Gives the child. Blocks as long as it takes to
    /// store the layout.
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
        // The table is not locked: appends go on while the layout is written.
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
            // Those that were closed before may have a first key that is another shard's now.
            if !member.shard.is_closed() {
                tracing::debug!(shard = %id, "closed");
                open.remove(&member.range.first);
                member.shard.close();
            }
        }
        let mut children = Vec::new();
        for open in layout.open() {
            if !table.members.contains_key(&open.id) {
                let shard = Shard::telling(self.backlog.clone(), self.changed.clone());
                table.add(open, Arc::new(shard));
                children.extend(table.members.get(&open.id).map(|member| member.info(open.id)));
            }
        }
        table.layout = layout;
        children
    }

    /// The shards that may be read: everything that they came from is drained.
    pub fn readable(&self) -> BTreeMap<ShardId, Arc<Shard<T>>> {
        let table = self.up_to_date();
        let readable = table.members.iter().filter(|(_, member)| !table.waits(member));
        readable.map(|(id, member)| (*id, member.shard.clone())).collect()
    }

    /// Returns the shards that may be read, once they are others than `known`.
    pub async fn readable_unlike(
        &self,
        known: &BTreeSet<ShardId>,
    ) -> BTreeMap<ShardId, Arc<Shard<T>>> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Registered before the look: what changes after it is not missed.
            changed.as_mut().enable();
            let readable = self.readable();
            if !readable.keys().eq(known) {
                return readable;
            }
            changed.await;
        }
    }

    /// What has been appended up to now.
    pub fn mark(&self) -> Mark {
        let table = self.read();
        let ends = table.members.iter().map(|(id, member)| (*id, &member.shard));
        let ends = ends.filter(|(_, shard)| !shard.is_empty());
        Mark(ends.map(|(id, shard)| (id, shard.end())).collect())
    }

    /// Whether everything that had been appended before `mark` was trimmed. Once it is true, it
    /// stays so. A mark is of one stream, and of one life of it.
    pub fn has_passed(&self, mark: &Mark) -> bool {
        let table = self.read();
        let has_passed = |(id, end): &(ShardId, Position)| match table.members.get(id) {
            Some(member) => member.shard.start() >= *end,
            // Forgotten, so drained.
            None => true,
        };
        mark.0.iter().all(has_passed)
    }

    /// The table, without what is drained.
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
        // As the crate's other locks: nothing that runs under it can stop halfway.
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

    /// Whether something that it came from is not drained.
    fn waits(&self, member: &Member<T>) -> bool {
        member.parents.iter().any(|parent| self.members.contains_key(parent))
    }

    /// An empty closed shard is over only when its parents are: its children wait for them, too.
    fn is_over(&self, member: &Member<T>) -> bool {
        member.shard.is_drained() && !self.waits(member)
    }

    fn forget_drained(&mut self) {
        let ids: Vec<ShardId> = self.members.keys().copied().collect();
        // Parents have the lower names: they go before their children are looked at.
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
