use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use fanfold::{LogId, Seq, Time};
use fanfold_pipeline::ports::{CataloguePage, CataloguePosition, Slot, Token};

use crate::hash_key::{BUCKETS, HashKey};
use crate::store::{Store, StoreError, Table};

/// The slots, in the order of the catalogue: by bucket and log.
pub(super) struct Slots(pub(super) Arc<Store>);

impl Slots {
    fn key(hash: HashKey, log: &LogId) -> Bytes {
        [&[hash.bucket()], log.as_str().as_bytes()].concat().into()
    }

    pub(super) fn get(&self, hash: HashKey, log: &LogId) -> Result<Option<Slot>, StoreError> {
        Ok(self.0.get(Table::SLOTS, &Self::key(hash, log))?.and_then(decode))
    }

    pub(super) fn put(&self, hash: HashKey, log: &LogId, slot: &Slot) {
        let mut value = Vec::with_capacity(41);
        value.extend(slot.seq.0.to_be_bytes());
        value.extend(slot.n.to_be_bytes());
        value.extend(slot.at.0.to_be_bytes());
        value.extend(slot.token.0.to_be_bytes());
        value.push(u8::from(slot.closed));
        self.0.put(Table::SLOTS, Self::key(hash, log), value.into());
    }

    pub(super) fn catalogue(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
    ) -> Result<CataloguePage, StoreError> {
        let limit = limit.max(1);
        // The next key in order: the log's name with a zero byte appended, which no name has.
        let from = match after {
            None => Vec::new(),
            Some(CataloguePosition { bucket, log: None }) => vec![bucket],
            Some(CataloguePosition { bucket, log: Some(log) }) => {
                [&[bucket], log.as_str().as_bytes(), &[0]].concat()
            }
        };
        let mut logs: Vec<LogId> = Vec::new();
        let mut more = false;
        self.0.scan(Table::SLOTS, &from, &[BUCKETS], false, |key, _| {
            if logs.len() == limit {
                more = true;
                return ControlFlow::Break(());
            }
            let log = key.get(1..).and_then(|log| std::str::from_utf8(log).ok()?.parse().ok());
            logs.extend(log);
            ControlFlow::Continue(())
        })?;
        let next = logs.last().filter(|_| more).map(|last| CataloguePosition {
            bucket: HashKey::of_log(last).bucket(),
            log: Some(last.clone()),
        });
        Ok(CataloguePage { logs, next })
    }
}

fn decode(mut value: Bytes) -> Option<Slot> {
    Some(Slot {
        seq: Seq(value.try_get_u64().ok()?),
        n: value.try_get_u64().ok()?,
        at: Time(value.try_get_u64().ok()?),
        token: Token(value.try_get_u128().ok()?),
        closed: value.try_get_u8().ok()? != 0,
    })
}
