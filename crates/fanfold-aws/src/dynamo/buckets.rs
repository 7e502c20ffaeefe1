//! Logs that an index lists: its partition key is one of some buckets, its sort key the log.

use fanfold::LogId;
use fanfold_pipeline::ports::{CataloguePage, CataloguePosition, Unavailable};
use futures::future::try_join_all;
use md5::{Digest, Md5};

use super::item::{Item, Take, number, text};
use super::table::{Expression, Query, Table};
use crate::names::attribute::PK;

/// The number of the catalogue's buckets, which are the partition keys of its index. Source: our choice; it spreads the new
/// logs of the whole system over 64 partitions.
pub const BUCKETS: u8 = 64;
/// The number of buckets of the logs for which a view is parked. Source: our choice. Each run of a view's sweep queries all
/// of them and most often finds nothing, and 8 take 8,000 parked logs a second.
pub(super) const PARKED_BUCKETS: u8 = 8;
/// Buckets that are queried at the same time. Source: our choice; a walk over a quiet system makes 64
/// queries that find little, which one after another take about a second.
const BUCKETS_AT_ONCE: usize = 8;

/// The log's bucket in the catalogue. It is stored, so every build must compute the same.
pub fn bucket(log: &LogId) -> u8 {
    bucket_of(log, BUCKETS)
}

/// The log's bucket of so many.
pub(super) fn bucket_of(log: &LogId, buckets: u8) -> u8 {
    let digest: [u8; 16] = Md5::digest(log.as_str()).into();
    digest[0] % buckets
}

/// An index of a table that lists logs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buckets<'a> {
    pub table: &'a Table,
    pub index: &'static str,
    /// How many buckets there are.
    pub buckets: u8,
}

impl Buckets<'_> {
    /// At most `limit` logs behind `after`, in the order of buckets and, within a bucket, of logs. Makes at most as many
    /// queries as there are buckets left and pages of rows, some at the same time.
    pub(super) async fn page(
        self,
        after: Option<CataloguePosition>,
        limit: usize,
    ) -> Result<CataloguePage, Unavailable> {
        let limit = limit.max(1);
        let mut at = after.unwrap_or(CataloguePosition { bucket: 0, log: None });
        let mut logs: Vec<LogId> = Vec::new();
        let mut at_once = 1;
        while at.bucket < self.buckets && logs.len() < limit {
            let left = limit - logs.len();
            let asked = (at.bucket..self.buckets).take(at_once).map(|bucket| {
                let after = at.log.as_ref().filter(|_| bucket == at.bucket);
                self.bucket(bucket, after, left)
            });
            let pages = try_join_all(asked).await?;
            // Buckets are about equally full, so this queries as many as are probably needed.
            let expected = pages.first().map_or(0, |(listed, _)| listed.len());
            at_once = (left / expected.max(1)).clamp(1, BUCKETS_AT_ONCE);
            for (mut listed, more) in pages {
                let left = limit - logs.len();
                let more = more || listed.len() > left;
                listed.truncate(left);
                at = match listed.last() {
                    Some(last) if more => CataloguePosition { log: Some(last.clone()), ..at },
                    _ => CataloguePosition { bucket: at.bucket + 1, log: None },
                };
                logs.extend(listed);
                if more || logs.len() == limit {
                    break;
                }
            }
        }
        Ok(CataloguePage { logs, next: (at.bucket < self.buckets).then_some(at) })
    }

    /// Logs of one bucket after the log `after`, at most `limit`, and whether the bucket may have more.
    async fn bucket(
        self,
        bucket: u8,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<(Vec<LogId>, bool), Unavailable> {
        let of_bucket = || (":h", number(bucket.into()));
        let only = Some("#pk");
        let (index, limit) = (Some(self.index), Some(limit));
        let mut start = None;
        loop {
            let page = match after {
                Some(after) => {
                    let after = (":after", text(after.as_str()));
                    let keys = Expression("#h = :h AND #pk > :after", [of_bucket(), after]);
                    self.table
                        .query(Query { only, index, limit, start, ..Query::new(keys) })
                        .await?
                }
                None => {
                    let keys = Expression("#h = :h", [of_bucket()]);
                    self.table
                        .query(Query { only, index, limit, start, ..Query::new(keys) })
                        .await?
                }
            };
            let logs: Vec<LogId> = page.items.into_iter().filter_map(listed).collect();
            // A position in the index names a log, so the walk cannot stop at a page without any.
            if !logs.is_empty() || page.next.is_none() {
                return Ok((logs, page.next.is_some()));
            }
            start = page.next;
        }
    }
}

/// The log of a row of the index. Fanfold did not write a row without a log's name. Such a row is
/// skipped with an alarm, so that the walk does not end there (F7).
fn listed(mut item: Item) -> Option<LogId> {
    let name = item.text(PK).map_err(|error| error.to_string());
    let log = name.and_then(|name| name.parse().map_err(|error| format!("`{name}` {error}")));
    log.inspect_err(|problem| {
        tracing::error!(
            alarm = "foreign_log",
            problem,
            "a walk over logs skips a row that Fanfold did not write"
        );
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are stored: a build that changed them would list logs twice, or never.
    #[test]
    fn buckets_never_change() {
        let buckets = ["ledger/org:acme", "ledger/user:ann", "canary/org:canary-0"];
        let buckets = buckets.map(|log| bucket(&log.parse().expect("a log")));
        assert_eq!(buckets, [36, 19, 2]);
    }
}
