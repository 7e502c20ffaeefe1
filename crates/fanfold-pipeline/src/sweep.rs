//! The scheduled stage: it finds logs that stand still, and decides nothing.
//!
//! [`Sweep`] walks the catalogue of logs, and nudges those whose commands have no entries yet or
//! are parked. [`ViewSweep`] does the same for one view: it applies the journal to the view, and
//! delivers the view's dead letters. Such commits may be unapplied because they crash the process,
//! so the sweep of a view is suspicious.
//!
//! The change stream may lose a batch. If the slot still holds it, the sweep puts the batch on the
//! command stream again. If the slot was overwritten since, the batch cannot be restored: the log
//! stands still, and each sweep reports it.
//!
//! A log that cannot be inspected is reported and stops no other (F7). The walk goes on behind it,
//! and returns to it in the next walk. A run that had no time for some logs leaves them to the next
//! run.

mod inspect;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfold::host::body::parked::Reason;
use fanfold::host::canary::Canary;
use fanfold::host::knob::Knob;
use fanfold::{LogId, Time};
use futures::stream::{self, StreamExt};

use self::inspect::{Inspection, SeenLogs};
use crate::ingest::Ingest;
use crate::ports::{
    Arrivals, CataloguePosition, CommandStream, Commands, Env, Journal, ParkedTable, StreamRecord,
    Unavailable, put_len,
};

pub use view::{PARKED_MAX, ViewSweep, ViewSweepPorts, ViewSweepReport};

/// A command accepted less than this ago, in milliseconds, is on its way. Source: all hops together
/// take seconds.
const STANDSTILL_MS: u64 = 10_000;
/// Ids of a canary within a millisecond. Source: `docs/ids.md`; they stay below 2^53 for long.
const IDS_PER_MS: u64 = 1_024;
/// Logs that are inspected at the same time.
const LOGS_AT_ONCE: usize = 16;
/// Parked items per read of the parked table. Source: the sweep's Lambda has 256 MB and looks at
/// several logs at the same time, and a command may have 64 KiB.
const PARKED_PER_LOOK: Knob = Knob::new(100, 2);

/// The ports of the sweep.
#[derive(Clone)]
pub struct SweepPorts {
    /// The slots, and the catalogue of logs.
    pub commands: Arc<dyn Commands>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// Parked items, and the processor's leases.
    pub parked: Arc<dyn ParkedTable>,
    /// Where nudges go.
    pub stream: Arc<dyn CommandStream>,
    /// Time and randomness.
    pub env: Arc<dyn Env>,
}

/// The stage.
pub struct Sweep {
    ports: SweepPorts,
    canaries: Option<Canaries>,
    seen: SeenLogs,
}

/// The canaries that the sweep sends.
struct Canaries {
    /// Accepts their commands.
    ingest: Ingest,
    numbers: Vec<usize>,
    arrivals: Arc<dyn Arrivals>,
}

/// What one run of the sweep found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Where the next run continues; `None`: at the start of the catalogue.
    pub next: Option<CataloguePosition>,
    /// How many logs were inspected.
    pub logs: usize,
    /// The logs that were nudged, or whose batch was put on the stream again.
    pub nudged: Vec<LogId>,
    /// Those of them whose slot's batch was put on the stream again, because it seems to be lost.
    pub resent: Vec<LogId>,
    /// The logs that could not be inspected or nudged.
    pub failed: Vec<LogId>,
    /// How long the oldest command without an entry has waited, in milliseconds: the maximum over
    /// the logs. For a log with several batches above its tail and nothing parked, the time is
    /// counted from when this sweep first saw it so, or later.
    pub standstill_ms_max: u64,
    /// How many logs have an item that waits for an operator, or that has waited for minutes for
    /// something that should come by itself.
    pub waiting: usize,
    /// How many logs have something parked, by the reason: at once, however long it has waited. A log may count several
    /// times.
    pub parked: BTreeMap<Reason, usize>,
    /// How many logs have the lease of a call that has ended: a record crashed its process, and
    /// has not come back alone. The sweep nudges such a log, and the nudge removes the lease.
    pub with_ended_lease: usize,
    /// How long canaries have not arrived, in milliseconds: since the acceptance of the last command
    /// that has an entry, of the canary for which that is longest ago; `None` without canaries. In a
    /// healthy pipeline it is about the interval of the sweep.
    pub canary_age_ms_max: Option<u64>,
}

impl Sweep {
    /// A sweep that remembers nothing yet.
    pub fn new(ports: SweepPorts) -> Self {
        Self { ports, canaries: None, seen: SeenLogs::new() }
    }

    /// In each run, also sends a command of each of these canaries through every hop, and stores in
    /// `arrivals` how far they have arrived. More canaries reach more shards. The processor's host
    /// must have the service [`Canary`], and `ingest` must accept its commands, also while others
    /// are refused.
    #[must_use]
    pub fn with_canaries(
        mut self,
        ingest: Ingest,
        numbers: impl IntoIterator<Item = usize>,
        arrivals: Arc<dyn Arrivals>,
    ) -> Self {
        self.canaries = Some(Canaries { ingest, numbers: numbers.into_iter().collect(), arrivals });
        self
    }

