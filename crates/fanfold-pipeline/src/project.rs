//! The fourth stage: commits become rows of one view.
//!
//! Seen from the log's cursor, a commit is **done** if it is at or below the cursor, **next** if
//! the view misses nothing before it (the commit's `prev` says so), and **beyond** otherwise.
//!
//! - The projector **applies** a commit that is next: it loads the rows that the commit touches,
//!   folds all entries above each row's seq into it, and stores each row if it has not changed
//!   since. Only then does the cursor move (F6).
//! - For a commit beyond, the projector waits a little, since others may be applying what is
//!   missing. Then it **catches up** from the journal.
//!
//! A commit that the view cannot apply parks the view for this log only (F7). So does one that
//! crashes the process, if the projector is [suspicious](Projector::suspicious).

mod group;
mod rows;
mod suspect;

use std::sync::Arc;

use bytes::Bytes;
use fanfold::host::body::notification::{self, ReceivedCommit};
use fanfold::host::knob::Knob;
use fanfold::host::log::FoldError;
use fanfold::view::ApplyFault;
use fanfold::{AnyView, Entry, Fault, LogId, RowKey, Seq, Time, invariant};
use futures::future::join;

use self::group::{ByLog, LogCommits, Touched, Touching};
use self::rows::KEYS_PER_READ;
use crate::at_once::{Pace, at_once};
use crate::breach::report;
use crate::leases::{Leases, Others, Standing};
use crate::ports::{
    CommitItem, Cursor, CursorMove, Env, Journal, ParkedView, Unavailable, ViewTable,
};
use crate::telemetry::{Applied, Telemetry};
use crate::traces::{Hop, Traced, Tracing};

pub use suspect::ATTEMPTS_MAX;

/// Logs of one call that are projected at the same time, as in the processor. A call does not yield
/// between logs: the next call's commits come after its own.
const LOGS_AT_ONCE: Pace = Pace::of(32);
/// How long a commit waits for the commits before it, in milliseconds, before the cursor is read
/// again.
const TURN_WAIT_MS: u64 = 50;
/// Up to this much is added to [`TURN_WAIT_MS`] at random, in milliseconds.
const TURN_JITTER_MS: u64 = 150;
/// How long a commit waits at most while the cursor moves, in milliseconds.
const TURN_MS_MAX: u64 = 2_000;
/// Entries that one call applies from the journal. The rest is left to the view's sweep.
pub(crate) const CATCH_UP_ENTRIES_MAX: Knob = Knob::new(5_000, 1);
/// Commits per read of the journal.
const COMMITS_PER_READ: Knob = Knob::new(100, 1);

/// The ports of a projector.
#[derive(Clone)]
pub struct ProjectorPorts {
    /// The table of the view.
    pub table: Arc<dyn ViewTable>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// Time and randomness.
    pub env: Arc<dyn Env>,
}

/// The stage, for one view.
#[derive(Clone)]
pub struct Projector {
    view: Arc<dyn AnyView>,
    pub(crate) ports: ProjectorPorts,
    /// The kinds of entries that the view reads, looked up in a commit's `prev`.
    kinds: Vec<String>,
    /// Set if the projector is suspicious: how many attempts may end their process.
    attempts_max: Option<u32>,
    /// When calls have to return, if that is later than when they may begin work.
    returns_by: Option<Time>,
    /// Shared by all projectors that were made of one.
    leases: Leases,
    /// Where what is applied is measured.
    applied: Option<Applied>,
}

/// Why a log's commits were not applied. Their messages come again.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// A table does not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The journal ends before a commit that was published.
    #[error("the journal has no commit from {expected} on")]
    Hole {
        /// The entry that is missing.
        expected: Seq,
    },
    /// Other projectors write the same row all the time.
    #[error("other calls keep changing the row `{0}`")]
    Contended(RowKey),
    /// Another process may be applying what is next, and may crash on it.
    #[error("another process may be applying the log's next commits")]
    UnderWay,
    /// Another projector, perhaps of another build, has applied an entry that this one cannot
    /// apply.
    #[error("another process has applied entry {0}, which this one cannot apply")]
    Overtaken(Seq),
    /// There was not enough time.
    #[error("the deadline has passed")]
    Deadline,
}

