//! Rows of a view: now, once it has reached a seq, or once they are others.

use fanfold::{LogId, RowKey, Seq};

use super::{Awaited, HOLE_MS, LogError, PAGE_BYTES, Reads, ServedView, ViewError, ViewPage};
use crate::ports::{Cursor, Row, RowRange};

/// The rows of a view that a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedRows {
    /// Those of a range.
    Range(RowRange),
    /// One.
    One(RowKey),
}

/// What a follower of a view has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenView {
    /// The seq of its last answer.
    pub seq: Seq,
    /// Whether the view was parked in that answer; `None` if the follower knows only the seq.
    pub is_parked: Option<bool>,
}

impl SeenView {
    /// Whether an answer with this cursor is another one.
    fn differs_from(&self, cursor: &Cursor) -> bool {
        let is_parked = cursor.parked.is_some();
        cursor.seq > self.seq
            || cursor.seq == self.seq && self.is_parked.is_some_and(|seen| seen != is_parked)
    }
}

impl Reads {
    /// The rows asked for, as soon as the answer differs from what a follower has `seen`, which is at
    /// once if it has seen nothing. `None` if it still does not differ after `wait_ms` milliseconds.
    /// Each entry that the view reaches makes another answer, because the seq is a part of it. Of one
    /// row, the page has no row while the view has none with that key.
    pub async fn rows_unlike(
        &self,
        seen: Option<SeenView>,
        view: &str,
        log: &LogId,
        asked: &AskedRows,
        wait_ms: u64,
    ) -> Result<Option<ViewPage>, ViewError> {
        let served = self.view(view, log).await?;
        let until = self.ports.env.now().plus_ms(wait_ms);
        let mut looks = 0;
        loop {
            looks += 1;
            let cursor = served.table.cursor(log).await.map_err(LogError::from)?;
            let cursor = cursor.unwrap_or_default();
            if looks == 1 && cursor.seq == Seq::ZERO {
                // Refuses a service that this host does not serve.
                self.accepted(log).await?;
            }
            let Some(seen) = seen.filter(|seen| !seen.differs_from(&cursor)) else {
                let page = match asked {
                    AskedRows::Range(range) => self.range(&served, cursor, log, range).await?,
                    AskedRows::One(key) => self.one(&served, cursor, log, key).await?,
                };
                return Ok(Some(page));
            };
            match self.left(until) {
                0 => return Ok(None),
                ms => {
                    let next = seen.seq.next();
                    self.ports.waits.view(&served.name, &*served.table, log, next, ms).await;
                    // After a wait the cursor is there, unless the view is parked.
                    if looks > 1 {
                        self.ports.env.sleep(HOLE_MS.min(self.left(until))).await;
                    }
                }
            }
        }
    }

    /// Rows of a view. With `seq`, waits up to `wait_ms` milliseconds until the view has reached
    /// it.
    pub async fn rows(
        &self,
        view: &str,
        log: &LogId,
        range: &RowRange,
        seq: Option<Seq>,
        wait_ms: u64,
    ) -> Result<Awaited<ViewPage>, ViewError> {
        let served = self.view(view, log).await?;
        match self.reached(&served, log, seq, wait_ms).await? {
            Awaited::Ready(cursor) => {
                Ok(Awaited::Ready(self.range(&served, cursor, log, range).await?))
            }
            Awaited::Pending { seq, parked } => Ok(Awaited::Pending { seq, parked }),
        }
    }

    /// One row of a view. Otherwise as [`Reads::rows`].
    pub async fn row(
        &self,
        view: &str,
        log: &LogId,
        key: &RowKey,
        seq: Option<Seq>,
        wait_ms: u64,
    ) -> Result<Awaited<ViewPage>, ViewError> {
        let served = self.view(view, log).await?;
        let cursor = match self.reached(&served, log, seq, wait_ms).await? {
            Awaited::Ready(cursor) => cursor,
            Awaited::Pending { seq, parked } => return Ok(Awaited::Pending { seq, parked }),
        };
        let page = self.one(&served, cursor, log, key).await?;
        if page.rows.is_empty() {
            return Err(ViewError::UnknownRow {
                view: served.name.clone(),
                log: log.clone(),
                key: key.clone(),
            });
        }
        Ok(Awaited::Ready(page))
    }

    /// A page of the range. The cursor was read before.
    async fn range(
        &self,
        served: &ServedView,
        cursor: Cursor,
        log: &LogId,
        range: &RowRange,
    ) -> Result<ViewPage, LogError> {
        let mut page = served.table.scan(log, range).await?;
        let mut bytes = 0;
        let fits = page.rows.iter().take_while(|row| {
            let fits = bytes < PAGE_BYTES.get();
            bytes += row.body.len();
            fits
        });
        let fits = fits.count();
        page.more |= fits < page.rows.len();
        page.rows.truncate(fits);
        let next = page.rows.last().filter(|_| page.more).map(|row| row.key.clone());
        Ok(served.page(cursor, page.rows, next))
    }

    /// A page with the row, or without one. The cursor was read before.
    async fn one(
        &self,
        served: &ServedView,
        cursor: Cursor,
        log: &LogId,
        key: &RowKey,
    ) -> Result<ViewPage, LogError> {
        let row = served.table.rows(log, std::slice::from_ref(key)).await?.pop().flatten();
        let row = row.and_then(|row| Some(Row { key: key.clone(), seq: row.seq, body: row.body? }));
        Ok(served.page(cursor, row.into_iter().collect(), None))
    }
}
