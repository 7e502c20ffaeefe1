//! The scheduled stage: finds what stands still. It decides nothing.
//!
//! [`Sweep`] walks the catalogue of logs and nudges those whose commands have no entries yet, or
//! are parked. [`ViewSweep`] does the same for one view: it brings it on from the journal, and
//! delivers its dead letters. What it applies has not come through before, perhaps because it ends
//! its process: so the view's sweep is suspicious.
//!
//! What has not come through, and stands in its slot still, the sweep puts on the stream again: the
//! change stream may have lost it. What was lost and has been overwritten in the slot since, nothing
//! can bring back: such a log stands still, and is reported for ever.
//!
//! A log that cannot be looked at is reported, and stops no other (F7): the walk goes on behind it,
//! and comes to it again when it begins anew. What there was no time for, the next run begins with.

mod inspect;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfold::body::parked::Reason;
use fanfold::canary::Canary;
use fanfold::{LogId, Time};
use futures::stream::{self, StreamExt};

use self::inspect::{Inspection, Memory};
use crate::ingest::Ingest;
use crate::ports::{
    CataloguePosition, CommandStream, Commands, Env, Journal, ParkedTable, StreamRecord,
    Unavailable, put_len,
};

pub use view::{ViewSweep, ViewSweepPorts, ViewSweepReport};

/// What was accepted less than this ago is on its way: every hop together takes seconds.
const STANDSTILL_MS: u64 = 10_000;
/// Ids of a canary within a millisecond: as clients are told to number, and below 2^53 for long.
const IDS_PER_MS: u64 = 1_024;
/// Logs that are looked at at the same time.
const LOGS_AT_ONCE: usize = 16;
/// Parked commands that are looked at, to see whether one could go on.
const PARKED_PER_LOOK: usize = 100;

/// The ports of the sweep.
#[derive(Clone)]
pub struct SweepPorts {
    /// The slots, and the catalogue of logs.
    pub commands: Arc<dyn Commands>,
    /// The event logs.
    pub journal: Arc<dyn Journal>,
    /// What waits.
    pub parked: Arc<dyn ParkedTable>,
    /// Where nudges go.
    pub stream: Arc<dyn CommandStream>,
    /// Time and randomness.
    pub env: Arc<dyn Env>,
}

/// The stage.
pub struct Sweep {
    ports: SweepPorts,
    canaries: Option<(Ingest, usize)>,
    memory: Memory,
}

/// What one run saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Where the next run goes on; `None`: from the start of the catalogue.
    pub next: Option<CataloguePosition>,
    /// The logs looked at.
    pub logs: usize,
    /// Those that were nudged, or whose batch was put on the stream again.
    pub nudged: Vec<LogId>,
    /// Those of them whose slot's batch was put on the stream again: it has not come through.
    pub resent: Vec<LogId>,
    /// Those that could not be looked at, or not be nudged.
    pub failed: Vec<LogId>,
    /// For how long the oldest command without an entry has waited, at most. A log with several
    /// batches behind its tail and nothing parked counts at least since this sweep first saw it so.
    pub standstill_ms_max: u64,
    /// The logs in which something waits for an operator, or has waited for some minutes for what
    /// should come by itself.
    pub waiting: usize,
    /// For what: a log may count several times.
    pub waiting_for: BTreeMap<Reason, usize>,
    /// The logs with an attempt marker whose call is over: a record has ended its process, and did not
    /// come back alone. They are nudged, which removes it.
    pub attempted: usize,
    /// How long ago the last command of a canary came to its entry, at most over the canaries;
    /// `None` while none has. A healthy pipeline keeps it about as low as the sweep's schedule.
    pub canary_age_ms_max: Option<u64>,
}

impl Sweep {
    /// A sweep that remembers nothing yet.
    pub fn new(ports: SweepPorts) -> Self {
        Self { ports, canaries: None, memory: Memory::new() }
    }

    /// Also sends a command of each of `n` canaries through every hop, each run. More canaries
    /// reach more shards. The hosts behind `ingest` must know [`Canary`].
    #[must_use]
    pub fn with_canaries(mut self, ingest: Ingest, n: usize) -> Self {
        self.canaries = Some((ingest, n));
        self
    }

    /// Looks at up to `limit` logs from `after` on, as far as it comes until the deadline, and nudges
    /// those that stand still. Whoever schedules it stores [`SweepReport::next`] for the next run.
    pub async fn sweep(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
        deadline: Time,
    ) -> Result<SweepReport, Unavailable> {
        // First: they say how the pipeline is, also when there is no time for all logs.
        let (canary_age_ms_max, unheard) = self.sing().await;
        let page = self.ports.commands.catalogue(after.clone(), limit).await?;
        let listed = page.logs.len();
        let inspections =
            stream::iter(page.logs.into_iter().enumerate()).map(|(at, log)| async move {
                let inspection = if self.ports.env.now() < deadline {
                    Some(self.inspect(&log).await)
                } else {
                    None
                };
                (at, log, inspection)
            });
        let mut inspections: Vec<_> = inspections.buffer_unordered(LOGS_AT_ONCE).collect().await;
        inspections.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
        let mut report =
            SweepReport { failed: unheard, canary_age_ms_max, ..SweepReport::default() };
        let (mut looked, mut still) = (listed, Vec::new());
        for (at, log, inspection) in inspections {
            match inspection {
                None => looked = looked.min(at),
                Some(inspection) => {
                    still.extend(report.note(&log, inspection).map(|inspection| (log, inspection)));
                }
            }
        }
        self.put(still, &mut report).await;
        report.failed.sort();
        report.failed.dedup();
        report.next = match looked == listed {
            true => page.next,
            false => behind(&*self.ports.commands, after, looked).await,
        };
        tracing::debug!(?report, "swept");
        Ok(report)
    }

