use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use fanfold::Time;
use fanfold::host::body::notification::{Commit, ReceivedCommit, pack};
use fanfold::host::limits::NOTIFICATION_BYTES_MAX;
use fanfold_pipeline::ports::{PublishError, Topic};

use super::{ITEM_OVERHEAD_BYTES, Position, Shard};
use crate::faults;
use crate::hash_key::HashKey;
use crate::limit::Backlog;
use crate::striped::lock;

/// Commits that were published together.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// The commits, in the order in which they were published.
    pub commits: Vec<ReceivedCommit>,
}

impl Notification {
    /// Whether it has a commit of one of these services.
    pub fn is_about(&self, services: &[String]) -> bool {
        let is_wanted =
            |commit: &ReceivedCommit| services.iter().any(|s| s == commit.log.service());
        self.commits.iter().any(is_wanted)
    }

    /// Packs the commits into message bodies, for the dead letters.
    pub fn bodies(&self) -> Vec<Bytes> {
        let commits: Vec<Commit> = self.commits.iter().filter_map(ReceivedCommit::commit).collect();
        let packed = pack(&commits).unwrap_or_else(|error| {
            tracing::error!(%error, "a commit cannot be encoded as a notification");
            Vec::new()
        });
        packed.into_iter().map(|packed| packed.message.body.into()).collect()
    }
}

/// The topic: one log of notifications, in the order of publishing, that all subscribers share.
/// Each subscriber has a position in it. Notifications that all have passed are dropped.
///
/// The log is bounded in bytes. Beyond that the oldest notifications are dropped even if a
/// subscriber has not passed them. The gap in the positions then shows it the number of lost
/// messages.
pub struct MemoryTopic {
    bytes_max: usize,
    log: Shard<Arc<Notification>>,
    backlog: Arc<Backlog>,
    subscribers: Mutex<BTreeMap<String, Position>>,
}

impl MemoryTopic {
    /// An empty topic without subscribers. Until one subscribes, it keeps up to `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        let backlog = Arc::new(Backlog::default());
        let log = Shard::new(backlog.clone());
        Self { bytes_max, log, backlog, subscribers: Mutex::default() }
    }

    /// The log, which can be read from any position.
    pub fn log(&self) -> &Shard<Arc<Notification>> {
        &self.log
    }

    /// The items and bytes in the log.
    pub fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// Bytes that at least one subscriber has not passed; 0 without subscribers.
    pub fn lag(&self) -> usize {
        if lock(&self.subscribers).is_empty() { 0 } else { self.backlog.bytes() }
    }

    /// Adds a subscriber at the start of the log, or finds the one of this name. Returns its
    /// position.
    pub fn subscribe(&self, name: &str) -> Position {
        let mut subscribers = lock(&self.subscribers);
        *subscribers.entry(name.to_owned()).or_insert_with(|| self.log.start())
    }

    /// Records that a subscriber has passed everything below `to`.
    pub fn pass(&self, name: &str, to: Position) {
        let mut subscribers = lock(&self.subscribers);
        if let Some(at) = subscribers.get_mut(name) {
            *at = to.max(*at);
        }
        // Under the lock, so that a new subscriber starts at or above what is trimmed here.
        if let Some(all) = subscribers.values().min() {
            self.log.trim(*all);
        }
    }

    fn keep(&self, bytes: usize, commits: Vec<ReceivedCommit>) {
        let notification = Arc::new(Notification { commits });
        // Notifications have no key: the log is read without a filter.
        self.log.append(HashKey(0), ITEM_OVERHEAD_BYTES + bytes, notification);
        self.log.trim_to_bytes(self.bytes_max);
        faults::reached("topic.publish");
    }
}

#[async_trait]
impl Topic for MemoryTopic {
    /// Appends the commits in as few notifications as possible, each at most the size of a message:
    /// a notification is dropped or redelivered as a whole, so it must not grow without bound.
    async fn publish(&self, published: &[&Commit], _: Time) -> Vec<Result<(), PublishError>> {
        let (mut commits, mut bytes) = (Vec::with_capacity(published.len()), 0);
        for commit in published {
            let weight = ITEM_OVERHEAD_BYTES + commit.weight();
            if bytes + weight > NOTIFICATION_BYTES_MAX.get() && !commits.is_empty() {
                self.keep(bytes, std::mem::take(&mut commits));
                bytes = 0;
            }
            bytes += weight;
            commits.push(ReceivedCommit::from(*commit));
        }
        if !commits.is_empty() {
            self.keep(bytes, commits);
        }
        vec![Ok(()); published.len()]
    }
}
