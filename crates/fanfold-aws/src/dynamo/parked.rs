use std::fmt::Display;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use fanfold::{LogId, Seq};
use fanfold_pipeline::ports::{
    OperatorParked, ParkedItem, ParkedPage, ParkedPosition, ParkedTable, Unavailable,
};

use super::item::{Item, Malformed, Take, bytes, item, number, random_bits, text};
use super::table::{Expression, Query, Table};
use crate::Aws;
use crate::call::RetryPolicy;
use crate::names::attribute::{BODY, N, NONCE, PK, SEQ, SK};

/// The most bytes of a body in one item. Source: DynamoDB's items hold 400 KB, with keys and names.
const PART_BYTES_MAX: usize = 350 * 1024;
/// How often to read an item that is replaced while it is read. Source: our choice.
const READS_MAX: usize = 5;

/// The parked table.
///
/// An item of the table holds 400 KB, but a record that cannot be decoded may have 1 MiB, so a larger
/// body is stored in parts. The log's own item has the first part, the number of parts (`n`), and the
/// nonce of the call that stored them (`w`). The other parts have a partition key of their own, so
/// lists do not read them. They are stored before the item that names them, and deleted after it. An
/// attempt that ends half-way may leave parts without an item, which are never read.
///
/// | call | costs |
/// |---|---|
/// | `park` | a write unit per KB of the larger of the new item and the old one, and of each further part |
/// | `list` | a read unit for each 4 KB of the items listed, one if there are none |
/// | `scan` | a read unit for each 4 KB of the items read, parts included |
/// | `remove` | a write unit per KB of the item, one if there is no item |
#[derive(Debug)]
pub struct DynamoParked {
    table: Table,
}

/// A stored item: the first part of a body.
struct First {
    seq: Seq,
    body: Bytes,
    rest: Option<Rest>,
}

/// The other parts of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rest {
    /// The number of all parts, with the first.
    parts: u64,
    /// The nonce of the call that stored them.
    nonce: u128,
}

impl DynamoParked {
    /// The parked table with this name.
    pub fn new(aws: &Aws, table: impl Into<String>) -> Self {
        Self { table: Table::new(aws, table, "parked table") }
    }

    /// The parked item of a stored item, with all of its parts; `None` if it was removed meanwhile.
    async fn whole(&self, log: &LogId, mut found: Item) -> Result<Option<ParkedItem>, Unavailable> {
        // Every item has a sort key, which is a text.
        let key = found.get(SK).and_then(|key| key.as_s().ok()).cloned().unwrap_or_default();
        let mut incomplete = None;
        for _ in 0..READS_MAX {
            let first = match read(found) {
                Ok(first) => first,
                Err(error) => return Ok(Some(damaged(log, &key, &error))),
            };
            if let Some(body) = self.whole_body(log, &key, &first).await? {
                let identity = identity(&key).to_owned();
                return Ok(Some(ParkedItem { seq: first.seq, identity, body }));
            }
            // Parts are stored before the item that names them, and removed after it. If the item is
            // the same after two reads without a part, the part is lost.
            if incomplete == first.rest {
                return Ok(Some(damaged(log, &key, &"a part is missing")));
            }
            incomplete = first.rest;
            // Otherwise the item may have been replaced or removed since its first part was read.
            let itself = Expression(
                "#pk = :pk AND #sk = :sk",
                [(":pk", text(log.as_str())), (":sk", text(&key))],
            );
            match self.table.query(Query::new(itself)).await?.items.pop() {
                Some(again) => found = again,
                None => return Ok(None),
            }
        }
        Err(self.table.failed(format!("`{key}` of {log} is replaced all the time")))
    }

