use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fanfold::{LogId, Seq};
use fanfold_pipeline::ports::{
    OperatorParked, ParkedItem, ParkedPage, ParkedPosition, ParkedTable, Unavailable,
};

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
            items.extend(key.get(prefix..).and_then(|rest| item(rest, body)));
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

/// The item whose key has this behind the log.
fn item(rest: &[u8], body: Bytes) -> Option<ParkedItem> {
    let (seq, identity) = rest.split_first_chunk::<8>()?;
    let identity = std::str::from_utf8(identity).ok()?.to_owned();
    Some(ParkedItem { seq: Seq(u64::from_be_bytes(*seq)), identity, body })
}

/// Positions are `<log>#<seq>#<identity>`. No log has a `#`.
fn position(log: &LogId, item: &ParkedItem) -> ParkedPosition {
    ParkedPosition(format!("{log}#{}#{}", item.seq, item.identity))
}

/// The first key behind a position; `None` if it is none.
fn behind(ParkedPosition(text): &ParkedPosition) -> Option<Bytes> {
    let mut parts = text.splitn(3, '#');
    let log = parts.next()?.parse().ok()?;
    let seq = Seq(parts.next()?.parse().ok()?);
    Some(StoredParked::key(&log, seq, &format!("{}\0", parts.next()?)))
}

#[async_trait]
impl OperatorParked for StoredParked {
    fn is_position(&self, after: &ParkedPosition) -> bool {
        behind(after).is_some()
    }

    async fn scan(
        &self,
        after: Option<&ParkedPosition>,
        limit: usize,
    ) -> Result<ParkedPage, Unavailable> {
        let from = match after {
            Some(after) => behind(after).ok_or_else(|| Unavailable::Failed {
                hop: "parked table",
                message: "the position is not one of this table".to_owned(),
            })?,
            None => Bytes::new(),
        };
        let (mut page, mut last) = (ParkedPage::default(), None);
        // No log begins with such a byte.
        let scanned = self.store.scan(Table::PARKED, &from, &[0xff], false, |key, body| {
            if page.items.len() == limit {
                page.next = last.take();
                return ControlFlow::Break(());
            }
            let found = || {
                let end = key.iter().position(|byte| *byte == 0)?;
                let log: LogId = std::str::from_utf8(&key[..end]).ok()?.parse().ok()?;
                Some((log, item(&key[end + 1..], body)?))
            };
            if let Some((log, item)) = found() {
                last = Some(position(&log, &item));
                page.items.push((log, item));
            }
            ControlFlow::Continue(())
        });
        scanned.map_err(|error| error.unavailable("parked table"))?;
        Ok(page)
    }
}
