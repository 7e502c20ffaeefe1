//! Commits become notifications.

use std::collections::BTreeMap;

use fanfold::body::notification::{Message, Notice, pack, topic_of};
use fanfold::limits::{PUBLISH_BATCH_BYTES_MAX, PUBLISH_BATCH_MAX};
use fanfold::{LogId, Seq};

use crate::backoff::Backoff;
use crate::ports::{Env, Topic};

/// Publishing stands between a batch and its acknowledgement: a few seconds at most, then the
/// batch comes again.
const PUBLISH_BACKOFF: Backoff = Backoff { attempts_max: 5, first_ms: 50, longest_ms: 800 };

/// A message on its way, and the commits in it.
struct Outgoing<'a> {
    message: Message,
    notices: Vec<&'a Notice>,
}

/// Publishes the notices, packed across logs. Returns those that were published: (log, first).
pub(super) async fn publish(
    topic: &dyn Topic,
    env: &dyn Env,
    notices: &[&Notice],
) -> Vec<(LogId, Seq)> {
    let mut by_topic: BTreeMap<usize, Vec<&Notice>> = BTreeMap::new();
    for notice in notices {
        by_topic.entry(topic_of(&notice.log, topic.topics())).or_default().push(notice);
    }
    let mut published = Vec::with_capacity(notices.len());
    for (index, notices) in by_topic {
        let packed = match pack(notices.iter().copied()) {
            Ok(packed) => packed,
            Err(error) => {
                tracing::error!(%error, "a notification cannot be written");
                continue;
            }
        };
        let mut notices = notices.into_iter();
        let mut left: Vec<Outgoing<'_>> = packed
            .into_iter()
            .map(|packed| Outgoing {
                message: packed.message,
                notices: notices.by_ref().take(packed.notices).collect(),
            })
            .collect();
        let mut attempt = 1;
        loop {
            let sent = send(topic, index, left).await;
            left = sent.left;
            published.extend(sent.notices.iter().map(|n| (n.log.clone(), n.first())));
            if left.is_empty() || !PUBLISH_BACKOFF.pause(attempt, env).await {
                break;
            }
            attempt += 1;
        }
    }
    published
}

struct Sent<'a> {
    notices: Vec<&'a Notice>,
    left: Vec<Outgoing<'a>>,
}

/// Sends each message once.
async fn send<'a>(topic: &dyn Topic, index: usize, messages: Vec<Outgoing<'a>>) -> Sent<'a> {
    let mut sent = Sent { notices: Vec::new(), left: Vec::new() };
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() {
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
                Ok(()) => sent.notices.extend(notices),
                Err(error) => {
                    tracing::warn!(%error, topic = index, "a message was not published");
                    sent.left.push(Outgoing { message, notices });
                }
            }
        }
    }
    sent
}