    /// The body with all parts; `None` if a part is missing.
    async fn whole_body(
        &self,
        log: &LogId,
        key: &str,
        first: &First,
    ) -> Result<Option<Bytes>, Unavailable> {
        let Some(Rest { parts, nonce }) = first.rest else { return Ok(Some(first.body.clone())) };
        let mut body = BytesMut::from(&*first.body);
        let (mut found, mut start) = (1, None);
        loop {
            let of_this_call = Expression(
                "#pk = :pk AND begins_with(#sk, :nonce)",
                [(":pk", text(parts_key(log, key))), (":nonce", text(part_key(nonce, None)))],
            );
            let page = self.table.query(Query { start, ..Query::new(of_this_call) }).await?;
            for mut part in page.items {
                let Ok(bytes) = part.bytes(BODY) else { return Ok(None) };
                body.extend(bytes);
                found += 1;
            }
            start = page.next;
            if start.is_none() {
                return Ok((found == parts).then(|| body.freeze()));
            }
        }
    }

    /// The position behind the item with this key: both parts of the key, as JSON.
    fn position(&self, mut key: Item) -> Result<ParkedPosition, Unavailable> {
        let parts = key.text(PK).and_then(|pk| Ok([pk, key.text(SK)?]));
        let parts = parts.map_err(self.table.malformed())?;
        let text = serde_json::to_string(&parts).map_err(|error| self.table.failed(error))?;
        Ok(ParkedPosition(text))
    }

