//! Delivers the notifications to one subscriber at least once, as SNS and Lambda do. Skips
//! notifications about none of the subscriber's services. Deliveries start in the order of
//! publishing and run concurrently up to a bound. After three failed attempts a message goes to the
//! dead letters. Messages that are available together are delivered as one batch; each message that
//! fails is retried alone.
//!
//! A slow subscriber holds no memory of its own: its messages stay in the topic's log, which is
//! bounded. Messages that the log drops are counted as lost; the view's sweep finds their commits
//! in the journal.
//!
//! A subscription is one future, which the host runs on any thread. Time comes from [`Env`].

use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use fanfold::Time;
use fanfold_pipeline::ports::Env;
use futures::FutureExt;
use futures::future::{Either, join_all, select};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::task::consume_budget;

use crate::stop::Stop;
use crate::striped::lock;
use crate::tables::StoredDeadLetters;
use crate::transit::{MemoryTopic, Notification, Position};

/// How long a delivery may run past its deadline, in milliseconds, before it is dropped.
const GRACE_MS: u64 = 10_000;

/// How messages are delivered.
#[derive(Debug, Clone)]
pub(crate) struct SubscriptionConfig {
    /// The subscriber: a view.
    pub name: String,
    /// The services whose messages are delivered.
    pub services: Vec<String>,
    /// The largest number of concurrent deliveries.
    pub concurrency: usize,
    /// The largest number of messages in one delivery.
    pub batch: usize,
    /// The pauses before the second and the third attempt, in milliseconds. Lambda pauses for one
    /// and two minutes; within one process, seconds are enough.
    pub retries_ms: [u64; 2],
    /// The time from the start of a delivery to its deadline, in milliseconds.
    pub invocation_ms: u64,
}

impl SubscriptionConfig {
    /// The defaults for a view of these services.
    pub(crate) fn new(name: &str, services: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            services: services.iter().map(|&service| service.to_owned()).collect(),
            // Also bounds memory: only messages that are being delivered or retried are held.
            concurrency: 16,
            // A view that lags then gets several commits of a log at once, and writes each row once
            // for all of them.
            batch: 16,
            retries_ms: [1_000, 2_000],
            // The timeout of the Lambda functions in the template.
            invocation_ms: 60_000,
        }
    }
}

/// Counts of a subscriber's messages by outcome, and its progress.
#[derive(Debug, Default)]
pub struct Deliveries {
    delivered: AtomicU64,
    retried: AtomicU64,
    dead: AtomicU64,
    lost: AtomicU64,
    progress: Mutex<Progress>,
}

/// A subscriber's progress in the topic's log.
#[derive(Debug, Default)]
struct Progress {
    /// Every message below this position was started or skipped.
    next: Position,
    /// The deliveries that have started and not ended: first position to number of messages.
    under_way: BTreeMap<Position, usize>,
}

impl Deliveries {
    /// The number of messages that were delivered, at any attempt.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// The number of messages that were retried, counted once for each retry.
    pub fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    /// The number of messages that went to the dead letters.
    pub fn dead(&self) -> u64 {
        self.dead.load(Ordering::Relaxed)
    }

    /// The number of messages that the topic's log dropped before this subscriber reached them.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The number of messages whose delivery has started and not ended.
    pub fn under_way(&self) -> usize {
        lock(&self.progress).under_way.values().sum()
    }

    /// Whether every message below this position was delivered, dead-lettered, lost or skipped.
    pub fn has_passed(&self, below: Position) -> bool {
        let progress = lock(&self.progress);
        progress.next >= below
            && progress.under_way.keys().next().is_none_or(|first| *first >= below)
    }

    /// The position below which every message was delivered, dead-lettered, lost or skipped.
    pub(crate) fn passed(&self) -> Position {
        let progress = lock(&self.progress);
        let first = progress.under_way.keys().next().copied();
        first.map_or(progress.next, |first| first.min(progress.next))
    }

    /// Records that `from` to `next` was read, and that the delivery of `wanted` messages starts.
    fn taken(&self, from: Position, next: Position, wanted: usize) {
        let mut progress = lock(&self.progress);
        if wanted > 0 {
            progress.under_way.insert(from, wanted);
        }
        progress.next = next;
    }

    fn ended(&self, at: Position) {
        lock(&self.progress).under_way.remove(&at);
    }
}

/// The messages of one delivery.
pub(crate) type Messages = Vec<Arc<Notification>>;

/// A subscriber with its position in the topic's log. `deliver` gets messages and a deadline, and
/// returns the indices of the messages that must be retried.
pub(crate) struct Subscription<D> {
    topic: Arc<MemoryTopic>,
    dead_letters: Arc<StoredDeadLetters>,
    config: SubscriptionConfig,
    env: Arc<dyn Env>,
    stop: Stop,
    deliveries: Arc<Deliveries>,
    from: Position,
    deliver: D,
}

