use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use fanfold_pipeline::ports::{ActionId, OperatorTimeline, TimelinePage, Unavailable};

use crate::store::{Store, StoreError, Table};
use crate::striped::lock;

const HOP: &str = "timeline";
/// What the keys in the meta table begin with.
const PREFIX: &str = "action/";
/// The end of these keys.
const END: &str = "action0";
/// The most records; the oldest are dropped. Source: our choice, beside some 300 bytes of a record: 3 MB, which may all be in
/// memory, and years of an operator's work. Letting thousands of logs go on at once takes a record for each.
pub(crate) const ACTIONS_MAX: usize = 10_000;

/// The records of what operators did, in the meta table under `action/ID`. So a backup has them, too.
pub struct StoredTimeline {
    store: Arc<Store>,
    most: usize,
    /// The number of records, once they were counted. The lock also admits one writer at a time.
    count: Mutex<Option<usize>>,
}

impl StoredTimeline {
    /// The timeline in a store, of at most `most` records.
    pub fn new(store: Arc<Store>, most: usize) -> Self {
        Self { store, most, count: Mutex::default() }
    }

    fn key(id: ActionId) -> Bytes {
        format!("{PREFIX}{id}").into()
    }

    /// Stores a record; one that is there is replaced only if `replaces`.
    fn write(&self, id: ActionId, body: &Bytes, replaces: bool) -> Result<(), StoreError> {
        let mut count = lock(&self.count);
        let before = match *count {
            Some(count) => count,
            None => self.oldest(usize::MAX)?.len(),
        };
        let key = Self::key(id);
        let is_new = self.store.get(Table::META, &key)?.is_none();
        let after = before + usize::from(is_new);
        let dropped = self.oldest(after.saturating_sub(self.most))?;
        *count = Some(after - dropped.len());
        self.store.write(|writes| {
            if is_new || replaces {
                writes.put(Table::META, key, body.clone());
            }
            for key in dropped {
                writes.remove(Table::META, key);
            }
        });
        Ok(())
    }

    /// The keys of the oldest records.
    fn oldest(&self, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        let mut keys = Vec::new();
        if limit == 0 {
            return Ok(keys);
        }
        let (from, to) = (PREFIX.as_bytes(), END.as_bytes());
        self.store.scan(Table::META, from, to, false, |key, _| {
            keys.push(Bytes::copy_from_slice(key));
            if keys.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(keys)
    }
}

#[async_trait]
impl OperatorTimeline for StoredTimeline {
    async fn begin(&self, id: ActionId, body: &Bytes) -> Result<(), Unavailable> {
        self.store.room().await?;
        self.write(id, body, false).map_err(|error| error.unavailable(HOP))?;
        self.store.durable().await
    }

    async fn end(&self, id: ActionId, body: &Bytes) -> Result<(), Unavailable> {
        self.store.room().await?;
        self.write(id, body, true).map_err(|error| error.unavailable(HOP))
    }

    async fn list(
        &self,
        before: Option<ActionId>,
        limit: usize,
    ) -> Result<TimelinePage, Unavailable> {
        let mut page = TimelinePage::default();
        let to = before.map_or_else(|| Bytes::from_static(END.as_bytes()), Self::key);
        let scanned = self.store.scan(Table::META, PREFIX.as_bytes(), &to, true, |key, body| {
            if page.records.len() == limit {
                page.more = true;
                return ControlFlow::Break(());
            }
            let id = std::str::from_utf8(&key[PREFIX.len()..]).ok().and_then(|id| id.parse().ok());
            page.records.extend(id.map(|id| (id, body)));
            ControlFlow::Continue(())
        });
        scanned.map_err(|error| error.unavailable(HOP))?;
        Ok(page)
    }
}
