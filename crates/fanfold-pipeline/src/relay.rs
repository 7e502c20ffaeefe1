//! The second stage: changes of the commands table go on to the command stream.
//!
//! The relay sends each log's changes in order, one record at a time. It sends the next record only
//! when the last one was acknowledged. After a failure it goes on from the first command that was
//! not (F2). It passes slot bodies on without reading them, so their content cannot stop it. (If traces
//! are recorded, it reads those that it has sent, and reports nothing of one that it cannot read.) A change
//! without commands, of a slot that an operator has raised, is done at once.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use fanfold::host::body::record::{Part, Record};
use fanfold::host::body::slot;
use fanfold::host::limits::STREAM_RECORD_BYTES_SOFT;
use fanfold::{LogId, Seq, Time};
use foldhash::fast::RandomState;
use lru::LruCache;

use crate::BatchOutcome;
use crate::backoff::Backoff;
use crate::ports::{Change, CommandStream, Env, StreamRecord, Token, put_len};
use crate::telemetry::Telemetry;
use crate::traces::{Hop, Traced, Tracing};

/// Limits rounds in a row in which nothing was acknowledged. Then the relay reports what is left,
/// and the event source delivers it again.
const PUT_BACKOFF: Backoff = Backoff { attempts_max: 6, first_ms: 50, longest_ms: 1_600 };

/// Logs whose last acknowledged change a warm relay remembers; about 100 bytes each.
const REMEMBERED_LOGS_MAX: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");

/// The ports of the relay.
#[derive(Clone)]
pub struct RelayPorts {
    /// Where records go.
    pub stream: Arc<dyn CommandStream>,
    /// Time and randomness.
    pub env: Arc<dyn Env>,
}

/// The stage.
pub struct Relay {
    ports: RelayPorts,
    acknowledged: Mutex<LruCache<LogId, (Seq, Token), RandomState>>,
    record_bytes_soft: usize,
    telemetry: Option<Arc<Telemetry>>,
}

/// One log's changes of a batch, with their places in it.
struct Queue<'a> {
    log: &'a LogId,
    /// Not yet acknowledged.
    changes: Vec<(usize, &'a Change)>,
}

/// The result of a round.
struct Round {
    /// A record was acknowledged.
    acknowledged: bool,
    /// A record failed.
    failed: bool,
    /// The stream refuses calls, so the same round would fail again.
    refused: bool,
}

impl Relay {
    /// A relay that remembers nothing yet.
    pub fn new(ports: RelayPorts) -> Self {
        let remembered = LruCache::with_hasher(REMEMBERED_LOGS_MAX, RandomState::default());
        let acknowledged = Mutex::new(remembered);
        let record_bytes_soft = STREAM_RECORD_BYTES_SOFT.get();
        Self { ports, acknowledged, record_bytes_soft, telemetry: None }
    }

    /// Closes records at `bytes` instead of [`STREAM_RECORD_BYTES_SOFT`].
    #[must_use]
    pub fn with_record_bytes(mut self, bytes: usize) -> Self {
        self.record_bytes_soft = bytes.min(STREAM_RECORD_BYTES_SOFT.get());
        self
    }

    /// Measures into `telemetry`; `None`: nothing.
    #[must_use]
    pub fn with_telemetry(mut self, telemetry: Option<Arc<Telemetry>>) -> Self {
        self.telemetry = telemetry;
        self
    }

    /// Puts a batch of changes on the stream, and reports what was not acknowledged by the
    /// deadline.
    pub async fn relay(&self, changes: &[Change], deadline: Time) -> BatchOutcome {
        let tracing =
            self.telemetry.as_ref().map(|telemetry| telemetry.begin()).unwrap_or_default();
        let mut queues = self.queues(changes);
        let mut failures = 0;
        while !queues.is_empty() && self.ports.env.now() < deadline {
            let Round { acknowledged, failed, refused } = self.round(&mut queues, &tracing).await;
            failures = match (acknowledged, failed) {
                (_, false) => 0,
                (true, true) => 1,
                (false, true) => failures + 1,
            };
            if refused || failed && !PUT_BACKOFF.pause(failures, &*self.ports.env).await {
                break;
            }
        }
        let mut outcome = BatchOutcome::DONE;
        let left = queues.iter().filter_map(|queue| queue.changes.first());
        left.for_each(|(index, _)| outcome.fail_from(*index));
        outcome
    }

