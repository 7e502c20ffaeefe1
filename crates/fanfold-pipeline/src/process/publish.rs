//! Commits become notifications.
//!
//! What the topic refuses for good must not stop its lane. It is sent again in smaller steps: each
//! commit of the message alone, then without its entries (`body: journal`). A commit that is refused
//! even so is parked for an operator, and the views find it in the journal by their sweeps.

use std::collections::BTreeMap;

use fanfold::Service;
use fanfold::Time;
use fanfold::body::notification::{Message, Notice, by_reference, pack, topic_of};
use fanfold::body::parked::{Content, Parked, Reason};
use fanfold::canary::Canary;
use fanfold::limits::{PUBLISH_BATCH_BYTES_MAX, PUBLISH_BATCH_MAX};

use super::Processor;
use super::tables::Stop;
use crate::backoff::Backoff;
use crate::ports::{Env, PublishError, Topic, Unavailable};

/// Publishing stands between a batch and its acknowledgement: a few seconds at most, then the
/// batch comes again.
const PUBLISH_BACKOFF: Backoff = Backoff { attempts_max: 5, first_ms: 50, longest_ms: 800 };

/// How long after a call's deadline publishing may be tried again, in milliseconds: what was appended
/// shall be published, and then its markers be removed, while calls still run.
const PUBLISH_MS: u64 = 3_000;

/// What became of a commit that was to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// Its subscribers get it.
    Published,
    /// The topic refuses it for good, and said so.
    Refused(String),
    /// It must be published later.
    Not,
}

impl Told {
    /// Whether the batch may be acknowledged, as far as this commit goes.
    pub(super) fn is_done(&self) -> bool {
        *self != Self::Not
    }
}

/// A message on its way.
struct Outgoing {
    message: Message,
    /// The places of the commits among those to publish.
    notices: Vec<usize>,
    /// It holds one commit, without its entries.
    by_reference: bool,
}

/// What was not published of some messages.
#[derive(Default)]
struct Left {
    /// To be sent again.
    failed: Vec<Outgoing>,
    /// What the topic refuses for good, with what it said.
    refused: Vec<(Outgoing, String)>,
    /// The topic takes nothing at all, and sending again at once makes no sense.
    is_closed: bool,
}

impl Processor {
    /// Publishes the commits, packed across logs, and parks what the topic refuses for good. What
    /// has failed is not tried again long after the deadline.
    pub(super) async fn tell(&self, notices: &[&Notice], deadline: Time) -> Vec<Told> {
        let (topic, env) = (&*self.ports.topic, &*self.ports.env);
        let until = deadline.plus_ms(PUBLISH_MS);
        let mut told = publish(topic, env, notices, self.canaries_are_told, until).await;
        for (notice, told) in notices.iter().zip(&mut told) {
            if let Told::Refused(said) = told
                && let Err(stop) = self.park_unpublished(notice, said).await
            {
                tracing::debug!(log = %notice.log, %stop, "a refused commit was not parked");
                *told = Told::Not;
            }
        }
        told
    }

    async fn park_unpublished(&self, notice: &Notice, said: &str) -> Result<(), Stop> {
        let (log, first, last) = (&notice.log, notice.first(), notice.last());
        tracing::error!(alarm = "unpublished", %log, %first, %last, detail = said);
        let at = notice.entries.last().map_or(Time(0), |entry| entry.time);
        let content = Content::Commit { last, prev: (*notice.prev).clone() };
        let parked = Parked { reason: Reason::Unpublished, at, detail: said.to_owned(), content };
        self.park_body(log, first, &parked).await
    }
}

