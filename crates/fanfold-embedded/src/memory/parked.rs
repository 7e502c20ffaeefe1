use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use fanfold::{LogId, Seq};
use fanfold_pipeline::ports::{ParkedItem, ParkedTable, Unavailable};

use crate::striped::Striped;

/// What waits. A log is in it only while something of it does.
#[derive(Default)]
pub struct MemoryParked {
    logs: Striped<BTreeMap<(Seq, String), Bytes>>,
}

#[async_trait]
impl ParkedTable for MemoryParked {
    async fn park(&self, log: &LogId, item: &ParkedItem) -> Result<(), Unavailable> {
        let mut logs = self.logs.of(log);
        let items = logs.entry(log.clone()).or_default();
        items.insert((item.seq, item.identity.clone()), item.body.clone());
        Ok(())
    }

    async fn list(
        &self,
        log: &LogId,
        from: Seq,
        limit: usize,
    ) -> Result<Vec<ParkedItem>, Unavailable> {
        let logs = self.logs.of(log);
        let items =
            logs.get(log).into_iter().flat_map(|items| items.range((from, String::new())..));
        let item = |((seq, identity), body): (&(Seq, String), &Bytes)| ParkedItem {
            seq: *seq,
            identity: identity.clone(),
            body: body.clone(),
        };
        Ok(items.take(limit).map(item).collect())
    }

    async fn remove(&self, log: &LogId, seq: Seq, identity: &str) -> Result<(), Unavailable> {
        let mut logs = self.logs.of(log);
        if let Some(items) = logs.get_mut(log) {
            items.remove(&(seq, identity.to_owned()));
            if items.is_empty() {
                logs.remove(log);
            }
        }
        Ok(())
    }
}
