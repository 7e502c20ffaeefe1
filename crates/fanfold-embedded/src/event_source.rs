//! Drives a stage from a shard, as Lambda's event source mappings do.
//!
//! - **Order**: a shard has one or more lanes. All records of a key are in the same lane, and a
//!   lane is one task that makes one invocation at a time. So the records of a key stay in order.
//! - **At least once**: an invocation returns its first unfinished record. The lane retries the
//!   batch from that record without a limit, with growing pauses. An invocation that panics or
//!   times out has finished no record.
//! - **Bisection**: if an invocation finishes no record, the lane retries the first half of the
//!   batch, down to a single record. After a success, it takes the whole rest.
//! - **Checkpoints**: each lane has its own; the shard is trimmed to the lowest.
//! - **Resharding**: the lanes of a closed shard end when they have finished its records. The lanes
//!   of its children start after that.
//!
//! Time and random numbers come from the port [`Env`]. Needs a tokio runtime.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use fanfold::Time;
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::ports::Env;
use futures::FutureExt;
use futures::future::{Either, select};
use tokio::task::yield_now;

use crate::hash_key::HashKey;
use crate::limit::Limit;
use crate::shards::{ShardId, Shards};
use crate::stop::Stop;
use crate::striped::lock;
use crate::tasks::Tasks;
use crate::transit::{Batch, Position, Shard};

/// Records in one batch (Lambda, DynamoDB and Kinesis event sources).
pub(crate) const BATCH_ITEMS_MAX: usize = 10_000;
/// Bytes in one batch (Lambda's payload).
pub(crate) const BATCH_BYTES_MAX: usize = 6 * 1024 * 1024;
/// Lanes in one shard (Lambda's parallelization factor).
pub(crate) const PARALLELIZATION_MAX: usize = 10;
/// How long an invocation may run past its deadline, in milliseconds, before it is dropped. Stages
/// check the deadline between two calls of a port, which take milliseconds in this process.
const GRACE_MS: u64 = 10_000;

/// How a stage is driven.
#[derive(Debug, Clone)]
pub(crate) struct EventSourceConfig {
    /// The stage's name in logs.
    pub name: &'static str,
    /// The largest batch; at most [`BATCH_ITEMS_MAX`] and [`BATCH_BYTES_MAX`].
    pub batch: Limit,
    /// How long to wait for more records once a batch has one, in milliseconds.
    pub window_ms: u64,
    /// Lanes per shard, 1 to [`PARALLELIZATION_MAX`].
    pub parallelization: usize,
    /// The time from the start of an invocation to its deadline, in milliseconds.
    pub invocation_ms: u64,
    /// The pause after the first failure, in milliseconds. It doubles with each further failure.
    pub retry_first_ms: u64,
    /// The longest pause, in milliseconds.
    pub retry_longest_ms: u64,
}

impl EventSourceConfig {
    /// Lambda's defaults, except for the batch, the timeout and the pauses below.
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            // Large enough to pack well, small enough that retrying a failed batch costs little.
            batch: Limit { items: 1_000, bytes: BATCH_BYTES_MAX },
            window_ms: 0,
            parallelization: 1,
            // The timeout of the Lambda functions in the template.
            invocation_ms: 60_000,
            // Most failures of a port in this process are over within milliseconds, so the first
            // pause is short. The longest pause limits how much a lasting failure logs.
            retry_first_ms: 50,
            retry_longest_ms: 10_000,
        }
    }
}

/// Drives a stage from shards. `invoke` gets a batch and the deadline by which it must return.
pub(crate) struct EventSource<I> {
    config: EventSourceConfig,
    env: Arc<dyn Env>,
    stop: Stop,
    invoke: I,
}

