//! Commits become notifications.

use std::collections::BTreeMap;

use fanfold::Time;
use fanfold::body::notification::{Message, Notice, pack, topic_of};
use fanfold::limits::{PUBLISH_BATCH_BYTES_MAX, PUBLISH_BATCH_MAX};

use crate::backoff::Backoff;
use crate::ports::{Env, Topic, Unavailable};

/// Publishing stands between a batch and its acknowledgement: a few seconds at most, then the
/// batch comes again.
const PUBLISH_BACKOFF: Backoff = Backoff { attempts_max: 5, first_ms: 50, longest_ms: 800 };

/// How long after a call's deadline publishing may be tried again, in milliseconds: what was appended
/// shall be published, and then its markers be removed, while calls still run.
pub(super) const PUBLISH_MS: u64 = 3_000;

/// A message on its way.
struct Outgoing {
    message: Message,
    /// The places of the commits among those to publish.
    notices: Vec<usize>,
}

/// Publishes the notices, packed across logs. Returns of each whether it was published; what has
/// failed is not tried again after `until`.
pub(super) async fn publish(
    topic: &dyn Topic,
    env: &dyn Env,
    notices: &[&Notice],
    until: Time,
) -> Vec<bool> {
    let mut published = vec![false; notices.len()];
    let topics = topic.topics();
    let mut by_topic: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, notice) in notices.iter().enumerate() {
        by_topic.entry(topic_of(&notice.log, topics)).or_default().push(at);
    }
    for (index, places) in by_topic {
        let mut attempt = 1;
        let mut left = loop {
            match hand_over(topic, index, notices, &places) {
                Some(Ok(())) => {
                    places.iter().for_each(|at| published[*at] = true);
                    break Vec::new();
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, topic = index, "commits were not handed over");
                    if !PUBLISH_BACKOFF.pause(attempt, env).await {
                        break Vec::new();
                    }
                    attempt += 1;
                }
                None => break outgoing(notices, &places),
            }
        };
        let mut attempt = 1;
        while !left.is_empty() {
            left = send(topic, env, index, left, until, &mut published).await;
            let may_retry = !left.is_empty() && env.now() < until;
            if !may_retry || !PUBLISH_BACKOFF.pause(attempt, env).await {
                break;
            }
            attempt += 1;
        }
    }
    published
}

/// The commits at these places, as they are, if the topic takes them so.
fn hand_over(
    topic: &dyn Topic,
    index: usize,
    notices: &[&Notice],
    places: &[usize],
) -> Option<Result<(), Unavailable>> {
    // Most often there is one topic, and all are for it.
    if places.len() == notices.len() {
        return topic.hand_over(index, notices);
    }
    let notices: Vec<&Notice> = places.iter().map(|at| notices[*at]).collect();
    topic.hand_over(index, &notices)
}

fn outgoing(notices: &[&Notice], places: &[usize]) -> Vec<Outgoing> {
    let packed = match pack(places.iter().map(|at| notices[*at])) {
        Ok(packed) => packed,
        Err(error) => {
            tracing::error!(%error, "a notification cannot be written");
            return Vec::new();
        }
    };
    let mut places = places.iter().copied();
    let outgoing = packed.into_iter().map(|packed| Outgoing {
        message: packed.message,
        notices: places.by_ref().take(packed.notices).collect(),
    });
    outgoing.collect()
}

/// Sends each message once, and notes what was published. What was not is left.
async fn send(
    topic: &dyn Topic,
    env: &dyn Env,
    index: usize,
    messages: Vec<Outgoing>,
    until: Time,
    published: &mut [bool],
) -> Vec<Outgoing> {
    let mut left = Vec::new();
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() {
        // As long as it is heard, it goes on: what was stored is to be published.
        if !left.is_empty() && env.now() >= until {
            left.extend(messages);
            break;
        }
        let mut batch: Vec<Message> = Vec::new();
        let mut notices = Vec::new();
        let mut bytes = 0;
        while let Some(next) = messages.next_if(|next| {
            batch.is_empty()
                || batch.len() < PUBLISH_BATCH_MAX
                    && bytes + next.message.bytes() <= PUBLISH_BATCH_BYTES_MAX
        }) {
            bytes += next.message.bytes();
            batch.push(next.message);
            notices.push(next.notices);
        }
        let results = match topic.publish(index, &batch).await {
            Ok(results) => results,
            Err(error) => vec![Err(error); batch.len()],
        };
        for ((message, notices), result) in batch.into_iter().zip(notices).zip(results) {
            match result {
                Ok(()) => notices.iter().for_each(|at| published[*at] = true),
                Err(error) => {
                    tracing::warn!(%error, topic = index, "a message was not published");
                    left.push(Outgoing { message, notices });
                }
            }
        }
    }
    left
}
