use async_trait::async_trait;
use aws_sdk_dynamodb::types::ReturnValue;
use fanfold::{LogId, Seq};
use fanfold_pipeline::ports::{
    Append, AppendError, CataloguePage, CataloguePosition, Change, Commands, Slot, Token,
    Unavailable,
};
use futures::future::try_join_all;
use md5::{Digest, Md5};

use super::item::{Item, Malformed, Take, bytes, item, number, random_bits, text};
use super::table::{Expression, Query, Table, WriteError};
use crate::Aws;
use crate::call::RetryPolicy;
use crate::names::CATALOGUE_INDEX;
use crate::names::attribute::{AT, BODY, CLOSED, N, PK, SEQ, TOKEN};

/// The number of the catalogue's buckets, which are the partition keys of its index. Source: our
/// choice; it spreads the new logs of the whole system over 64 partitions.
pub const BUCKETS: u8 = 64;
/// Buckets that are queried at the same time. Source: our choice; a walk over a quiet system makes 64
/// queries that find little, which one after another take about a second.
const BUCKETS_AT_ONCE: usize = 8;

const UPDATE: &str = "SET #seq = if_not_exists(#seq, :zero) + :n, #n = :n, #b = :b, #at = :at, \
                      #tok = :tok, #h = if_not_exists(#h, :h)";
const CONDITION: &str =
    "attribute_not_exists(#closed) AND (attribute_not_exists(#tok) OR #tok <> :tok)";

/// The commands table, with its catalogue.
///
/// | call | costs |
/// |---|---|
/// | `append` | a write unit per KB of the larger of the new slot and the old one, and one more for the log's first; one attempt, the ingest stage retries |
/// | `slot`, `batch` | a read unit per 4 KB of the slot, its batch included |
/// | `catalogue` | half a unit for each bucket begun, and for each 4 KB of names |
#[derive(Debug)]
pub struct DynamoCommands {
    table: Table,
}

impl DynamoCommands {
    /// The commands in this table.
    pub fn new(aws: &Aws, table: impl Into<String>) -> Self {
        Self { table: Table::new(aws, table, "commands table") }
    }

    /// Logs of one bucket after the log `after`, at most `limit`, and whether the bucket may have more.
    async fn bucket(
        &self,
        bucket: u8,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<(Vec<LogId>, bool), Unavailable> {
        let of_bucket = || (":h", number(bucket.into()));
        let only = Some("#pk");
        let (index, limit) = (Some(CATALOGUE_INDEX), Some(limit));
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
            // A position in the catalogue names a log, so the walk cannot stop at a page without any.
            if !logs.is_empty() || page.next.is_none() {
                return Ok((logs, page.next.is_some()));
            }
            start = page.next;
        }
    }
}

/// The log of a row of the catalogue. Fanfold did not write a row without a log's name. Such a row is
/// skipped with an alarm, so that the walk does not end there (F7).
fn listed(mut item: Item) -> Option<LogId> {
    let name = item.text(PK).map_err(|error| error.to_string());
    let log = name.and_then(|name| name.parse().map_err(|error| format!("`{name}` {error}")));
    log.inspect_err(|problem| {
        tracing::error!(
            alarm = "foreign_log",
            problem,
            "the sweep skips a row of the catalogue that Fanfold did not write"
        );
    })
    .ok()
}

/// The log's bucket in the catalogue. It is stored, so every build must compute the same.
pub fn bucket(log: &LogId) -> u8 {
    let digest: [u8; 16] = Md5::digest(log.as_str()).into();
    digest[0] % BUCKETS
}

#[async_trait]
impl Commands for DynamoCommands {
    async fn append(&self, log: &LogId, append: Append) -> Result<Seq, AppendError> {
        let update = Expression(
            UPDATE,
            [
                (":zero", number(0)),
                (":n", number(append.n)),
                (":b", bytes(&append.body)),
                (":at", number(append.at.0)),
                (":tok", random_bits(append.token.0)),
                (":h", number(bucket(log).into())),
            ],
        );
        // No option returns the seq alone. The other attributes are not billed.
        let returned = ReturnValue::UpdatedNew;
        let condition = Some(CONDITION);
        match self.table.update(key(log), update, condition, returned, RetryPolicy::NONE).await {
            Ok(mut updated) => Ok(updated.seq(SEQ).map_err(self.table.malformed())?),
            Err(WriteError::Conflict(Some(stored))) => {
                Err(AppendError::Refused(slot(stored).map_err(self.table.malformed())?))
            }
            Err(error) => Err(error.unavailable(&self.table).into()),
        }
    }

    async fn slot(&self, log: &LogId) -> Result<Option<Slot>, Unavailable> {
        let found = self.table.get(key(log), Some("#seq, #n, #at, #tok, #closed")).await?;
        found.map(slot).transpose().map_err(self.table.malformed())
    }

    async fn batch(&self, log: &LogId) -> Result<Option<Change>, Unavailable> {
        let found = self.table.get(key(log), Some("#seq, #n, #at, #tok, #b")).await?;
        let batch = |mut item: Item| {
            let body = item.bytes(BODY)?;
            let Slot { seq: last, n, at, token, .. } = slot(item)?;
            Ok(Change { log: log.clone(), last, n, at, token, body })
        };
        found.map(batch).transpose().map_err(self.table.malformed())
    }

    /// Makes at most as many queries as there are buckets left and pages of rows, some at the same time.
    async fn catalogue(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
    ) -> Result<CataloguePage, Unavailable> {
        let limit = limit.max(1);
        let mut at = after.unwrap_or(CataloguePosition { bucket: 0, log: None });
        let mut logs: Vec<LogId> = Vec::new();
        let mut at_once = 1;
        while at.bucket < BUCKETS && logs.len() < limit {
            let left = limit - logs.len();
            let asked = (at.bucket..BUCKETS).take(at_once).map(|bucket| {
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
        Ok(CataloguePage { logs, next: (at.bucket < BUCKETS).then_some(at) })
    }
}

fn key(log: &LogId) -> Item {
    item([(PK, text(log.as_str()))])
}

fn slot(mut item: Item) -> Result<Slot, Malformed> {
    Ok(Slot {
        seq: item.seq(SEQ)?,
        n: item.number(N)?,
        at: item.time(AT)?,
        token: Token(item.random_bits(TOKEN)?),
        closed: item.contains_key(CLOSED),
    })
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
