use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use fanfold::body::notification::{Attributes, Message};
use fanfold::limits::{NOTIFICATION_BYTES_MAX, PUBLISH_BATCH_BYTES_MAX, PUBLISH_BATCH_MAX};
use fanfold_pipeline::ports::{Topic, Unavailable};

use super::{ITEM_OVERHEAD_BYTES, beyond_limit};
use crate::faults;
use crate::hash_key::HashKey;
use crate::shard::{Backlog, Position, Shard};
use crate::striped::lock;

const HOP: &str = "topic";

/// A message as a topic keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The topic that it was published to.
    pub topic: usize,
    /// The CloudEvents batch.
    pub body: Bytes,
    /// For filter policies.
    pub attributes: Attributes,
}

/// The topics: one log of notifications, in the order in which they were published, that all
/// subscribers share. Each has a place in it, and what all have passed is dropped.
///
/// The log is bounded in bytes: what is too much is dropped from its front, whether everybody has
/// passed it or not. A subscriber that stood there has lost messages, and is told how many.
pub struct MemoryTopic {
    topics: usize,
    bytes_max: usize,
    log: Shard<Arc<Notification>>,
    backlog: Arc<Backlog>,
    subscribers: Mutex<BTreeMap<String, Position>>,
}

impl MemoryTopic {
    /// Empty, and without subscribers: until there are some, nothing is dropped below `bytes_max`.
    pub fn new(topics: usize, bytes_max: usize) -> Self {
        let backlog = Arc::new(Backlog::default());
        let log = Shard::new(backlog.clone());
        Self { topics: topics.max(1), bytes_max, log, backlog, subscribers: Mutex::default() }
    }

    /// The log, to be read from anywhere.
    pub fn log(&self) -> &Shard<Arc<Notification>> {
        &self.log
    }

    /// What is in the log.
    pub fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// Adds a subscriber, who gets what is in the log, and what is published from now on; or goes
    /// on where one of this name was.
    pub fn subscribe(&self, name: &str) -> Position {
        let mut subscribers = lock(&self.subscribers);
        *subscribers.entry(name.to_owned()).or_insert_with(|| self.log.start())
    }

    /// Notes that a subscriber needs nothing below `to` any more.
    pub fn pass(&self, name: &str, to: Position) {
        let mut subscribers = lock(&self.subscribers);
        if let Some(at) = subscribers.get_mut(name) {
            *at = to.max(*at);
        }
        // Under the lock: who subscribes now begins behind what is dropped.
        if let Some(all) = subscribers.values().min() {
            self.log.trim(*all);
        }
    }

    fn publish_one(&self, topic: usize, message: &Message) -> Result<(), Unavailable> {
        let bytes = message.bytes();
        if bytes > NOTIFICATION_BYTES_MAX {
            return Err(beyond_limit(HOP, bytes, NOTIFICATION_BYTES_MAX, "bytes in a message"));
        }
        let body = Bytes::copy_from_slice(message.body.as_bytes());
        let attributes = message.attributes.clone();
        let notification = Arc::new(Notification { topic, body, attributes });
        // Nobody reads the notification log by key.
        self.log.append(HashKey(0), ITEM_OVERHEAD_BYTES + bytes, notification);
        self.log.trim_to_bytes(self.bytes_max);
        faults::reached("topic.publish");
        Ok(())
    }
}

#[async_trait]
impl Topic for MemoryTopic {
    fn topics(&self) -> usize {
        self.topics
    }

    async fn publish(
        &self,
        topic: usize,
        messages: &[Message],
    ) -> Result<Vec<Result<(), Unavailable>>, Unavailable> {
        if topic >= self.topics {
            let message = format!("there is no topic {topic}, they are {}", self.topics);
            return Err(Unavailable::Failed { hop: HOP, message });
        }
        if messages.len() > PUBLISH_BATCH_MAX {
            return Err(beyond_limit(HOP, messages.len(), PUBLISH_BATCH_MAX, "messages"));
        }
        let bytes: usize = messages.iter().map(Message::bytes).sum();
        if bytes > PUBLISH_BATCH_BYTES_MAX {
            return Err(beyond_limit(HOP, bytes, PUBLISH_BATCH_BYTES_MAX, "bytes"));
        }
        Ok(messages.iter().map(|message| self.publish_one(topic, message)).collect())
    }
}
