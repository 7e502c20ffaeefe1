use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use fanfold::host::knob::Knob;
use fanfold::{LogId, Seq, Time};
use fanfold_pipeline::ports::{
    CommitItem, Journal, JournalAppendError, JournalLogs, JournalPage, Nonce, OperatorJournal,
    Unavailable,
};
use lru::LruCache;

use super::{end, key};
use crate::faults;
use crate::store::{Store, StoreError, Table};
use crate::striped::{Striped, lock};
use crate::waits::Waiters;

/// The number of logs whose tail is cached, at about 150 bytes each.
const TAILS_MAX: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");
/// The number of bytes of values after which a page of commits ends (DynamoDB's pages have 1 MB).
const PAGE_BYTES: Knob = Knob::new(1024 * 1024, 1_000);

/// The journal: the commits of all logs.
///
/// Key: log and first seq. Value: `[n u64][at u64][nonce u128][body]`, big-endian.
pub struct StoredJournal {
    store: Arc<Store>,
    stripes: Striped<()>,
    tails: Mutex<LruCache<LogId, Seq>>,
    waiters: Arc<Waiters>,
}

impl StoredJournal {
    /// The journal in a store.
    pub fn new(store: Arc<Store>) -> Self {
        let tails = Mutex::new(LruCache::new(TAILS_MAX));
        Self { store, stripes: Striped::default(), tails, waiters: Arc::default() }
    }

    /// The waiters for entries.
    pub fn waiters(&self) -> &Arc<Waiters> {
        &self.waiters
    }

    fn key(log: &LogId, first: Seq) -> Bytes {
        key(log, [&first.0.to_be_bytes()])
    }

    fn decode(key: &[u8], mut value: Bytes) -> Option<CommitItem> {
        let first = key.last_chunk::<8>().map(|first| u64::from_be_bytes(*first))?;
        Some(CommitItem {
            first: Seq(first),
            n: value.try_get_u64().ok()?,
            at: Time(value.try_get_u64().ok()?),
            nonce: Nonce(value.try_get_u128().ok()?),
            body: value,
        })
    }

    /// The last commit that begins at or below `seq`.
    fn last_at(&self, log: &LogId, seq: Seq) -> Result<Option<CommitItem>, StoreError> {
        let mut found = None;
        let (from, to) = (Self::key(log, Seq::ZERO), Self::key(log, seq.next()));
        self.store.scan(Table::JOURNAL, &from, &to, true, |key, value| {
            found = Self::decode(key, value);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    fn tail(&self, log: &LogId) -> Result<Seq, StoreError> {
        if let Some(tail) = lock(&self.tails).get(log) {
            return Ok(*tail);
        }
        // Locks out appends, so that an older tail does not replace a newer one in the cache.
        let _alone = self.stripes.of(log);
        self.tail_alone(log)
    }

    /// Reads the tail. The caller holds the log's stripe.
    fn tail_alone(&self, log: &LogId) -> Result<Seq, StoreError> {
        if let Some(tail) = lock(&self.tails).get(log) {
            return Ok(*tail);
        }
        let last = self.last_at(log, Seq(u64::MAX - 1))?;
        let tail = last.map_or(Seq::ZERO, |commit| commit.last());
        lock(&self.tails).put(log.clone(), tail);
        Ok(tail)
    }

    fn append(&self, log: &LogId, commit: &CommitItem) -> Result<Seq, JournalAppendError> {
        let failed = |error: StoreError| JournalAppendError::from(error.unavailable("journal"));
        let _alone = self.stripes.of(log);
        let tail = self.tail_alone(log).map_err(failed)?;
        let key = Self::key(log, commit.first);
        // Above the tail there is no commit to conflict with.
        if commit.first <= tail
            && let Some(stored) = self.store.get(Table::JOURNAL, &key).map_err(failed)?
            && let Some(stored) = Self::decode(&key, stored)
        {
            return Err(JournalAppendError::Exists(stored));
        }
        let mut value = Vec::with_capacity(32 + commit.body.len());
        value.extend(commit.n.to_be_bytes());
        value.extend(commit.at.0.to_be_bytes());
        value.extend(commit.nonce.0.to_be_bytes());
        value.extend_from_slice(&commit.body);
        self.store.put(Table::JOURNAL, key, value.into());
        let tail = tail.max(commit.last());
        lock(&self.tails).put(log.clone(), tail);
        Ok(tail)
    }

    /// The first log behind `after`: seeks behind its last commit, and reads one.
    fn log_behind(&self, after: Option<&LogId>) -> Result<Option<LogId>, StoreError> {
        let (from, mut found) = (after.map_or_else(Bytes::new, end), None);
        // No log begins with such a byte.
        self.store.scan(Table::JOURNAL, &from, &[0xff], false, |key, _| {
            let log = key.split(|byte| *byte == 0).next().unwrap_or_default();
            found = std::str::from_utf8(log).ok().and_then(|log| log.parse().ok());
            match &found {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            }
        })?;
        Ok(found)
    }

    fn page(&self, log: &LogId, from: Seq, limit: usize) -> Result<JournalPage, StoreError> {
        // `from` may be inside of a commit: then the page starts with that commit.
        let holding = self.last_at(log, from)?.filter(|commit| commit.last() >= from);
        let start = holding.map_or(from, |commit| commit.first);
        let mut page = JournalPage::default();
        let mut bytes = 0;
        self.store.scan(
            Table::JOURNAL,
            &Self::key(log, start),
            &end(log),
            false,
            |key, value| {
                if page.commits.len() == limit.max(1) || bytes >= PAGE_BYTES.get() {
                    page.more = true;
                    return ControlFlow::Break(());
                }
                bytes += value.len();
                page.commits.extend(Self::decode(key, value));
                ControlFlow::Continue(())
            },
        )?;
        Ok(page)
    }
}

#[async_trait]
impl Journal for StoredJournal {
    async fn append(&self, log: &LogId, commit: &CommitItem) -> Result<(), JournalAppendError> {
        self.store.room().await?;
        let tail = self.append(log, commit)?;
        faults::reached("journal.append");
        self.waiters.reached(log, tail);
        Ok(())
    }

    async fn read(&self, log: &LogId, from: Seq, limit: usize) -> Result<JournalPage, Unavailable> {
        // Fast path: readers that are up to date read above the tail.
        let tail = self.tail(log).map_err(|error| error.unavailable("journal"))?;
        if from > tail {
            return Ok(JournalPage::default());
        }
        self.page(log, from, limit).map_err(|error| error.unavailable("journal"))
    }

    async fn tail(&self, log: &LogId) -> Result<Seq, Unavailable> {
        self.tail(log).map_err(|error| error.unavailable("journal"))
    }
}

#[async_trait]
impl OperatorJournal for StoredJournal {
    async fn logs(&self, after: Option<&LogId>, limit: usize) -> Result<JournalLogs, Unavailable> {
        let mut page = JournalLogs { logs: Vec::new(), next: after.cloned() };
        while page.logs.len() < limit {
            let found = self.log_behind(page.next.as_ref());
            page.next = found.map_err(|error| error.unavailable("journal"))?;
            let Some(log) = &page.next else { break };
            page.logs.push(log.clone());
        }
        Ok(page)
    }
}
