//! The ports whose data is only tables: journal, state, parked, dead letters.
//!
//! Keys are `[log][0][…]`: no name has a zero byte, so a log's items stand together, in order.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use fanfold::{LogId, Seq, StateKey, Time};
use fanfold_pipeline::ports::{
    CommitItem, DeadLetter, DeadLetters, Guarded, Journal, JournalAppendError, JournalPage, Nonce,
    ParkedItem, ParkedTable, State, StateItem, Unavailable,
};
use lru::LruCache;

use super::unavailable;
use crate::faults;
use crate::memory::{KEYS_MAX, PAGE_BYTES, beyond_limit};
use crate::shard::Bound;
use crate::store::{Space, Store, StoreError};
use crate::striped::lock;
use crate::subscription::Undelivered;
use crate::waits::Waiters;

/// Logs whose tail is remembered; about 150 bytes each.
const TAILS_MAX: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");

/// `[log][0]`, and the parts of the rest.
pub(super) fn key<const N: usize>(log: &LogId, rest: [&[u8]; N]) -> Bytes {
    let log = log.as_str().as_bytes();
    let len = log.len() + 1 + rest.iter().map(|part| part.len()).sum::<usize>();
    let mut key = Vec::with_capacity(len);
    key.extend_from_slice(log);
    key.push(0);
    rest.iter().for_each(|part| key.extend_from_slice(part));
    key.into()
}

/// Behind all items of a log.
pub(super) fn end(log: &LogId) -> Bytes {
    [log.as_str().as_bytes(), &[1]].concat().into()
}

/// Whoever looks before it writes holds the lock of the log's stripe.
pub(super) struct Stripes(Vec<Mutex<()>>);

impl Default for Stripes {
    fn default() -> Self {
        // More than threads that ever write at the same time.
        Self((0..64).map(|_| Mutex::default()).collect())
    }
}

impl Stripes {
    pub(super) fn of(&self, log: &LogId) -> MutexGuard<'_, ()> {
        let mix = |hash: usize, byte: &u8| hash.wrapping_mul(31).wrapping_add(usize::from(*byte));
        let hash = log.as_str().as_bytes().iter().fold(0, mix);
        lock(&self.0[hash % self.0.len()])
    }
}

/// The event logs.
///
/// Key: log and first seq. Value: `[n u64][at u64][nonce u128][body]`, big-endian.
pub struct DurableJournal {
    store: Arc<Store>,
    stripes: Stripes,
    tails: Mutex<LruCache<LogId, Seq>>,
    waiters: Arc<Waiters>,
}

impl DurableJournal {
    /// The journal in a store.
    pub fn new(store: Arc<Store>) -> Self {
        let tails = Mutex::new(LruCache::new(TAILS_MAX));
        Self { store, stripes: Stripes::default(), tails, waiters: Arc::default() }
    }

