use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use fanfold::host::body::lease::Lease;
use fanfold::host::knob::Knob;
use fanfold::{LogId, RowKey, Seq, Time};
use fanfold_pipeline::ports::{
    Cursor, CursorMove, LeaseWrite, OperatorView, ParkedView, ParkedViewPage, PutRowError, Row,
    RowPage, RowRange, StoredRow, Unavailable, ViewTable,
};
use serde::{Deserialize, Serialize};

use super::{KEYS_MAX, beyond_limit, key};
use crate::faults;
use crate::interleave::{self, Between};
use crate::store::{Store, StoreError, Table};
use crate::striped::Striped;
use crate::waits::Waiters;

const HOP: &str = "view table";
/// How long tombstones are kept, in milliseconds: one day, as in the writers' `expires`.
const TOMBSTONE_MS: u64 = 24 * 60 * 60 * 1000;
/// The largest number of expired tombstones that one put removes.
const EXPIRED_PER_PUT: Knob = Knob::new(16, 1);

/// The rows and cursors of one view.
pub struct StoredView {
    store: Arc<Store>,
    table: Table,
    stripes: Striped<()>,
    waiters: Arc<Waiters>,
    /// The number of calls of `mark_behind` since the table was opened.
    marked_behind: AtomicU64,
}

/// The rare fields of a cursor.
#[derive(Default, Serialize, Deserialize)]
struct More {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    behind: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<Lease>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parked: Option<ParkedView>,
}

impl StoredView {
    /// A view's table in a store.
    pub fn new(store: Arc<Store>, table: Table) -> Self {
        Self {
            store,
            table,
            stripes: Striped::default(),
            waiters: Arc::default(),
            marked_behind: AtomicU64::new(0),
        }
    }

    /// The waiters for the view.
    pub fn waiters(&self) -> &Arc<Waiters> {
        &self.waiters
    }

    /// The number of calls of `mark_behind` since the table was opened.
    pub(crate) fn marked_behind(&self) -> u64 {
        self.marked_behind.load(Ordering::Relaxed)
    }

    fn row_key(log: &LogId, row: &str) -> Bytes {
        key(log, [b"r", row.as_bytes()])
    }

    fn tombstone_key(log: &LogId, expires: Time, row: &str) -> Bytes {
        key(log, [b"t", &expires.0.to_be_bytes(), row.as_bytes()])
    }

    fn row(&self, key: &[u8]) -> Result<Option<StoredRow>, StoreError> {
        Ok(self.store.get(self.table, key)?.and_then(decode_row))
    }

    fn read_cursor(&self, log: &LogId) -> Result<Option<Cursor>, Unavailable> {
        let stored = self.store.get(self.table, &key(log, [b"c"]));
        Ok(stored.map_err(|error| error.unavailable(HOP))?.and_then(decode_cursor))
    }

    fn put_cursor(&self, log: &LogId, cursor: &Cursor) {
        self.store.put(self.table, key(log, [b"c"]), encode_cursor(cursor).into());
    }

    /// As `put_cursor`, for a cursor that becomes parked, or is no longer.
    fn put_parked_cursor(&self, log: &LogId, cursor: &Cursor) {
        self.store.write(|writes| {
            writes.put(self.table, key(log, [b"c"]), encode_cursor(cursor).into());
            match cursor.parked {
                Some(_) => writes.put(self.table, parked_key(log), Bytes::new()),
                None => writes.remove(self.table, parked_key(log)),
            }
        });
    }

    fn put(
        &self,
        log: &LogId,
        name: &RowKey,
        row: &StoredRow,
        loaded: Option<Seq>,
    ) -> Result<(), PutRowError> {
        let failed = |error: StoreError| PutRowError::from(error.unavailable(HOP));
        let _alone = self.stripes.of(log);
        let key = Self::row_key(log, name.as_str());
        let before = self.row(&key).map_err(failed)?;
        if before.as_ref().map(|row| row.seq) != loaded {
            return Err(PutRowError::Conflict);
        }
        let expires = expiry(row);
        // This table has no clock. A new tombstone expires in one day, which gives the time.
        let expired = match expires {
            Some(expires) => self.expired(log, expires).map_err(failed)?,
            None => Vec::new(),
        };
        self.store.write(|writes| {
            if let Some(expires) = before.as_ref().and_then(expiry) {
                writes.remove(self.table, Self::tombstone_key(log, expires, name.as_str()));
            }
            writes.put(self.table, key, encode_row(row).into());
            if let Some(expires) = expires {
                let key = Self::tombstone_key(log, expires, name.as_str());
                writes.put(self.table, key, Bytes::new());
            }
            for (tombstone, row) in expired {
                writes.remove(self.table, tombstone);
                if row != *name.as_str().as_bytes() {
                    writes.remove(self.table, self::key(log, [b"r", &row]));
                }
            }
        });
        Ok(())
    }

