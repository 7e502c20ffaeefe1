use async_trait::async_trait;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use fanfold::host::body::lease::Lease;
use fanfold::{LogId, RowKey, Seq, Time};
use fanfold_pipeline::ports::{
    CataloguePosition, Cursor, CursorMove, LeaseWrite, OperatorView, ParkedView, ParkedViewPage,
    PutRowError, Row, RowPage, RowRange, StoredRow, Unavailable, ViewTable,
};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::buckets::{Buckets, PARKED_BUCKETS, bucket_of};
use super::item::{Item, Malformed, Take, bytes, item, number, text};
use super::table::{Expression, Query, Table, WriteError};
use crate::Aws;
use crate::call::RetryPolicy;
use crate::names::PARKED_INDEX;
use crate::names::attribute::{
    ATTEMPT_AT, ATTEMPTS, BEHIND, BODY, OWNER, PARKED, PK, SEQ, SK, TTL, UNTIL,
};

const CURSOR: &str = "cursor";
const ROW: &str = "row#";
/// A scan ends after the row with which its rows have this many bytes. Source: about a page of
/// DynamoDB.
const PAGE_BYTES: usize = 1024 * 1024;
/// The most rows that one query of a scan reads. A scan may have to read more rows than it returns,
/// since some may be tombstones. Source: our choice.
const ROWS_PER_QUERY_MAX: usize = 1_000;

/// Keys of rows that one query of a removal reads. Source: our choice; it also reads the rows, of which some are large.
const ROWS_PER_CLEAR: usize = 100;
/// Rows that one transaction removes. Source: the items of a transaction may have 4 MB, and one may have 400 KB.
const DELETES_PER_TRANSACTION: usize = 9;

/// Cursors of parked logs that are read at the same time. Source: our choice.
const CURSORS_AT_ONCE: usize = 32;

/// The table of one view.
///
/// | call | costs |
/// |---|---|
/// | `cursor` | a read unit |
/// | `rows` | per key a read unit for each 4 KB of its row, one if there is no row |
/// | `put_row` | a write unit per KB of the larger of the new row and the old one |
/// | `move_cursor`, `mark_behind`, `replace_lease` | a write unit, refused or not |
/// | `park` | two write units, of which one for the index; one if it is refused |
/// | `release` | a read unit, and a write unit if the view is parked so; the next move of the cursor one more, for the index |
/// | `replace_parked` | a read unit, and a write unit if the view is parked so |
/// | `clear` | a read unit, and one for each 4 KB of the rows; per row two write units for each KB of it, and two read units for each 9 rows |
/// | `parked` | half a unit for each bucket begun, and for each 4 KB of names; a read unit for each log |
/// | `scan` | a read unit for each 4 KB of the rows returned, of the tombstones between them, and of one more row, which shows whether there are more |
#[derive(Debug)]
pub struct DynamoViewTable {
    table: Table,
}

impl DynamoViewTable {
    /// The view in this table.
    pub fn new(aws: &Aws, table: impl Into<String>) -> Self {
        Self { table: Table::new(aws, table, "view table") }
    }

    /// Updates the cursor if `condition` holds; otherwise returns the cursor as it is.
    async fn change<const N: usize>(
        &self,
        log: &LogId,
        update: Expression<'_, N>,
        condition: Option<&str>,
    ) -> Result<Option<Cursor>, Unavailable> {
        let (key, returned) = (cursor_key(log), ReturnValue::None);
        match self.table.update(key, update, condition, returned, RetryPolicy::BRIEF).await {
            Ok(_) => Ok(None),
            Err(WriteError::Conflict(there)) => {
                let there = there.unwrap_or_default();
                cursor(there).map(Some).map_err(self.table.malformed())
            }
            Err(WriteError::Unavailable(unavailable)) => Err(unavailable),
        }
    }

