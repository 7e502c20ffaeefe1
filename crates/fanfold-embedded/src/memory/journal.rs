use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use async_trait::async_trait;
use fanfold::{LogId, Seq};
use fanfold_pipeline::ports::{CommitItem, Journal, JournalAppendError, JournalPage, Unavailable};

use crate::striped::Striped;
use crate::waits::Waiters;

/// Bytes of bodies with which a page of commits ends (DynamoDB's pages have 1 MB).
pub(crate) const PAGE_BYTES: usize = 1024 * 1024;

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
            match commits.entry(commit.first) {
                Entry::Occupied(stored) => {
                    return Err(JournalAppendError::Exists(stored.get().clone()));
                }
                Entry::Vacant(free) => free.insert(commit.clone()),
            };
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
        let mut page = JournalPage::default();
        let mut bytes = 0;
        for commit in commits.range(start..).map(|(_, commit)| commit) {
            if page.commits.len() == limit.max(1) || bytes >= PAGE_BYTES {
                page.more = true;
                break;
            }
            bytes += commit.body.len();
            page.commits.push(commit.clone());
        }
        Ok(page)
    }

    async fn tail(&self, log: &LogId) -> Result<Seq, Unavailable> {
        Ok(self.logs.of(log).get(log).map_or(Seq::ZERO, tail))
    }
}
