//! The mapping of a stream: reads its shards, parents before children, each in lanes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Clock, Handle, Mode};
use crate::answer::{self, BatchAnswer};
use crate::config;
use crate::event;
use crate::function::Function;
use crate::lane::Rules;
use crate::shard::{Family, Shard};

/// How often the shards are listed.
const DISCOVER: Duration = Duration::from_secs(1);
/// The pause after a read that failed.
const RETRY_READ: Duration = Duration::from_millis(500);
/// The first and the longest pause before a batch is retried, in milliseconds. Lambda does not
/// document its pauses; these are short for tests.
const RETRY_MS: u64 = 100;
const RETRY_MS_MAX: u64 = 1_000;
/// Batches that a shard reads ahead for each lane.
const BATCHES_AHEAD: usize = 2;

/// A record of a stream.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its sequence number.
    pub seq: String,
    /// The key whose records are in order: a partition key, or the key of an item.
    pub key: Vec<u8>,
    /// Its event for the function.
    pub event: Value,
}

/// The result of one read.
#[derive(Debug)]
pub struct Page {
    /// The records, in order.
    pub records: Vec<Record>,
    /// The next iterator. `None`: the shard has ended.
    pub next: Option<String>,
}

/// A stream with shards.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The shards, each with its parents.
    async fn shards(&self) -> anyhow::Result<Vec<(String, Vec<String>)>>;
    /// An iterator behind this record, or at the oldest record.
    async fn iterator(&self, shard: &str, after: Option<&str>) -> anyhow::Result<String>;
    /// Reads at most `limit` records.
    async fn read(&self, shard: &str, iterator: &str, limit: usize) -> anyhow::Result<Page>;
}

/// One mapping.
pub struct Mapping<S> {
    /// The stream.
    pub source: S,
    /// The function that it invokes.
    pub function: Arc<Function>,
    /// Its configuration.
    pub config: config::Stream,
    /// Its control and counters.
    pub handle: Handle,
    /// The time.
    pub clock: Clock,
}

enum Ended {
    Read(anyhow::Result<Page>),
    Invoked { lane: usize, outcome: BatchAnswer },
}

impl<S: Source> Mapping<S> {
    /// Reads all shards, without end.
    pub async fn run(self: Arc<Self>) {
        let mut family = Family::default();
        let mut shards = JoinSet::new();
        loop {
            match self.source.shards().await {
                Ok(listed) => family.set_shards(listed),
                Err(error) => {
                    let name = self.function.name();
                    tracing::warn!(name, ?error, "the shards of the stream cannot be listed");
                }
            }
            for shard in family.start() {
                let mapping = self.clone();
                shards.spawn(async move {
                    mapping.read_shard(&shard).await;
                    shard
                });
            }
            tokio::select! {
                () = sleep(DISCOVER) => {}
                Some(ended) = shards.join_next() => match ended {
                    Ok(shard) => family.finish(&shard),
                    Err(error) => tracing::error!(%error, "the reader of a shard has panicked"),
                },
            }
        }
    }

