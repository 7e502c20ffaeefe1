use std::sync::Arc;

use async_trait::async_trait;
use bytes::Buf;
use fanfold::{LogId, Seq, StateKey};
use fanfold_pipeline::ports::{Guarded, State, StateItem, Unavailable};

use super::{KEYS_MAX, beyond_limit, key};
use crate::faults;
use crate::store::{Store, Table};
use crate::striped::Striped;

/// The state table: heads, documents, windows.
///
/// Key: log and state key. Value: `[seq u64][body]`, big-endian.
pub struct StoredState {
    store: Arc<Store>,
    stripes: Striped<()>,
}

impl StoredState {
    /// The state table in a store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, stripes: Striped::default() }
    }

    fn item(&self, key: &[u8]) -> Result<Option<StateItem>, Unavailable> {
        let stored = self.store.get(Table::STATE, key);
        let stored = stored.map_err(|error| error.unavailable("state table"))?;
        Ok(stored.and_then(|mut value| {
            let seq = Seq(value.try_get_u64().ok()?);
            Some(StateItem { seq, body: value })
        }))
    }
}

#[async_trait]
impl State for StoredState {
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
            self.store.put(Table::STATE, key, value.into());
        }
        faults::reached("state.put");
        Ok(Guarded::Stored)
    }
}
