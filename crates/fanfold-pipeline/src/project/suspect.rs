//! Suspects of a view: commits that may crash the process while they are applied. The processor
//! does the same for commands.
//!
//! A suspicious projector stores a lease in the cursor before it applies something, and removes it
//! afterwards. A crash leaves the lease behind. While the call of another process may be under way,
//! this one leaves the log alone, and its messages come again later. So a crash is counted once,
//! and a slow log counts as no crash.
//!
//! A crash counts for all logs that were under way in the process, so suspects run one at a time.

use std::collections::HashSet;

use bytes::Bytes;
use fanfold::host::body::lease::Lease;
use fanfold::host::body::notification::ReceivedCommit;
use fanfold::view::ApplyFault;
use fanfold::{Fault, LogId, Time};

use super::{Next, ProjectError, Projector};
use crate::leases::{CLOSE_BACKOFF, Standing};
use crate::ports::{Cursor, LeaseWrite};

/// Attempts to apply a log's next commits that may crash. Then the view is parked for the log.
/// `docs/design.md#suspects`.
pub const ATTEMPTS_MAX: u32 = 3;

impl Projector {
    /// The same projector, but suspicious: it applies log after log, one at a time, each behind a
    /// lease in the cursor. After `attempts_max` crashes in a row it parks the view for the log.
    #[must_use]
    pub fn suspicious(&self, attempts_max: u32) -> Self {
        Self { attempts_max: Some(attempts_max), ..self.clone() }
    }

    /// The same projector with a deadline for returning, which is later than that for beginning
    /// work.
    pub(crate) fn returning_by(&self, deadline: Time) -> Self {
        Self { returns_by: Some(deadline), ..self.clone() }
    }

    /// As [`Projector::project`], where some messages may have crashed a process before
    /// (`is_suspect`, one for each). All logs of these messages are applied
    /// [suspiciously](Self::suspicious), including their commits in other messages: any of these
    /// may be the cause. All other logs are applied first and as usual, so that suspects cost them
    /// nothing and cannot use up their time.
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
            return self.project_commits(&messages, deadline).await;
        }
        let of_logs = |suspect: bool| -> Vec<Vec<ReceivedCommit>> {
            let wanted = |commit: &&ReceivedCommit| suspects.contains(&commit.log) == suspect;
            messages
                .iter()
                .map(|commits| commits.iter().filter(wanted).cloned().collect())
                .collect()
        };
        let (others, suspects) = (of_logs(false), of_logs(true));
        let mut failed = self.project_commits(&others, deadline).await;
        let suspicious = self.suspicious(attempts_max);
        failed.extend(suspicious.project_commits(&suspects, deadline).await);
        failed.sort_unstable();
        failed.dedup();
        failed
    }

    /// Applies what is next, behind a lease if the projector is suspicious. A parked view stays
    /// parked.
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
        let stands = cursor.lease.filter(|lease| lease.attempts > 0);
        let (crashes, max) = match (self.standing(&cursor), self.attempts_max) {
            (Standing::UnderWay, Some(_)) => return Err(ProjectError::UnderWay),
            // A projector that is not suspicious ignores the lease of a running call.
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
        let before = cursor.lease;
        let returns_by = self.returns_by.unwrap_or(deadline);
        let lease = self.leases.begin(crashes, self.ports.env.now(), returns_by);
        let applied = match self.ports.table.replace_lease(log, before.as_ref(), &lease).await {
            Ok(LeaseWrite::Stored) => {
                self.fold_and_store(log, Cursor { lease: Some(lease), ..cursor }, next).await
            }
            // Another process came between, or an earlier write of this one took effect late.
            Ok(LeaseWrite::Refused(_)) => return Err(ProjectError::UnderWay),
            // The lease may still be stored later, so it must be ended.
            Err(error) => Err(error.into()),
        };
        self.end(log, applied, Some(lease), before).await
    }

    /// Ends `lease` in the cursor, because the call returns. If storing the lease has not taken
    /// effect, `before` is still there. Replacing that keeps the lease from taking effect later.
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
            match self.ports.table.replace_lease(log, stands.as_ref(), &end).await {
                Ok(LeaseWrite::Stored) => {
                    return applied.map(|cursor| Cursor { lease: Some(end), ..cursor });
                }
                Ok(LeaseWrite::Refused(there)) if there == before && stands != before => {
                    stands = before;
                }
                // By now it is the lease of another process.
                Ok(LeaseWrite::Refused(there)) => {
                    return applied.map(|cursor| Cursor { lease: there, ..cursor });
                }
                Err(error)
                    if !error.may_pass()
                        || !CLOSE_BACKOFF.pause(attempt, &*self.ports.env).await =>
                {
                    tracing::warn!(view = self.view.name(), %log, %error, "the lease of a returned call stays: it may count as one crash");
                    return applied;
                }
                Err(_) => attempt += 1,
            }
        }
    }
}
