//! The scheduled stage: finds what stands still. It decides nothing.
//!
//! [`Sweep`] walks the catalogue of logs and nudges those whose commands have no entries yet, or
//! are parked. [`ViewSweep`] does the same for one view: it brings it on from the journal, and
//! delivers its dead letters. What it applies has not come through before, perhaps because it ends
//! its process: so the view's sweep is suspicious.

use std::sync::Arc;

use fanfold::body::attempt::Attempt;
use fanfold::body::parked::{Parked, Reason};
use fanfold::body::record::Record;
use fanfold::canary::Canary;
use fanfold::limits::PUT_RECORDS_MAX;
use fanfold::{LogId, Seq, Time};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::ingest::Ingest;
use crate::ports::{
    CataloguePosition, CommandStream, Commands, DeadLetters, Env, Journal, ParkedTable,
    StreamRecord, Unavailable, ViewTable,
};
use crate::project::{ATTEMPTS_MAX, ProjectError, Projector};

/// What was accepted less than this ago is on its way: every hop together takes seconds.
const STANDSTILL_MS: u64 = 10_000;
/// An attempt marker that is older than this is of no call that is under way: about as long as one
/// has, see the template. Nudging one that is does no harm.
const ATTEMPT_MS: u64 = 60_000;
/// Logs that are looked at at the same time.
const LOGS_AT_ONCE: usize = 16;
/// Parked commands that are looked at, to see whether one could go on.
const PARKED_PER_LOOK: usize = 100;
/// Dead letters that one run delivers.
const DEAD_LETTERS_PER_RUN: usize = 100;

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

    /// Looks at up to `limit` logs from `after` on, and nudges those that stand still. Whoever
    /// schedules it stores [`SweepReport::next`] for the next run.
    pub async fn sweep(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
    ) -> Result<SweepReport, Unavailable> {
        let page = self.commands.catalogue(after, limit).await?;
        let mut report =
            SweepReport { next: page.next, logs: page.logs.len(), ..SweepReport::default() };
        let looks = stream::iter(page.logs).map(|log| async move {
            let look = self.look(&log).await?;
            Ok::<_, Unavailable>((log, look))
        });
        let mut looks: Vec<(LogId, Look)> =
            looks.buffer_unordered(LOGS_AT_ONCE).try_collect().await?;
        looks.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (log, look) in looks {
            report.standstill_ms_max = report.standstill_ms_max.max(look.standstill_ms);
            report.waiting += usize::from(look.waiting);
            report.attempted += usize::from(look.attempted);
            if look.nudge {
                report.nudged.push(log);
            }
        }
        self.nudge(&report.nudged).await?;
        report.canary_age_ms_max = self.sing().await?;
        tracing::debug!(?report, "swept");
        Ok(report)
    }

    /// How the canaries of the last run fared; then sends the next.
    async fn sing(&self) -> Result<Option<u64>, Unavailable> {
        let Some((ingest, n)) = &self.canaries else { return Ok(None) };
        let now = self.env.now();
        let mut age_ms_max = None;
        for log in (0..*n).filter_map(Canary::log) {
            let tail = self.journal.tail(&log).await?;
            let page = self.journal.read(&log, tail, 1).await?;
            if let Some(commit) = page.commits.first() {
                age_ms_max = age_ms_max.max(Some(now.since_ms(commit.at)));
            }
        }
        // The time is an id that grows from run to run.
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
        Ok(age_ms_max)
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

    async fn nudge(&self, logs: &[LogId]) -> Result<(), Unavailable> {
        for logs in logs.chunks(PUT_RECORDS_MAX) {
            let nudge = |log: &LogId| {
                // A name is all it holds, which JSON always can.
                let data = Record::nudge(log.clone()).encode().unwrap_or_default().into();
                StreamRecord { key: log.clone(), data }
            };
            let records: Vec<StreamRecord> = logs.iter().map(nudge).collect();
            // What is not put now is nudged by a later run.
            for result in self.stream.put_records(&records).await? {
                if let Err(error) = result {
                    tracing::warn!(%error, "a nudge was not put");
                }
            }
        }
        Ok(())
    }
}

/// The sweep of one view, run by the view's own host.
pub struct ViewSweep {
    projector: Arc<Projector>,
    /// The same, for what has perhaps ended a process before.
    suspicious: Projector,
    table: Arc<dyn ViewTable>,
    commands: Arc<dyn Commands>,
    journal: Arc<dyn Journal>,
    dead_letters: Arc<dyn DeadLetters>,
    env: Arc<dyn Env>,
}

/// What one run of a view's sweep saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewSweepReport {
    /// Where the next run goes on; `None`: from the start of the catalogue.
    pub next: Option<CataloguePosition>,
    /// The view's logs looked at.
    pub logs: usize,
    /// Those that were brought on.
    pub caught_up: Vec<LogId>,
    /// Those that could not be.
    pub failed: Vec<LogId>,
    /// Those for which the view is parked.
    pub parked: usize,
    /// The dead letters delivered.
    pub delivered: usize,
}

enum Brought {
    Standing,
    /// An attempt has not returned: it has to go alone.
    Suspect,
    On,
    Parked,
    Failed,
}

/// When a log's view is brought on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    /// When the entry after the cursor has been in the journal for some time.
    StandsStill,
    /// When there is an entry after the cursor.
    Now,
}

impl ViewSweepReport {
    fn note(&mut self, log: LogId, brought: Result<Brought, ProjectError>) {
        self.logs += 1;
        match brought {
            Ok(Brought::Standing) => {}
            Ok(Brought::On) => self.caught_up.push(log),
            Ok(Brought::Parked) => self.parked += 1,
            Ok(Brought::Suspect | Brought::Failed) | Err(_) => self.failed.push(log),
        }
    }
}