impl Projector {
    /// A projector for `view`.
    pub fn new(view: Arc<dyn AnyView>, ports: ProjectorPorts) -> Self {
        let kinds = view.kinds();
        let leases = Leases::new(&*ports.env);
        Self { view, ports, kinds, attempts_max: None, returns_by: None, leases, applied: None }
    }

    /// Assumes `others` about other processes, instead of the default.
    #[must_use]
    pub fn among(self, others: Others) -> Self {
        Self { leases: self.leases.among(others), ..self }
    }

    /// Measures into `telemetry`; `None`: nothing.
    #[must_use]
    pub fn with_telemetry(mut self, telemetry: Option<&Telemetry>) -> Self {
        self.applied = telemetry.map(|telemetry| telemetry.of_view(self.view.name()));
        self
    }

    /// What the lease in the cursor means now.
    pub(crate) fn standing(&self, cursor: &Cursor) -> Standing {
        self.leases.read(cursor.lease.as_ref(), self.ports.env.now())
    }

    /// The view.
    pub fn view(&self) -> &Arc<dyn AnyView> {
        &self.view
    }

    /// Applies the commits of messages, each given by its body. Returns the indices of the messages
    /// that must come again.
    pub async fn project(&self, messages: &[Bytes], deadline: Time) -> Vec<usize> {
        let messages: Vec<Vec<ReceivedCommit>> =
            messages.iter().map(|body| self.decode(body)).collect();
        self.project_commits(&messages, deadline).await
    }

    /// The commits of a message. A message that cannot be read has none. It would never become
    /// readable, and the view's sweep finds its commits in the journal.
    pub fn decode(&self, body: &[u8]) -> Vec<ReceivedCommit> {
        match std::str::from_utf8(body).ok().map(notification::decode) {
            Some(Ok(commits)) => commits,
            _ => {
                let view = self.view.name();
                tracing::error!(
                    alarm = "unreadable",
                    view,
                    "the projector cannot read a message, and skips it"
                );
                Vec::new()
            }
        }
    }

    /// Applies commits that are decoded already, one list per message. Otherwise as
    /// [`Projector::project`].
    pub async fn project_commits(
        &self,
        messages: &[impl AsRef<[ReceivedCommit]> + Sync],
        deadline: Time,
    ) -> Vec<usize> {
        let mut failed = Vec::new();
        let logs = ByLog::new(messages, self.view.services());
        let logs = logs.map(|of_log| async move {
            let result = self.project_log(&of_log, deadline).await;
            (of_log, result)
        });
        let pace = if self.attempts_max.is_some() { Pace::of(1) } else { LOGS_AT_ONCE };
        at_once(pace, logs, |(of_log, result)| {
            if let Err(error) = result {
                let log = of_log.log;
                tracing::debug!(view = self.view.name(), %log, %error, "the topic must deliver the log's commits again");
                failed.extend(of_log.commits.iter().map(|(_, index)| *index));
            }
        })
        .await;
        failed.sort_unstable();
        failed.dedup();
        failed
    }

    /// Applies one log's commits, in the order of their seqs.
    async fn project_log(&self, of_log: &LogCommits, deadline: Time) -> Result<(), ProjectError> {
        let log = &of_log.log;
        let cursor = match self.attempts_max {
            None => self.apply_in_one_read(of_log, deadline).await?,
            // A suspicious projector runs the author's code only behind a lease.
            Some(_) => Some(self.ports.table.cursor(log).await?.unwrap_or_default()),
        };
        let Some(cursor) = cursor else { return Ok(()) };
        // What may have crashed a process is tried again only behind a lease.
        let mut cursor = match self.attempts_max {
            Some(_) => self.try_again_after_other_build(log, cursor).await?,
            None => cursor,
        };
        let mut next = Next { commits: Vec::new(), to: cursor.seq };
        for (commit, _) in &of_log.commits {
            if self.ports.env.now() >= deadline {
                return Err(ProjectError::Deadline);
            }
            // A parked view is brought on from the journal once an operator releases it.
            if commit.last <= next.to || cursor.parked.is_some() {
                continue;
            }
            if let Some(entries) = self.in_line(commit, next.to) {
                next.commits.push(entries);
                next.to = commit.last;
                continue;
            }
            cursor = self.apply(log, cursor, std::mem::take(&mut next), deadline).await?;
            cursor = self.wait_for_turn(log, commit, cursor).await?;
            if cursor.parked.is_none() && commit.last > cursor.seq {
                cursor = match self.in_line(commit, cursor.seq) {
                    Some(entries) => {
                        let next = Next { commits: vec![entries], to: commit.last };
                        self.apply(log, cursor, next, deadline).await?
                    }
                    None => self.catch_up(log, cursor, commit.last, deadline).await?,
                };
            }
            next.to = cursor.seq;
        }
        self.apply(log, cursor, next, deadline).await?;
        Ok(())
    }