    /// Those who wait for entries.
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
        self.store.scan(Space::JOURNAL, &from, &to, true, |key, value| {
            found = Self::decode(key, value);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    fn tail(&self, log: &LogId) -> Result<Seq, StoreError> {
        if let Some(tail) = lock(&self.tails).get(log) {
            return Ok(*tail);
        }
        // Who appends meanwhile must not find an older tail remembered than its own.
        let _alone = self.stripes.of(log);
        self.tail_alone(log)
    }

    /// With the log's stripe held.
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
        let failed = |error: StoreError| JournalAppendError::from(unavailable("journal", &error));
        let _alone = self.stripes.of(log);
        let tail = self.tail_alone(log).map_err(failed)?;
        let key = Self::key(log, commit.first);
        // Behind the tail there is nothing to look for.
        if commit.first <= tail
            && let Some(stored) = self.store.get(Space::JOURNAL, &key).map_err(failed)?
            && let Some(stored) = Self::decode(&key, stored)
        {
            return Err(JournalAppendError::Exists(stored));
        }
        let mut value = Vec::with_capacity(32 + commit.body.len());
        value.extend(commit.n.to_be_bytes());
        value.extend(commit.at.0.to_be_bytes());
        value.extend(commit.nonce.0.to_be_bytes());
        value.extend_from_slice(&commit.body);
        self.store.put(Space::JOURNAL, key, value.into());
        let tail = tail.max(commit.last());
        lock(&self.tails).put(log.clone(), tail);
        Ok(tail)
    }

    fn page(&self, log: &LogId, from: Seq, limit: usize) -> Result<JournalPage, StoreError> {
        // The last commit that begins at or below `from` may hold it.
        let holding = self.last_at(log, from)?.filter(|commit| commit.last() >= from);
        let start = holding.map_or(from, |commit| commit.first);
        let mut page = JournalPage::default();
        let mut bytes = 0;
        self.store.scan(
            Space::JOURNAL,
            &Self::key(log, start),
            &end(log),
            false,
            |key, value| {
                if page.commits.len() == limit.max(1) || bytes >= PAGE_BYTES {
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
impl Journal for DurableJournal {
    async fn append(&self, log: &LogId, commit: &CommitItem) -> Result<(), JournalAppendError> {
        self.store.room().await?;
        let tail = self.append(log, commit)?;
        faults::reached("journal.append");
        self.waiters.reached(log, tail);
        Ok(())
    }

    async fn read(&self, log: &LogId, from: Seq, limit: usize) -> Result<JournalPage, Unavailable> {
        // Whoever catches up looks behind the tail first, and mostly finds nothing.
        let tail = self.tail(log).map_err(|error| unavailable("journal", &error))?;
        if from > tail {
            return Ok(JournalPage::default());
        }
        self.page(log, from, limit).map_err(|error| unavailable("journal", &error))
    }

    async fn tail(&self, log: &LogId) -> Result<Seq, Unavailable> {
        self.tail(log).map_err(|error| unavailable("journal", &error))
    }
}

/// Heads, documents, windows.
///
/// Key: log and state key. Value: `[seq u64][body]`, big-endian.
pub struct DurableState {
    store: Arc<Store>,
    stripes: Stripes,
}

impl DurableState {
    /// The state table in a store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, stripes: Stripes::default() }
    }

    fn item(&self, key: &[u8]) -> Result<Option<StateItem>, Unavailable> {
        let stored = self.store.get(Space::STATE, key);
        let stored = stored.map_err(|error| unavailable("state table", &error))?;
        Ok(stored.and_then(|mut value| {
            let seq = Seq(value.try_get_u64().ok()?);
            Some(StateItem { seq, body: value })
        }))
    }
}

#[async_trait]
impl State for DurableState {
    async fn get(
        &self,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable> {
        if keys.len() > KEYS_MAX {
            return Err(beyond_limit("state table", keys.len(), KEYS_MAX, "keys"));
        }
        keys.iter().map(|found| self.item(&key(log, [found.as_str().as_bytes()]))).collect()
    }

    async fn put(
        &self,
        log: &LogId,
        state_key: &StateKey,
        item: &StateItem,
    ) -> Result<Guarded, Unavailable> {
        self.store.room().await?;
        let key = key(log, [state_key.as_str().as_bytes()]);
        {
            let _alone = self.stripes.of(log);
            if self.item(&key)?.is_some_and(|stored| stored.seq >= item.seq) {
                return Ok(Guarded::Newer);
            }
            let value = [&item.seq.0.to_be_bytes(), &item.body[..]].concat();
            self.store.put(Space::STATE, key, value.into());
        }
        faults::reached("state.put");
        Ok(Guarded::Stored)
    }
}

/// What waits: it cannot be made again, so it is on disk before parking is acknowledged.
///
/// Key: log, seq and identity. Value: the body.
pub struct DurableParked {
    store: Arc<Store>,
}

impl DurableParked {
    /// The parked table in a store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    fn key(log: &LogId, seq: Seq, identity: &str) -> Bytes {
        key(log, [&seq.0.to_be_bytes(), identity.as_bytes()])
    }
}

#[async_trait]
impl ParkedTable for DurableParked {
    async fn park(&self, log: &LogId, item: &ParkedItem) -> Result<(), Unavailable> {
        self.store.room().await?;
        let key = Self::key(log, item.seq, &item.identity);
        self.store.put(Space::PARKED, key, item.body.clone());
        self.store.durable().await?;
        faults::reached("parked.park");
        Ok(())
    }

    async fn list(
        &self,
        log: &LogId,
        from: Seq,
        limit: usize,
    ) -> Result<Vec<ParkedItem>, Unavailable> {
        let mut items = Vec::new();
        let (start, prefix) = (Self::key(log, from, ""), log.as_str().len() + 1);
        let scanned = self.store.scan(Space::PARKED, &start, &end(log), false, |key, body| {
            if items.len() == limit {
                return ControlFlow::Break(());
            }
            let item = || {
                let (seq, identity) = key.get(prefix..)?.split_first_chunk::<8>()?;
                let identity = std::str::from_utf8(identity).ok()?.to_owned();
                Some(ParkedItem { seq: Seq(u64::from_be_bytes(*seq)), identity, body })
            };
            items.extend(item());
            ControlFlow::Continue(())
        });
        scanned.map_err(|error| unavailable("parked table", &error))?;
        Ok(items)
    }

    async fn remove(&self, log: &LogId, seq: Seq, identity: &str) -> Result<(), Unavailable> {
        self.store.room().await?;
        self.store.remove(Space::PARKED, Self::key(log, seq, identity));
        faults::reached("parked.remove");
        Ok(())
    }
}

/// The messages that could not be delivered, by view, the oldest dropped when there are too many.
///
/// Key: view and id. Value: the body.
pub struct DurableDeadLetters {
    store: Arc<Store>,
    bound: Bound,
    /// One writer at a time: letters are rare.
    writing: Mutex<()>,
}

impl DurableDeadLetters {
    /// The dead letters in a store; of each view at most `bound`.
    pub fn new(store: Arc<Store>, bound: Bound) -> Self {
        Self { store, bound, writing: Mutex::default() }
    }

    fn key(view: &str, id: u64) -> Bytes {
        [view.as_bytes(), &[0], &id.to_be_bytes()].concat().into()
    }

    /// Those with ids from `first` on.
    fn letters(&self, view: &str, first: u64, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let mut letters = Vec::new();
        let end = [view.as_bytes(), &[1]].concat();
        let start = Self::key(view, first);
        self.store.scan(Space::DEAD_LETTERS, &start, &end, false, |key, body| {
            let id = key.last_chunk::<8>().map(|id| u64::from_be_bytes(*id));
            letters.extend(id.map(|id| DeadLetter { id, body }));
            if letters.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(letters)
    }

    fn add(&self, view: &str, body: Bytes) -> Result<(), StoreError> {
        let _alone = lock(&self.writing);
        let letters = self.letters(view, 0, usize::MAX)?;
        let next = letters.last().map_or(0, |last| last.id + 1);
        let (mut items, mut bytes) = (letters.len() + 1, body.len());
        bytes += letters.iter().map(|letter| letter.body.len()).sum::<usize>();
        self.store.write(|writes| {
            writes.put(Space::DEAD_LETTERS, Self::key(view, next), body);
            for oldest in letters {
                if items <= self.bound.items && bytes <= self.bound.bytes {
                    break;
                }
                (items, bytes) = (items - 1, bytes - oldest.body.len());
                writes.remove(Space::DEAD_LETTERS, Self::key(view, oldest.id));
            }
        });
        faults::reached("dead_letters.push");
        Ok(())
    }
}

impl Undelivered for DurableDeadLetters {
    fn push(&self, view: &str, body: Bytes) {
        if let Err(error) = self.add(view, body) {
            // The view's sweep finds in the journal what it says.
            tracing::error!(view, %error, "a dead letter was not kept");
        }
    }
}

#[async_trait]
impl DeadLetters for DurableDeadLetters {
    async fn list(
        &self,
        view: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, Unavailable> {
        let first = after.map_or(0, |after| after.saturating_add(1));
        let letters = if limit == 0 { Ok(Vec::new()) } else { self.letters(view, first, limit) };
        letters.map_err(|error| unavailable("dead letters", &error))
    }

    async fn remove(&self, view: &str, id: u64) -> Result<(), Unavailable> {
        let _alone = lock(&self.writing);
        self.store.remove(Space::DEAD_LETTERS, Self::key(view, id));
        faults::reached("dead_letters.remove");
        Ok(())
    }
}