impl<I> EventSource<I> {
    /// Creates a driver that takes batches until stop is signalled. It then finishes the
    /// invocations under way, and retries no failed records. Clamps `config` to Lambda's limits.
    pub(crate) fn new(
        config: EventSourceConfig,
        env: Arc<dyn Env>,
        stop: Stop,
        invoke: I,
    ) -> Arc<Self> {
        let config = EventSourceConfig {
            batch: Limit {
                items: config.batch.items.clamp(1, BATCH_ITEMS_MAX),
                bytes: config.batch.bytes.clamp(1, BATCH_BYTES_MAX),
            },
            parallelization: config.parallelization.clamp(1, PARALLELIZATION_MAX),
            ..config
        };
        Arc::new(Self { config, env, stop, invoke })
    }

    /// Starts to drive the stage from a shard, with one task for each lane. A task ends when stop
    /// is signalled, or when the shard is closed and the lane has finished its records.
    pub(crate) fn drive<T, F>(self: &Arc<Self>, shard: &Arc<Shard<T>>, tasks: &Tasks)
    where
        T: Clone + Send + Sync + 'static,
        I: Fn(Vec<T>, Time) -> F + Send + Sync + 'static,
        F: Future<Output = BatchOutcome> + Send,
    {
        let lanes = self.config.parallelization;
        let positions = Arc::new(Mutex::new(vec![shard.start(); lanes]));
        for index in 0..lanes {
            let (source, shard) = (self.clone(), shard.clone());
            let lane = Lane { source, shard, index, positions: positions.clone() };
            tasks.spawn(async move { lane.run().await.unwrap_or_default() });
        }
    }

    /// Starts to drive the stage from all shards of a stream, including shards that are added
    /// later. One task watches the shards; each lane of each shard has a task.
    pub(crate) fn drive_all<T, F>(self: &Arc<Self>, shards: &Arc<Shards<T>>, tasks: &Tasks)
    where
        T: Clone + Send + Sync + 'static,
        I: Fn(Vec<T>, Time) -> F + Send + Sync + 'static,
        F: Future<Output = BatchOutcome> + Send,
    {
        let (source, shards, lanes) = (self.clone(), shards.clone(), tasks.clone());
        tasks.spawn(async move {
            let mut driven: BTreeSet<ShardId> = BTreeSet::new();
            while let Some(readable) = source.stop.or(shards.readable_unlike(&driven)).await {
                for (id, shard) in &readable {
                    if !driven.contains(id) {
                        source.drive(shard, &lanes);
                    }
                }
                driven = readable.into_keys().collect();
            }
        });
    }
}

struct Lane<T, I> {
    source: Arc<EventSource<I>>,
    shard: Arc<Shard<T>>,
    index: usize,
    /// The positions of all lanes of the shard, by lane.
    positions: Arc<Mutex<Vec<Position>>>,
}

