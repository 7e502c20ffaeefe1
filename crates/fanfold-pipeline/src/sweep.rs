//! The scheduled stage: finds what stands still. It decides nothing.
//!
//! [`Sweep`] walks the catalogue of logs and nudges those whose commands have no entries yet, or
//! are parked. [`ViewSweep`] does the same for one view: it brings it on from the journal, and
//! delivers its dead letters. What it applies has not come through before, perhaps because it ends
//! its process: so the view's sweep is suspicious.
//!
//! A log that cannot be looked at is reported, and stops no other (F7): the walk goes on behind it,
//! and comes to it again when it begins anew. What there was no time for, the next run begins with.

mod view;

use std::sync::Arc;

use fanfold::body::attempt::Attempt;
use fanfold::body::parked::{Parked, Reason};
use fanfold::canary::Canary;
use fanfold::limits::PUT_RECORDS_MAX;
use fanfold::{LogId, Seq, Time};
use futures::stream::{self, StreamExt};

use crate::ingest::Ingest;
use crate::ports::{
    CataloguePosition, CommandStream, Commands, Env, Journal, ParkedTable, StreamRecord,
    Unavailable,
};

pub use view::{ViewSweep, ViewSweepReport};

/// What was accepted less than this ago is on its way: every hop together takes seconds.
const STANDSTILL_MS: u64 = 10_000;
/// An attempt marker that is older than this is of no call that is under way: about as long as one
/// has, see the template. Nudging one that is does no harm.
const ATTEMPT_MS: u64 = 60_000;
/// Logs that are looked at at the same time.
const LOGS_AT_ONCE: usize = 16;
/// Parked commands that are looked at, to see whether one could go on.
const PARKED_PER_LOOK: usize = 100;

/// The stage.
pub struct Sweep {
    commands: Arc<dyn Commands>,
    journal: Arc<dyn Journal>,
    parked: Arc<dyn ParkedTable>,
    stream: Arc<dyn CommandStream>,
    env: Arc<dyn Env>,
    canaries: Option<(Ingest, usize)>,
}

/// What one run saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Where the next run goes on; `None`: from the start of the catalogue.
    pub next: Option<CataloguePosition>,
    /// The logs looked at.
    pub logs: usize,
    /// Those that were nudged.
    pub nudged: Vec<LogId>,
    /// Those that could not be looked at, or not be nudged.
    pub failed: Vec<LogId>,
    /// For how long a log whose commands have no entries yet has got no more commands, at most.
    pub standstill_ms_max: u64,
    /// The logs in which something waits for an operator.
    pub waiting: usize,
    /// The logs with an old attempt marker: a record has ended its process, and did not come back
    /// alone. They are nudged, which removes it.
    pub attempted: usize,
    /// How long ago the last command of a canary came to its entry, at most over the canaries;
    /// `None` while none has. A healthy pipeline keeps it about as low as the sweep's schedule.
    pub canary_age_ms_max: Option<u64>,
}

/// How one log stands.
struct Look {
    nudge: bool,
    standstill_ms: u64,
    waiting: bool,
    attempted: bool,
}

