use std::collections::{BTreeMap, BTreeSet};
use std::iter::empty;
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

use async_trait::async_trait;
use fanfold::body::attempt::Lease;
use fanfold::{LogId, RowKey, Seq, Time};
use fanfold_pipeline::ports::{
    Advanced, Attempted, Cursor, ParkedView, PutRowError, Row, RowPage, RowRange, StoredRow,
    Unavailable, ViewTable,
};

use super::beyond_limit;
use super::state::KEYS_MAX;
use crate::striped::Striped;
use crate::waits::Waiters;

/// How long tombstones are kept, in milliseconds: a day, by which writers set `expires`.
pub(crate) const TOMBSTONE_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Default)]
struct ViewLog {
    cursor: Option<Cursor>,
    rows: BTreeMap<RowKey, StoredRow>,
    /// The rows that are tombstones, by when they expire.
    tombstones: BTreeSet<(Time, RowKey)>,
}

impl ViewLog {
    /// Unless the row's seq is another than `loaded`.
    fn put(
        &mut self,
        key: &RowKey,
        row: &StoredRow,
        loaded: Option<Seq>,
    ) -> Result<(), PutRowError> {
        match self.rows.get_mut(key) {
            stored if stored.as_ref().map(|stored| stored.seq) != loaded => {
                return Err(PutRowError::Conflict);
            }
            Some(stored) => {
                if let Some(expires) = expiry(stored) {
                    self.tombstones.remove(&(expires, key.clone()));
                }
                *stored = row.clone();
            }
            None => {
                self.rows.insert(key.clone(), row.clone());
            }
        }
        if let Some(expires) = expiry(row) {
            self.tombstones.insert((expires, key.clone()));
            self.expire(expires);
        }
        Ok(())
    }

    /// Who writes a tombstone that expires at `new` says that it is a day before: what has expired
    /// by then is removed. So nothing here needs a clock.
    fn expire(&mut self, new: Time) {
        let now = Time(new.0.saturating_sub(TOMBSTONE_MS));
        while self.tombstones.first().is_some_and(|(expires, _)| *expires <= now) {
            if let Some((_, key)) = self.tombstones.pop_first() {
                self.rows.remove(&key);
            }
        }
    }

    /// The live rows of a range, in the order asked for.
    fn range(&self, range: &RowRange) -> Box<dyn Iterator<Item = Row> + '_> {
        let prefix = range.prefix.as_str();
        let end = range.end();
        let (mut low, mut high) = (Included(prefix), Excluded(end.as_str()));
        match range.after.as_ref().map(RowKey::as_str) {
            Some(after) if range.descending && after <= prefix => return Box::new(empty()),
            Some(after) if !range.descending && after >= end.as_str() => return Box::new(empty()),
            Some(after) if range.descending && after < end.as_str() => high = Excluded(after),
            Some(after) if !range.descending && after >= prefix => low = Excluded(after),
            _ => {}
        }
        let within = self.rows.range::<str, _>((low, high));
        let live = |(key, row): (&RowKey, &StoredRow)| {
            Some(Row { key: key.clone(), seq: row.seq, body: row.body.clone()? })
        };
        if range.descending {
            Box::new(within.rev().filter_map(live))
        } else {
            Box::new(within.filter_map(live))
        }
    }
}

/// When a row expires, if it is a tombstone.
fn expiry(row: &StoredRow) -> Option<Time> {
    row.expires.filter(|_| row.body.is_none())
}

/// The table of one view.
///
/// Tombstones of a log are removed when one is put that expires at least a day later.
#[derive(Default)]
pub struct MemoryViewTable {
    logs: Striped<ViewLog>,
    waiters: Arc<Waiters>,
}

impl MemoryViewTable {
    /// Lets a parked view go on: what `park` has noted is gone.
    pub fn redrive(&self, log: &LogId) {
        let mut logs = self.logs.of(log);
        if let Some(cursor) = logs.get_mut(log).and_then(|log| log.cursor.as_mut()) {
            cursor.parked = None;
        }
    }