impl<T, I, F> Lane<T, I>
where
    T: Clone + Send + Sync + 'static,
    I: Fn(Vec<T>, Time) -> F + Send + Sync + 'static,
    F: Future<Output = BatchOutcome> + Send,
{
    /// Returns `None` on stop, or when the lane of a closed shard has finished its records.
    async fn run(&self) -> Option<()> {
        let mut next = self.shard.start();
        loop {
            let batch = self.gather(next).await?;
            next = batch.next;
            self.finish(&batch.items).await?;
            self.pass(next);
        }
    }

    /// The next batch of the lane's records, with at least one record. `None`: stop was signalled,
    /// or the shard is closed and has no more records of this lane.
    async fn gather(&self, from: Position) -> Option<Batch<T>> {
        let mut batch = Batch::starting_at(from);
        loop {
            self.fill(&mut batch);
            if !batch.items.is_empty() {
                break;
            }
            // All records below `batch.next` belong to other lanes.
            self.pass(batch.next);
            let more_comes = self.source.stop.or(self.shard.arrived(batch.next)).await?;
            if !more_comes {
                return None;
            }
        }
        let mut window = pin!(self.source.env.sleep(self.source.config.window_ms));
        while self.source.config.window_ms > 0 && !batch.is_full {
            let arrived = pin!(self.shard.arrived(batch.next));
            match self.source.stop.or(select(arrived, &mut window)).await? {
                Either::Left((true, _)) => self.fill(&mut batch),
                // The shard is closed, so no more records will arrive for this batch.
                Either::Left((false, _)) | Either::Right(_) => break,
            }
        }
        Some(batch)
    }

    fn fill(&self, batch: &mut Batch<T>) {
        let lanes = self.source.config.parallelization;
        let is_mine = |key: HashKey| key.lane(lanes) == self.index;
        self.shard.fill(batch, self.source.config.batch, is_mine);
    }

    /// Invokes the stage until the whole batch is finished. `None`: stop was signalled before that.
    async fn finish(&self, items: &[(Position, T)]) -> Option<()> {
        let (mut left, mut size, mut failures) = (items, items.len(), 0);
        while !left.is_empty() {
            if self.source.stop.is_given() {
                return None;
            }
            let part = &left[..size.min(left.len())];
            let finished = self.invoke(part).await;
            left = &left[finished..];
            if finished == part.len() {
                (size, failures) = (left.len(), 0);
                self.pass_below(left);
                // Ports in memory never suspend a task, so yield to other tasks explicitly.
                yield_now().await;
            } else {
                // If no record was finished, retry half of the part; otherwise its rest.
                (size, failures) = match finished {
                    0 => (part.len().div_ceil(2), failures + 1),
                    _ => (part.len() - finished, 1),
                };
                self.pass_below(left);
                self.pause(failures).await?;
            }
        }
        Some(())
    }

    /// Invokes the stage once. Returns the number of records that it finished, from the first on.
    async fn invoke(&self, part: &[(Position, T)]) -> usize {
        let EventSource { config, env, invoke, .. } = &*self.source;
        let records = part.iter().map(|(_, item)| item.clone()).collect();
        let deadline = env.now().plus_ms(config.invocation_ms);
        // Unwind-safe: a stage keeps no half-changed state, as any call may be dropped halfway.
        let invocation = AssertUnwindSafe(async { invoke(records, deadline).await }).catch_unwind();
        let give_up = env.sleep(config.invocation_ms + GRACE_MS);
        let failed = match select(pin!(invocation), give_up).await {
            Either::Left((Ok(BatchOutcome { unfinished: None }), _)) => return part.len(),
            // As in Lambda, an index outside of the batch fails the whole batch.
            Either::Left((Ok(BatchOutcome { unfinished: Some(at) }), _)) => {
                let finished = if at < part.len() { at } else { 0 };
                tracing::warn!(
                    stage = config.name,
                    records = part.len(),
                    finished,
                    "the stage did not finish all records: the event source delivers the rest again"
                );
                return finished;
            }
            Either::Left((Err(_), _)) => "it panicked",
            Either::Right(_) => "it exceeded its time limit",
        };
        tracing::error!(
            stage = config.name,
            records = part.len(),
            failed,
            "an invocation failed: the event source delivers its records again"
        );
        0
    }

    async fn pause(&self, failures: u32) -> Option<()> {
        let EventSource { config, env, stop, .. } = &*self.source;
        let doubled = config.retry_first_ms.saturating_mul(1 << (failures - 1).min(20));
        let longest = doubled.min(config.retry_longest_ms).max(1);
        // Half of the pause is random, so that lanes that failed together do not retry together.
        stop.or(env.sleep(longest / 2 + env.random() % (longest / 2 + 1))).await
    }

    fn pass_below(&self, left: &[(Position, T)]) {
        if let Some((position, _)) = left.first() {
            self.pass(*position);
        }
    }

    /// Sets this lane's position, and trims the shard to the lowest position.
    fn pass(&self, to: Position) {
        let mut positions = lock(&self.positions);
        positions[self.index] = to;
        if let Some(lowest) = positions.iter().min() {
            self.shard.trim(*lowest);
        }
    }
}
