//! What ends the process while it is applied: an apply that never returns leaves its attempt
//! counted in the cursor, and one that returns sets the count back. See the processor's suspect
//! mode, which does the same for commands.
//!
//! Only logs that go one at a time can be told apart by it: a death counts for all that are under
//! way.

use std::collections::HashSet;

use bytes::Bytes;
use fanfold::body::notification::Received;
use fanfold::view::ApplyFault;
use fanfold::{Fault, LogId, Time};

use super::{Next, ProjectError, Projector};
use crate::attempts::CLOSE_BACKOFF;
use crate::ports::Cursor;

/// Attempts to apply what is next that may end the process; then the view is parked. DESIGN §6.
pub const ATTEMPTS_MAX: u32 = 3;

impl Projector {
    /// One that takes what it applies for suspect of ending its process: log by log, one at a time,
    /// each behind an attempt that is counted in the cursor. What has not returned `attempts_max`
    /// times parks the view for its log.
    #[must_use]
    pub fn suspicious(&self, attempts_max: u32) -> Self {
        Self { attempts_max: Some(attempts_max), ..self.clone() }
    }

    /// As [`Projector::project`], but suspicious: for messages that have perhaps ended a process
    /// before. See [`Projector::suspicious`], and [`ATTEMPTS_MAX`].
    pub async fn project_suspect(
        &self,
        messages: &[Bytes],
        attempts_max: u32,
        deadline: Time,
    ) -> Vec<usize> {
        self.suspicious(attempts_max).project(messages, deadline).await
    }

    /// As [`Projector::project`], where some of the messages (`is_suspect`, one for each) have
    /// perhaps ended a process before. The logs that these tell of go [suspiciously](Self::suspicious),
    /// also in what the other messages say of them: a commit that is in line may be the one that
    /// ends the process. All other logs go first, and as ever: they cost no more for it, and do not
    /// wait for what perhaps takes all of the time.
    pub async fn project_with_suspects(
        &self,
        messages: &[Bytes],
        is_suspect: &[bool],
        attempts_max: u32,
        deadline: Time,
    ) -> Vec<usize> {
        let messages: Vec<Vec<Received>> = messages.iter().map(|body| self.decode(body)).collect();
        let suspects = messages.iter().zip(is_suspect).filter(|(_, is_suspect)| **is_suspect);
        let suspects: HashSet<&LogId> =
            suspects.flat_map(|(commits, _)| commits.iter().map(|commit| &commit.log)).collect();
        if suspects.is_empty() {
            return self.project_received(&slices(&messages), deadline).await;
        }
        let of_logs = |suspect: bool| -> Vec<Vec<Received>> {
            let wanted = |commit: &&Received| suspects.contains(&commit.log) == suspect;
            messages
                .iter()
                .map(|commits| commits.iter().filter(wanted).cloned().collect())
                .collect()
        };
        let (others, suspects) = (of_logs(false), of_logs(true));
        let mut failed = self.project_received(&slices(&others), deadline).await;
        let suspicious = self.suspicious(attempts_max);
        failed.extend(suspicious.project_received(&slices(&suspects), deadline).await);
        failed.sort_unstable();
        failed.dedup();
        failed
    }

    /// Applies what is next in line. A parked view stays as it is.
    pub(super) async fn apply_next(
        &self,
        log: &LogId,
        cursor: Cursor,
        next: Next,
    ) -> Result<Cursor, ProjectError> {
        if next.to <= cursor.seq || cursor.parked.is_some() {
            return Ok(cursor);
        }
        let attempts = if self.unclosed.has(log) { 0 } else { cursor.attempts };
        let applied = match self.attempts_max {
            // Nothing is written for what is not suspect, unless it was.
            None if cursor.attempts == 0 => return self.apply(log, cursor, next).await,
            None => self.apply(log, cursor, next).await,
            Some(max) if attempts < max => self.attempt(log, cursor, next, attempts + 1).await,
            Some(_) => {
                let fault = format!("the process ended {attempts} times while this was applied");
                let fault = ApplyFault { at: cursor.seq.next(), fault: Fault::new(fault) };
                self.park(log, cursor, fault).await
            }
        };
        self.close(log).await;
        applied.map(|cursor| Cursor { attempts: 0, ..cursor })
    }

    async fn attempt(
        &self,
        log: &LogId,
        cursor: Cursor,
        next: Next,
        attempt: u32,
    ) -> Result<Cursor, ProjectError> {
        // It tells of no death to this process, not even if the call is dropped where it stands.
        self.unclosed.note(log, true);
        self.table.attempt(log, attempt).await?;
        self.apply(log, cursor, next).await
    }

    /// Nothing is under way any more.
    async fn close(&self, log: &LogId) {
        let mut attempt = 1;
        while let Err(error) = self.table.attempt(log, 0).await {
            if !error.may_pass() || !CLOSE_BACKOFF.pause(attempt, &*self.env).await {
                tracing::warn!(view = self.view.name(), %log, %error, "an attempt stays counted");
                return self.unclosed.note(log, true);
            }
            attempt += 1;
        }
        self.unclosed.note(log, false);
    }
}

fn slices(messages: &[Vec<Received>]) -> Vec<&[Received]> {
    messages.iter().map(Vec::as_slice).collect()
}