    /// The cursor with the reason as it is stored, if the view is parked as `parked` says. Conditions compare what is
    /// stored: another build may have written it, with fields that this one does not know.
    async fn parked_as(
        &self,
        log: &LogId,
        parked: &ParkedView,
    ) -> Result<Option<(Cursor, String)>, Unavailable> {
        let found = self.table.get_many(log, [CURSOR]).await?.pop().flatten().unwrap_or_default();
        let why = found.get(PARKED).and_then(|why| why.as_s().ok()).cloned().unwrap_or_default();
        let found = cursor(found).map_err(self.table.malformed())?;
        Ok((found.parked.as_ref() == Some(parked)).then_some((found, why)))
    }

    fn encoded(&self, parked: &ParkedView) -> Result<String, Unavailable> {
        serde_json::to_string(parked).map_err(|error| self.table.failed(error))
    }
}

#[async_trait]
impl ViewTable for DynamoViewTable {
    async fn cursor(&self, log: &LogId) -> Result<Option<Cursor>, Unavailable> {
        let found = self.table.get_many(log, [CURSOR]).await?.pop().flatten();
        found.map(cursor).transpose().map_err(self.table.malformed())
    }

    async fn rows(
        &self,
        log: &LogId,
        keys: &[RowKey],
    ) -> Result<Vec<Option<StoredRow>>, Unavailable> {
        let sks: Vec<String> = keys.iter().map(sort_key).collect();
        let found = self.table.get_many(log, sks.iter().map(String::as_str)).await?;
        let rows = found.into_iter().map(|item| item.map(row).transpose());
        rows.collect::<Result<_, _>>().map_err(self.table.malformed())
    }

    /// If a first attempt stored the row without an answer, the second returns a conflict. The
    /// caller then reloads the row, which shows that it is done.
    async fn put_row(
        &self,
        log: &LogId,
        key: &RowKey,
        row: &StoredRow,
        loaded: Option<Seq>,
    ) -> Result<(), PutRowError> {
        let mut item =
            item([(PK, text(log.as_str())), (SK, text(sort_key(key))), (SEQ, number(row.seq.0))]);
        item.extend(row.body.as_ref().map(|body| (BODY.to_owned(), bytes(body))));
        // Rounded up, so that DynamoDB never removes the row too early.
        let expires_s = row.expires.map(|expires| expires.0.div_ceil(1_000));
        item.extend(expires_s.map(|expires_s| (TTL.to_owned(), number(expires_s))));
        let put = match loaded {
            Some(loaded) => {
                let unchanged = Expression("#seq = :loaded", [(":loaded", number(loaded.0))]);
                self.table.put(item, Some(unchanged), RetryPolicy::BRIEF).await
            }
            None => {
                let is_new = Expression("attribute_not_exists(#pk)", []);
                self.table.put(item, Some(is_new), RetryPolicy::BRIEF).await
            }
        };
        match put {
            Ok(_) => Ok(()),
            Err(WriteError::Conflict(_)) => Err(PutRowError::Conflict),
            Err(WriteError::Unavailable(unavailable)) => Err(unavailable.into()),
        }
    }

    async fn move_cursor(&self, log: &LogId, to: Seq) -> Result<CursorMove, Unavailable> {
        // A released cursor leaves the index of what is parked.
        let update = Expression("SET #seq = :to REMOVE #h", [(":to", number(to.0))]);
        let condition =
            "attribute_not_exists(#parked) AND (attribute_not_exists(#seq) OR #seq < :to)";
        let refused = self.change(log, update, Some(condition)).await?;
        Ok(refused.map_or(CursorMove::Moved, CursorMove::Refused))
    }

    async fn mark_behind(&self, log: &LogId, target: Seq) -> Result<(), Unavailable> {
        let update = Expression("SET #behind = :target", [(":target", number(target.0))]);
        let condition = "attribute_not_exists(#behind) OR #behind < :target";
        self.change(log, update, Some(condition)).await.map(|_| ())
    }