/// Publishes the notices. Those of canaries only if they are told: otherwise they count as
/// published.
async fn publish(
    topic: &dyn Topic,
    env: &dyn Env,
    notices: &[&Notice],
    canaries_are_told: bool,
    until: Time,
) -> Vec<Told> {
    let mut told = vec![Told::Not; notices.len()];
    let topics = topic.topics();
    let mut by_topic: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, notice) in notices.iter().enumerate() {
        if !canaries_are_told && notice.log.service() == Canary::NAME {
            told[at] = Told::Published;
        } else {
            by_topic.entry(topic_of(&notice.log, topics)).or_default().push(at);
        }
    }
    for (index, places) in by_topic {
        let mut attempt = 1;
        let mut left = loop {
            match hand_over(topic, index, notices, &places) {
                Some(Ok(())) => {
                    places.iter().for_each(|at| told[*at] = Told::Published);
                    break Vec::new();
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, topic = index, "commits were not handed over");
                    if !error.may_pass() || !PUBLISH_BACKOFF.pause(attempt, env).await {
                        break Vec::new();
                    }
                    attempt += 1;
                }
                None => break outgoing(notices, &places, &mut told),
            }
        };
        let mut attempt = 1;
        while !left.is_empty() {
            let mut failed = Vec::new();
            let mut is_closed = false;
            // Smaller steps need no pause: it is not too much at once that they were refused for.
            while !left.is_empty() && !is_closed {
                let sent = send(topic, env, index, left, until, &mut told).await;
                is_closed = sent.is_closed;
                failed.extend(sent.failed);
                let refused = sent.refused.into_iter();
                left = refused.flat_map(|(o, said)| smaller(notices, o, said, &mut told)).collect();
            }
            left.extend(failed);
            let may_retry = !left.is_empty() && !is_closed && env.now() < until;
            if !may_retry || !PUBLISH_BACKOFF.pause(attempt, env).await {
                break;
            }
            attempt += 1;
        }
    }
    told
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

/// The messages that tell of the commits at these places. A commit that cannot be written counts as
/// refused, and stops no other.
fn outgoing(notices: &[&Notice], places: &[usize], told: &mut [Told]) -> Vec<Outgoing> {
    match pack(places.iter().map(|at| notices[*at])) {
        Ok(packed) => {
            let mut places = places.iter().copied();
            let outgoing = packed.into_iter().map(|packed| Outgoing {
                message: packed.message,
                notices: places.by_ref().take(packed.notices).collect(),
                by_reference: false,
            });
            outgoing.collect()
        }
        Err(error) => match places {
            [at] => {
                told[*at] = Told::Refused(format!("it cannot be written: {error}"));
                Vec::new()
            }
            _ => places.iter().flat_map(|at| outgoing(notices, &[*at], told)).collect(),
        },
    }
}

/// What to send instead of a message that the topic refuses. Nothing, if there is no smaller step:
/// then it is refused for good.
fn smaller(
    notices: &[&Notice],
    refused: Outgoing,
    said: String,
    told: &mut [Told],
) -> Vec<Outgoing> {
    match refused.notices[..] {
        [at] if !refused.by_reference => match by_reference(notices[at]) {
            Ok(message) => {
                vec![Outgoing { message, notices: refused.notices, by_reference: true }]
            }
            Err(_) => {
                told[at] = Told::Refused(said);
                Vec::new()
            }
        },
        [at] => {
            told[at] = Told::Refused(said);
            Vec::new()
        }
        ref places => places.iter().flat_map(|at| outgoing(notices, &[*at], told)).collect(),
    }
}

/// Sends each message once, and notes what was published.
async fn send(
    topic: &dyn Topic,
    env: &dyn Env,
    index: usize,
    messages: Vec<Outgoing>,
    until: Time,
    told: &mut [Told],
) -> Left {
    let mut left = Left::default();
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() {
        // As long as it is heard, it goes on: what was stored is to be published.
        let is_late = !(left.failed.is_empty() && left.refused.is_empty()) && env.now() >= until;
        if left.is_closed || is_late {
            left.failed.extend(messages);
            break;
        }
        let mut batch: Vec<Message> = Vec::new();
        let mut rest = Vec::new();
        let mut bytes = 0;
        while let Some(next) = messages.next_if(|next| {
            batch.is_empty()
                || batch.len() < PUBLISH_BATCH_MAX
                    && bytes + next.message.bytes() <= PUBLISH_BATCH_BYTES_MAX
        }) {
            bytes += next.message.bytes();
            batch.push(next.message);
            rest.push((next.notices, next.by_reference));
        }
        let results = match topic.publish(index, &batch).await {
            Ok(results) => results,
            Err(error) => vec![Err(error.into()); batch.len()],
        };
        for ((message, (notices, by_reference)), result) in batch.into_iter().zip(rest).zip(results)
        {
            let error = match result {
                Ok(()) => {
                    notices.iter().for_each(|at| told[*at] = Told::Published);
                    continue;
                }
                Err(error) => error,
            };
            tracing::warn!(%error, topic = index, "a message was not published");
            let outgoing = Outgoing { message, notices, by_reference };
            match error {
                PublishError::Refused(said) => left.refused.push((outgoing, said)),
                PublishError::Unavailable(error) => {
                    left.is_closed |= !error.may_pass();
                    left.failed.push(outgoing);
                }
            }
        }
    }
    left
}