impl Sweep {
    /// A sweep over these tables.
    pub fn new(
        commands: Arc<dyn Commands>,
        journal: Arc<dyn Journal>,
        parked: Arc<dyn ParkedTable>,
        stream: Arc<dyn CommandStream>,
        env: Arc<dyn Env>,
    ) -> Self {
        Self { commands, journal, parked, stream, env, canaries: None }
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
        let page = self.commands.catalogue(after.clone(), limit).await?;
        let listed = page.logs.len();
        let looks = stream::iter(page.logs.into_iter().enumerate()).map(|(at, log)| async move {
            let look = if self.env.now() < deadline { Some(self.look(&log).await) } else { None };
            (at, log, look)
        });
        let mut looks: Vec<_> = looks.buffer_unordered(LOGS_AT_ONCE).collect().await;
        looks.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
        let mut report =
            SweepReport { failed: unheard, canary_age_ms_max, ..SweepReport::default() };
        let (mut looked, mut still) = (listed, Vec::new());
        for (at, log, look) in looks {
            match look {
                None => looked = looked.min(at),
                Some(look) => {
                    still.extend(report.note(&log, look).then_some(log));
                }
            }
        }
        self.nudge(still, &mut report).await;
        report.failed.sort();
        report.failed.dedup();
        report.next = match looked == listed {
            true => page.next,
            false => behind(&*self.commands, after, looked).await,
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
        // The time is an id that grows from run to run.
        let now = self.env.now();
        let command = |number| {
            let user = Canary::user(number);
            format!(r#"{{"type":"canary","command":"sing","id":{},"user":"{user}"}}"#, now.0)
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
        let tail = self.journal.tail(log).await?;
        let page = self.journal.read(log, tail, 1).await?;
        Ok(page.commits.first().map(|commit| self.env.now().since_ms(commit.at)))
    }

    async fn look(&self, log: &LogId) -> Result<Look, Unavailable> {
        let accepted = self.commands.slot(log).await?;
        let tail = self.journal.tail(log).await?;
        let standstill_ms = accepted
            .filter(|slot| slot.seq > tail)
            .map_or(0, |slot| self.env.now().since_ms(slot.at));
        let mut items = self.parked.list(log, Seq::ZERO, PARKED_PER_LOOK).await?;
        if items.len() == PARKED_PER_LOOK {
            // What waits for an operator must not hide what could go on.
            items.extend(self.parked.list(log, tail.next(), PARKED_PER_LOOK).await?);
        }
        let mut look = Look {
            nudge: standstill_ms > STANDSTILL_MS,
            standstill_ms,
            waiting: false,
            attempted: false,
        };
        let mut held = false;
        for item in items {
            if item.seq == Seq::ZERO && item.identity == Attempt::IDENTITY {
                let begun = Attempt::decode(&item.body).map_or(Time(0), |attempt| attempt.at);
                look.attempted = self.env.now().since_ms(begun) > ATTEMPT_MS;
                continue;
            }
            match Parked::decode(&item.body) {
                Ok(parked) if !parked.reason.is_for_operator() => look.nudge = true,
                Ok(parked) if parked.reason == Reason::Suspect => {
                    look.waiting = true;
                    held |= item.seq > tail;
                }
                _ => look.waiting = true,
            }
        }
        // A log that waits for a suspect can go no further, however often it is nudged.
        look.nudge = look.nudge && !held || look.attempted;
        Ok(look)
    }

    /// Nudges these logs, which the report did not count yet. What is not put now is nudged by a
    /// later run.
    async fn nudge(&self, logs: Vec<LogId>, report: &mut SweepReport) {
        for logs in logs.chunks(PUT_RECORDS_MAX) {
            let records: Vec<_> = logs.iter().cloned().map(StreamRecord::nudge).collect();
            let results = match self.stream.put_records(&records).await {
                Ok(results) => results,
                Err(error) => vec![Err(error); logs.len()],
            };
            for (log, result) in logs.iter().zip(results) {
                match result {
                    Ok(()) => report.nudged.push(log.clone()),
                    Err(error) => {
                        tracing::warn!(%log, %error, "a nudge was not put");
                        report.failed.push(log.clone());
                    }
                }
            }
        }
    }
}

impl SweepReport {
    /// Counts a log; whether it is to be nudged.
    fn note(&mut self, log: &LogId, look: Result<Look, Unavailable>) -> bool {
        self.logs += 1;
        match look {
            Ok(look) => {
                self.standstill_ms_max = self.standstill_ms_max.max(look.standstill_ms);
                self.waiting += usize::from(look.waiting);
                self.attempted += usize::from(look.attempted);
                look.nudge
            }
            Err(error) => {
                tracing::warn!(%log, %error, "a log could not be looked at");
                self.failed.push(log.clone());
                false
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
