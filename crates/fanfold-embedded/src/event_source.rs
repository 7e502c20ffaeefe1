//! Drives a stage from a shard, as Lambda's event source mappings do.
//!
//! - **Order**: a shard has one lane or more; a key is always in the same one, and a lane is one
//!   task that has one invocation at a time. So the records of a key are never overtaken.
//! - **At least once**: an invocation names its first unfinished record, and everything from there
//!   comes again, for ever, with growing pauses. A panic, or an invocation that does not come back
//!   in time, finishes nothing.
//! - **Bisection**: a batch of which nothing was finished comes again as its first half, down to a
//!   single record; after a success, the rest of the batch comes at once.
//! - **Checkpoints**: each lane has its own; the shard is trimmed to the lowest.
//! - **Resharding**: a closed shard's lanes end when they have finished what is in it; those of its
//!   children begin when all of them have.
//!
//! Time and chance come from the port [`Env`]. Needs a tokio runtime.

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
/// How long an invocation may go on behind its deadline, in milliseconds, before it is given up.
/// Stages look at the deadline between two calls of a port, which take milliseconds here.
const GRACE_MS: u64 = 10_000;

/// How a stage is driven.
#[derive(Debug, Clone)]
pub(crate) struct EventSourceConfig {
    /// What it is called, for people.
    pub name: &'static str,
    /// The largest batch; at most [`BATCH_ITEMS_MAX`] and [`BATCH_BYTES_MAX`].
    pub batch: Limit,
    /// How long to wait for a batch to fill up, in milliseconds, once it has a record.
    pub window_ms: u64,
    /// Lanes per shard, 1 to [`PARALLELIZATION_MAX`].
    pub parallelization: usize,
    /// How long an invocation has, in milliseconds.
    pub invocation_ms: u64,
    /// The pause after the first failure, in milliseconds; doubles with each.
    pub retry_first_ms: u64,
    /// The longest pause, in milliseconds.
    pub retry_longest_ms: u64,
}

impl EventSourceConfig {
    /// As Lambda has it by default, but that nothing waits for a batch to fill up.
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            // Large enough to pack well, small enough that one that fails costs little.
            batch: Limit { items: 1_000, bytes: BATCH_BYTES_MAX },
            window_ms: 0,
            parallelization: 1,
            // As the Lambda functions of the template.
            invocation_ms: 60_000,
            // A port that fails in this process will most likely work a moment later; what fails
            // for longer must not fill the log file.
            retry_first_ms: 50,
            retry_longest_ms: 10_000,
        }
    }
}

/// A stage, ready to be driven. `invoke` gets a batch and the deadline by which it has to answer.
pub(crate) struct EventSource<I> {
    config: EventSourceConfig,
    env: Arc<dyn Env>,
    stop: Stop,
    invoke: I,
}

impl<I> EventSource<I> {
    /// A stage that takes batches until it is told to stop. What is under way then is finished,
    /// what has failed is not tried again.
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

    /// Starts to drive the stage from a shard: one task a lane. They end when it is time to stop, or
    /// when the shard is closed and drained.
    pub(crate) fn drive<T, F>(self: &Arc<Self>, shard: &Arc<Shard<T>>, tasks: &Tasks)
    where
        T: Clone + Send + Sync + 'static,
        I: Fn(Vec<T>, Time) -> F + Send + Sync + 'static,
        F: Future<Output = BatchOutcome> + Send,
    {
        let lanes = self.config.parallelization;
        let checkpoints = Arc::new(Mutex::new(vec![shard.start(); lanes]));
        for index in 0..lanes {
            let (source, shard) = (self.clone(), shard.clone());
            let lane = Lane { source, shard, index, checkpoints: checkpoints.clone() };
            tasks.spawn(async move { lane.run().await.unwrap_or_default() });
        }
    }