    async fn remove_parts(
        &self,
        log: &LogId,
        key: &str,
        Rest { parts, nonce }: Rest,
    ) -> Result<(), Unavailable> {
        for part in 1..parts {
            self.table.delete(part_of(log, key, nonce, part)).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl ParkedTable for DynamoParked {
    async fn park(&self, log: &LogId, parked: &ParkedItem) -> Result<(), Unavailable> {
        let key = sort_key(parked.seq, &parked.identity);
        let mut parts = parked.body.chunks(PART_BYTES_MAX);
        let first = parts.next().unwrap_or_default();
        let mut stored = item([
            (PK, text(log.as_str())),
            (SK, text(&key)),
            (SEQ, number(parked.seq.0)),
            (BODY, bytes(first)),
        ]);
        let rest = (parts.len() > 0)
            .then(|| Rest { parts: parts.len() as u64 + 1, nonce: rand::random() });
        if let Some(Rest { parts: n, nonce }) = rest {
            for (part, body) in (1..).zip(parts) {
                let mut item = part_of(log, &key, nonce, part);
                item.insert(BODY.to_owned(), bytes(body));
                let put = self.table.put::<0>(item, None, RetryPolicy::BRIEF).await;
                put.map_err(|error| error.unavailable(&self.table))?;
            }
            stored.insert(N.to_owned(), number(n));
            stored.insert(NONCE.to_owned(), random_bits(nonce));
        }
        let put = self.table.put::<0>(stored, None, RetryPolicy::BRIEF).await;
        let before = put.map_err(|error| error.unavailable(&self.table))?;
        // An old item that cannot be read names no parts to remove.
        let before = before.and_then(|before| read(before).ok());
        match before.and_then(|before| before.rest) {
            Some(before) if rest != Some(before) => self.remove_parts(log, &key, before).await,
            _ => Ok(()),
        }
    }

    async fn list(
        &self,
        log: &LogId,
        from: (Seq, &str),
        limit: usize,
    ) -> Result<Vec<ParkedItem>, Unavailable> {
        let mut items = Vec::new();
        let mut start = None;
        while items.len() < limit {
            let keys = Expression(
                "#pk = :pk AND #sk >= :from",
                [(":pk", text(log.as_str())), (":from", text(sort_key(from.0, from.1)))],
            );
            let left = Some(limit - items.len());
            let page = self.table.query(Query { limit: left, start, ..Query::new(keys) }).await?;
            for found in page.items {
                items.extend(self.whole(log, found).await?);
            }
            start = page.next;
            if start.is_none() {
                break;
            }
        }
        Ok(items)
    }

    async fn remove(&self, log: &LogId, seq: Seq, identity: &str) -> Result<(), Unavailable> {
        let sort_key = sort_key(seq, identity);
        let key = item([(PK, text(log.as_str())), (SK, text(&sort_key))]);
        let removed = self.table.delete(key).await?;
        let removed = removed.and_then(|removed| read(removed).ok());
        match removed.and_then(|removed| removed.rest) {
            Some(rest) => self.remove_parts(log, &sort_key, rest).await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl OperatorParked for DynamoParked {
    fn is_position(&self, after: &ParkedPosition) -> bool {
        key_of(after).is_some()
    }

    async fn scan(
        &self,
        after: Option<&ParkedPosition>,
        limit: usize,
    ) -> Result<ParkedPage, Unavailable> {
        let no_position = || self.table.failed("the position is not one of this table");
        let start = after.map(|after| key_of(after).ok_or_else(no_position)).transpose()?;
        let page = self.table.scan(None, limit, start).await?;
        let next = page.next.map(|key| self.position(key)).transpose()?;
        let mut items = Vec::new();
        for found in page.items {
            let pk = found.get(PK).and_then(|pk| pk.as_s().ok());
            let Some(pk) = pk.filter(|pk| !is_of_parts(pk)) else { continue };
            match pk.parse::<LogId>() {
                Ok(log) => {
                    let item = self.whole(&log, found).await?;
                    items.extend(item.map(|item| (log, item)));
                }
                Err(problem) => tracing::error!(
                    alarm = "foreign_log",
                    pk,
                    %problem,
                    "a list of what is parked skips an item that Fanfold did not write"
                ),
            }
        }
        Ok(ParkedPage { items, next })
    }
}

/// The sort key of a parked item. All seqs have the same number of digits, so that texts sort as
/// numbers.
fn sort_key(seq: Seq, identity: &str) -> String {
    format!("{:020}#{identity}", seq.0)
}

fn identity(sort_key: &str) -> &str {
    sort_key.split_once('#').map_or("", |(_, identity)| identity)
}

/// The parked item that is listed for a stored item that cannot be read whole. Its body is empty, since
/// a part of it could be taken for a shorter body. It waits for an operator. Such an item appears if a
/// put takes effect after the item and its parts were removed.
fn damaged(log: &LogId, sort_key: &str, problem: &dyn Display) -> ParkedItem {
    tracing::error!(
        alarm = "parked_damaged",
        %log,
        sort_key,
        %problem,
        "the processor cannot read a parked item: an operator must look at it"
    );
    let seq = sort_key.split_once('#').and_then(|(seq, _)| seq.parse().ok());
    let identity = identity(sort_key).to_owned();
    ParkedItem { seq: seq.map_or(Seq::ZERO, Seq), identity, body: Bytes::new() }
}

/// The partition key of an item's parts. No log's name has a `#`, which every sort key has, so it cannot be that of a
/// log.
fn parts_key(log: &LogId, sort_key: &str) -> String {
    format!("{log} {sort_key}")
}

/// The sort key of a part, or without `part` the prefix of all parts that a call stored.
fn part_key(nonce: u128, part: Option<u64>) -> String {
    let part = part.map(|part| format!("{part:04}"));
    format!("{nonce:032x}#{}", part.unwrap_or_default())
}

/// The key that a position names; `None` if it is no position.
fn key_of(ParkedPosition(position): &ParkedPosition) -> Option<Item> {
    let [pk, sk]: [String; 2] = serde_json::from_str(position).ok()?;
    Some(item([(PK, text(pk)), (SK, text(sk))]))
}

/// Whether it is the partition key of parts.
fn is_of_parts(pk: &str) -> bool {
    pk.contains('#')
}

fn part_of(log: &LogId, sort_key: &str, nonce: u128, part: u64) -> Item {
    item([(PK, text(parts_key(log, sort_key))), (SK, text(part_key(nonce, Some(part))))])
}

fn read(mut item: Item) -> Result<First, Malformed> {
    let parts = item.take_number(N)?;
    Ok(First {
        seq: item.seq(SEQ)?,
        body: item.bytes(BODY)?,
        rest: match parts {
            Some(parts) => Some(Rest { parts, nonce: item.random_bits(NONCE)? }),
            None => None,
        },
    })
}