    /// Some tombstones that have expired by the time at which one with the expiry `new` is written.
    /// Returns their keys and their rows' keys.
    fn expired(&self, log: &LogId, new: Time) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let now = Time(new.0.saturating_sub(TOMBSTONE_MS));
        let (from, to) = (key(log, [b"t"]), Self::tombstone_key(log, Time(now.0 + 1), ""));
        let row_at = from.len() + 8;
        let mut expired = Vec::new();
        self.store.scan(self.table, &from, &to, false, |key, _| {
            let key = Bytes::copy_from_slice(key);
            if key.len() >= row_at {
                expired.push((key.clone(), key.slice(row_at..)));
            }
            match expired.len() < EXPIRED_PER_PUT.get() {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        Ok(expired)
    }
}

impl StoredView {
    /// The keys of up to `limit` rows and tombstones, each with the key by which a tombstone is found once it has expired.
    fn some_rows(
        &self,
        log: &LogId,
        limit: usize,
    ) -> Result<Vec<(Bytes, Option<Bytes>)>, StoreError> {
        let (from, to) = (Self::row_key(log, ""), key(log, [b"s"]));
        let mut rows = Vec::new();
        if limit == 0 {
            return Ok(rows);
        }
        self.store.scan(self.table, &from, &to, false, |key, value| {
            let name = key.get(from.len()..).and_then(|name| std::str::from_utf8(name).ok());
            let expires = decode_row(value).as_ref().and_then(expiry);
            let tombstone = name.zip(expires);
            let tombstone = tombstone.map(|(name, at)| Self::tombstone_key(log, at, name));
            rows.push((Bytes::copy_from_slice(key), tombstone));
            match rows.len() < limit {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        Ok(rows)
    }
}

/// When a row expires, if it is a tombstone.
fn expiry(row: &StoredRow) -> Option<Time> {
    row.expires.filter(|_| row.body.is_none())
}

fn encode_row(row: &StoredRow) -> Vec<u8> {
    let body = row.body.as_deref().unwrap_or_default();
    let mut value = Vec::with_capacity(17 + body.len());
    value.extend(row.seq.0.to_be_bytes());
    value.extend(row.expires.map_or(0, |expires| expires.0).to_be_bytes());
    value.push(u8::from(row.body.is_some()));
    value.extend_from_slice(body);
    value
}

fn decode_row(mut value: Bytes) -> Option<StoredRow> {
    let seq = Seq(value.try_get_u64().ok()?);
    let expires = value.try_get_u64().ok().filter(|expires| *expires > 0).map(Time);
    let is_live = value.try_get_u8().ok()? != 0;
    Some(StoredRow { seq, body: is_live.then_some(value), expires })
}

fn encode_cursor(cursor: &Cursor) -> Vec<u8> {
    let mut value = cursor.seq.0.to_be_bytes().to_vec();
    let more = More {
        behind: cursor.behind.map(|seq| seq.0),
        attempt: cursor.lease,
        parked: cursor.parked.clone(),
    };
    if more.behind.is_some() || more.attempt.is_some() || more.parked.is_some() {
        // Cannot fail: the fields are numbers and text.
        let _ = serde_json::to_writer(&mut value, &more);
    }
    value
}

fn decode_cursor(mut value: Bytes) -> Option<Cursor> {
    let seq = Seq(value.try_get_u64().ok()?);
    let more: More = match value.is_empty() {
        true => More::default(),
        false => serde_json::from_slice(&value).ok()?,
    };
    let More { behind, attempt, parked } = more;
    Some(Cursor { seq, behind: behind.map(Seq), lease: attempt, parked })
}

#[async_trait]
impl ViewTable for StoredView {
    async fn cursor(&self, log: &LogId) -> Result<Option<Cursor>, Unavailable> {
        self.read_cursor(log)
    }

    async fn rows(
        &self,
        log: &LogId,
        keys: &[RowKey],
    ) -> Result<Vec<Option<StoredRow>>, Unavailable> {
        if keys.len() > KEYS_MAX {
            return Err(beyond_limit(HOP, keys.len(), KEYS_MAX, "keys"));
        }
        let rows = keys.iter().map(|key| self.row(&Self::row_key(log, key.as_str())));
        rows.collect::<Result<_, _>>().map_err(|error| error.unavailable(HOP))
    }

    async fn put_row(
        &self,
        log: &LogId,
        key: &RowKey,
        row: &StoredRow,
        loaded: Option<Seq>,
    ) -> Result<(), PutRowError> {
        self.store.room().await?;
        self.put(log, key, row, loaded)?;
        faults::reached("view.put_row");
        Ok(())
    }

    async fn move_cursor(&self, log: &LogId, to: Seq) -> Result<CursorMove, Unavailable> {
        self.store.room().await?;
        {
            let _alone = self.stripes.of(log);
            let cursor = self.read_cursor(log)?;
            match cursor {
                Some(cursor) if cursor.seq >= to || cursor.parked.is_some() => {
                    return Ok(CursorMove::Refused(cursor));
                }
                cursor => {
                    self.put_cursor(log, &Cursor { seq: to, ..cursor.unwrap_or_default() });
                }
            }
        }
        faults::reached("view.move_cursor");
        self.waiters.reached(log, to);
        Ok(CursorMove::Moved)
    }

    async fn mark_behind(&self, log: &LogId, target: Seq) -> Result<(), Unavailable> {
        self.store.room().await?;
        let _alone = self.stripes.of(log);
        let cursor = self.read_cursor(log)?;
        let cursor = cursor.unwrap_or_default();
        let behind = cursor.behind.max(Some(target));
        // Counted before the acknowledgement, after which the message is not delivered again.
        self.marked_behind.fetch_add(1, Ordering::Relaxed);
        self.put_cursor(log, &Cursor { behind, ..cursor });
        Ok(())
    }

    async fn replace_lease(
        &self,
        log: &LogId,
        before: Option<&Lease>,
        lease: &Lease,
    ) -> Result<LeaseWrite, Unavailable> {
        self.store.room().await?;
        {
            let _alone = self.stripes.of(log);
            let cursor = self.read_cursor(log)?.unwrap_or_default();
            let stands = cursor.lease;
            if stands.as_ref() != before && stands.as_ref() != Some(lease) {
                return Ok(LeaseWrite::Refused(stands));
            }
            self.put_cursor(log, &Cursor { lease: Some(*lease), ..cursor });
        }
        // Durable before an attempt starts, because the attempt may crash the process. The reset
        // after an attempt need not be: at worst, a finished attempt counts as unfinished.
        if lease.attempts > 0 {
            self.store.durable().await?;
        }
        Ok(LeaseWrite::Stored)
    }

    async fn park(&self, log: &LogId, at: Seq, parked: &ParkedView) -> Result<(), Unavailable> {
        self.store.room().await?;
        {
            let _alone = self.stripes.of(log);
            let cursor = self.read_cursor(log)?;
            let cursor = cursor.unwrap_or_default();
            if cursor.seq != at || cursor.parked.is_some() {
                return Ok(());
            }
            self.put_parked_cursor(log, &Cursor { parked: Some(parked.clone()), ..cursor });
        }
        self.store.durable().await?;
        // Waiters return at once, because the view will not advance.
        self.waiters.stopped(log);
        Ok(())
    }

    async fn release(
        &self,
        log: &LogId,
        parked: &ParkedView,
        to: Option<Seq>,
    ) -> Result<bool, Unavailable> {
        self.store.room().await?;
        let reached = {
            let _alone = self.stripes.of(log);
            let cursor = self.read_cursor(log)?.unwrap_or_default();
            if cursor.parked.as_ref() != Some(parked) {
                return Ok(false);
            }
            let seq = to.unwrap_or_default().max(cursor.seq);
            self.put_parked_cursor(log, &Cursor { parked: None, seq, ..cursor });
            seq
        };
        self.store.durable().await?;
        self.waiters.reached(log, reached);
        Ok(true)
    }

    async fn scan(&self, log: &LogId, range: &RowRange) -> Result<RowPage, Unavailable> {
        let (mut low, mut high) = (range.prefix.clone(), range.end());
        match range.after.as_ref().map(RowKey::as_str) {
            Some(after) if range.descending => high = high.min(after.to_owned()),
            // The next key in order: this key with a zero byte appended.
            Some(after) => low = low.max(format!("{after}\0")),
            None => {}
        }
        let (from, to) = (Self::row_key(log, &low), Self::row_key(log, &high));
        let name_at = log.as_str().len() + 2;
        let mut page = RowPage::default();
        let scanned = self.store.scan(self.table, &from, &to, range.descending, |key, value| {
            let row = || {
                let key = std::str::from_utf8(key.get(name_at..)?).ok()?.parse().ok()?;
                let StoredRow { seq, body, .. } = decode_row(value)?;
                Some(Row { key, seq, body: body? })
            };
            let Some(row) = row() else { return ControlFlow::Continue(()) };
            if page.rows.len() == range.limit.max(1) {
                page.more = true;
                return ControlFlow::Break(());
            }
            page.rows.push(row);
            ControlFlow::Continue(())
        });
        scanned.map_err(|error| error.unavailable(HOP))?;
        Ok(page)
    }
}

/// The key that says that the view is parked for a log. It stands before all other keys, which begin with a log.
fn parked_key(log: &LogId) -> Bytes {
    [PARKED, log.as_str().as_bytes()].concat().into()
}

const PARKED: &[u8] = &[0];

#[async_trait]
impl OperatorView for StoredView {
    async fn parked(
        &self,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<ParkedViewPage, Unavailable> {
        // A log with a zero byte behind it is the first key behind that of the log.
        let from = after.map_or_else(
            || Bytes::from_static(PARKED),
            |log| [&parked_key(log)[..], &[0]].concat().into(),
        );
        let (mut logs, mut more) = (Vec::new(), false);
        let scanned = self.store.scan(self.table, &from, &[1], false, |key, _| {
            if logs.len() == limit {
                more = true;
                return ControlFlow::Break(());
            }
            let log = key.strip_prefix(PARKED).and_then(|log| std::str::from_utf8(log).ok());
            logs.extend(log.and_then(|log| log.parse::<LogId>().ok()));
            ControlFlow::Continue(())
        });
        scanned.map_err(|error| error.unavailable(HOP))?;
        let mut page =
            ParkedViewPage { logs: Vec::new(), next: logs.last().filter(|_| more).cloned() };
        for log in logs {
            let cursor = self.read_cursor(&log)?.filter(|cursor| cursor.parked.is_some());
            page.logs.extend(cursor.map(|cursor| (log, cursor)));
        }
        Ok(page)
    }

    async fn replace_parked(
        &self,
        log: &LogId,
        parked: &ParkedView,
        to: Seq,
        then: Option<&ParkedView>,
    ) -> Result<bool, Unavailable> {
        self.store.room().await?;
        {
            let _alone = self.stripes.of(log);
            let cursor = self.read_cursor(log)?.unwrap_or_default();
            if cursor.parked.as_ref() != Some(parked) {
                return Ok(false);
            }
            self.put_parked_cursor(log, &Cursor { seq: to, parked: then.cloned(), ..cursor });
        }
        self.store.durable().await?;
        Ok(true)
    }

    async fn clear(
        &self,
        log: &LogId,
        parked: &ParkedView,
        limit: usize,
    ) -> Result<Option<usize>, Unavailable> {
        self.store.room().await?;
        let rows = {
            let _alone = self.stripes.of(log);
            let cursor = self.read_cursor(log)?.unwrap_or_default();
            if cursor.parked.as_ref() != Some(parked) {
                return Ok(None);
            }
            let rows = self.some_rows(log, limit).map_err(|error| error.unavailable(HOP))?;
            self.store.write(|writes| {
                for (row, tombstone) in &rows {
                    writes.remove(self.table, row.clone());
                    if let Some(tombstone) = tombstone {
                        writes.remove(self.table, tombstone.clone());
                    }
                }
            });
            rows
        };
        self.store.durable().await?;
        interleave::reached(Between::Steps);
        Ok(Some(rows.len()))
    }
}
