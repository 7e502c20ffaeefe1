use std::collections::BTreeMap;

use async_trait::async_trait;
use fanfold::{LogId, StateKey};
use fanfold_pipeline::ports::{Guarded, State, StateItem, Unavailable};

use super::beyond_limit;
use crate::striped::Striped;

/// The most keys that one read takes (see the port).
pub(crate) const KEYS_MAX: usize = 1_000;

/// Heads, documents, windows.
#[derive(Default)]
pub struct MemoryState {
    logs: Striped<BTreeMap<StateKey, StateItem>>,
}

#[async_trait]
impl State for MemoryState {
    async fn get(
        &self,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable> {
        if keys.len() > KEYS_MAX {
            return Err(beyond_limit("state table", keys.len(), KEYS_MAX, "keys"));
        }
        let logs = self.logs.of(log);
        let items = logs.get(log);
        Ok(keys.iter().map(|key| items.and_then(|items| items.get(key)).cloned()).collect())
    }

    async fn put(
        &self,
        log: &LogId,
        key: &StateKey,
        item: &StateItem,
    ) -> Result<Guarded, Unavailable> {
        let mut logs = self.logs.of(log);
        let items = logs.entry(log.clone()).or_default();
        if items.get(key).is_some_and(|stored| stored.seq >= item.seq) {
            return Ok(Guarded::Newer);
        }
        items.insert(key.clone(), item.clone());
        Ok(Guarded::Stored)
    }
}
