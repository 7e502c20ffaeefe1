//! Loads, folds and stores the rows that a log's entries touch, before the cursor moves.

use bytes::Bytes;
use fanfold::host::knob::Knob;
use fanfold::host::limits::ROW_BYTES_MAX;
use fanfold::view::{AnyRecorded, ApplyFault};
use fanfold::{Fault, LogId, RowKey, Seq};

use super::group::{Folded, Touching};
use super::{ProjectError, Projector};
use crate::at_once::{Pace, at_once};
use crate::ports::{Cursor, PutRowError, StoredRow};

/// Keys per read of a view table. Source: the port's limit.
pub(super) const KEYS_PER_READ: Knob = Knob::new(1_000, 1);
/// Rows of one log that are stored at the same time.
const ROWS_AT_ONCE: Pace = Pace::of(16);
/// How often a row is loaded again because another projector has written it.
const ROW_ATTEMPTS_MAX: usize = 10;
/// How long the tombstone of a row stays, in milliseconds. Source: every call that had loaded the
/// row has ended by then.
const TOMBSTONE_MS: u64 = 24 * 60 * 60 * 1_000;

impl Projector {
    /// The rows under these keys, in their order.
    pub(super) async fn load(
        &self,
        log: &LogId,
        keys: &[RowKey],
    ) -> Result<Vec<Option<StoredRow>>, ProjectError> {
        let mut loaded = Vec::new();
        for keys in keys.chunks(KEYS_PER_READ.get()) {
            match self.ports.table.rows(log, keys).await? {
                rows if loaded.is_empty() => loaded = rows,
                rows => loaded.extend(rows),
            }
        }
        Ok(loaded)
    }

    /// Folds the touched rows. `loaded` has them in the order of the keys.
    pub(super) fn fold_all(
        &self,
        touching: &Touching<'_>,
        loaded: Vec<Option<StoredRow>>,
    ) -> Result<Vec<Folded>, ApplyFault> {
        let keys = &touching.keys;
        let mut folded = Vec::with_capacity(keys.len());
        let mut first: Option<ApplyFault> = None;
        for (at, row) in loaded.into_iter().enumerate().take(keys.len()) {
            match self.fold(&keys[at], row.as_ref(), touching.of(at)) {
                Ok(None) => {}
                Ok(Some(row_after)) => {
                    let loaded = row.map(|row| row.seq);
                    folded.push(Folded { at, loaded, row: row_after });
                }
                Err(fault) => {
                    first = Some(first.filter(|first| first.at <= fault.at).unwrap_or(fault));
                }
            }
        }
        match first {
            Some(fault) => Err(fault),
            None => Ok(folded),
        }
    }

    /// Folds the entries above the row's seq into it; `None` if there are none.
    fn fold(
        &self,
        key: &RowKey,
        row: Option<&StoredRow>,
        entries: &[&AnyRecorded],
    ) -> Result<Option<StoredRow>, ApplyFault> {
        let seq = row.map_or(Seq::ZERO, |row| row.seq);
        let above = &entries[entries.partition_point(|entry| entry.seq <= seq)..];
        let Some(last) = above.last() else { return Ok(None) };
        let before = row.and_then(|row| row.body.as_deref());
        let body = self.view.fold(key, before, above)?;
        let too_large = |body: &Option<Vec<u8>>| {
            body.as_ref().map(Vec::len).filter(|bytes| *bytes > ROW_BYTES_MAX.get())
        };
        if let Some(mut bytes) = too_large(&body) {
            // A binary search for an entry that makes the row too large.
            let (mut fits, mut end) = (0, above.len());
            while fits + 1 < end {
                let middle = fits.midpoint(end);
                match too_large(&self.view.fold(key, before, &above[..middle])?) {
                    Some(larger) => (bytes, end) = (larger, middle),
                    None => fits = middle,
                }
            }
            let fault = Fault::new(format!(
                "the row `{key}` would be {bytes} bytes long, at most {ROW_BYTES_MAX} are allowed"
            ));
            return Err(ApplyFault { at: above[end - 1].seq, fault });
        }
        let expires = body.is_none().then(|| self.ports.env.now().plus_ms(TOMBSTONE_MS));
        Ok(Some(StoredRow { seq: last.seq, body: body.map(Bytes::from), expires }))
    }

    /// Stores the rows, then moves the cursor.
    pub(super) async fn store(
        &self,
        log: &LogId,
        cursor: Cursor,
        to: Seq,
        touching: &Touching<'_>,
        rows: Vec<Folded>,
    ) -> Result<Cursor, ProjectError> {
        // Fast path: one row needs no list.
        let mut rows = rows.into_iter().map(|row| self.store_row(log, touching, row));
        match (rows.next(), rows.len()) {
            (None, _) => {}
            (Some(row), 0) => row.await?,
            (Some(row), _) => {
                // Collected first, because otherwise the compiler cannot prove the stage `Send`.
                let rows: Vec<_> = std::iter::once(row).chain(rows).collect();
                let mut stored = Ok(());
                at_once(ROWS_AT_ONCE, rows, |row| {
                    if row.is_err() {
                        stored = row;
                    }
                })
                .await;
                stored?;
            }
        }
        if to > cursor.seq { self.move_cursor(log, cursor, to).await } else { Ok(cursor) }
    }

    /// Stores a row. If it has changed since it was loaded, loads and folds it again.
    async fn store_row(
        &self,
        log: &LogId,
        touching: &Touching<'_>,
        folded: Folded,
    ) -> Result<(), ProjectError> {
        let Folded { at, mut loaded, mut row } = folded;
        let (key, entries) = (&touching.keys[at], touching.of(at));
        for _ in 0..ROW_ATTEMPTS_MAX {
            match self.ports.table.put_row(log, key, &row, loaded).await {
                Ok(()) => return Ok(()),
                Err(PutRowError::Unavailable(unavailable)) => return Err(unavailable.into()),
                Err(PutRowError::Conflict) => {}
            }
            let again =
                self.ports.table.rows(log, std::slice::from_ref(key)).await?.pop().flatten();
            loaded = again.as_ref().map(|row| row.seq);
            row = match self.fold(key, again.as_ref(), entries) {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(()),
                // The fault depends on the other writer's row. If it is real, it comes again and
                // parks.
                Err(_) => break,
            };
        }
        Err(ProjectError::Contended(key.clone()))
    }
}