    /// Those who wait for the view.
    pub fn waiters(&self) -> &Arc<Waiters> {
        &self.waiters
    }
}

#[async_trait]
impl ViewTable for MemoryViewTable {
    async fn cursor(&self, log: &LogId) -> Result<Option<Cursor>, Unavailable> {
        Ok(self.logs.of(log).get(log).and_then(|log| log.cursor.clone()))
    }

    async fn rows(
        &self,
        log: &LogId,
        keys: &[RowKey],
    ) -> Result<Vec<Option<StoredRow>>, Unavailable> {
        if keys.len() > KEYS_MAX {
            return Err(beyond_limit("view table", keys.len(), KEYS_MAX, "keys"));
        }
        let logs = self.logs.of(log);
        let rows = logs.get(log).map(|log| &log.rows);
        Ok(keys.iter().map(|key| rows.and_then(|rows| rows.get(key)).cloned()).collect())
    }

    async fn put_row(
        &self,
        log: &LogId,
        key: &RowKey,
        row: &StoredRow,
        loaded: Option<Seq>,
    ) -> Result<(), PutRowError> {
        let mut logs = self.logs.of(log);
        logs.entry(log.clone()).or_default().put(key, row, loaded)
    }

    async fn advance(&self, log: &LogId, to: Seq) -> Result<Advanced, Unavailable> {
        {
            let mut logs = self.logs.of(log);
            let cursor = &mut logs.entry(log.clone()).or_default().cursor;
            match cursor {
                Some(cursor) if cursor.seq >= to || cursor.parked.is_some() => {
                    return Ok(Advanced::Refused(cursor.clone()));
                }
                cursor => cursor.get_or_insert_default().seq = to,
            }
        }
        self.waiters.reached(log, to);
        Ok(Advanced::Moved)
    }

    async fn mark_behind(&self, log: &LogId, target: Seq) -> Result<(), Unavailable> {
        let mut logs = self.logs.of(log);
        let cursor = logs.entry(log.clone()).or_default().cursor.get_or_insert_default();
        cursor.behind = cursor.behind.max(Some(target));
        Ok(())
    }

    async fn park(&self, log: &LogId, at: Seq, parked: &ParkedView) -> Result<(), Unavailable> {
        {
            let mut logs = self.logs.of(log);
            let cursor = &mut logs.entry(log.clone()).or_default().cursor;
            let stands = cursor.as_ref().map_or(Seq::ZERO, |cursor| cursor.seq) == at;
            if !stands || cursor.as_ref().is_some_and(|cursor| cursor.parked.is_some()) {
                return Ok(());
            }
            cursor.get_or_insert_default().parked = Some(parked.clone());
        }
        // Who waits learns at once that it waits in vain.
        self.waiters.stopped(log);
        Ok(())
    }

    async fn attempt(
        &self,
        log: &LogId,
        before: Option<&Lease>,
        lease: &Lease,
    ) -> Result<Attempted, Unavailable> {
        let mut logs = self.logs.of(log);
        let cursor = &mut logs.entry(log.clone()).or_default().cursor;
        let stands = cursor.as_ref().and_then(|cursor| cursor.attempt);
        if stands.as_ref() != before && stands.as_ref() != Some(lease) {
            return Ok(Attempted::Refused(stands));
        }
        cursor.get_or_insert_default().attempt = Some(*lease);
        Ok(Attempted::Noted)
    }

    async fn scan(&self, log: &LogId, range: &RowRange) -> Result<RowPage, Unavailable> {
        let logs = self.logs.of(log);
        let Some(log) = logs.get(log) else { return Ok(RowPage::default()) };
        let mut rows = log.range(range);
        let page = rows.by_ref().take(range.limit.max(1)).collect();
        Ok(RowPage { rows: page, more: rows.next().is_some() })
    }
}
