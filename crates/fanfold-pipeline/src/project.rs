//! The fourth stage: notifications become rows of one view.
//!
//! Commit by commit, seen from the log's cursor: **done**, if it is at or below; **next**, if the
//! view misses nothing before it (the commit's `prev` says so); **beyond** otherwise. What is next
//! is applied: the rows it touches are loaded, all entries above each row's seq folded in, each
//! row stored if it is still what was loaded; only then does the cursor move (F6). What is beyond
//! waits a little for what is before it, and is then read from the journal.
//!
//! What the view cannot apply parks it for this log, and for no other (F7); so does what ends the
//! process, if the projector is [suspicious](Projector::suspicious).

mod group;
mod rows;
mod suspect;

use std::sync::Arc;

use bytes::Bytes;
use fanfold::body::notification::{self, Received};
use fanfold::log::FoldError;
use fanfold::view::ApplyFault;
use fanfold::{AnyView, Entry, Fault, LogId, RowKey, Seq, Time, invariant};
use futures::future::join;

use self::group::{ByLog, Told, Touched, Touching};
use self::rows::KEYS_PER_READ;
use crate::at_once::{Pace, at_once};
use crate::attempts::{Found, Leases, Others};
use crate::breach::report;
use crate::ports::{
    Advanced, CommitItem, Cursor, Env, Journal, ParkedView, Unavailable, ViewTable,
};

pub use suspect::ATTEMPTS_MAX;

/// Logs of one call that are worked on at the same time; see the processor. A call that waits for
/// nothing runs through: the next one's commits are behind its own.
const LOGS_AT_ONCE: Pace = Pace::of(32);
/// A commit whose predecessors are on their way waits this long for them, and this much more at
/// random ...
const TURN_WAIT_MS: u64 = 50;
const TURN_JITTER_MS: u64 = 150;
/// ... again and again while the cursor moves, up to this.
const TURN_MS_MAX: u64 = 2_000;
/// Entries that one call catches up with; what is further behind is left to the view's sweep.
pub(crate) const CATCH_UP_ENTRIES_MAX: u64 = 5_000;
/// Commits that one look into the journal asks for.
const COMMITS_PER_READ: usize = 100;

/// The stage, for one view.
#[derive(Clone)]
pub struct Projector {
    view: Arc<dyn AnyView>,
    table: Arc<dyn ViewTable>,
    journal: Arc<dyn Journal>,
    env: Arc<dyn Env>,
    /// By which a commit's `prev` says whether the view misses something.
    kinds: Vec<String>,
    /// Set if what it applies may end its process.
    attempts_max: Option<u32>,
    /// When calls have to return, if that is not when they have to begin nothing more.
    returns_by: Option<Time>,
    /// Those of this process, of all that were made of one.
    leases: Leases,
}

/// Why a log's commits were not applied. They come again.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// A table does not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The journal ends before a commit that was announced.
    #[error("the journal has no commit from {expected} on")]
    Hole {
        /// The entry that is missing.
        expected: Seq,
    },
    /// Others write the same rows all the time.
    #[error("the row `{0}` is contended")]
    Contended(RowKey),
    /// Another process is perhaps applying what is next, and may not come back from that.
    #[error("another process is perhaps at it")]
    UnderWay,
    /// Somebody else, of another build perhaps, has applied what this one cannot.
    #[error("entry {0}, which cannot be applied here, has been applied")]
    Overtaken(Seq),
    /// There was no time.
    #[error("the deadline is over")]
    Deadline,
}

impl Projector {
    /// A projector for `view`, which keeps its rows in `table`.
    pub fn new(
        view: Arc<dyn AnyView>,
        table: Arc<dyn ViewTable>,
        journal: Arc<dyn Journal>,
        env: Arc<dyn Env>,
    ) -> Self {
        let kinds = view.kinds();
        let leases = Leases::new(&*env);
        Self { view, table, journal, env, kinds, attempts_max: None, returns_by: None, leases }
    }

    /// Among other processes than the default ones.
    #[must_use]
    pub fn among(self, others: Others) -> Self {
        Self { leases: self.leases.among(others), ..self }
    }

    /// Whether an attempt stands in the cursor that has ended its process, or is under way in
    /// another.
    pub(crate) fn found(&self, cursor: &Cursor) -> Found {
        self.leases.find(cursor.attempt.as_ref(), self.env.now())
    }

    /// The view.
    pub fn view(&self) -> &Arc<dyn AnyView> {
        &self.view
    }

    /// Applies the commits of messages, each given by its body. Returns the indices of those that
    /// must come again.
    pub async fn project(&self, messages: &[Bytes], deadline: Time) -> Vec<usize> {
        let messages: Vec<Vec<Received>> = messages.iter().map(|body| self.decode(body)).collect();
        let messages: Vec<&[Received]> = messages.iter().map(Vec::as_slice).collect();
        self.project_received(&messages, deadline).await
    }

