//! Delivers the notifications to one subscriber, as SNS and Lambda do: one message an invocation,
//! at least once; those whose attribute `services` names none of the subscriber's are passed over.
//! Deliveries start in the order of publishing, run at the same time up to a bound, and are tried
//! three times; then the message goes to the dead letters.
//!
//! A subscriber that is slow holds no memory: its messages stay in the topic's log, which is
//! bounded. What is dropped there is counted as lost; its sweep finds it in the journal.
//!
//! Time comes from the port [`Env`]. Needs a tokio runtime.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fanfold::Time;
use fanfold_pipeline::ports::Env;
use futures::FutureExt;
use futures::future::{Either, select};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinSet, consume_budget};

use crate::memory::{MemoryDeadLetters, MemoryTopic, Notification};
use crate::shard::Position;
use crate::stop::Stop;

/// How long a delivery may go on behind its deadline, in milliseconds, before it is given up.
const GRACE_MS: u64 = 10_000;

/// How messages are delivered.
#[derive(Debug, Clone)]
pub struct SubscriptionConfig {
    /// The subscriber: a view.
    pub name: String,
    /// Only messages about one of these services.
    pub services: Vec<String>,
    /// Deliveries at the same time.
    pub concurrency: usize,
    /// The pauses before the second and the third attempt, in milliseconds. Lambda's are a minute
    /// and two; a process that is its own cloud needs no more than seconds.
    pub retries_ms: [u64; 2],
    /// How long a delivery has, in milliseconds.
    pub invocation_ms: u64,
}

impl SubscriptionConfig {
    /// For a view of these services.
    pub fn new(name: &str, services: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            services: services.iter().map(|&service| service.to_owned()).collect(),
            concurrency: 16,
            retries_ms: [1_000, 2_000],
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
    under_way: AtomicU64,
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
    pub fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::SeqCst)
    }
}

/// A subscriber with its place in the topic's log. `deliver` gets a message's body and a deadline;
/// `false`: it must come again.
pub struct Subscription<D> {
    topic: Arc<MemoryTopic>,
    dead_letters: Arc<MemoryDeadLetters>,
    config: SubscriptionConfig,
    env: Arc<dyn Env>,
    stop: Stop,
    deliveries: Arc<Deliveries>,
    deliver: D,
}

impl<D, F> Subscription<D>
where
    D: Fn(Bytes, Time) -> F + Send + Sync + 'static,
    F: Future<Output = bool> + Send + 'static,
{
    /// Subscribes, and starts to deliver what is published from now on.
    pub fn start(
        topic: Arc<MemoryTopic>,
        dead_letters: Arc<MemoryDeadLetters>,
        config: SubscriptionConfig,
        env: Arc<dyn Env>,
        stop: Stop,
        tasks: &mut JoinSet<()>,
        deliver: D,
    ) -> Arc<Deliveries> {
        let from = topic.subscribe(&config.name);
        let deliveries = Arc::<Deliveries>::default();
        let counts = deliveries.clone();
        let subscription =
            Arc::new(Self { topic, dead_letters, config, env, stop, deliveries, deliver });
        tasks.spawn(subscription.run(from));
        counts
    }

    /// Ends when it is time to stop, and what is under way has ended.
    async fn run(self: Arc<Self>, from: Position) {
        let permits = Arc::new(Semaphore::new(self.config.concurrency.max(1)));
        let mut under_way = JoinSet::new();
        let mut next = from;
        while let Some((position, message)) = self.stop.or(self.next(next)).await {
            next = position.next();
            let about = |service: &String| message.attributes.services.contains(service);
            if self.config.services.iter().any(about) {
                let free = permits.clone().acquire_owned();
                let Some(Ok(permit)) = self.stop.or(free).await else { break };
                // Counted before it leaves the log: never in neither.
                self.deliveries.under_way.fetch_add(1, Ordering::SeqCst);
                self.topic.pass(&self.config.name, next);
                let mut delivery = Box::pin(self.clone().deliver(message.body.clone(), permit));
                // Polled here first: deliveries start in order, whichever thread goes on with them.
                if futures::poll!(&mut delivery).is_pending() {
                    under_way.spawn(delivery);
                }
                while under_way.try_join_next().is_some() {}
            } else {
                self.topic.pass(&self.config.name, next);
            }
            consume_budget().await;
        }
        while under_way.join_next().await.is_some() {}
    }

    /// The oldest message at or above `from`, and its place. What was dropped is counted.
    async fn next(&self, from: Position) -> (Position, Arc<Notification>) {
        let log = self.topic.log();
        let mut from = from;
        loop {
            let oldest = log.read(from, 1).pop();
            let place = oldest.as_ref().map_or_else(|| log.start(), |(position, _)| *position);
            let lost = place.0.saturating_sub(from.0);
            self.deliveries.lost.fetch_add(lost, Ordering::Relaxed);
            if let Some(oldest) = oldest {
                return oldest;
            }
            // What was dropped has arrived, too: nobody waits for that.
            from = from.max(place);
            log.arrived(from).await;
        }
    }

    async fn deliver(self: Arc<Self>, body: Bytes, permit: OwnedSemaphorePermit) {
        let mut pauses = self.config.retries_ms.iter();
        let delivered = loop {
            if self.attempt(&body).await {
                break true;
            }
            // One that has to stop tries no more.
            let Some(ms) = pauses.next() else { break false };
            if self.stop.or(self.env.sleep(*ms)).await.is_none() {
                break false;
            }
            self.deliveries.retried.fetch_add(1, Ordering::Relaxed);
        };
        if delivered {
            self.deliveries.delivered.fetch_add(1, Ordering::Relaxed);
        } else {
            tracing::warn!(subscriber = self.config.name, "a message goes to the dead letters");
            self.dead_letters.push(&self.config.name, body);
            self.deliveries.dead.fetch_add(1, Ordering::Relaxed);
        }
        self.deliveries.under_way.fetch_sub(1, Ordering::SeqCst);
        drop(permit);
    }

    async fn attempt(&self, body: &Bytes) -> bool {
        let deadline = self.env.now().plus_ms(self.config.invocation_ms);
        // A stage keeps nothing half-changed: it would not survive a dropped call, either.
        let delivery = async { (self.deliver)(body.clone(), deadline).await };
        let delivery = AssertUnwindSafe(delivery).catch_unwind();
        let give_up = self.env.sleep(self.config.invocation_ms + GRACE_MS);
        let failed = match select(pin!(delivery), give_up).await {
            Either::Left((Ok(delivered), _)) => return delivered,
            Either::Left((Err(_), _)) => "panicked",
            Either::Right(_) => "did not come back",
        };
        tracing::error!(subscriber = self.config.name, failed, "a delivery failed");
        false
    }
}
