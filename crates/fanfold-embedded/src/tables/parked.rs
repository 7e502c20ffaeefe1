use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fanfold::{LogId, Seq};
use fanfold_pipeline::ports::{ParkedItem, ParkedTable, Unavailable};

use super::{end, key};
use crate::store::{Store, Table};

/// The parked table. Parked items cannot be rebuilt from other data, so parking is acknowledged
/// only after they are on disk.
///
/// Key: log, seq and identity. Value: the body.
pub struct StoredParked {
    store: Arc<Store>,
}

impl StoredParked {
    /// The parked table in a store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    fn key(log: &LogId, seq: Seq, identity: &str) -> Bytes {
        key(log, [&seq.0.to_be_bytes(), identity.as_bytes()])
    }
}

#[async_trait]
impl ParkedTable for StoredParked {
    async fn park(&self, log: &LogId, item: &ParkedItem) -> Result<(), Unavailable> {
        self.store.room().await?;
        let key = Self::key(log, item.seq, &item.identity);
        self.store.put(Table::PARKED, key, item.body.clone());
        self.store.durable().await
    }

    async fn list(
        &self,
        log: &LogId,
        from: (Seq, &str),
        limit: usize,
    ) -> Result<Vec<ParkedItem>, Unavailable> {
        let mut items = Vec::new();
        let (start, prefix) = (Self::key(log, from.0, from.1), log.as_str().len() + 1);
        let scanned = self.store.scan(Table::PARKED, &start, &end(log), false, |key, body| {
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
        scanned.map_err(|error| error.unavailable("parked table"))?;
        Ok(items)
    }

    async fn remove(&self, log: &LogId, seq: Seq, identity: &str) -> Result<(), Unavailable> {
        self.store.room().await?;
        self.store.remove(Table::PARKED, Self::key(log, seq, identity));
        Ok(())
    }
}
