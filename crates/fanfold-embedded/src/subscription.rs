//! Delivers the notifications to one subscriber, as SNS and Lambda do: at least once; those about
//! none of the subscriber's services are passed over. Deliveries start in the order of publishing,
//! run at the same time up to a bound, and are tried three times; then the message goes to the dead
//! letters. Messages that wait together are delivered together; one that fails comes again by
//! itself.
//!
//! A subscriber that is slow holds no memory: its messages stay in the topic's log, which is
//! bounded. What is dropped there is counted as lost; its sweep finds it in the journal.
//!
//! All of it is one future: whoever hosts the subscriber runs it where it likes. Time comes from
//! the port [`Env`].

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

/// How long a delivery may go on behind its deadline, in milliseconds, before it is given up.
const GRACE_MS: u64 = 10_000;

/// How messages are delivered.
#[derive(Debug, Clone)]
pub(crate) struct SubscriptionConfig {
    /// The subscriber: a view.
    pub name: String,
    /// Only messages about one of these services.
    pub services: Vec<String>,
    /// Deliveries at the same time.
    pub concurrency: usize,
    /// Messages of one delivery, at most.
    pub batch: usize,
    /// The pauses before the second and the third attempt, in milliseconds. Lambda's are a minute
    /// and two; a process that is its own cloud needs no more than seconds.
    pub retries_ms: [u64; 2],
    /// How long a delivery has, in milliseconds.
    pub invocation_ms: u64,
}

impl SubscriptionConfig {
    /// For a view of these services.
    pub(crate) fn new(name: &str, services: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            services: services.iter().map(|&service| service.to_owned()).collect(),
            // Nothing waits in memory, but what is tried again, or for its turn.
            concurrency: 16,
            // Who lags behind is told of more commits of a log at a time, and writes a row once
            // for all of them.
            batch: 16,
            retries_ms: [1_000, 2_000],
            // As the Lambda functions of the template.
            invocation_ms: 60_000,
        }
    }
}

/// What became of the messages so far.
#[derive(Debug, Default)]
pub struct Deliveries {
    delivered: AtomicU64,
    retried: AtomicU64,
    dead: AtomicU64,
    lost: AtomicU64,
    progress: Mutex<Progress>,
}

/// Where a subscriber is.
#[derive(Debug, Default)]
struct Progress {
    /// Everything below was started, or passed over.
    next: Position,
    /// Deliveries that were started, and have not ended yet: where they begin, how many messages.
    under_way: BTreeMap<Position, usize>,
}

impl Deliveries {
    /// Delivered, at whichever attempt.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Attempts that failed, and were followed by another.
    pub fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    /// Gone to the dead letters.
    pub fn dead(&self) -> u64 {
        self.dead.load(Ordering::Relaxed)
    }

    /// Dropped from the topic's log before this subscriber had come to them.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Started, and not ended yet.
    pub fn under_way(&self) -> usize {
        lock(&self.progress).under_way.values().sum()
    }

    /// Whether everything below has ended: delivered, dead, lost, or not wanted.
    pub fn has_passed(&self, below: Position) -> bool {
        let progress = lock(&self.progress);
        progress.next >= below
            && progress.under_way.keys().next().is_none_or(|first| *first >= below)
    }

    /// What is between two places was taken, and is delivered now but for what is not wanted.
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

/// Messages to deliver.
pub(crate) type Messages = Vec<Arc<Notification>>;

/// A subscriber with its place in the topic's log. `deliver` gets messages and a deadline, and
/// returns the indices of those that must come again.
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
    /// Subscribes: what is published from now on waits to be delivered.
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

    /// The counts.
    pub(crate) fn deliveries(&self) -> &Arc<Deliveries> {
        &self.deliveries
    }

    /// Delivers. Ends when it is time to stop, and what is under way has ended.
    pub(crate) async fn run(self) {
        let mut next = self.from;
        let mut under_way = FuturesUnordered::new();
        let mut from = next;
        while let Some(mut messages) = self.messages(&mut next, &mut under_way).await {
            messages.retain(|message| message.is_about(&self.config.services));
            // Noted before they leave the log: never in neither.
            self.deliveries.taken(from, next, messages.len());
            if !messages.is_empty() {
                under_way.push(self.deliver(from, messages));
            }
            self.topic.pass(&self.config.name, next);
            from = next;
        }
        while under_way.next().await.is_some() {}
    }

    /// The next messages, once there is one, and room for it; goes on with what is under way
    /// meanwhile. `None`: it is time to stop.
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
            // First what was started, in its order: so deliveries start in order.
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

    /// The oldest messages at or above `next`, which moves behind them. What was dropped is counted.
    async fn next(&self, next: &mut Position) -> Messages {
        let log = self.topic.log();
        loop {
            let oldest = log.read(*next, self.config.batch.max(1));
            let place = oldest.first().map_or_else(|| log.start(), |(position, _)| *position);
            let lost = place.0.saturating_sub(next.0);
            self.deliveries.lost.fetch_add(lost, Ordering::Relaxed);
            // What was dropped has arrived, too: nobody waits for that.
            *next = place.max(*next);
            self.deliveries.taken(*next, *next, 0);
            if let Some((position, _)) = oldest.last() {
                *next = position.next();
                return oldest.into_iter().map(|(_, message)| message).collect();
            }
            log.arrived(*next).await;
        }
    }

    /// Together at first; what fails comes again, each by itself.
    async fn deliver(&self, at: Position, messages: Messages) {
        let n = messages.len() as u64;
        let mut pauses = self.config.retries_ms.iter();
        let mut left = self.attempt(messages).await;
        while !left.is_empty() {
            // One that has to stop tries no more.
            let Some(ms) = pauses.next() else { break };
            if self.stop.or(self.env.sleep(*ms)).await.is_none() {
                break;
            }
            self.deliveries.retried.fetch_add(left.len() as u64, Ordering::Relaxed);
            let again = left.into_iter().map(|message| self.attempt(vec![message]));
            left = join_all(again).await.concat();
        }
        for message in &left {
            tracing::warn!(subscriber = self.config.name, "a message goes to the dead letters");
            for body in message.bodies() {
                self.dead_letters.push(&self.config.name, body);
            }
        }
        let dead = left.len() as u64;
        self.deliveries.dead.fetch_add(dead, Ordering::Relaxed);
        self.deliveries.delivered.fetch_add(n - dead, Ordering::Relaxed);
        self.deliveries.ended(at);
    }

    /// One delivery. Returns what must come again.
    async fn attempt(&self, messages: Messages) -> Messages {
        let deadline = self.env.now().plus_ms(self.config.invocation_ms);
        // A stage keeps nothing half-changed: it would not survive a dropped call, either.
        let delivery = async { (self.deliver)(messages.clone(), deadline).await };
        let delivery = AssertUnwindSafe(delivery).catch_unwind();
        let give_up = self.env.sleep(self.config.invocation_ms + GRACE_MS);
        let failed = match select(pin!(delivery), give_up).await {
            Either::Left((Ok(failed), _)) => {
                return failed.into_iter().filter_map(|at| messages.get(at).cloned()).collect();
            }
            Either::Left((Err(_), _)) => "panicked",
            Either::Right(_) => "did not come back",
        };
        tracing::error!(subscriber = self.config.name, failed, "a delivery failed");
        messages
    }
}