    async fn park(&self, log: &LogId, at: Seq, parked: &ParkedView) -> Result<(), Unavailable> {
        let why = self.encoded(parked)?;
        let update = Expression(
            "SET #parked = :why, #h = :h",
            [(":why", text(why)), (":h", number(parked_bucket(log).into())), (":at", number(at.0))],
        );
        let stands = "attribute_not_exists(#parked) AND #seq = :at";
        let stands_at_zero =
            "attribute_not_exists(#parked) AND (attribute_not_exists(#seq) OR #seq = :at)";
        let condition = if at == Seq::ZERO { stands_at_zero } else { stands };
        self.change(log, update, Some(condition)).await.map(|_| ())
    }

    /// The cursor stays in the index of what is parked until it moves. If a first attempt released it without an answer,
    /// the second finds it released, and returns true if it is where the first has left it.
    async fn release(
        &self,
        log: &LogId,
        parked: &ParkedView,
        to: Option<Seq>,
    ) -> Result<bool, Unavailable> {
        let Some((found, why)) = self.parked_as(log, parked).await? else { return Ok(false) };
        let to = to.unwrap_or_default().max(found.seq);
        let stands = "#parked = :why AND (attribute_not_exists(#seq) OR #seq <= :to)";
        let update = Expression(
            "SET #seq = :to REMOVE #parked",
            [(":to", number(to.0)), (":why", text(why))],
        );
        let refused = self.change(log, update, Some(stands)).await?;
        Ok(refused.is_none_or(|cursor| cursor.parked.is_none() && cursor.seq == to))
    }

    /// If a first attempt stored the lease without an answer, the second finds it and returns
    /// [`LeaseWrite::Stored`].
    async fn replace_lease(
        &self,
        log: &LogId,
        before: Option<&Lease>,
        lease: &Lease,
    ) -> Result<LeaseWrite, Unavailable> {
        let set = "SET #attempts = :attempts, #begun = :begun, #until = :until, #owner = :owner";
        let [attempts, begun, until, owner] = numbers(lease);
        let new =
            [(":attempts", attempts), (":begun", begun), (":until", until), (":owner", owner)];
        let refused = match before.map(numbers) {
            None => {
                let condition = "attribute_not_exists(#attempts)";
                self.change(log, Expression(set, new), Some(condition)).await?
            }
            Some(was) => {
                let condition =
                    "#attempts = :was0 AND #begun = :was1 AND #until = :was2 AND #owner = :was3";
                let ([n0, n1, n2, n3], [w0, w1, w2, w3]) = (new, was);
                let values =
                    [n0, n1, n2, n3, (":was0", w0), (":was1", w1), (":was2", w2), (":was3", w3)];
                self.change(log, Expression(set, values), Some(condition)).await?
            }
        };
        Ok(match refused {
            None => LeaseWrite::Stored,
            Some(cursor) if cursor.lease.as_ref() == Some(lease) => LeaseWrite::Stored,
            Some(cursor) => LeaseWrite::Refused(cursor.lease),
        })
    }

