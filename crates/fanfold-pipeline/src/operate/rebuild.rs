//! Rebuilds one log of a view: removes its rows, and sets its cursor to zero. The view's sweep then applies the journal
//! again.
//!
//! | step | stored as |
//! |---|---|
//! | the view is parked for the log, so no further call applies anything | a reason with `rebuild` |
//! | it was seen to be parked | the moment, in that `rebuild` |
//! | calls that began before that moment, and may still write rows, have ended | nothing: it is a matter of time |
//! | the rows are gone, each removed only while the view is parked for this | the rows |
//! | the cursor is at zero, and the view is released, in one write | the cursor |
//!
//! Each request goes on where the last one ended, whoever sends it. If none comes, the view stays parked.

use fanfold::{LogId, Seq, Time};

use super::{Done, Operate, OperateError, note};
use crate::ports::{Cursor, OperatorView, ParkedView, Rebuild, Unavailable};

/// How often one request tries to park a view whose cursor moves meanwhile. Source: our choice; a busy log moves it some
/// hundred times a second, and both take a few milliseconds.
const PARK_ATTEMPTS_MAX: usize = 20;
/// How long one request removes rows, in milliseconds. Source: our choice. A request of AWS ends after 29 s.
const CLEAR_MS: u64 = 10_000;
/// Rows that are removed at a time. Source: our choice; a second or two on DynamoDB, so that a request ends in time.
const ROWS_PER_CLEAR: usize = 200;

impl Operate {
    /// Rebuilds one log of a view, or goes on with that. It does a bounded part of the work: repeat it, with the `begun` of
    /// its answer, until it answers [`Done::Rebuilt`]. Without `begun` it begins one, unless one is under way.
    pub async fn rebuild(
        &self,
        view: &str,
        log: &LogId,
        begun: Option<Time>,
    ) -> Result<Done, OperateError> {
        let table = &*self.view(view).await?;
        let Some((cursor, parked, rebuild)) = self.parked_for(table, view, log, begun).await?
        else {
            // The last request has ended it, and its answer was lost. Or the cursor moves too fast.
            return Ok(match begun {
                Some(_) => Done::Rebuilt { rows: 0 },
                None => Done::Rebuilding { begun, wait_ms: 0, rows: 0 },
            });
        };
        let begun = Some(parked.at);
        let now = self.ports.env.now();
        let Some(mark) = rebuild.parked else {
            let rebuild = Some(Rebuild { parked: Some(self.ports.calls.mark(now)) });
            let seen = ParkedView { rebuild, ..parked.clone() };
            table.replace_parked(log, &parked, cursor, Some(&seen)).await?;
            return Ok(Done::Rebuilding { begun, wait_ms: 0, rows: 0 });
        };
        let wait_ms = self.ports.calls.left_ms(&mark, now);
        if wait_ms > 0 {
            return Ok(Done::Rebuilding { begun, wait_ms, rows: 0 });
        }
        let (until, mut rows) = (now.plus_ms(CLEAR_MS), 0);
        loop {
            let Some(cleared) = table.clear(log, &parked, ROWS_PER_CLEAR).await? else {
                // Another request was faster.
                return Ok(Done::Rebuilding { begun, wait_ms: 0, rows });
            };
            rows += cleared as u64;
            if cleared < ROWS_PER_CLEAR {
                break;
            }
            if self.ports.env.now() >= until {
                return Ok(Done::Rebuilding { begun, wait_ms: 0, rows });
            }
        }
        match table.replace_parked(log, &parked, Seq::ZERO, None).await? {
            true => {
                note("rebuilt", log, cursor, view, "");
                Ok(Done::Rebuilt { rows })
            }
            false => Ok(Done::Rebuilding { begun, wait_ms: 0, rows }),
        }
    }

    /// The cursor's seq, and the reason of the view, parked for a rebuild of the log: the one that began at `begun`, or the
    /// one under way, or a new one. `None` if that of `begun` is not under way, or none could begin.
    async fn parked_for(
        &self,
        table: &dyn OperatorView,
        view: &str,
        log: &LogId,
        begun: Option<Time>,
    ) -> Result<Option<(Seq, ParkedView, Rebuild)>, OperateError> {
        for attempt in 0..=PARK_ATTEMPTS_MAX {
            let found = table.cursor(log).await?;
            let is_new = found.is_none();
            let Cursor { seq, parked, .. } = found.unwrap_or_default();
            let rebuild = parked.as_ref().and_then(|parked| parked.rebuild);
            let other = match (rebuild, parked) {
                (Some(rebuild), Some(parked)) if begun.is_none_or(|begun| begun == parked.at) => {
                    return Ok(Some((seq, parked, rebuild)));
                }
                _ if begun.is_some() || attempt == PARK_ATTEMPTS_MAX => return Ok(None),
                (_, other) => other,
            };
            if is_new && self.ports.journal.tail(log).await? == Seq::ZERO {
                return Err(OperateError::Unfit(format!(
                    "the view `{view}` has nothing of {log}, which has no entry"
                )));
            }
            self.park_for_rebuild(table, view, log, (seq, other)).await?;
        }
        Ok(None)
    }

    /// Parks the view at its cursor, in place of another reason if there is one. It has no effect if the cursor has changed.
    async fn park_for_rebuild(
        &self,
        table: &dyn OperatorView,
        view: &str,
        log: &LogId,
        (at, other): (Seq, Option<ParkedView>),
    ) -> Result<(), Unavailable> {
        let new = ParkedView {
            seq: at.next(),
            reason: format!(
                "an operator has the log rebuilt; if that does not go on, run `fanfold rebuild {log} --view {view}` again"
            ),
            at: self.ports.env.now(),
            // No build has parked it, so none tries again.
            build: None,
            rebuild: Some(Rebuild { parked: None }),
        };
        note("rebuild", log, at, view, "");
        match other {
            None => table.park(log, at, &new).await,
            Some(other) => table.replace_parked(log, &other, at, Some(&new)).await.map(|_| ()),
        }
    }
}
