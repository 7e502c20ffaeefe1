use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use fanfold::{LogId, Seq};
use fanfold_pipeline::ports::{CommitItem, Journal, JournalAppendError, JournalPage, Unavailable};

use crate::striped::Striped;
use crate::waits::Waiters;

/// The event logs.
#[derive(Default)]
pub struct MemoryJournal {
    logs: Striped<BTreeMap<Seq, CommitItem>>,
    waiters: Arc<Waiters>,
}

impl MemoryJournal {
    /// Those who wait for entries.
    pub fn waiters(&self) -> &Arc<Waiters> {
        &self.waiters
    }
}

fn tail(commits: &BTreeMap<Seq, CommitItem>) -> Seq {
    commits.last_key_value().map_or(Seq::ZERO, |(_, commit)| commit.last())
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn append(&self, log: &LogId, commit: &CommitItem) -> Result<(), JournalAppendError> {
        let tail = {
            let mut logs = self.logs.of(log);
            let commits = logs.entry(log.clone()).or_default();
            if let Some(stored) = commits.get(&commit.first) {
                return Err(JournalAppendError::Exists(stored.clone()));
            }
            commits.insert(commit.first, commit.clone());
            tail(commits)
        };
        self.waiters.reached(log, tail);
        Ok(())
    }

    async fn read(&self, log: &LogId, from: Seq, limit: usize) -> Result<JournalPage, Unavailable> {
        let logs = self.logs.of(log);
        let Some(commits) = logs.get(log) else { return Ok(JournalPage::default()) };
        // The last commit that begins at or below `from` may hold it.
        let holding =
            commits.range(..=from).next_back().filter(|(_, commit)| commit.last() >= from);
        let start = holding.map_or(from, |(first, _)| *first);
        let mut behind = commits.range(start..).map(|(_, commit)| commit.clone());
        let commits = behind.by_ref().take(limit.max(1)).collect();
        Ok(JournalPage { commits, more: behind.next().is_some() })
    }

    async fn tail(&self, log: &LogId) -> Result<Seq, Unavailable> {
        Ok(self.logs.of(log).get(log).map_or(Seq::ZERO, tail))
    }
}