    async fn scan(&self, log: &LogId, range: &RowRange) -> Result<RowPage, Unavailable> {
        let Some(KeyRange { lowest, highest, mut start }) = KeyRange::of(log, range) else {
            return Ok(RowPage::default());
        };
        let limit = range.limit.max(1);
        let mut rows: Vec<Row> = Vec::new();
        let mut bytes = 0;
        let mut looks_at = limit.saturating_add(1);
        loop {
            let keys = Expression(
                "#pk = :pk AND #sk BETWEEN :lowest AND :highest",
                [
                    (":pk", text(log.as_str())),
                    (":lowest", text(&lowest)),
                    (":highest", text(&highest)),
                ],
            );
            let query = Query {
                descending: range.descending,
                limit: Some(looks_at.min(ROWS_PER_QUERY_MAX)),
                start,
                ..Query::new(keys)
            };
            let page = self.table.query(query).await?;
            for item in page.items {
                let row = live_row(item).map_err(self.table.malformed())?;
                bytes += row.as_ref().map_or(0, |row| row.body.len());
                rows.extend(row);
            }
            // One row too many shows that there are more, whether or not others follow it.
            let fits = limit.min(if bytes > PAGE_BYTES { rows.len() - 1 } else { limit }).max(1);
            if rows.len() > fits {
                rows.truncate(fits);
                return Ok(RowPage { rows, more: true });
            }
            let Some(next) = page.next else { return Ok(RowPage { rows, more: false }) };
            start = Some(next);
            // Tombstones or large rows have made this page too short. There may be many more of them,
            // so the next query reads more.
            looks_at = looks_at.saturating_mul(4);
        }
    }
}