    /// Reads a shard until it has ended and all its records are done.
    async fn read_shard(self: &Arc<Self>, id: &str) {
        let config = &self.config;
        let rules = Rules {
            size: config.batch_size,
            window_ms: config.window_ms,
            bisect: config.bisect,
            retry_ms: RETRY_MS,
            retry_ms_max: RETRY_MS_MAX,
        };
        let ahead = config.batch_size * config.parallelization * BATCHES_AHEAD;
        let mut shard: Shard<Arc<Record>> = Shard::new(rules, config.parallelization);
        let mut mode = self.handle.mode();
        let mut running = JoinSet::new();
        // The next read begins at the iterator, else behind the last record. A shard that has
        // ended is not read again.
        let (mut iterator, mut last, mut has_ended) = (None::<String>, None::<String>, false);
        let (mut is_reading, mut read_at_ms) = (false, self.clock.now_ms());
        // A mapping that was off reads before it makes batches, as one that has just begun.
        let mut was_off = false;
        while !(has_ended && shard.is_empty() && running.is_empty()) {
            let now_ms = self.clock.now_ms();
            let is_on = *mode.borrow_and_update() != Mode::Off;
            was_off |= !is_on;
            if is_on && !was_off {
                for (lane, batch) in shard.take(now_ms) {
                    let mapping = self.clone();
                    running.spawn(async move {
                        Ended::Invoked { lane, outcome: mapping.invoke(&batch).await }
                    });
                }
            }
            let may_read = is_on && !is_reading && !has_ended && shard.len() < ahead;
            was_off &= is_reading || may_read || !is_on;
            if may_read && read_at_ms <= now_ms {
                is_reading = true;
                let (mapping, id) = (self.clone(), id.to_owned());
                let (iterator, last) = (iterator.take(), last.clone());
                running.spawn(async move { Ended::Read(mapping.read(&id, iterator, last).await) });
            }
            let batch_due_ms = shard.due_ms().filter(|_| !was_off);
            let due_ms = [batch_due_ms, (may_read && !is_reading).then_some(read_at_ms)];
            let due_ms = due_ms.into_iter().flatten().min().filter(|_| is_on);
            let ended = tokio::select! {
                Some(ended) = running.join_next() => ended,
                () = self.clock.until(due_ms) => continue,
                _ = mode.changed() => continue,
            };
            match ended {
                Ok(Ended::Read(page)) => {
                    is_reading = false;
                    was_off = false;
                    let now_ms = self.clock.now_ms();
                    read_at_ms = now_ms + config.poll_ms;
                    match page {
                        Ok(page) => {
                            if let Some(record) = page.records.last() {
                                last = Some(record.seq.clone());
                            }
                            has_ended = page.next.is_none();
                            iterator = page.next;
                            self.take_in(&mut shard, page.records, *mode.borrow());
                        }
                        Err(error) => {
                            let name = self.function.name();
                            tracing::warn!(name, ?error, "the shard cannot be read now");
                            self.handle.count(|counts| counts.refused += 1);
                            read_at_ms = now_ms + RETRY_READ.as_millis() as u64;
                        }
                    }
                }
                Ok(Ended::Invoked { lane, outcome }) => {
                    let finished = shard.finish(lane, outcome, self.clock.now_ms());
                    self.handle.count(|counts| {
                        counts.done += finished.done as u64;
                        counts.bisected += u64::from(finished.bisected);
                        counts.failed += u64::from(outcome == BatchAnswer::Failed);
                        let partial = matches!(outcome, BatchAnswer::From(_));
                        counts.partial += u64::from(partial);
                        counts.split += u64::from(partial && finished.done > 0);
                    });
                }
                // A panic here is a bug, and its batch would never end.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    }

    async fn read(
        &self,
        shard: &str,
        iterator: Option<String>,
        last: Option<String>,
    ) -> anyhow::Result<Page> {
        let iterator = match iterator {
            Some(iterator) => iterator,
            None => self.source.iterator(shard, last.as_deref()).await?,
        };
        self.source.read(shard, &iterator, self.config.batch_size).await
    }

    fn take_in(&self, shard: &mut Shard<Arc<Record>>, records: Vec<Record>, mode: Mode) {
        let (count, now_ms) = (records.len() as u64, self.clock.now_ms());
        self.handle.count(|counts| {
            counts.read += count;
            counts.dropped += if mode == Mode::Drop { count } else { 0 };
        });
        if mode != Mode::Drop {
            for record in records {
                let key = record.key.clone();
                shard.push(&key, Arc::new(record), now_ms);
            }
        }
    }

    async fn invoke(&self, batch: &[Arc<Record>]) -> BatchAnswer {
        self.handle.count(|counts| counts.batches += 1);
        let events: Vec<Value> = batch.iter().map(|record| record.event.clone()).collect();
        let event = event::of_records(&events).to_string();
        let answer = self.function.invoke(Bytes::from(event)).await;
        match (answer, self.config.report_failures) {
            (Ok(_), false) => BatchAnswer::Done,
            (answer, _) => {
                let ids: Vec<&str> = batch.iter().map(|record| record.seq.as_str()).collect();
                answer::of_stream(answer.ok().as_deref(), &ids)
            }
        }
    }
}