    /// The commits of a message. One that cannot be read has none: it will never be readable, and
    /// hides nothing, for the journal has what it says, and the view's sweep finds it there.
    pub fn decode(&self, body: &[u8]) -> Vec<Received> {
        match std::str::from_utf8(body).ok().map(notification::decode) {
            Some(Ok(commits)) => commits,
            _ => {
                let view = self.view.name();
                tracing::error!(alarm = "unreadable", view, "a notification is passed over");
                Vec::new()
            }
        }
    }

    /// Applies the commits of messages, as [`Projector::project`] does: for hosts that have them
    /// without bytes.
    pub async fn project_received(&self, messages: &[&[Received]], deadline: Time) -> Vec<usize> {
        let mut failed = Vec::new();
        let logs = ByLog::new(messages, self.view.services());
        let logs = logs.map(|told| self.advance(told, deadline));
        let pace = if self.attempts_max.is_some() { Pace::of(1) } else { LOGS_AT_ONCE };
        at_once(pace, logs, |(told, result)| {
            if let Err(error) = result {
                let log = told.log;
                tracing::debug!(view = self.view.name(), %log, %error, "commits must come again");
                failed.extend(told.commits.iter().map(|(_, index)| *index));
            }
        })
        .await;
        failed.sort_unstable();
        failed.dedup();
        failed
    }

    async fn advance(&self, told: Told, deadline: Time) -> (Told, Result<(), ProjectError>) {
        let result = self.bring_on(&told, deadline).await;
        (told, result)
    }

    /// Brings the view on with one log's commits, in the order of their seqs.
    async fn bring_on(&self, told: &Told, deadline: Time) -> Result<(), ProjectError> {
        let log = &told.log;
        let cursor = match self.attempts_max {
            None => self.apply_at_once(told, deadline).await?,
            // What ends the process is only touched behind an attempt.
            Some(_) => Some(self.table.cursor(log).await?.unwrap_or_default()),
        };
        let Some(mut cursor) = cursor else { return Ok(()) };
        let mut next = Next { commits: Vec::new(), to: cursor.seq };
        for (commit, _) in &told.commits {
            if self.env.now() >= deadline {
                return Err(ProjectError::Deadline);
            }
            // A view that is parked is redriven from the journal.
            if commit.last <= next.to || cursor.parked.is_some() {
                continue;
            }
            if let Some(entries) = self.in_line(commit, next.to) {
                next.commits.push(entries);
                next.to = commit.last;
                continue;
            }
            cursor = self.apply_next(log, cursor, std::mem::take(&mut next), deadline).await?;
            cursor = self.wait_for_turn(log, commit, cursor).await?;
            if cursor.parked.is_none() && commit.last > cursor.seq {
                cursor = match self.in_line(commit, cursor.seq) {
                    Some(entries) => {
                        let next = Next { commits: vec![entries], to: commit.last };
                        self.apply_next(log, cursor, next, deadline).await?
                    }
                    None => self.catch_up(log, cursor, commit.last, deadline).await?,
                };
            }
            next.to = cursor.seq;
        }
        self.apply_next(log, cursor, next, deadline).await?;
        Ok(())
    }

    /// Applies everything, if it is next in line, as it is most often; else returns the cursor, to
    /// go on from it step by step.
    ///
    /// The rows are loaded together with the cursor, which saves a round trip. So they may be older
    /// than it: the guard of each row's write notices that, but a fault may come of it, and is only
    /// believed when it comes again with rows that were loaded after the cursor.
    async fn apply_at_once(
        &self,
        told: &Told,
        deadline: Time,
    ) -> Result<Option<Cursor>, ProjectError> {
        let log = &told.log;
        let entries = told.commits.iter().filter_map(|(commit, _)| commit.entries.as_ref());
        let (entries, fault) = self.read(log, entries.flat_map(|entries| entries.iter()));
        let end = told.commits.last().map_or(Seq::ZERO, |(commit, _)| commit.last);
        let touching = Touching::group(&entries, end);
        let is_possible = fault.is_none() && touching.keys.len() <= KEYS_PER_READ;
        let keys = if is_possible { &touching.keys[..] } else { &[] };
        let (cursor, rows) = join(self.table.cursor(log), self.table.rows(log, keys)).await;
        let (cursor, rows) = (cursor?.unwrap_or_default(), rows?);
        let mut at = cursor.seq;
        let are_in_line = told.commits.iter().all(|(commit, _)| {
            let is_next = commit.first > at && self.in_line(commit, at).is_some();
            at = commit.last;
            is_next
        });
        let is_attempted = cursor.attempt.is_some_and(|lease| lease.attempts > 0);
        if !is_possible || !are_in_line || cursor.parked.is_some() || is_attempted {
            return Ok(Some(cursor));
        }
        let Ok(rows) = self.fold_all(&touching, rows) else { return Ok(Some(cursor)) };
        if self.env.now() >= deadline {
            return Err(ProjectError::Deadline);
        }
        self.store_all(log, cursor, end, &touching, rows).await?;
        Ok(None)
    }