impl ViewSweep {
    /// A sweep for the projector's view, which keeps its rows in `table`.
    pub fn new(
        projector: Arc<Projector>,
        table: Arc<dyn ViewTable>,
        commands: Arc<dyn Commands>,
        journal: Arc<dyn Journal>,
        dead_letters: Arc<dyn DeadLetters>,
        env: Arc<dyn Env>,
    ) -> Self {
        let suspicious = projector.suspicious(ATTEMPTS_MAX);
        Self { projector, suspicious, table, commands, journal, dead_letters, env }
    }

    /// Parks the view for a log after so many attempts that have ended their process, instead of
    /// [`ATTEMPTS_MAX`]. At least two: logs are brought on at the same time, and a death counts for
    /// all of them; from then on they go alone.
    #[must_use]
    pub fn with_attempts_max(mut self, attempts_max: u32) -> Self {
        self.suspicious = self.projector.suspicious(attempts_max.max(2));
        self
    }

    /// Looks at up to `limit` logs of the catalogue from `after` on: also those that the view has
    /// never heard of, because the first message was lost. Each is brought on by a bounded step.
    pub async fn sweep(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
        deadline: Time,
    ) -> Result<ViewSweepReport, Unavailable> {
        let mut report =
            ViewSweepReport { delivered: self.deliver(deadline).await?, ..Default::default() };
        let page = self.commands.catalogue(after, limit).await?;
        report.next = page.next;
        let services = self.projector.view().services();
        let logs = page.logs.into_iter().filter(|log| services.contains(&log.service()));
        let due = Due::StandsStill;
        let logs = stream::iter(logs).map(|log| async move {
            let brought = self.bring_on(&self.suspicious, &log, due, false, deadline).await;
            (log, brought)
        });
        let logs: Vec<_> = logs.buffer_unordered(LOGS_AT_ONCE).collect().await;
        for (log, mut brought) in logs {
            if matches!(brought, Ok(Brought::Suspect)) {
                brought = self.bring_on(&self.suspicious, &log, due, true, deadline).await;
            }
            report.note(log, brought);
        }
        tracing::debug!(view = self.projector.view().name(), ?report, "swept");
        Ok(report)
    }

    /// Brings the view on to the ends of these logs, now, until the deadline: for hosts that know
    /// that notifications of them were lost. What is not at its end by then counts as failed.
    /// `attempts_max`: log by log, and each parked after so many attempts that have ended their
    /// process; see [`Projector::suspicious`].
    pub async fn bring_on_logs(
        &self,
        logs: &[LogId],
        attempts_max: Option<u32>,
        deadline: Time,
    ) -> ViewSweepReport {
        let services = self.projector.view().services();
        let logs = logs.iter().filter(|log| services.contains(&log.service()));
        let (projector, at_once) = match attempts_max {
            Some(attempts_max) => (self.projector.suspicious(attempts_max), 1),
            None => ((*self.projector).clone(), LOGS_AT_ONCE),
        };
        let projector = &projector;
        let logs: Vec<_> = logs
            .map(|log| async move {
                let brought = self.bring_on(projector, log, Due::Now, true, deadline).await;
                (log.clone(), brought)
            })
            .collect();
        let mut logs = stream::iter(logs).buffer_unordered(at_once);
        let mut report = ViewSweepReport::default();
        while let Some((log, brought)) = logs.next().await {
            report.note(log, brought);
        }
        report
    }

    /// `is_alone`: no other log is under way, so that it may be one that has ended its process.
    async fn bring_on(
        &self,
        projector: &Projector,
        log: &LogId,
        due: Due,
        is_alone: bool,
        deadline: Time,
    ) -> Result<Brought, ProjectError> {
        let mut cursor = self.table.cursor(log).await?.unwrap_or_default();
        let mut brought = Brought::Standing;
        while cursor.parked.is_none() && self.env.now() < deadline {
            if !cursor.is_behind() && !self.is_due(log, cursor.seq, due).await? {
                return Ok(brought);
            }
            if cursor.attempts > 0 && !is_alone {
                return Ok(Brought::Suspect);
            }
            let before = cursor.seq;
            cursor = projector.read_on(log, cursor).await?;
            if cursor.seq == before && cursor.parked.is_none() {
                return Ok(Brought::Failed);
            }
            brought = Brought::On;
        }
        Ok(match cursor.parked {
            Some(_) => Brought::Parked,
            // What stands still is brought on by the next run.
            None if due == Due::StandsStill => brought,
            None => Brought::Failed,
        })
    }

    async fn is_due(&self, log: &LogId, cursor: Seq, due: Due) -> Result<bool, Unavailable> {
        let page = self.journal.read(log, cursor.next(), 1).await?;
        let age_ms = page.commits.first().map(|item| self.env.now().since_ms(item.at));
        Ok(age_ms.is_some_and(|age_ms| due == Due::Now || age_ms > STANDSTILL_MS))
    }

    async fn deliver(&self, deadline: Time) -> Result<usize, Unavailable> {
        let view = self.projector.view().name();
        let letters = self.dead_letters.list(view, DEAD_LETTERS_PER_RUN).await?;
        let bodies: Vec<_> = letters.iter().map(|letter| letter.body.clone()).collect();
        let failed = self.suspicious.project(&bodies, deadline).await;
        let mut delivered = 0;
        for (index, letter) in letters.iter().enumerate() {
            if !failed.contains(&index) {
                self.dead_letters.remove(view, letter.id).await?;
                delivered += 1;
            }
        }
        Ok(delivered)
    }
}
