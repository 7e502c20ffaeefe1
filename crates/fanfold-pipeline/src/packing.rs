//! Commits as messages: a [`Topic`] over topics that take messages of a limited size, as SNS does.
//!
//! Commits are packed across logs. A message that the topic refuses for good must not stop the
//! others: its commits are sent again one by one, and then without their entries (`"body":
//! "journal"`). A commit that is refused even so is reported as refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use fanfold::Time;
use fanfold::host::body::notification::{Commit, Message, by_reference, pack, topic_of};
use fanfold::host::limits::{PUBLISH_BATCH_BYTES_MAX, PUBLISH_BATCH_MAX};

use crate::backoff::Backoff;
use crate::ports::{Env, PublishError, Topic, Unavailable};

/// A batch is acknowledged only after publishing, so all attempts take a few seconds at most. Then
/// the batch comes again.
const PUBLISH_BACKOFF: Backoff = Backoff { attempts_max: 5, first_ms: 50, longest_ms: 800 };

/// Topics that take messages.
#[async_trait]
pub trait MessageTopics: Send + Sync {
    /// How many topics there are, at least 1. A log always uses the same one, by hash.
    fn topics(&self) -> usize;

    /// Publishes messages to one topic: at most 10, at most 240 KiB together. One result per
    /// message, in order: a part of them MAY fail while others are published. A topic that refuses
    /// one for good MUST NOT refuse the others of the call with it.
    async fn publish_messages(
        &self,
        topic: usize,
        messages: &[Message],
    ) -> Result<Vec<Result<(), PublishError>>, Unavailable>;
}

/// A [`Topic`] that packs commits into messages.
pub struct PackingTopic {
    topics: Arc<dyn MessageTopics>,
    env: Arc<dyn Env>,
}

impl PackingTopic {
    /// Publishes over these topics.
    pub fn new(topics: Arc<dyn MessageTopics>, env: Arc<dyn Env>) -> Self {
        Self { topics, env }
    }
}

#[async_trait]
impl Topic for PackingTopic {
    async fn publish(&self, commits: &[&Commit], until: Time) -> Vec<Result<(), PublishError>> {
        let mut by_topic: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, commit) in commits.iter().enumerate() {
            by_topic.entry(topic_of(&commit.log, self.topics.topics())).or_default().push(at);
        }
        let unanswered = Unavailable::Failed { hop: "topic", message: "not sent".to_owned() };
        let results = vec![Err(unanswered.into()); commits.len()];
        let mut progress = Progress { commits, results, until };
        for (topic, places) in by_topic {
            let mut left = progress.pack(&places);
            let mut attempt = 1;
            while !left.is_empty() {
                let mut failed = Vec::new();
                let mut is_closed = false;
                // A smaller step needs no pause: the topic did not refuse because of the load.
                while !left.is_empty() && !is_closed {
                    let sent = self.send(topic, left, &mut progress).await;
                    is_closed = sent.is_closed;
                    failed.extend(sent.failed);
                    let refused = sent.refused.into_iter();
                    left = refused.flat_map(|(o, said)| progress.smaller(o, said)).collect();
                }
                left.extend(failed);
                let may_retry = !left.is_empty() && !is_closed && self.env.now() < until;
                if !may_retry || !PUBLISH_BACKOFF.pause(attempt, &*self.env).await {
                    break;
                }
                attempt += 1;
            }
        }
        progress.results
    }
}

/// A message to send.
struct Outgoing {
    message: Message,
    /// The places of its commits among those to publish.
    places: Vec<usize>,
    /// It holds one commit, without its entries.
    by_reference: bool,
}

/// What was not published of some messages.
#[derive(Default)]
struct Unsent {
    /// To be sent again.
    failed: Vec<Outgoing>,
    /// What the topic refuses for good, with its reason.
    refused: Vec<(Outgoing, String)>,
    /// The topic takes no message now, so an immediate retry is useless.
    is_closed: bool,
}

/// One call: the commits, and the result of each so far.
struct Progress<'a> {
    commits: &'a [&'a Commit],
    results: Vec<Result<(), PublishError>>,
    until: Time,
}

impl Progress<'_> {
    /// The messages of the commits at these places. A commit that cannot be written counts as
    /// refused, and stops no other.
    fn pack(&mut self, places: &[usize]) -> Vec<Outgoing> {
        match pack(places.iter().map(|at| self.commits[*at])) {
            Ok(packed) => {
                let mut places = places.iter().copied();
                let outgoing = packed.into_iter().map(|packed| Outgoing {
                    message: packed.message,
                    places: places.by_ref().take(packed.commits).collect(),
                    by_reference: false,
                });
                outgoing.collect()
            }
            Err(error) => match places {
                [at] => {
                    self.refuse(*at, format!("it cannot be written: {error}"));
                    Vec::new()
                }
                _ => places.iter().flat_map(|at| self.pack(&[*at])).collect(),
            },
        }
    }

    /// What to send instead of a refused message. If there is no smaller step, its commit is
    /// refused for good.
    fn smaller(&mut self, refused: Outgoing, said: String) -> Vec<Outgoing> {
        let [at] = refused.places[..] else {
            return refused.places.iter().flat_map(|at| self.pack(&[*at])).collect();
        };
        if !refused.by_reference
            && let Ok(message) = by_reference(self.commits[at])
        {
            return vec![Outgoing { message, places: refused.places, by_reference: true }];
        }
        self.refuse(at, said);
        Vec::new()
    }

    fn refuse(&mut self, at: usize, said: String) {
        self.results[at] = Err(PublishError::Refused(said));
    }
}

impl PackingTopic {
    /// Sends each message once.
    async fn send(
        &self,
        topic: usize,
        messages: Vec<Outgoing>,
        progress: &mut Progress<'_>,
    ) -> Unsent {
        let mut unsent = Unsent::default();
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            // Goes on after `until` while everything succeeds, since stored commits must be
            // published.
            let any_failed = !(unsent.failed.is_empty() && unsent.refused.is_empty());
            if unsent.is_closed || any_failed && self.env.now() >= progress.until {
                unsent.failed.extend(messages);
                break;
            }
            let mut batch: Vec<Message> = Vec::new();
            let mut rest = Vec::new();
            let mut bytes = 0;
            while let Some(next) = messages.next_if(|next| {
                batch.is_empty()
                    || batch.len() < PUBLISH_BATCH_MAX.get()
                        && bytes + next.message.bytes() <= PUBLISH_BATCH_BYTES_MAX.get()
            }) {
                bytes += next.message.bytes();
                batch.push(next.message);
                rest.push((next.places, next.by_reference));
            }
            let results = match self.topics.publish_messages(topic, &batch).await {
                Ok(results) => results,
                Err(error) => vec![Err(error.into()); batch.len()],
            };
            for ((message, (places, by_reference)), result) in
                batch.into_iter().zip(rest).zip(results)
            {
                let Err(error) = result else {
                    places.iter().for_each(|at| progress.results[*at] = Ok(()));
                    continue;
                };
                tracing::warn!(%error, topic, "the topic did not publish a message");
                match error {
                    // Not the result yet: a smaller step may succeed.
                    PublishError::Refused(said) => {
                        unsent.refused.push((Outgoing { message, places, by_reference }, said));
                    }
                    PublishError::Unavailable(error) => {
                        unsent.is_closed |= !error.may_pass();
                        for at in &places {
                            progress.results[*at] = Err(error.clone().into());
                        }
                        unsent.failed.push(Outgoing { message, places, by_reference });
                    }
                }
            }
        }
        unsent
    }
}
