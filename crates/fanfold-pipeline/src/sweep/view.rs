//! The sweep of one view. The view's own host runs it.

use std::collections::BTreeSet;
use std::sync::Arc;

use fanfold::host::knob::Knob;
use fanfold::{LogId, Seq, Time};
use futures::stream::{self, StreamExt};

use super::{LOGS_AT_ONCE, STANDSTILL_MS, behind};
use crate::leases::Standing;
use crate::ports::{
    CataloguePosition, Commands, DeadLetter, DeadLetters, OperatorView, ParkedViewPage, Unavailable,
};
use crate::project::{ATTEMPTS_MAX, ProjectError, Projector};

/// Dead letters per read. Source: few enough to deliver them before the queue shows them again, and
/// to hold them in memory with 256 KB each.
const DEAD_LETTERS_PER_PAGE: Knob = Knob::new(100, 1);

/// Parked logs per page of their list. Source: our choice, a read of a page of DynamoDB's keys.
const PARKED_PER_PAGE: Knob = Knob::new(100, 1);
/// The most parked logs that one run lists. Source: our choice. A view that is parked for more of them has a fault that
/// concerns all, and an operator need not know how many exactly.
pub const PARKED_MAX: usize = 1_000;

/// The ports of a view's sweep, beside those of its projector.
#[derive(Clone)]
pub struct ViewSweepPorts {
    /// The catalogue of logs.
    pub commands: Arc<dyn Commands>,
    /// The view's table.
    pub parked: Arc<dyn OperatorView>,
    /// What the view's subscription could not deliver.
    pub dead_letters: Arc<dyn DeadLetters>,
}

/// The sweep of one view. The view's own host runs it.
pub struct ViewSweep {
    projector: Arc<Projector>,
    /// The same projector, for logs and messages that may have crashed a process before.
    suspicious: Projector,
    ports: ViewSweepPorts,
    run_ms: u64,
}

/// What one run of a view's sweep found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewSweepReport {
    /// Where the next run continues; `None`: at the start of the catalogue.
    pub next: Option<CataloguePosition>,
    /// How many of the view's logs were inspected.
    pub logs: usize,
    /// The logs of which the sweep applied entries.
    pub caught_up: Vec<LogId>,
    /// The logs for which that failed.
    pub failed: Vec<LogId>,
    /// How many logs were left alone, because another process may be applying them.
    pub under_way: usize,
    /// The logs that the view is parked for: the first [`PARKED_MAX`] of all, and those that the sweep inspected.
    pub parked: BTreeSet<LogId>,
    /// How many dead letters were delivered.
    pub delivered: usize,
    /// How many dead letters stay, plus the failed calls of their queue.
    pub undelivered: usize,
}

/// The result of catching up with one log.
enum CatchUp {
    /// There was no time to inspect the log.
    Unseen,
    NotDue,
    /// An attempt has crashed its process. The log has to be applied alone.
    Suspect,
    /// An attempt of another process may be under way.
    UnderWay,
    Progress,
    Parked,
    Failed,
}

/// When a log is due.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    /// When the entry after the cursor has been in the journal for some time.
    StandsStill,
    /// When there is an entry after the cursor. A log that does not reach its end has failed.
    Now,
    /// The same for a log that was released. The walk goes on with one that does not reach its end.
    Released,
}

impl ViewSweepReport {
    fn note(&mut self, log: LogId, caught_up: Result<CatchUp, ProjectError>) {
        self.logs += 1;
        match caught_up {
            Ok(CatchUp::NotDue) => {}
            Ok(CatchUp::Progress) => self.caught_up.push(log),
            Ok(CatchUp::Parked) => {
                self.parked.insert(log);
            }
            Ok(CatchUp::UnderWay) | Err(ProjectError::UnderWay) => self.under_way += 1,
            Ok(CatchUp::Unseen | CatchUp::Suspect | CatchUp::Failed) => self.failed.push(log),
            Err(error) => {
                tracing::warn!(%log, %error, "the view's sweep could not bring the view up to date");
                self.failed.push(log);
            }
        }
    }
}

impl ViewSweep {
    /// A sweep for the projector's view.
    pub fn new(projector: Arc<Projector>, ports: ViewSweepPorts) -> Self {
        let suspicious = projector.suspicious(ATTEMPTS_MAX);
        Self { projector, suspicious, ports, run_ms: u64::MAX }
    }

    /// Parks the view for a log after so many attempts that have crashed their process, instead of
    /// [`ATTEMPTS_MAX`]. At least two: at first logs are applied at the same time, and a crash
    /// counts for all of them. After a crash each is applied alone.
    #[must_use]
    pub fn with_attempts_max(mut self, attempts_max: u32) -> Self {
        self.suspicious = self.projector.suspicious(attempts_max.max(2));
        self
    }

