//! What lies between the stages: shards, and each subscriber's notifications. At least once, and
//! with faults on out of order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fanfold::{LogId, Time};
use fanfold_pipeline::ports::{Env, StreamRecord};

use crate::executor::World;
use crate::faults::{Fault, Faults};

/// How far before its place a record may come: "small reorderings".
const REORDER_DISTANCE: usize = 3;
/// How much later a record may come than others of its log: long after those are parked.
const RECORD_LATE_MS_MAX: u64 = 12_000;
/// How much later a notification may come.
const NOTIFICATION_LATE_MS_MAX: u64 = 30_000;
/// How long a notification takes at most, with no fault.
const NOTIFICATION_MS_MAX: u64 = 60;

/// A record on the command stream.
#[derive(Debug, Clone)]
pub struct Received {
    /// What was put.
    pub record: StreamRecord,
    /// When it arrived.
    pub arrived: Time,
}

impl Received {
    /// Arrives now.
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
    /// The first so many are a batch, or what is left of one: their order is fixed, and nothing comes
    /// in between.
    taken: usize,
    /// On their way.
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

    /// Behind all others.
    pub fn push(&self, item: T) {
        self.lock().items.push_back(item);
    }

    /// Nearly behind all others, perhaps twice, perhaps late.
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

    /// The first `n`, which stay.
    pub fn take(&self, n: usize) -> Vec<T> {
        let mut shard = self.lock();
        shard.taken = shard.taken.max(n.min(shard.items.len()));
        shard.items.iter().take(n).cloned().collect()
    }

    /// The first `n` are done.
    pub fn pass(&self, n: usize) {
        let mut shard = self.lock();
        shard.items.drain(..n);
        shard.taken -= n;
    }

    /// Whether nothing is left.
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
    /// How often it was tried.
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

    /// Soon, or late, or twice.
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

    /// Again, after a failure.
    pub fn again(&self, notification: Notification) {
        self.lock().push(notification);
    }

    /// One that is due.
    pub fn take(&self, now: Time) -> Option<Notification> {
        let mut waiting = self.lock();
        let first = waiting.iter().enumerate().min_by_key(|(_, waiting)| waiting.due)?;
        let (at, due) = (first.0, first.1.due);
        (due <= now).then(|| waiting.remove(at))
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}
