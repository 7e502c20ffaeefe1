use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use fanfold::body::notification::{Attributes, Message, Notice, Received, pack};
use fanfold::limits::{NOTIFICATION_BYTES_MAX, PUBLISH_BATCH_BYTES_MAX, PUBLISH_BATCH_MAX};
use fanfold_pipeline::ports::{PublishError, Topic, Unavailable};
use fanfold_pipeline::project::Projector;

use super::{ITEM_OVERHEAD_BYTES, Position, Shard};
use crate::faults;
use crate::hash_key::HashKey;
use crate::limit::Backlog;
use crate::striped::lock;
use crate::tables::beyond_limit;

const HOP: &str = "topic";

/// What a topic keeps for its subscribers.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// The topic that it was published to.
    pub topic: usize,
    /// What it tells.
    pub content: Content,
}

/// What a notification tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A message, as it was published.
    Message {
        /// The CloudEvents batch.
        body: Bytes,
        /// For filter policies.
        attributes: Attributes,
    },
    /// Commits, as they were handed over.
    Commits(Vec<Received>),
}

impl Notification {
    /// Whether it tells something of one of these services.
    pub fn is_about(&self, services: &[String]) -> bool {
        services.iter().any(|service| match &self.content {
            Content::Message { attributes, .. } => attributes.services.contains(service),
            Content::Commits(commits) => commits.iter().any(|c| c.log.service() == service),
        })
    }

    /// The commits that it tells of, as `projector` reads them.
    pub fn commits(&self, projector: &Projector) -> Cow<'_, [Received]> {
        match &self.content {
            Content::Message { body, .. } => projector.decode(body).into(),
            Content::Commits(commits) => commits.into(),
        }
    }

    /// The bodies of messages that tell the same: for whoever keeps it longer than this process.
    pub fn bodies(&self) -> Vec<Bytes> {
        match &self.content {
            Content::Message { body, .. } => vec![body.clone()],
            Content::Commits(commits) => {
                let notices: Vec<Notice> = commits.iter().filter_map(Received::notice).collect();
                let packed = pack(&notices).unwrap_or_else(|error| {
                    tracing::error!(%error, "a notification cannot be written");
                    Vec::new()
                });
                packed.into_iter().map(|packed| packed.message.body.into()).collect()
            }
        }
    }
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

    /// Bytes that a subscriber has not come to.
    pub fn lag(&self) -> usize {
        if lock(&self.subscribers).is_empty() { 0 } else { self.backlog.bytes() }
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

    fn publish_one(&self, topic: usize, message: &Message) -> Result<(), PublishError> {
        let bytes = message.bytes();
        if bytes > NOTIFICATION_BYTES_MAX {
            let most = format!("{bytes} bytes, at most {NOTIFICATION_BYTES_MAX} are taken");
            return Err(PublishError::Refused(most));
        }
        let body = Bytes::copy_from_slice(message.body.as_bytes());
        let attributes = message.attributes.clone();
        self.keep(topic, bytes, Content::Message { body, attributes });
        Ok(())
    }

    fn keep(&self, topic: usize, bytes: usize, content: Content) {
        let notification = Arc::new(Notification { topic, content });
        // Nobody reads the notification log by key.
        self.log.append(HashKey(0), ITEM_OVERHEAD_BYTES + bytes, notification);
        self.log.trim_to_bytes(self.bytes_max);
        faults::reached("topic.publish");
    }

    fn check(&self, topic: usize) -> Result<(), Unavailable> {
        if topic < self.topics {
            return Ok(());
        }
        let message = format!("there is no topic {topic}, they are {}", self.topics);
        Err(Unavailable::Failed { hop: HOP, message })
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
    ) -> Result<Vec<Result<(), PublishError>>, Unavailable> {
        self.check(topic)?;
        if messages.len() > PUBLISH_BATCH_MAX {
            return Err(beyond_limit(HOP, messages.len(), PUBLISH_BATCH_MAX, "messages"));
        }
        let bytes: usize = messages.iter().map(Message::bytes).sum();
        if bytes > PUBLISH_BATCH_BYTES_MAX {
            return Err(beyond_limit(HOP, bytes, PUBLISH_BATCH_BYTES_MAX, "bytes"));
        }
        Ok(messages.iter().map(|message| self.publish_one(topic, message)).collect())
    }

    /// Keeps the commits together, but as many notifications as messages of the largest size would
    /// be: what is dropped, or delivered again, is dropped and delivered as a whole.
    fn hand_over(&self, topic: usize, notices: &[&Notice]) -> Option<Result<(), Unavailable>> {
        if let Err(error) = self.check(topic) {
            return Some(Err(error));
        }
        let (mut commits, mut bytes) = (Vec::with_capacity(notices.len()), 0);
        for notice in notices {
            let weight = ITEM_OVERHEAD_BYTES + notice.weight();
            if bytes + weight > NOTIFICATION_BYTES_MAX && !commits.is_empty() {
                self.keep(topic, bytes, Content::Commits(std::mem::take(&mut commits)));
                bytes = 0;
            }
            bytes += weight;
            commits.push(Received::from(*notice));
        }
        if !commits.is_empty() {
            self.keep(topic, bytes, Content::Commits(commits));
        }
        Some(Ok(()))
    }
}