    /// How the canaries of the last run fared, and of which that cannot be told; then sends the
    /// next.
    async fn sing(&self) -> (Option<u64>, Vec<LogId>) {
        let Some((ingest, n)) = &self.canaries else { return (None, Vec::new()) };
        let (mut age_ms_max, mut unheard) = (None, Vec::new());
        for log in (0..*n).filter_map(Canary::log) {
            match self.canary_age_ms(&log).await {
                Ok(age_ms) => age_ms_max = age_ms_max.max(age_ms),
                Err(error) => {
                    tracing::warn!(%log, %error, "a canary could not be looked at");
                    unheard.push(log);
                }
            }
        }
        // The time and some chance: an id that grows from run to run, and that two runs at the same
        // time do not share. A command that is refused, or comes late, is never sent again: what
        // counts is that some command comes through, and the window takes them in any order.
        let id = self.ports.env.now().0.saturating_mul(IDS_PER_MS)
            + self.ports.env.random() % IDS_PER_MS;
        let command = |number| {
            let user = Canary::user(number);
            format!(r#"{{"type":"canary","command":"sing","id":{id},"user":"{user}"}}"#)
        };
        let commands: Vec<String> = (0..*n).map(command).collect();
        let commands: Vec<&[u8]> = commands.iter().map(String::as_bytes).collect();
        for answer in ingest.ingest(&commands).await {
            if let Err(error) = answer {
                tracing::warn!(%error, "a canary was not let in");
            }
        }
        (age_ms_max, unheard)
    }

    /// How long ago the last command of a canary came to its entry, if any has.
    async fn canary_age_ms(&self, log: &LogId) -> Result<Option<u64>, Unavailable> {
        let tail = self.ports.journal.tail(log).await?;
        let page = self.ports.journal.read(log, tail, 1).await?;
        Ok(page.commits.first().map(|commit| self.ports.env.now().since_ms(commit.at)))
    }

    /// Puts what these logs need, which the report did not count yet. What is not put now is put by a
    /// later run.
    async fn put(&self, inspections: Vec<(LogId, Inspection)>, report: &mut SweepReport) {
        let all = inspections.iter().enumerate();
        let all = all.flat_map(|(at, (_, inspection))| {
            inspection.records.iter().map(move |record| (at, record))
        });
        let all: Vec<(usize, &StreamRecord)> = all.collect();
        let mut failed = vec![false; inspections.len()];
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let sizes = rest.iter().map(|(_, record)| record.bytes());
            let (chunk, behind) = rest.split_at(put_len(sizes));
            rest = behind;
            let records: Vec<StreamRecord> = chunk.iter().map(|(_, r)| (*r).clone()).collect();
            let results = match self.ports.stream.put_records(&records).await {
                Ok(results) => results,
                Err(error) => vec![Err(error); records.len()],
            };
            for ((at, record), result) in chunk.iter().zip(results) {
                if let Err(error) = result {
                    tracing::warn!(log = %record.key, %error, "a record of the sweep was not put");
                    failed[*at] = true;
                }
            }
        }
        let now = self.ports.env.now();
        for ((log, inspection), failed) in inspections.into_iter().zip(failed) {
            if failed {
                report.failed.push(log);
                continue;
            }
            self.memory.put(&log, now);
            if inspection.is_resent {
                tracing::warn!(%log, "the slot's batch was put on the stream again");
                report.resent.push(log.clone());
            }
            report.nudged.push(log);
        }
    }
}

impl SweepReport {
    /// Counts a log; how it stands, if something is to be put for it.
    fn note(
        &mut self,
        log: &LogId,
        inspection: Result<Inspection, Unavailable>,
    ) -> Option<Inspection> {
        self.logs += 1;
        match inspection {
            Ok(inspection) => {
                self.standstill_ms_max = self.standstill_ms_max.max(inspection.standstill_ms);
                self.waiting += usize::from(!inspection.waiting.is_empty());
                for reason in &inspection.waiting {
                    *self.waiting_for.entry(*reason).or_default() += 1;
                }
                self.attempted += usize::from(inspection.attempted);
                Some(inspection).filter(|inspection| !inspection.records.is_empty())
            }
            Err(error) => {
                tracing::warn!(%log, %error, "a log could not be looked at");
                self.failed.push(log.clone());
                None
            }
        }
    }
}

/// Where the next run goes on if only so many of the logs listed from `after` on had their turn.
/// Only the catalogue knows its own order.
async fn behind(
    commands: &dyn Commands,
    after: Option<CataloguePosition>,
    looked: usize,
) -> Option<CataloguePosition> {
    if looked == 0 {
        return after;
    }
    match commands.catalogue(after.clone(), looked).await {
        Ok(page) => page.next,
        Err(error) => {
            tracing::warn!(%error, "the next sweep begins where this one did");
            after
        }
    }
}
