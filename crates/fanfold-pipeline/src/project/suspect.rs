//! What ends the process while it is applied: an apply that never returns leaves its attempt noted
//! in the cursor, and one that returns takes the note back. See the processor's suspect mode, which
//! does the same for commands.
//!
//! The note is a lease. While the call of another process may be under way, this one leaves the log
//! alone, and its messages come again later. So a crash is counted once, and a log that is slow
//! counts none, however many calls come upon it.
//!
//! Only logs that go one at a time can be told apart by it: a crash counts for all that are under
//! way.

use std::collections::HashSet;

use bytes::Bytes;
use fanfold::body::attempt::Lease;
use fanfold::body::notification::ReceivedCommit;
use fanfold::view::ApplyFault;
use fanfold::{Fault, LogId, Time};

use super::{Next, ProjectError, Projector};
use crate::leases::{CLOSE_BACKOFF, Standing};
use crate::ports::{Attempted, Cursor};

/// Attempts to apply what is next that may end the process; then the view is parked.
/// `docs/design.md#suspects`.
pub const ATTEMPTS_MAX: u32 = 3;

impl Projector {
    /// One that takes what it applies for suspect of ending its process: log by log, one at a time,
    /// each behind an attempt that is counted in the cursor. What has not returned `attempts_max`
    /// times parks the view for its log.
    #[must_use]
    pub fn suspicious(&self, attempts_max: u32) -> Self {
        Self { attempts_max: Some(attempts_max), ..self.clone() }
    }

    /// One whose calls may last until this deadline, though they begin nothing after an earlier one.
    pub(crate) fn returning_by(&self, deadline: Time) -> Self {
        Self { returns_by: Some(deadline), ..self.clone() }
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
        let messages: Vec<Vec<ReceivedCommit>> =
            messages.iter().map(|body| self.decode(body)).collect();
        let suspects = messages.iter().zip(is_suspect).filter(|(_, is_suspect)| **is_suspect);
        let suspects: HashSet<&LogId> =
            suspects.flat_map(|(commits, _)| commits.iter().map(|commit| &commit.log)).collect();
        if suspects.is_empty() {
            return self.project_commits(&slices(&messages), deadline).await;
        }
        let of_logs = |suspect: bool| -> Vec<Vec<ReceivedCommit>> {
            let wanted = |commit: &&ReceivedCommit| suspects.contains(&commit.log) == suspect;
            messages
                .iter()
                .map(|commits| commits.iter().filter(wanted).cloned().collect())
                .collect()
        };
        let (others, suspects) = (of_logs(false), of_logs(true));
        let mut failed = self.project_commits(&slices(&others), deadline).await;
        let suspicious = self.suspicious(attempts_max);
        failed.extend(suspicious.project_commits(&slices(&suspects), deadline).await);
        failed.sort_unstable();
        failed.dedup();
        failed
    }

    /// Applies what is next in line. A parked view stays as it is.
    pub(super) async fn apply(
        &self,
        log: &LogId,
        cursor: Cursor,
        next: Next,
        deadline: Time,
    ) -> Result<Cursor, ProjectError> {
        if next.to <= cursor.seq || cursor.parked.is_some() {
            return Ok(cursor);
        }
        let stands = cursor.attempt.filter(|lease| lease.attempts > 0);
        let (crashes, max) = match (self.standing(&cursor), self.attempts_max) {
            (Standing::UnderWay, Some(_)) => return Err(ProjectError::UnderWay),
            // What is not suspect goes on beside it, and writes nothing unless there was a crash.
            (Standing::UnderWay, None) => return self.fold_and_store(log, cursor, next).await,
            (Standing::Free { .. }, None) => {
                let applied = self.fold_and_store(log, cursor, next).await;
                return self.end(log, applied, stands, None).await;
            }
            (Standing::Free { crashes, .. }, Some(max)) => (crashes, max),
        };
        if crashes >= max {
            let fault = format!("the process ended {crashes} times while this was applied");
            let fault = ApplyFault { at: cursor.seq.next(), fault: Fault::new(fault) };
            let parked = self.park(log, cursor, fault).await;
            return self.end(log, parked, stands, None).await;
        }
        let before = cursor.attempt;
        let returns_by = self.returns_by.unwrap_or(deadline);
        let lease = self.leases.begin(crashes, self.ports.env.now(), returns_by);
        let applied = match self.ports.table.attempt(log, before.as_ref(), &lease).await {
            Ok(Attempted::Noted) => {
                self.fold_and_store(log, Cursor { attempt: Some(lease), ..cursor }, next).await
            }
            // Others came between, or what this process could not note, or take back, before.
            Ok(Attempted::Refused(_)) => return Err(ProjectError::UnderWay),
            // It may be noted still: then it must not stay.
            Err(error) => Err(error.into()),
        };
        self.end(log, applied, Some(lease), before).await
    }

    /// Nothing is under way any more: takes back what stands in the cursor. `before` stood there
    /// until then, and does so still if the note of `lease` has not taken effect; what is put in
    /// its place keeps that from taking effect later.
    async fn end(
        &self,
        log: &LogId,
        applied: Result<Cursor, ProjectError>,
        lease: Option<Lease>,
        before: Option<Lease>,
    ) -> Result<Cursor, ProjectError> {
        let Some(lease) = lease else { return applied };
        let end = self.leases.end(self.ports.env.now());
        let (mut stands, mut attempt) = (Some(lease), 1);
        loop {
            match self.ports.table.attempt(log, stands.as_ref(), &end).await {
                Ok(Attempted::Noted) => {
                    return applied.map(|cursor| Cursor { attempt: Some(end), ..cursor });
                }
                Ok(Attempted::Refused(there)) if there == before && stands != before => {
                    stands = before;
                }
                // Another's by now.
                Ok(Attempted::Refused(attempt)) => {
                    return applied.map(|cursor| Cursor { attempt, ..cursor });
                }
                Err(error)
                    if !error.may_pass()
                        || !CLOSE_BACKOFF.pause(attempt, &*self.ports.env).await =>
                {
                    tracing::warn!(view = self.view.name(), %log, %error, "an attempt stays noted");
                    return applied;
                }
                Err(_) => attempt += 1,
            }
        }
    }
}

fn slices(messages: &[Vec<ReceivedCommit>]) -> Vec<&[ReceivedCommit]> {
    messages.iter().map(Vec::as_slice).collect()
}