    /// The changes by log, without those that an earlier delivery of the batch got acknowledged.
    fn queues<'a>(&self, changes: &'a [Change]) -> Vec<Queue<'a>> {
        let mut queues: Vec<Queue<'a>> = Vec::new();
        let mut queue_of: HashMap<&LogId, usize, RandomState> = HashMap::default();
        // A slot that an operator has raised has no command to send.
        let with_commands = changes.iter().enumerate().filter(|(_, change)| change.n > 0);
        for (index, change) in with_commands {
            let at = *queue_of.entry(&change.log).or_insert_with(|| {
                queues.push(Queue { log: &change.log, changes: Vec::new() });
                queues.len() - 1
            });
            queues[at].changes.push((index, change));
        }
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        for queue in &mut queues {
            // Compares the token, too: a restored table assigns the same seqs to other changes.
            let known = acknowledged.get(queue.log);
            let is_known = |(_, c): &(usize, &Change)| known == Some(&(c.last, c.token));
            if let Some(at) = queue.changes.iter().rposition(is_known) {
                queue.changes.drain(..=at);
            }
        }
        queues.retain(|queue| !queue.changes.is_empty());
        queues
    }

    /// Sends one record per log.
    async fn round(&self, queues: &mut Vec<Queue<'_>>, tracing: &Tracing) -> Round {
        let mut records = Vec::with_capacity(queues.len());
        for (at, queue) in queues.iter().enumerate() {
            let (record, n) = self.pack(queue.log, &queue.changes);
            records.push((at, n, record));
        }
        let mut round = Round { acknowledged: false, failed: false, refused: false };
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let sizes = rest.iter().map(|(_, _, record)| record.bytes());
            let (chunk, behind) = rest.split_at(put_len(sizes));
            rest = behind;
            let put: Vec<StreamRecord> =
                chunk.iter().map(|(_, _, record)| record.clone()).collect();
            match self.ports.stream.put_records(&put).await {
                Ok(results) => {
                    for ((at, n, _), result) in chunk.iter().zip(results) {
                        match result {
                            Ok(()) => {
                                round.acknowledged = true;
                                self.acknowledge(&mut queues[*at], *n, tracing);
                            }
                            Err(_) => round.failed = true,
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, records = put.len(), "the relay could not put records on the command stream");
                    round.failed = true;
                    round.refused |= !error.may_pass();
                }
            }
        }
        queues.retain(|queue| !queue.changes.is_empty());
        round
    }

    /// Packs as many changes, from the first on, as the soft limit allows into one record; returns
    /// it and their number. It packs at least one, which cannot exceed the hard limit.
    fn pack(&self, log: &LogId, changes: &[(usize, &Change)]) -> (StreamRecord, usize) {
        let mut parts: Vec<Part<'_>> = Vec::new();
        let mut weight = 0;
        for (_, change) in changes {
            let Change { last, n, at, body, .. } = change;
            let part = Part { last: *last, n: *n, at: *at, body };
            weight += part.weight();
            if !parts.is_empty() && weight > self.record_bytes_soft {
                break;
            }
            parts.push(part);
        }
        let n = parts.len();
        let record = Record { log: log.clone(), parts };
        // Cannot fail: the header has only names and numbers.
        let data = record.encode().unwrap_or_default().into();
        (StreamRecord { key: log.clone(), data }, n)
    }

    fn acknowledge(&self, queue: &mut Queue<'_>, n: usize, tracing: &Tracing) {
        let mut sent = queue.changes.drain(..n.min(queue.changes.len()));
        if let Some(telemetry) = &self.telemetry {
            let now = self.ports.env.now();
            sent.as_slice().iter().for_each(|(_, c)| telemetry.relayed(c.at, now, c.n));
        }
        tracing.report(Hop::Relay, || sent.as_slice().iter().flat_map(|(_, c)| traced(c)));
        if let Some((_, change)) = sent.next_back() {
            let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
            acknowledged.put(queue.log.clone(), (change.last, change.token));
        }
    }
}

/// The commands of a change whose traces are recorded. Only for this are bodies read.
fn traced(change: &Change) -> Vec<Traced<'_>> {
    let commands = slot::decode(&change.body).unwrap_or_default();
    let seqs = (change.last.0 + 1).saturating_sub(commands.len() as u64)..;
    let of = seqs.zip(commands).filter_map(|(seq, command)| {
        let (log, seq, name) = (&change.log, Seq(seq), Some(command.name));
        command.trace.map(|trace| Traced { trace, log, seq, name, outcome: None })
    });
    of.collect()
}