    /// Begins no work in a run after so many milliseconds, even if the deadline is later. For hosts
    /// that then start the next run.
    #[must_use]
    pub fn with_run_ms(mut self, run_ms: u64) -> Self {
        self.run_ms = run_ms;
        self
    }

    /// Lists the logs that the view is parked for. It tries those again that another build has parked, and those that an
    /// operator has released. Then it inspects up to `limit` logs of the catalogue from `after` on, including logs whose first
    /// message was lost, and catches up with each that is due. Then it delivers dead letters, most
    /// of whose commits are applied by then. If there are dead letters, both parts get half of the
    /// time until the deadline, so that neither starves the other.
    pub async fn sweep(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
        deadline: Time,
    ) -> Result<ViewSweepReport, Unavailable> {
        let mut report = ViewSweepReport::default();
        let until = self.projector.ports.env.now().plus_ms(self.run_ms).min(deadline);
        let letters = self.letters(None, &mut report).await;
        let now = self.projector.ports.env.now();
        let half = now.plus_ms(until.since_ms(now) / 2);
        let suspicious = self.suspicious.returning_by(deadline);
        self.list_parked(&suspicious, half, &mut report).await;
        let walk_until = if letters.is_empty() { until } else { half };
        let walked = self.walk(&suspicious, after, limit, walk_until, &mut report).await;
        self.deliver_all(&suspicious, letters, until, &mut report).await;
        report.next = walked?;
        tracing::debug!(view = self.projector.view().name(), ?report, "swept");
        Ok(report)
    }

    /// Lists what is parked. A table that does not answer is reported, and hinders nothing else.
    async fn list_parked(&self, suspicious: &Projector, until: Time, report: &mut ViewSweepReport) {
        let (mut listed, mut after) = (0, None);
        while listed < PARKED_MAX && self.projector.ports.env.now() < until {
            let limit = PARKED_PER_PAGE.get().min(PARKED_MAX - listed);
            let ParkedViewPage { logs, next } = match self
                .ports
                .parked
                .parked(after.as_ref(), limit)
                .await
            {
                Ok(page) => page,
                Err(error) => {
                    let view = self.projector.view().name();
                    tracing::warn!(view, %error, "the view's sweep cannot list the logs that the view is parked for");
                    return;
                }
            };
            listed += logs.len();
            for (log, cursor) in logs {
                if self.projector.ports.env.now() >= until {
                    // The next run comes to it.
                    report.parked.extend(cursor.parked.map(|_| log));
                    continue;
                }
                match cursor.parked {
                    Some(parked) if !suspicious.is_of_other_build(&parked) => {
                        report.parked.insert(log);
                    }
                    _ => {
                        let caught_up =
                            self.catch_up_log(suspicious, &log, Due::Released, true, until).await;
                        report.note(log, caught_up);
                    }
                }
            }
            after = next;
            if after.is_none() {
                return;
            }
        }
    }

    /// Catches up with the logs that are due. Returns where the next run continues, which is before
    /// the first log that there was no time for.
    async fn walk(
        &self,
        suspicious: &Projector,
        after: Option<CataloguePosition>,
        limit: usize,
        until: Time,
        report: &mut ViewSweepReport,
    ) -> Result<Option<CataloguePosition>, Unavailable> {
        let page = self.ports.commands.catalogue(after.clone(), limit).await?;
        let listed = page.logs.len();
        let services = self.projector.view().services();
        let logs = page.logs.into_iter().enumerate();
        let logs = logs.filter(|(_, log)| services.contains(&log.service()));
        let due = Due::StandsStill;
        let logs = stream::iter(logs).map(|(at, log)| async move {
            let caught_up = match self.projector.ports.env.now() < until {
                true => self.catch_up_log(suspicious, &log, due, false, until).await,
                false => Ok(CatchUp::Unseen),
            };
            (at, log, caught_up)
        });
        let logs: Vec<_> = logs.buffer_unordered(LOGS_AT_ONCE).collect().await;
        let mut looked = listed;
        for (at, log, mut caught_up) in logs {
            if matches!(caught_up, Ok(CatchUp::Suspect)) {
                caught_up = self.catch_up_log(suspicious, &log, due, true, until).await;
            }
            match caught_up {
                Ok(CatchUp::Unseen) => looked = looked.min(at),
                caught_up => report.note(log, caught_up),
            }
        }
        Ok(match looked == listed {
            true => page.next,
            false => behind(&*self.ports.commands, after, looked).await,
        })
    }