#[async_trait]
impl OperatorView for DynamoViewTable {
    /// The index names the logs, and the cursors are read from the table, as they are now.
    async fn parked(
        &self,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<ParkedViewPage, Unavailable> {
        let after = after
            .map(|log| CataloguePosition { bucket: parked_bucket(log), log: Some(log.clone()) });
        let index = Buckets { table: &self.table, index: PARKED_INDEX, buckets: PARKED_BUCKETS };
        let page = index.page(after, limit).await?;
        let next = page.next.and(page.logs.last().cloned());
        let cursors = page.logs.into_iter().map(|log| async move {
            let cursor = self.cursor(&log).await?;
            Ok((log, cursor))
        });
        let cursors = stream::iter(cursors).buffered(CURSORS_AT_ONCE);
        let cursors: Vec<(LogId, Option<Cursor>)> = cursors.try_collect().await?;
        let logs = cursors.into_iter().filter_map(|(log, cursor)| Some((log, cursor?)));
        Ok(ParkedViewPage { logs: logs.collect(), next })
    }

    /// The cursor stays in the index of what is parked until it moves, as after a release. If a first attempt replaced the
    /// reason without an answer, the second finds that, and returns true if the cursor is where the first has left it.
    async fn replace_parked(
        &self,
        log: &LogId,
        parked: &ParkedView,
        to: Seq,
        then: Option<&ParkedView>,
    ) -> Result<bool, Unavailable> {
        let Some((_, why)) = self.parked_as(log, parked).await? else { return Ok(false) };
        let (to_value, why) = ((":to", number(to.0)), (":why", text(why)));
        let refused = match then {
            Some(then) => {
                let then = (":then", text(self.encoded(then)?));
                let update = Expression("SET #seq = :to, #parked = :then", [to_value, why, then]);
                self.change(log, update, Some("#parked = :why")).await?
            }
            None => {
                let update = Expression("SET #seq = :to REMOVE #parked", [to_value, why]);
                self.change(log, update, Some("#parked = :why")).await?
            }
        };
        Ok(refused.is_none_or(|cursor| cursor.parked.as_ref() == then && cursor.seq == to))
    }

    /// Each transaction checks the cursor, so that none takes effect after a release.
    async fn clear(
        &self,
        log: &LogId,
        parked: &ParkedView,
        limit: usize,
    ) -> Result<Option<usize>, Unavailable> {
        let Some((_, why)) = self.parked_as(log, parked).await? else { return Ok(None) };
        let mut cleared = 0;
        while cleared < limit {
            let keys = Expression(
                "#pk = :pk AND begins_with(#sk, :row)",
                [(":pk", text(log.as_str())), (":row", text(ROW))],
            );
            let least = (limit - cleared).min(ROWS_PER_CLEAR);
            let query = Query { only: Some("#pk, #sk"), limit: Some(least), ..Query::new(keys) };
            let items = self.table.query(query).await?.items;
            for some in items.chunks(DELETES_PER_TRANSACTION) {
                let stands = Expression("#parked = :why", [(":why", text(&why))]);
                if !self.table.delete_if(cursor_key(log), stands, some.to_vec()).await? {
                    return Ok(None);
                }
                cleared += some.len();
            }
            if items.is_empty() {
                break;
            }
        }
        Ok(Some(cleared))
    }
}

/// The sort keys of a range, with both ends included.
struct KeyRange {
    lowest: String,
    highest: String,
    /// The key after which to continue: that of one of both ends.
    start: Option<Item>,
}

impl KeyRange {
    /// `None` if the range is empty.
    fn of(log: &LogId, range: &RowRange) -> Option<Self> {
        let mut lowest = format!("{ROW}{}", range.prefix);
        let mut highest = format!("{ROW}{}", range.end());
        let Some(after) = range.after.as_ref().map(sort_key) else {
            return Some(Self { lowest, highest, start: None });
        };
        let is_inside = lowest <= after && after <= highest;
        let start = is_inside.then(|| item([(PK, text(log.as_str())), (SK, text(&after))]));
        if is_inside {
            *(if range.descending { &mut highest } else { &mut lowest }) = after;
        } else if range.descending == (after < lowest) {
            return None;
        }
        Some(Self { lowest, highest, start })
    }
}

/// The log's bucket in the index of what is parked. It is stored.
fn parked_bucket(log: &LogId) -> u8 {
    bucket_of(log, PARKED_BUCKETS)
}

fn cursor_key(log: &LogId) -> Item {
    item([(PK, text(log.as_str())), (SK, text(CURSOR))])
}

fn sort_key(key: &RowKey) -> String {
    format!("{ROW}{key}")
}

/// The cursor of an item. One that was only marked behind, parked or leased has no seq yet: it is zero.
fn cursor(mut item: Item) -> Result<Cursor, Malformed> {
    let parked = item.take_text(PARKED)?;
    let parked = parked.map(|json| serde_json::from_str(&json)).transpose();
    Ok(Cursor {
        seq: Seq(item.take_number(SEQ)?.unwrap_or_default()),
        behind: item.take_number(BEHIND)?.map(Seq),
        parked: parked.map_err(|_| Malformed { attribute: PARKED, problem: "not a reason" })?,
        lease: lease(&mut item)?,
    })
}

/// The values of a lease's attributes: attempts, begun, until, owner.
fn numbers(lease: &Lease) -> [AttributeValue; 4] {
    [lease.attempts.into(), lease.at.0, lease.until.0, lease.owner].map(number)
}

fn lease(item: &mut Item) -> Result<Option<Lease>, Malformed> {
    let Some(attempts) = item.take_number(ATTEMPTS)? else { return Ok(None) };
    let attempts = u32::try_from(attempts);
    Ok(Some(Lease {
        attempts: attempts.map_err(|_| Malformed { attribute: ATTEMPTS, problem: "too large" })?,
        at: item.time(ATTEMPT_AT)?,
        until: item.time(UNTIL)?,
        owner: item.number(OWNER)?,
    }))
}

fn row(mut item: Item) -> Result<StoredRow, Malformed> {
    let expires_s = item.take_number(TTL)?;
    Ok(StoredRow {
        seq: item.seq(SEQ)?,
        body: item.take_bytes(BODY)?,
        expires: expires_s.map(|expires_s| Time(expires_s.saturating_mul(1_000))),
    })
}

/// The row of an item; `None` for a tombstone.
fn live_row(mut item: Item) -> Result<Option<Row>, Malformed> {
    let Some(body) = item.take_bytes(BODY)? else { return Ok(None) };
    let sk = item.text(SK)?;
    let key = sk.strip_prefix(ROW).and_then(|key| RowKey::new(key).ok());
    let key = key.ok_or(Malformed { attribute: SK, problem: "not the key of a row" })?;
    Ok(Some(Row { key, seq: item.seq(SEQ)?, body }))
}
