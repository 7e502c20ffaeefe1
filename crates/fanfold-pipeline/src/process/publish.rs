//! Publishing the commits of a batch.
//!
//! A commit that the topic refuses for good must not stop its batch: it is parked for an
//! operator, and the views find it in the journal by their sweeps.

use fanfold::Service;
use fanfold::Time;
use fanfold::host::body::notification::Commit;
use fanfold::host::body::parked::{Content, Parked, Reason};
use fanfold::host::canary::Canary;

use super::Processor;
use crate::ports::PublishError;
use crate::traces::{Hop, of_commits};

/// How long after a call's deadline publishing may be tried again, in milliseconds: so the stored
/// commits are published, and the leases removed, before the host ends the call.
const PUBLISH_MS: u64 = 3_000;

/// The result of publishing a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Publication {
    /// Its subscribers get it.
    Published,
    /// The topic refuses it for good, so it is parked.
    Parked,
    /// It must be published later.
    Failed,
}

impl Publication {
    /// Whether the batch may be acknowledged, as far as this commit goes.
    pub(super) fn is_done(self) -> bool {
        self != Self::Failed
    }
}

impl Processor {
    /// Publishes the commits, and parks what the topic refuses for good. Commits of canaries count
    /// as published unless the host has a view of them.
    pub(super) async fn publish(&self, commits: &[&Commit], deadline: Time) -> Vec<Publication> {
        let is_wanted =
            |commit: &Commit| self.publishes_canaries || commit.log.service() != Canary::NAME;
        let wanted: Vec<&Commit> =
            commits.iter().copied().filter(|commit| is_wanted(commit)).collect();
        let tracing = self.tracing();
        let mut results = match wanted.is_empty() {
            true => Vec::new(),
            false => self.ports.topic.publish(&wanted, deadline.plus_ms(PUBLISH_MS)).await,
        }
        .into_iter();
        let published_at = self.telemetry.as_ref().map(|_| self.ports.env.now());
        let mut publications = Vec::with_capacity(commits.len());
        for commit in commits {
            let result = if is_wanted(commit) { results.next() } else { Some(Ok(())) };
            publications.push(match result {
                Some(Ok(())) => {
                    if let (Some(telemetry), Some(now)) = (&self.telemetry, published_at)
                        && is_wanted(commit)
                    {
                        telemetry.published(&commit.entries, now);
                    }
                    Publication::Published
                }
                Some(Err(PublishError::Refused(said))) => {
                    self.park_unpublished(commit, &said).await
                }
                Some(Err(PublishError::Unavailable(_))) | None => Publication::Failed,
            });
        }
        let published = commits.iter().zip(&publications);
        let published = published.filter(|(_, result)| **result == Publication::Published);
        tracing.report(Hop::Publish, || of_commits(published.map(|(commit, _)| *commit)));
        publications
    }

    async fn park_unpublished(&self, commit: &Commit, said: &str) -> Publication {
        let (log, first, last) = (&commit.log, commit.first(), commit.last());
        tracing::error!(alarm = "unpublished", %log, %first, %last, detail = said, "the topic refuses a commit: the processor parks it");
        let at = commit.entries.last().map_or(Time(0), |entry| entry.time);
        let content = Content::Commit { last, prev: (*commit.prev).clone() };
        let parked = Parked { reason: Reason::Unpublished, at, detail: said.to_owned(), content };
        match self.park_body(log, first, &parked).await {
            Ok(()) => Publication::Parked,
            Err(blocked) => {
                tracing::debug!(%log, %blocked, "the processor could not park a refused commit");
                Publication::Failed
            }
        }
    }
}