    /// Catches up to the ends of these logs, now, until the deadline. For hosts that have lost
    /// commits of these logs on the way to the view. A log that is not at its end by then counts as
    /// failed. With `attempts_max`, the logs go one at a time and suspiciously; see
    /// [`Projector::suspicious`].
    pub async fn catch_up(
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
                let caught_up = self.catch_up_log(projector, log, Due::Now, true, deadline).await;
                (log.clone(), caught_up)
            })
            .collect();
        let mut logs = stream::iter(logs).buffer_unordered(at_once);
        let mut report = ViewSweepReport::default();
        while let Some((log, caught_up)) = logs.next().await {
            report.note(log, caught_up);
        }
        report
    }

    /// Applies one log from the journal. `is_alone`: no other log is under way, so the log may be
    /// one that has crashed its process.
    async fn catch_up_log(
        &self,
        projector: &Projector,
        log: &LogId,
        due: Due,
        is_alone: bool,
        deadline: Time,
    ) -> Result<CatchUp, ProjectError> {
        let cursor = self.projector.ports.table.cursor(log).await?.unwrap_or_default();
        let mut cursor = match self.projector.ports.env.now() < deadline {
            true => projector.try_again_after_other_build(log, cursor).await?,
            false => cursor,
        };
        let mut caught_up = CatchUp::Unseen;
        while cursor.parked.is_none() && self.projector.ports.env.now() < deadline {
            if !cursor.is_behind() && !self.is_due(log, cursor.seq, due).await? {
                return Ok(match caught_up {
                    CatchUp::Unseen => CatchUp::NotDue,
                    caught_up => caught_up,
                });
            }
            match projector.standing(&cursor) {
                Standing::UnderWay => return Ok(CatchUp::UnderWay),
                Standing::Free { crashes: 1.., .. } if !is_alone => return Ok(CatchUp::Suspect),
                Standing::Free { .. } => {}
            }
            let before = cursor.seq;
            cursor = projector.apply_page(log, cursor, deadline).await?;
            if cursor.seq == before && cursor.parked.is_none() {
                return Ok(CatchUp::Failed);
            }
            caught_up = CatchUp::Progress;
        }
        Ok(match cursor.parked {
            Some(_) => CatchUp::Parked,
            None if due == Due::Now => CatchUp::Failed,
            // The next walk continues with a log that has not reached its end.
            None => caught_up,
        })
    }

    async fn is_due(&self, log: &LogId, cursor: Seq, due: Due) -> Result<bool, Unavailable> {
        let page = self.projector.ports.journal.read(log, cursor.next(), 1).await?;
        // A commit whose time is far in the future is due, too: the clock was set back.
        let age_ms =
            page.commits.first().map(|item| self.projector.ports.env.now().apart_ms(item.at));
        Ok(age_ms.is_some_and(|age_ms| due != Due::StandsStill || age_ms > STANDSTILL_MS))
    }

    /// Delivers page after page until there are no more dead letters, or no time. Each is tried
    /// once in a run.
    async fn deliver_all(
        &self,
        suspicious: &Projector,
        mut letters: Vec<DeadLetter>,
        until: Time,
        report: &mut ViewSweepReport,
    ) {
        while !letters.is_empty() {
            self.deliver(suspicious, &letters, until, report).await;
            if self.projector.ports.env.now() >= until {
                break;
            }
            letters = self.letters(letters.last().map(|letter| letter.id), report).await;
        }
    }

    /// Lists some dead letters; none if the queue does not answer.
    async fn letters(&self, after: Option<u64>, report: &mut ViewSweepReport) -> Vec<DeadLetter> {
        let view = self.projector.view().name();
        match self.ports.dead_letters.list(view, after, DEAD_LETTERS_PER_PAGE.get()).await {
            Ok(letters) => letters,
            Err(error) => {
                tracing::warn!(view, %error, "the view's sweep cannot list the dead letters");
                report.undelivered += 1;
                Vec::new()
            }
        }
    }

    async fn deliver(
        &self,
        suspicious: &Projector,
        letters: &[DeadLetter],
        until: Time,
        report: &mut ViewSweepReport,
    ) {
        let view = self.projector.view().name();
        let bodies: Vec<_> = letters.iter().map(|letter| letter.body.clone()).collect();
        let failed = suspicious.project(&bodies, until).await;
        report.undelivered += failed.len();
        for (index, letter) in letters.iter().enumerate() {
            if failed.contains(&index) {
                continue;
            }
            match self.ports.dead_letters.remove(view, letter.id).await {
                Ok(()) => report.delivered += 1,
                Err(error) => {
                    // It will be delivered again, without effect.
                    tracing::warn!(view, %error, "the view's sweep could not remove a dead letter that it has delivered: it delivers it again");
                    report.undelivered += 1;
                }
            }
        }
    }
}