    /// Fast path: applies all commits if they are next, with one read of the cursor and the rows
    /// together. Otherwise returns the cursor, and the caller goes on step by step.
    ///
    /// The rows may be older than the cursor. The guard of each row's write detects that. Old rows
    /// may also cause a fault, so a fault counts only if it occurs again with rows loaded after the
    /// cursor.
    async fn apply_in_one_read(
        &self,
        of_log: &LogCommits,
        deadline: Time,
    ) -> Result<Option<Cursor>, ProjectError> {
        let (log, tracing) = (&of_log.log, self.tracing());
        let entries = of_log.commits.iter().filter_map(|(commit, _)| commit.entries.as_ref());
        let (entries, fault) = self.read(log, entries.flat_map(|entries| entries.iter()));
        let end = of_log.commits.last().map_or(Seq::ZERO, |(commit, _)| commit.last);
        let touching = Touching::group(&entries, end);
        let is_possible = fault.is_none() && touching.keys.len() <= KEYS_PER_READ.get();
        let keys = if is_possible { &touching.keys[..] } else { &[] };
        let (cursor, rows) =
            join(self.ports.table.cursor(log), self.ports.table.rows(log, keys)).await;
        let (cursor, rows) = (cursor?.unwrap_or_default(), rows?);
        let mut at = cursor.seq;
        let are_in_line = of_log.commits.iter().all(|(commit, _)| {
            let is_next = commit.first > at && self.in_line(commit, at).is_some();
            at = commit.last;
            is_next
        });
        let is_attempted = cursor.lease.is_some_and(|lease| lease.attempts > 0);
        if !is_possible || !are_in_line || cursor.parked.is_some() || is_attempted {
            return Ok(Some(cursor));
        }
        let Ok(rows) = self.fold_all(&touching, rows) else { return Ok(Some(cursor)) };
        if self.ports.env.now() >= deadline {
            return Err(ProjectError::Deadline);
        }
        let from = cursor.seq;
        let cursor = self.store(log, cursor, end, &touching, rows).await?;
        self.measure(log, &entries, from, cursor.seq, &tracing);
        Ok(None)
    }

    /// The commit's entries, if it has them and nothing is missing between the cursor and the
    /// commit.
    fn in_line(&self, commit: &ReceivedCommit, cursor: Seq) -> Option<Arc<[Entry]>> {
        let follows = commit.follows(cursor, &self.kinds);
        commit.entries.as_ref().filter(|_| follows).cloned()
    }

    /// Waits while others may be applying what comes before the commit.
    async fn wait_for_turn(
        &self,
        log: &LogId,
        commit: &ReceivedCommit,
        mut cursor: Cursor,
    ) -> Result<Cursor, ProjectError> {
        let until = self.ports.env.now().plus_ms(TURN_MS_MAX);
        while !commit.follows(cursor.seq, &self.kinds)
            && cursor.parked.is_none()
            && !cursor.is_behind()
            && self.ports.env.now() < until
        {
            self.ports
                .env
                .sleep(TURN_WAIT_MS + self.ports.env.random() % (TURN_JITTER_MS + 1))
                .await;
            let moved = self.ports.table.cursor(log).await?.unwrap_or_default();
            let stands = moved.seq == cursor.seq;
            cursor = self.check_not_back(log, cursor.seq, moved).await?;
            if stands {
                break;
            }
        }
        Ok(cursor)
    }

    /// Applies the journal up to `target`. If that is too far, leaves it to the view's sweep.
    pub(crate) async fn catch_up(
        &self,
        log: &LogId,
        mut cursor: Cursor,
        target: Seq,
        deadline: Time,
    ) -> Result<Cursor, ProjectError> {
        if cursor.is_behind() {
            self.ports.table.mark_behind(log, target).await?;
            return Ok(cursor);
        }
        let start = cursor.seq;
        while cursor.seq < target && cursor.parked.is_none() {
            if cursor.seq.0 - start.0 >= CATCH_UP_ENTRIES_MAX.as_u64() {
                self.ports.table.mark_behind(log, target).await?;
                cursor.behind = Some(target);
                return Ok(cursor);
            }
            cursor = self.apply_page(log, cursor, deadline).await?;
        }
        Ok(cursor)
    }

