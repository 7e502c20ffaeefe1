//! A shard: an ordered queue of what is on its way, read from any position, trimmed from the front.
//!
//! Change streams and record streams ([`Shards`](crate::shards::Shards)) are made of shards, and the
//! notification log is one. Reading is synchronous and takes nothing away: whoever consumes a shard
//! keeps its own position, and trims when nobody needs what is below.

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::hash_key::HashKey;
use crate::limit::{Backlog, Limit};
use crate::striped::lock;

/// A place in a shard: its first item has 0, the next 1 …
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// Before the first item.
    pub const START: Self = Self(0);

    /// The place behind this one.
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

/// Items read from a shard, in order, and how far that was.
#[derive(Debug, Clone)]
pub struct Batch<T> {
    /// With their places.
    pub items: Vec<(Position, T)>,
    /// The bytes of these items.
    pub bytes: usize,
    /// Everything wanted below this place is in `items`.
    pub next: Position,
    /// Whether one more was wanted, and did not fit.
    pub is_full: bool,
}

impl<T> Batch<T> {
    /// Empty, to be filled with what is at and above `from`.
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

    /// The items at and above a position, with their places.
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
    /// Told when nothing is left of a closed shard.
    drained: Arc<Notify>,
}

impl<T: Clone> Shard<T> {
    /// An empty shard, which counts into `backlog`.
    pub fn new(backlog: Arc<Backlog>) -> Self {
        Self::telling(backlog, Arc::default())
    }

    /// As [`Shard::new`]; `drained` is told when nothing is left of the shard after its end.
    pub(crate) fn telling(backlog: Arc<Backlog>, drained: Arc<Notify>) -> Self {
        let queue =
            Queue { start: Position::START, items: VecDeque::new(), bytes: 0, is_closed: false };
        Self { backlog, queue: Mutex::new(queue), arrived: Notify::new(), drained }
    }

    /// Appends an item that counts as so many bytes.
    pub fn append(&self, key: HashKey, bytes: usize, item: T) -> Position {
        // Counted first: whoever sees the item can already trim it.
        self.backlog.add(bytes);
        let position = {
            let mut queue = lock(&self.queue);
            debug_assert!(!queue.is_closed, "what comes now would be behind the children's");
            queue.items.push_back(Stored { key, bytes, item });
            queue.bytes += bytes;
            Position(queue.end().0 - 1)
        };
        self.arrived.notify_waiters();
        position
    }

    /// The items at and above `from`, at most `max`. What was trimmed is passed over.
    pub fn read(&self, from: Position, max: usize) -> Vec<(Position, T)> {
        let queue = lock(&self.queue);
        queue
            .from(from)
            .take(max)
            .map(|(position, stored)| (position, stored.item.clone()))
            .collect()
    }

    /// Adds what came meanwhile, and whose keys are wanted, to a batch. The first item is taken
    /// however large it is.
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

    /// Drops everything below `below`.
    pub fn trim(&self, below: Position) {
        self.trim_while(|queue| queue.start < below);
    }

    /// Drops the oldest items until the others are at most so many bytes.
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
        self.tell_if_drained(&queue);
    }

    /// The place of the oldest item that is still there; the end, if there is none.
    pub fn start(&self) -> Position {
        lock(&self.queue).start
    }

    /// The place that the next item will have.
    pub fn end(&self) -> Position {
        lock(&self.queue).end()
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        lock(&self.queue).items.len()
    }

    /// Whether everything was trimmed.
    pub fn is_empty(&self) -> bool {
        lock(&self.queue).items.is_empty()
    }

    /// Whether nothing is appended any more.
    pub fn is_closed(&self) -> bool {
        lock(&self.queue).is_closed
    }

    /// Whether nothing is appended any more, and everything was trimmed.
    pub fn is_drained(&self) -> bool {
        lock(&self.queue).is_drained()
    }

    /// Nothing is appended any more: the caller sees to that. Whoever waits at the end is told.
    pub(crate) fn close(&self) {
        {
            let mut queue = lock(&self.queue);
            queue.is_closed = true;
            self.tell_if_drained(&queue);
        }
        self.arrived.notify_waiters();
    }

    fn tell_if_drained(&self, queue: &Queue<T>) {
        if queue.is_drained() {
            self.drained.notify_waiters();
        }
    }

    /// Returns once there is, or was, an item at or above `from`. `false`: there will never be,
    /// for the shard is closed.
    pub async fn arrived(&self, from: Position) -> bool {
        loop {
            let mut arrived = pin!(self.arrived.notified());
            // Registered before the look: what is appended after it is not missed.
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