    /// Inspects up to `limit` logs from `after` on, until the deadline, and nudges those that stand
    /// still. The host stores [`SweepReport::next`] for the next run.
    pub async fn sweep(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
        deadline: Time,
    ) -> Result<SweepReport, Unavailable> {
        // First, so that canaries are reported even if there is no time for all logs.
        let (canary_age_ms_max, unheard) = self.send_canaries().await;
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

    /// Stores how far the canaries have arrived, and sends the next commands. Returns how long ago
    /// that is, in milliseconds, and the canaries that could not be inspected.
    async fn send_canaries(&self) -> (Option<u64>, Vec<LogId>) {
        let Some(Canaries { ingest, numbers, arrivals }) = &self.canaries else {
            return (None, Vec::new());
        };
        if numbers.is_empty() {
            return (None, Vec::new());
        }
        let (mut arrived, mut unheard) = (Vec::new(), Vec::new());
        for log in numbers.iter().copied().filter_map(Canary::log) {
            match self.arrived(&log).await {
                Ok(at) => arrived.push(at),
                Err(error) => {
                    tracing::warn!(%log, %error, "the sweep could not inspect a canary");
                    // What is damaged in one log says nothing of the others.
                    if !matches!(error, Unavailable::Damaged { .. }) {
                        arrived.push(None);
                    }
                    unheard.push(log);
                }
            }
        }
        let age_ms = self.note_arrivals(&**arrivals, &arrived).await;
        // The time and a random part: the id grows from run to run, and two runs at the same time
        // have different ids. A command that is refused or late is not sent again, because one
        // command that gets its entry is enough.
        let id = self.ports.env.now().0.saturating_mul(IDS_PER_MS)
            + self.ports.env.random() % IDS_PER_MS;
        let command = |number: &usize| {
            let user = Canary::user(*number);
            format!(r#"{{"type":"canary","command":"sing","id":{id},"user":"{user}"}}"#)
        };
        let commands: Vec<String> = numbers.iter().map(command).collect();
        let commands: Vec<&[u8]> = commands.iter().map(String::as_bytes).collect();
        for answer in ingest.ingest(&commands).await {
            if let Err(error) = answer {
                tracing::warn!(%error, "ingest did not accept the command of a canary");
            }
        }
        (age_ms, unheard)
    }

    /// Stores the time up to which all canaries have arrived, and returns how long ago it is, in
    /// milliseconds. It never goes back: a canary that was not sent for a while has an old entry.
    /// While one has no entry, or does not answer, the time before stays, or, for a new stack, that of
    /// this run.
    async fn note_arrivals(
        &self,
        arrivals: &dyn Arrivals,
        arrived: &[Option<Time>],
    ) -> Option<u64> {
        let now = self.ports.env.now();
        let all: Option<Vec<Time>> = arrived.iter().copied().collect();
        let failed = |error: &Unavailable| {
            tracing::warn!(%error, "the sweep could not read or store how far commands have arrived");
        };
        let before = arrivals.get().await.inspect_err(failed).ok()?;
        let until = match (all.and_then(|all| all.into_iter().min()), before) {
            (Some(until), before) => until.max(before.unwrap_or_default()),
            (None, before) => before.unwrap_or(now),
        };
        // Until one can be stored, the time that is stored becomes older.
        let (Ok(()) | Err(_)) = arrivals.put(until).await.inspect_err(failed);
        Some(now.since_ms(until))
    }

    /// When the canary's last command that has an entry was accepted; `None` if none has one.
    async fn arrived(&self, log: &LogId) -> Result<Option<Time>, Unavailable> {
        let tail = self.ports.journal.tail(log).await?;
        let page = self.ports.journal.read(log, tail, 1).await?;
        Ok(page.commits.first().map(|commit| commit.at))
    }

    /// Puts the records of these logs on the stream, and reports them. What fails is left to a
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
                    tracing::warn!(log = %record.key, %error, "the sweep could not put a record on the command stream");
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
            self.seen.put(&log, now);
            if inspection.is_resent {
                tracing::warn!(%log, "the sweep put the slot's batch on the command stream again");
                report.resent.push(log.clone());
            }
            report.nudged.push(log);
        }
    }
}

impl SweepReport {
    /// Counts a log. Returns its inspection if records are to be put for it.
    fn note(
        &mut self,
        log: &LogId,
        inspection: Result<Inspection, Unavailable>,
    ) -> Option<Inspection> {
        self.logs += 1;
        match inspection {
            Ok(inspection) => {
                self.standstill_ms_max = self.standstill_ms_max.max(inspection.standstill_ms);
                self.waiting += usize::from(inspection.is_waiting);
                for reason in &inspection.parked {
                    *self.parked.entry(*reason).or_default() += 1;
                }
                self.with_ended_lease += usize::from(inspection.has_ended_lease);
                Some(inspection).filter(|inspection| !inspection.records.is_empty())
            }
            Err(error) => {
                tracing::warn!(%log, %error, "the sweep could not inspect a log");
                self.failed.push(log.clone());
                None
            }
        }
    }
}

/// Where the next run continues if only `looked` of the logs listed from `after` on were inspected.
/// It asks the catalogue, because only the catalogue defines the order.
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
            tracing::warn!(%error, "the sweep could not find out where to continue: the next run begins where this one did");
            after
        }
    }
}