    /// Applies one page of the journal, from the cursor on. `deadline` is the call's.
    pub(crate) async fn apply_page(
        &self,
        log: &LogId,
        cursor: Cursor,
        deadline: Time,
    ) -> Result<Cursor, ProjectError> {
        let page =
            match self.ports.journal.read(log, cursor.seq.next(), COMMITS_PER_READ.get()).await {
                Ok(page) => page,
                Err(damaged @ Unavailable::Damaged { .. }) => {
                    let fault = Fault::new(damaged.to_string());
                    return self
                        .park(log, cursor.clone(), ApplyFault { at: cursor.seq.next(), fault })
                        .await;
                }
                Err(error) => return Err(error.into()),
            };
        let mut next = Next { commits: Vec::new(), to: cursor.seq };
        let mut unreadable = None;
        for item in &page.commits {
            let expected = next.to.next();
            match read_commit(item, expected, next.commits.is_empty()) {
                Ok(entries) => next.commits.push(entries),
                Err(error) => {
                    if let FoldError::Breach(breach) = &error {
                        report(log, breach);
                    }
                    let fault = Fault::new(format!("the commit cannot be read: {error}"));
                    unreadable = Some(ApplyFault { at: expected, fault });
                    break;
                }
            }
            next.to = item.last();
        }
        match (unreadable, page.commits.is_empty()) {
            (_, true) => Err(ProjectError::Hole { expected: cursor.seq.next() }),
            (None, false) => self.apply(log, cursor, next, deadline).await,
            (Some(fault), false) => {
                let cursor = self.apply(log, cursor, next, deadline).await?;
                self.park(log, cursor, fault).await
            }
        }
    }

    /// Folds what is next and stores the rows, then moves the cursor; parks the view on a fault.
    async fn fold_and_store(
        &self,
        log: &LogId,
        cursor: Cursor,
        next: Next,
    ) -> Result<Cursor, ProjectError> {
        let tracing = self.tracing();
        let above = next.commits.iter().flat_map(|entries| entries.iter());
        let (entries, mut fault) = self.read(log, above.filter(|entry| entry.seq > cursor.seq));
        // Entries from a fault on are dropped, and the rest is folded again.
        let (to, touching, rows) = loop {
            let to = fault.as_ref().map_or(next.to, |fault| fault.at.before());
            let touching = Touching::group(&entries, to);
            let loaded = self.load(log, &touching.keys).await?;
            match self.fold_all(&touching, loaded) {
                Ok(rows) => break (to, touching, rows),
                Err(earlier) => fault = Some(earlier),
            }
        };
        let from = cursor.seq;
        let cursor = self.store(log, cursor, to, &touching, rows).await?;
        self.measure(log, &entries, from, cursor.seq, &tracing);
        match fault {
            Some(fault) => self.park(log, cursor, fault).await,
            None => Ok(cursor),
        }
    }

    /// The traces of work that begins now.
    fn tracing(&self) -> Tracing {
        self.applied.as_ref().map(Applied::begin).unwrap_or_default()
    }

    /// Measures the entries above `from` up to `to`, which are applied now.
    fn measure(&self, log: &LogId, entries: &[Touched], from: Seq, to: Seq, tracing: &Tracing) {
        let Some(applied) = &self.applied else { return };
        let seqs = (from.next())..=to;
        let new = entries.iter().filter(|entry| seqs.contains(&entry.recorded.seq));
        applied.observe(new.clone().map(|entry| entry.time), self.ports.env.now());
        let traced = |entry: &Touched| {
            let seq = entry.recorded.seq;
            entry.trace.map(|trace| Traced { trace, log, seq, name: None, outcome: None })
        };
        tracing.report(Hop::Apply(self.view.name()), || new.filter_map(traced));
    }

    async fn move_cursor(
        &self,
        log: &LogId,
        cursor: Cursor,
        to: Seq,
    ) -> Result<Cursor, ProjectError> {
        match self.ports.table.move_cursor(log, to).await? {
            CursorMove::Moved => Ok(Cursor { seq: to, ..cursor }),
            CursorMove::Refused(actual) => self.check_not_back(log, cursor.seq, actual).await,
        }
    }

