use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use fanfold::{LogId, Seq};
use fanfold_pipeline::ports::{
    Append, AppendError, CataloguePage, CataloguePosition, Change, Commands, Slot, Unavailable,
};

use super::ITEM_OVERHEAD_BYTES;
use crate::hash_key::{BUCKETS, HashKey};
use crate::shard::Bound;
use crate::shards::Shards;
use crate::striped::lock;

/// The slots of a bucket with the bodies of their batches, in the catalogue's order.
type Slots = BTreeMap<LogId, (Slot, Bytes)>;

/// Slots, by the catalogue's buckets; and the change stream.
pub struct MemoryCommands {
    slots: Vec<Mutex<Slots>>,
    changes: Shards<Change>,
    bound: Bound,
}

impl MemoryCommands {
    /// Empty. Appends are throttled while more than twice `bound` is in the change stream: nobody
    /// comes that far who asks for admission.
    pub fn new(shards: usize, bound: Bound) -> Self {
        let slots = (0..BUCKETS).map(|_| Mutex::default()).collect();
        Self { slots, changes: Shards::equal(shards), bound: twice(bound) }
    }

    /// The change stream: a log's changes are in one shard, in the order of their seqs.
    pub fn changes(&self) -> &Shards<Change> {
        &self.changes
    }

    /// Freezes a log: its slot refuses appends. `false`: it has no slot.
    pub fn close(&self, log: &LogId) -> bool {
        let mut slots = self.bucket(HashKey::of_log(log));
        slots.get_mut(log).map(|(slot, _)| slot.closed = true).is_some()
    }

    /// The bucket of a log with this key.
    fn bucket(&self, key: HashKey) -> MutexGuard<'_, Slots> {
        lock(&self.slots[usize::from(key.bucket())])
    }

    fn emit(&self, key: HashKey, change: Change) {
        let bytes = ITEM_OVERHEAD_BYTES + change.log.as_str().len() + change.body.len();
        self.changes.append(key, bytes, change);
    }
}

/// A commands table whose changes can be read.
pub trait Changing: Commands {
    /// The change stream: a log's changes are in one shard, in the order of their seqs.
    fn changes(&self) -> &Shards<Change>;
}

/// A provider's own bound, beyond that of admission.
pub(crate) fn twice(bound: Bound) -> Bound {
    Bound { items: bound.items.saturating_mul(2), bytes: bound.bytes.saturating_mul(2) }
}

impl Changing for MemoryCommands {
    fn changes(&self) -> &Shards<Change> {
        self.changes()
    }
}

#[async_trait]
impl Commands for MemoryCommands {
    async fn append(&self, log: &LogId, append: Append) -> Result<Seq, AppendError> {
        if self.changes.backlog().exceeds(self.bound) {
            return Err(Unavailable::Throttled { hop: "commands table" }.into());
        }
        let Append { n, body, at, token } = append;
        let key = HashKey::of_log(log);
        let mut slots = self.bucket(key);
        let slot = slots.get_mut(log);
        let before = slot.as_deref().map(|(slot, _)| slot);
        if let Some(slot) = before.filter(|slot| slot.closed || slot.token == token) {
            return Err(AppendError::Refused(slot.clone()));
        }
        let last = before.map_or(Seq::ZERO, |slot| slot.seq).plus(n);
        let appended = (Slot { seq: last, n, at, token, closed: false }, body.clone());
        match slot {
            Some(slot) => *slot = appended,
            None => {
                slots.insert(log.clone(), appended);
            }
        }
        // Under the lock, so that changes of one log are in the order of their seqs.
        self.emit(key, Change { log: log.clone(), last, n, at, token, body });
        Ok(last)
    }

    async fn slot(&self, log: &LogId) -> Result<Option<Slot>, Unavailable> {
        Ok(self.bucket(HashKey::of_log(log)).get(log).map(|(slot, _)| slot.clone()))
    }

    async fn batch(&self, log: &LogId) -> Result<Option<Change>, Unavailable> {
        let slots = self.bucket(HashKey::of_log(log));
        Ok(slots.get(log).map(|(slot, body)| {
            let Slot { seq: last, n, at, token, .. } = *slot;
            Change { log: log.clone(), last, n, at, token, body: body.clone() }
        }))
    }

    async fn catalogue(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
    ) -> Result<CataloguePage, Unavailable> {
        let limit = limit.max(1);
        let after = after.unwrap_or(CataloguePosition { bucket: 0, log: None });
        let mut logs: Vec<LogId> = Vec::new();
        for bucket in after.bucket..BUCKETS {
            let slots = lock(&self.slots[usize::from(bucket)]);
            let start = match &after.log {
                Some(log) if bucket == after.bucket => Excluded(log),
                _ => Unbounded,
            };
            for (log, _) in slots.range((start, Unbounded)) {
                if logs.len() == limit {
                    let next = logs.last().map(|last| CataloguePosition {
                        bucket: HashKey::of_log(last).bucket(),
                        log: Some(last.clone()),
                    });
                    return Ok(CataloguePage { logs, next });
                }
                logs.push(log.clone());
            }
        }
        Ok(CataloguePage { logs, next: None })
    }
}
