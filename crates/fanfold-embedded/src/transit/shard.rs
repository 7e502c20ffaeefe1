//! A shard: an ordered queue of items in transit, read from any position, trimmed from the front.
//!
//! Change streams and record streams ([`Shards`](crate::shards::Shards)) consist of shards, and the
//! notification log is one. Reading is synchronous and removes nothing: each consumer keeps its own
//! position. Consumers trim the items below the lowest position.

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::hash_key::HashKey;
use crate::limit::{Backlog, Limit};
use crate::striped::lock;

/// A position in a shard. The first item that was ever appended has 0, the next 1 …
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// The position of the first item.
    pub const START: Self = Self(0);

    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Items read from a shard, in order, and the position at which to read on.
#[derive(Debug, Clone)]
pub struct Batch<T> {
    /// The items with their positions.
    pub items: Vec<(Position, T)>,
    /// The bytes of these items.
    pub bytes: usize,
    /// `items` has all wanted items below this position, from the start of the batch.
    pub next: Position,
    /// Whether a wanted item did not fit.
    pub is_full: bool,
}

impl<T> Batch<T> {
    /// An empty batch, to be filled with items at and above `from`.
    pub fn starting_at(from: Position) -> Self {
        Self { items: Vec::new(), bytes: 0, next: from, is_full: false }
    }
}

struct Stored<T> {
    key: HashKey,
    bytes: usize,
    item: T,
}

struct Queue<T> {
    start: Position,
    items: VecDeque<Stored<T>>,
    bytes: usize,
    is_closed: bool,
}

impl<T> Queue<T> {
    fn end(&self) -> Position {
        Position(self.start.0 + self.items.len() as u64)
    }

    fn is_drained(&self) -> bool {
        self.is_closed && self.items.is_empty()
    }

    /// The items at and above `from`, with their positions.
    fn from(&self, from: Position) -> impl Iterator<Item = (Position, &Stored<T>)> {
        let from = from.clamp(self.start, self.end());
        let skipped = usize::try_from(from.0 - self.start.0).unwrap_or(usize::MAX);
        let places = (from.0..).map(Position);
        places.zip(self.items.range(skipped.min(self.items.len())..))
    }
}

/// The queue. Items of one key keep the order in which they were appended.
pub struct Shard<T> {
    backlog: Arc<Backlog>,
    queue: Mutex<Queue<T>>,
    arrived: Notify,
    /// Notified when this shard is drained.
    drained: Arc<Notify>,
}

impl<T: Clone> Shard<T> {
    /// An empty shard whose items are counted in `backlog`.
    pub fn new(backlog: Arc<Backlog>) -> Self {
        Self::notifying(backlog, Arc::default())
    }

    /// As [`Shard::new`]; notifies `drained` once the shard is closed and empty.
    pub(crate) fn notifying(backlog: Arc<Backlog>, drained: Arc<Notify>) -> Self {
        let queue =
            Queue { start: Position::START, items: VecDeque::new(), bytes: 0, is_closed: false };
        Self { backlog, queue: Mutex::new(queue), arrived: Notify::new(), drained }
    }

    /// Appends an item that is counted as `bytes` bytes. Returns its position.
    pub fn append(&self, key: HashKey, bytes: usize, item: T) -> Position {
        // Counted first, because a reader can trim the item as soon as it is in the queue.
        self.backlog.add(bytes);
        let position = {
            let mut queue = lock(&self.queue);
            debug_assert!(!queue.is_closed, "a closed shard takes no more items");
            queue.items.push_back(Stored { key, bytes, item });
            queue.bytes += bytes;
            Position(queue.end().0 - 1)
        };
        self.arrived.notify_waiters();
        position
    }

    /// At most `max` items at and above `from`. If `from` was trimmed, starts with the oldest.
    pub fn read(&self, from: Position, max: usize) -> Vec<(Position, T)> {
        let queue = lock(&self.queue);
        queue
            .from(from)
            .take(max)
            .map(|(position, stored)| (position, stored.item.clone()))
            .collect()
    }

    /// Adds the items from `batch.next` on whose keys are wanted, up to `limit`. An empty batch
    /// takes its first item even if that exceeds the limit in bytes.
    pub fn fill(&self, batch: &mut Batch<T>, limit: Limit, is_wanted: impl Fn(HashKey) -> bool) {
        let queue = lock(&self.queue);
        for (position, stored) in queue.from(batch.next).filter(|(_, s)| is_wanted(s.key)) {
            let fits = batch.items.len() < limit.items && batch.bytes + stored.bytes <= limit.bytes;
            if !fits && !batch.items.is_empty() {
                batch.next = position;
                batch.is_full = true;
                return;
            }
            batch.bytes += stored.bytes;
            batch.items.push((position, stored.item.clone()));
        }
        batch.next = batch.next.max(queue.end());
    }

    /// Drops all items below `below`.
    pub fn trim(&self, below: Position) {
        self.trim_while(|queue| queue.start < below);
    }

    /// Drops the oldest items until at most `bytes_max` bytes are left.
    pub fn trim_to_bytes(&self, bytes_max: usize) {
        self.trim_while(|queue| queue.bytes > bytes_max);
    }

    fn trim_while(&self, too_much: impl Fn(&Queue<T>) -> bool) {
        let mut queue = lock(&self.queue);
        while too_much(&queue) {
            let Some(stored) = queue.items.pop_front() else { break };
            queue.start = queue.start.next();
            queue.bytes -= stored.bytes;
            self.backlog.remove(stored.bytes);
        }
        self.notify_if_drained(&queue);
    }

    /// The oldest item.
    pub fn oldest(&self) -> Option<T> {
        lock(&self.queue).items.front().map(|stored| stored.item.clone())
    }

    /// The position of the oldest item; the end, if the shard is empty.
    pub fn start(&self) -> Position {
        lock(&self.queue).start
    }

    /// The position that the next item will get.
    pub fn end(&self) -> Position {
        lock(&self.queue).end()
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        lock(&self.queue).items.len()
    }

    /// Whether the shard has no items.
    pub fn is_empty(&self) -> bool {
        lock(&self.queue).items.is_empty()
    }

    /// Whether the shard takes no more items.
    pub fn is_closed(&self) -> bool {
        lock(&self.queue).is_closed
    }

    /// Whether the shard is closed and empty.
    pub fn is_drained(&self) -> bool {
        lock(&self.queue).is_drained()
    }

    /// Closes the shard, and wakes readers at its end. The caller ensures that no append follows.
    pub(crate) fn close(&self) {
        {
            let mut queue = lock(&self.queue);
            queue.is_closed = true;
            self.notify_if_drained(&queue);
        }
        self.arrived.notify_waiters();
    }

    fn notify_if_drained(&self, queue: &Queue<T>) {
        if queue.is_drained() {
            self.drained.notify_waiters();
        }
    }

    /// Waits until an item was appended at or above `from`. `false`: the shard was closed before
    /// that.
    pub async fn arrived(&self, from: Position) -> bool {
        loop {
            let mut arrived = pin!(self.arrived.notified());
            // Registered before the check, so that an append after the check is not missed.
            arrived.as_mut().enable();
            {
                let queue = lock(&self.queue);
                if queue.end() > from {
                    return true;
                }
                if queue.is_closed {
                    return false;
                }
            }
            arrived.await;
        }
    }
}