    /// The cursor as it is now. One that went back (F6) parks the view for this log.
    async fn check_not_back(
        &self,
        log: &LogId,
        was: Seq,
        now: Cursor,
    ) -> Result<Cursor, ProjectError> {
        let seq = now.seq;
        match invariant!(F6, seq >= was, "the cursor went back from {was} to {seq}") {
            Ok(()) => Ok(now),
            Err(breach) => {
                report(log, &breach);
                let fault = Fault::new(breach.to_string());
                self.park(log, now, ApplyFault { at: seq.next(), fault }).await
            }
        }
    }

    async fn park(
        &self,
        log: &LogId,
        cursor: Cursor,
        fault: ApplyFault,
    ) -> Result<Cursor, ProjectError> {
        let (seq, reason) = (fault.at, fault.fault.to_string());
        if cursor.parked.is_none() && cursor.seq >= seq {
            return Err(ProjectError::Overtaken(seq));
        }
        tracing::error!(alarm = "view_parked", view = self.view.name(), %log, %seq, reason, "the view is parked for this log");
        let (at, build) = (self.ports.env.now(), self.ports.env.build().map(str::to_owned));
        let parked = ParkedView { seq, reason, at, build, rebuild: None };
        self.ports.table.park(log, cursor.seq, &parked).await?;
        // The table does not park the view if another projector has moved the cursor meanwhile.
        // Then there is more to apply.
        let parked = self.ports.table.cursor(log).await?.unwrap_or_default();
        if parked.parked.is_none() {
            return Err(ProjectError::Overtaken(seq));
        }
        Ok(parked)
    }

    /// The cursor, released if another build had parked it: what that build could not apply, this one may. If this one
    /// cannot, either, it parks the view again, in its own name.
    pub(crate) async fn try_again_after_other_build(
        &self,
        log: &LogId,
        cursor: Cursor,
    ) -> Result<Cursor, ProjectError> {
        let Cursor { parked: Some(parked), .. } = &cursor else { return Ok(cursor) };
        if !self.is_of_other_build(parked) {
            return Ok(cursor);
        }
        let (view, seq) = (self.view.name(), parked.seq);
        match self.ports.table.release(log, parked, None).await? {
            true => {
                tracing::info!(view, %log, %seq, "another build had parked the view for this log: this one tries again");
                Ok(Cursor { parked: None, ..cursor })
            }
            false => Ok(self.ports.table.cursor(log).await?.unwrap_or_default()),
        }
    }

    /// Whether another build than this one has parked the view, because it could not apply an entry.
    pub(crate) fn is_of_other_build(&self, parked: &ParkedView) -> bool {
        if parked.rebuild.is_some() {
            return false;
        }
        let builds = parked.build.as_deref().zip(self.ports.env.build());
        builds.is_some_and(|(other, this)| other != this)
    }

    /// The entries as the view reads them, up to the first one that it cannot read.
    fn read<'a>(
        &self,
        log: &LogId,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> (Vec<Touched>, Option<ApplyFault>) {
        let mut read = Vec::with_capacity(entries.size_hint().0);
        for entry in entries {
            let touched = self.view.read(log, entry).and_then(|recorded| match recorded {
                Some(recorded) => {
                    let rows = self.view.rows(&recorded)?;
                    Ok(Some(Touched { recorded, rows, time: entry.time, trace: entry.trace }))
                }
                None => Ok(None),
            });
            match touched {
                Ok(touched) => read.extend(touched),
                Err(fault) => return (read, Some(ApplyFault { at: entry.seq, fault })),
            }
        }
        (read, None)
    }
}

/// The entries of a commit of the journal, which must be the next one (F3). The first commit of a
/// page may begin before what was asked for.
fn read_commit(
    item: &CommitItem,
    expected: Seq,
    is_first: bool,
) -> Result<Arc<[Entry]>, FoldError> {
    let (first, last) = (item.first, item.last());
    let is_next = first == expected || is_first && (first..=last).contains(&expected);
    invariant!(F3, is_next, "expected a commit with {expected}, found one from {first} to {last}")?;
    Ok(item.entries()?.0.into())
}

/// The commits that are next: everything between the cursor and `to`.
#[derive(Default)]
struct Next {
    commits: Vec<Arc<[Entry]>>,
    to: Seq,
}