impl<D, F> Subscription<D>
where
    D: Fn(Messages, Time) -> F,
    F: Future<Output = Vec<usize>>,
{
    /// Subscribes to the topic, whose log then keeps messages until this subscriber has passed.
    pub(crate) fn new(
        topic: Arc<MemoryTopic>,
        dead_letters: Arc<StoredDeadLetters>,
        config: SubscriptionConfig,
        env: Arc<dyn Env>,
        stop: Stop,
        deliver: D,
    ) -> Self {
        let from = topic.subscribe(&config.name);
        let deliveries = Arc::default();
        Self { topic, dead_letters, config, env, stop, deliveries, from, deliver }
    }

    /// The counts and the progress of this subscription.
    pub(crate) fn deliveries(&self) -> &Arc<Deliveries> {
        &self.deliveries
    }

    /// Delivers until stop is signalled, then waits for the deliveries under way.
    pub(crate) async fn run(self) {
        let mut next = self.from;
        let mut under_way = FuturesUnordered::new();
        let mut from = next;
        while let Some(mut messages) = self.messages(&mut next, &mut under_way).await {
            messages.retain(|message| message.is_about(&self.config.services));
            // Recorded before `pass` lets the log drop them, so that one of the two has each
            // message.
            self.deliveries.taken(from, next, messages.len());
            if !messages.is_empty() {
                under_way.push(self.deliver(from, messages));
            }
            self.topic.pass(&self.config.name, next);
            from = next;
        }
        while under_way.next().await.is_some() {}
    }

    /// Waits for the next messages, and for a free delivery slot. Polls the deliveries under way
    /// meanwhile. `None`: stop was signalled.
    async fn messages(
        &self,
        next: &mut Position,
        under_way: &mut FuturesUnordered<impl Future<Output = ()>>,
    ) -> Option<Messages> {
        loop {
            consume_budget().await;
            let is_free = under_way.len() < self.config.concurrency.max(1);
            let messages = async {
                match is_free {
                    true => self.next(next).await,
                    false => pending().await,
                }
            };
            // Polled before new messages are taken, so that deliveries start in order.
            let ended = poll_fn(|context| match under_way.poll_next_unpin(context) {
                Poll::Ready(Some(())) => Poll::Ready(()),
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            });
            match self.stop.or(select(pin!(ended), pin!(messages))).await? {
                Either::Left(_) => {}
                Either::Right((messages, _)) => return Some(messages),
            }
        }
    }

    /// Reads the next messages, and moves `next` past them. Counts dropped messages as lost.
    async fn next(&self, next: &mut Position) -> Messages {
        let log = self.topic.log();
        loop {
            let oldest = log.read(*next, self.config.batch.max(1));
            let place = oldest.first().map_or_else(|| log.start(), |(position, _)| *position);
            let lost = place.0.saturating_sub(next.0);
            self.deliveries.lost.fetch_add(lost, Ordering::Relaxed);
            // Count dropped messages as passed, so that `has_passed` does not wait for them.
            *next = place.max(*next);
            self.deliveries.taken(*next, *next, 0);
            if let Some((position, _)) = oldest.last() {
                *next = position.next();
                return oldest.into_iter().map(|(_, message)| message).collect();
            }
            log.arrived(*next).await;
        }
    }

    /// Delivers the messages as one batch, then retries each failed message alone.
    async fn deliver(&self, at: Position, messages: Messages) {
        let n = messages.len() as u64;
        let mut pauses = self.config.retries_ms.iter();
        let mut left = self.attempt(messages).await;
        while !left.is_empty() {
            // No retries once stop is signalled.
            let Some(ms) = pauses.next() else { break };
            if self.stop.or(self.env.sleep(*ms)).await.is_none() {
                break;
            }
            self.deliveries.retried.fetch_add(left.len() as u64, Ordering::Relaxed);
            let again = left.into_iter().map(|message| self.attempt(vec![message]));
            left = join_all(again).await.concat();
        }
        for message in &left {
            tracing::warn!(
                subscriber = self.config.name,
                "all deliveries of a message failed: it goes to the dead letters"
            );
            for body in message.bodies() {
                self.dead_letters.push(&self.config.name, body);
            }
        }
        let dead = left.len() as u64;
        self.deliveries.dead.fetch_add(dead, Ordering::Relaxed);
        self.deliveries.delivered.fetch_add(n - dead, Ordering::Relaxed);
        self.deliveries.ended(at);
    }

    /// Makes one attempt. Returns the messages that must be retried.
    async fn attempt(&self, messages: Messages) -> Messages {
        let deadline = self.env.now().plus_ms(self.config.invocation_ms);
        // Unwind-safe: a stage keeps no half-changed state, as any call may be dropped halfway.
        let delivery = async { (self.deliver)(messages.clone(), deadline).await };
        let delivery = AssertUnwindSafe(delivery).catch_unwind();
        let give_up = self.env.sleep(self.config.invocation_ms + GRACE_MS);
        let failed = match select(pin!(delivery), give_up).await {
            Either::Left((Ok(failed), _)) => {
                return failed.into_iter().filter_map(|at| messages.get(at).cloned()).collect();
            }
            Either::Left((Err(_), _)) => "it panicked",
            Either::Right(_) => "it exceeded its time limit",
        };
        tracing::error!(
            subscriber = self.config.name,
            failed,
            "an invocation of the subscriber failed"
        );
        messages
    }
}
