//! The transport between the stages: shards, and each subscriber's notifications. It delivers at
//! least once and, while faults are on, out of order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fanfold::{LogId, Time};
use fanfold_pipeline::ports::{Env, StreamRecord};

use crate::executor::World;
use crate::faults::{Fault, Faults};

/// How many places early a record may arrive.
const REORDER_DISTANCE: usize = 3;
/// Longest delay of a record: long enough that later ones of its log are parked before it arrives.
const RECORD_LATE_MS_MAX: u64 = 12_000;
/// Longest delay of a notification with a fault.
const NOTIFICATION_LATE_MS_MAX: u64 = 30_000;
/// Longest delay of a notification without a fault.
const NOTIFICATION_MS_MAX: u64 = 60;

/// A record on the command stream.
#[derive(Debug, Clone)]
pub struct Received {
    /// The record that the relay put.
    pub record: StreamRecord,
    /// When it arrived.
    pub arrived: Time,
}

impl Received {
    /// A record that arrives now.
    pub fn new(record: StreamRecord, world: &World) -> Self {
        Self { record, arrived: world.now() }
    }
}

/// A shard.
#[derive(Debug)]
pub struct Queue<T>(Arc<Mutex<Shard<T>>>);

#[derive(Debug)]
struct Shard<T> {
    items: VecDeque<T>,
    /// How many items at the front are in a batch, or in the rest of one. Their order is fixed, and
    /// `put` inserts nothing between them.
    taken: usize,
    /// The number of delayed items that have not arrived.
    late: usize,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone + Send + 'static> Queue<T> {
    /// Empty shards.
    pub fn shards(n: usize) -> Vec<Self> {
        let shard = || Shard { items: VecDeque::new(), taken: 0, late: 0 };
        (0..n).map(|_| Self(Arc::new(Mutex::new(shard())))).collect()
    }

    /// The shard of a log.
    pub fn of<'a>(shards: &'a [Self], log: &LogId) -> &'a Self {
        let sum: usize = log.as_str().bytes().map(usize::from).sum();
        &shards[sum % shards.len()]
    }

    fn lock(&self) -> MutexGuard<'_, Shard<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an item.
    pub fn push(&self, item: T) {
        self.lock().items.push_back(item);
    }

    /// Inserts an item at or near the end, perhaps twice, perhaps late.
    pub fn put(&self, item: T, faults: &Faults, world: &World) {
        let mut shard = self.lock();
        if faults.transport(Fault::RecordDelayed) {
            shard.late += 1;
            let (shard, world, late_ms) =
                (self.clone(), world.clone(), world.pick(0..RECORD_LATE_MS_MAX));
            world.clone().detach(async move {
                world.sleep(late_ms).await;
                let mut shard = shard.lock();
                shard.late -= 1;
                shard.items.push_back(item);
            });
            return;
        }
        if faults.transport(Fault::RecordTwice) {
            shard.items.push_back(item.clone());
        }
        let free = shard.items.len() - shard.taken;
        let mut place = shard.items.len();
        if free > 0 && faults.transport(Fault::RecordReordered) {
            place -= 1 + world.pick(0..free.min(REORDER_DISTANCE) as u64) as usize;
        }
        shard.items.insert(place, item);
    }

    /// Copies the first `n` items, which stay in the shard.
    pub fn take(&self, n: usize) -> Vec<T> {
        let mut shard = self.lock();
        shard.taken = shard.taken.max(n.min(shard.items.len()));
        shard.items.iter().take(n).cloned().collect()
    }

    /// Removes the first `n` items.
    pub fn pass(&self, n: usize) {
        let mut shard = self.lock();
        shard.items.drain(..n);
        shard.taken -= n;
    }

    /// Whether no item is left, not even a delayed one.
    pub fn is_empty(&self) -> bool {
        let shard = self.lock();
        shard.items.is_empty() && shard.late == 0
    }
}

/// A notification for one subscriber.
#[derive(Debug, Clone)]
pub struct Notification {
    /// When it is delivered.
    pub due: Time,
    /// The number of failed attempts.
    pub attempts: u32,
    /// The message.
    pub body: Bytes,
}

/// The notifications of one subscriber.
#[derive(Debug, Clone, Default)]
pub struct Notifications(Arc<Mutex<Vec<Notification>>>);

impl Notifications {
    fn lock(&self) -> MutexGuard<'_, Vec<Notification>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Schedules a message, perhaps late, perhaps twice.
    pub fn deliver(&self, body: Bytes, faults: &Faults, world: &World) {
        let copies = 1 + usize::from(faults.transport(Fault::NotificationTwice));
        for _ in 0..copies {
            let late = faults.transport(Fault::NotificationDelayed);
            let max = if late { NOTIFICATION_LATE_MS_MAX } else { NOTIFICATION_MS_MAX };
            let due = world.now().plus_ms(world.pick(0..max));
            let mut waiting = self.lock();
            if faults.are_on() && waiting.iter().any(|other| other.due > due) {
                faults.count(Fault::NotificationReordered);
            }
            waiting.push(Notification { due, attempts: 0, body: body.clone() });
        }
    }

    /// Schedules a retry.
    pub fn again(&self, notification: Notification) {
        self.lock().push(notification);
    }

    /// Takes the earliest notification, if it is due.
    pub fn take(&self, now: Time) -> Option<Notification> {
        let mut waiting = self.lock();
        let first = waiting.iter().enumerate().min_by_key(|(_, waiting)| waiting.due)?;
        let (at, due) = (first.0, first.1.due);
        (due <= now).then(|| waiting.remove(at))
    }

    /// Whether no notification is left.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}