    /// Starts to drive the stage from all shards of a stream, those included that come while it
    /// runs: one task that watches the shards, and one a lane.
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
    /// Of all lanes of the shard.
    checkpoints: Arc<Mutex<Vec<Position>>>,
}

impl<T, I, F> Lane<T, I>
where
    T: Clone + Send + Sync + 'static,
    I: Fn(Vec<T>, Time) -> F + Send + Sync + 'static,
    F: Future<Output = BatchOutcome> + Send,
{
    /// Ends with `None`, when it is time to stop, or when everything of a closed shard is finished.
    async fn run(&self) -> Option<()> {
        let mut next = self.shard.start();
        loop {
            let batch = self.gather(next).await?;
            next = batch.next;
            self.finish(&batch.items).await?;
            self.checkpoint(next);
        }
    }

    /// The next batch of the lane's records, at least one; `None` if there will be none.
    async fn gather(&self, from: Position) -> Option<Batch<T>> {
        let mut batch = Batch::starting_at(from);
        loop {
            self.fill(&mut batch);
            if !batch.items.is_empty() {
                break;
            }
            // What is there belongs to other lanes.
            self.checkpoint(batch.next);
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
                // A closed shard's last batch fills up no more.
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

    /// Invokes the stage until the whole batch is finished; `None` if it is time to stop before.
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
                self.checkpoint_at(left);
                // Ports in memory never make a task wait: others must have their turn.
                yield_now().await;
            } else {
                // Some of it was finished: the rest comes again as it is. Nothing was: the half.
                (size, failures) = match finished {
                    0 => (part.len().div_ceil(2), failures + 1),
                    _ => (part.len() - finished, 1),
                };
                self.checkpoint_at(left);
                self.pause(failures).await?;
            }
        }
        Some(())
    }

    /// How many of the records, from the first on, one invocation finishes.
    async fn invoke(&self, part: &[(Position, T)]) -> usize {
        let EventSource { config, env, invoke, .. } = &*self.source;
        let records = part.iter().map(|(_, item)| item.clone()).collect();
        let deadline = env.now().plus_ms(config.invocation_ms);
        // A stage keeps nothing half-changed: it would not survive a dropped call, either.
        let invocation = AssertUnwindSafe(async { invoke(records, deadline).await }).catch_unwind();
        let give_up = env.sleep(config.invocation_ms + GRACE_MS);
        let failed = match select(pin!(invocation), give_up).await {
            Either::Left((Ok(BatchOutcome { unfinished: None }), _)) => return part.len(),
            // As Lambda does it: an index that is not in the batch fails all of it.
            Either::Left((Ok(BatchOutcome { unfinished: Some(at) }), _)) => {
                let finished = if at < part.len() { at } else { 0 };
                tracing::warn!(
                    stage = config.name,
                    records = part.len(),
                    finished,
                    "some records come again"
                );
                return finished;
            }
            Either::Left((Err(_), _)) => "panicked",
            Either::Right(_) => "did not come back",
        };
        tracing::error!(stage = config.name, records = part.len(), failed, "an invocation failed");
        0
    }

    async fn pause(&self, failures: u32) -> Option<()> {
        let EventSource { config, env, stop, .. } = &*self.source;
        let doubled = config.retry_first_ms.saturating_mul(1 << (failures - 1).min(20));
        let longest = doubled.min(config.retry_longest_ms).max(1);
        // Half of it at random, so that lanes that failed together come again one by one.
        stop.or(env.sleep(longest / 2 + env.random() % (longest / 2 + 1))).await
    }

    fn checkpoint_at(&self, left: &[(Position, T)]) {
        if let Some((position, _)) = left.first() {
            self.checkpoint(*position);
        }
    }

    /// Everything of this lane below `to` is finished.
    fn checkpoint(&self, to: Position) {
        let mut checkpoints = lock(&self.checkpoints);
        checkpoints[self.index] = to;
        if let Some(lowest) = checkpoints.iter().min() {
            self.shard.trim(*lowest);
        }
    }
}