    /// The commit's entries, if nothing is missing between the cursor and it, and it has them.
    fn in_line(&self, commit: &Received, cursor: Seq) -> Option<Arc<[Entry]>> {
        let follows = commit.follows(cursor, &self.kinds);
        commit.entries.as_ref().filter(|_| follows).cloned()
    }

    /// What is before the commit is perhaps being applied right now.
    async fn wait_for_turn(
        &self,
        log: &LogId,
        commit: &Received,
        mut cursor: Cursor,
    ) -> Result<Cursor, ProjectError> {
        let until = self.env.now().plus_ms(TURN_MS_MAX);
        while !commit.follows(cursor.seq, &self.kinds)
            && cursor.parked.is_none()
            && !cursor.is_behind()
            && self.env.now() < until
        {
            self.env.sleep(TURN_WAIT_MS + self.env.random() % (TURN_JITTER_MS + 1)).await;
            let moved = self.table.cursor(log).await?.unwrap_or_default();
            let stands = moved.seq == cursor.seq;
            cursor = self.not_back(log, cursor.seq, moved).await?;
            if stands {
                break;
            }
        }
        Ok(cursor)
    }

    /// Brings the view to `target` from the journal, or notes that its sweep has to.
    pub(crate) async fn catch_up(
        &self,
        log: &LogId,
        mut cursor: Cursor,
        target: Seq,
        deadline: Time,
    ) -> Result<Cursor, ProjectError> {
        if cursor.is_behind() {
            self.table.mark_behind(log, target).await?;
            return Ok(cursor);
        }
        let start = cursor.seq;
        while cursor.seq < target && cursor.parked.is_none() {
            if cursor.seq.0 - start.0 >= CATCH_UP_ENTRIES_MAX {
                self.table.mark_behind(log, target).await?;
                cursor.behind = Some(target);
                return Ok(cursor);
            }
            cursor = self.read_on(log, cursor, deadline).await?;
        }
        Ok(cursor)
    }

    /// Applies one page of the journal, from the cursor on. `deadline` is that of the call.
    pub(crate) async fn read_on(
        &self,
        log: &LogId,
        cursor: Cursor,
        deadline: Time,
    ) -> Result<Cursor, ProjectError> {
        let page = match self.journal.read(log, cursor.seq.next(), COMMITS_PER_READ).await {
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
            (None, false) => self.apply_next(log, cursor, next, deadline).await,
            (Some(fault), false) => {
                let cursor = self.apply_next(log, cursor, next, deadline).await?;
                self.park(log, cursor, fault).await
            }
        }
    }

    /// Applies what is next in line.
    async fn apply(&self, log: &LogId, cursor: Cursor, next: Next) -> Result<Cursor, ProjectError> {
        let above = next.commits.iter().flat_map(|entries| entries.iter());
        let (entries, mut fault) = self.read(log, above.filter(|entry| entry.seq > cursor.seq));
        // A fault cuts the entries off before it, and what is left is folded anew.
        let (to, touching, rows) = loop {
            let to = fault.as_ref().map_or(next.to, |fault| fault.at.before());
            let touching = Touching::group(&entries, to);
            let loaded = self.load(log, &touching.keys).await?;
            match self.fold_all(&touching, loaded) {
                Ok(rows) => break (to, touching, rows),
                Err(earlier) => fault = Some(earlier),
            }
        };
        let cursor = self.store_all(log, cursor, to, &touching, rows).await?;
        match fault {
            Some(fault) => self.park(log, cursor, fault).await,
            None => Ok(cursor),
        }
    }

    async fn move_to(&self, log: &LogId, cursor: Cursor, to: Seq) -> Result<Cursor, ProjectError> {
        match self.table.advance(log, to).await? {
            Advanced::Moved => Ok(Cursor { seq: to, ..cursor }),
            Advanced::Refused(actual) => self.not_back(log, cursor.seq, actual).await,
        }
    }

    /// The cursor as it is now. One that went back (F6) parks the view for this log.
    async fn not_back(&self, log: &LogId, was: Seq, now: Cursor) -> Result<Cursor, ProjectError> {
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
        tracing::error!(alarm = "view_parked", view = self.view.name(), %log, %seq, reason);
        let parked = ParkedView { seq, reason, at: self.env.now() };
        self.table.park(log, cursor.seq, &parked).await?;
        // Refused, if another has moved the cursor meanwhile: then there is more to apply.
        let parked = self.table.cursor(log).await?.unwrap_or_default();
        if parked.parked.is_none() {
            return Err(ProjectError::Overtaken(seq));
        }
        Ok(parked)
    }

    /// The entries as the view understands them, up to the first that it cannot read.
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
                    Ok(Some(Touched { recorded, rows }))
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

/// The entries of a commit of the journal, which must be the next one (F3). The first commit of a page may begin
/// before what was asked for.
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

/// What is next in line: everything between the cursor and `to`.
#[derive(Default)]
struct Next {
    commits: Vec<Arc<[Entry]>>,
    to: Seq,
}
