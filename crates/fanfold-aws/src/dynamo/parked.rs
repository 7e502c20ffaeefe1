use std::fmt::Display;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use fanfold::{LogId, Seq};
use fanfold_pipeline::ports::{ParkedItem, ParkedTable, Unavailable};

use super::item::{Item, Malformed, Take, bytes, item, number, random_bits, text};
use super::table::{Expression, Query, Table};
use crate::Aws;
use crate::call::Tries;
use crate::names::attribute::{BODY, N, NONCE, PK, SEQ, SK};

/// Bytes of a body that one item takes; DynamoDB's items hold 400 KB, keys included.
const PART_BYTES_MAX: usize = 350 * 1024;
/// How often an item is read that is replaced while it is read.
const READS_MAX: usize = 5;

/// The parked table.
///
/// An item of the table holds 400 KB, but what cannot be decoded may be a whole record of the
/// stream, 1 MiB: a larger body is kept in parts. The log's own item has the first, and says how
/// many there are (`n`) and which call has stored them (`w`). The others are under a partition key of
/// their own, so that they are in no list's way; they are stored before the item that names them,
/// and deleted after it. What is left of an attempt that ended half-way is nobody's, and harmless.
///
/// | call | costs |
/// |---|---|
/// | `park` | a write unit per KB of the larger of the new item and the one before, and of each further part |
/// | `list` | a read unit for each 4 KB of the items listed, one if there is none |
/// | `remove` | a write unit per KB of the item, one if it is not there |
#[derive(Debug)]
pub struct DynamoParked {
    table: Table,
}

/// An item as it is stored: the first part of a body.
struct First {
    seq: Seq,
    body: Bytes,
    rest: Option<Rest>,
}

/// Where the other parts of a body are.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rest {
    /// How many parts there are in all.
    parts: u64,
    /// The call that stored them.
    nonce: u128,
}

impl DynamoParked {
    /// What is parked in this table.
    pub fn new(aws: &Aws, table: impl Into<String>) -> Self {
        Self { table: Table::new(aws, table, "parked table") }
    }

    /// The whole of an item that was found; `None` if it was removed meanwhile.
    async fn whole(&self, log: &LogId, mut found: Item) -> Result<Option<ParkedItem>, Unavailable> {
        // An item's key is always there, and a text.
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
            // Parts are stored before the item that names them, and removed after it: of one that
            // stays while they are looked for twice, they are gone.
            if incomplete == first.rest {
                return Ok(Some(damaged(log, &key, &"a part is missing")));
            }
            incomplete = first.rest;
            // Or somebody has replaced or removed it since its first part was read.
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

    /// `None` if a part is missing.
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
                let put = self.table.put::<0>(item, None, Tries::SOME).await;
                put.map_err(|error| error.unavailable(&self.table))?;
            }
            stored.insert(N.to_owned(), number(n));
            stored.insert(NONCE.to_owned(), random_bits(nonce));
        }
        let put = self.table.put::<0>(stored, None, Tries::SOME).await;
        let before = put.map_err(|error| error.unavailable(&self.table))?;
        // What names no parts has none.
        let before = before.and_then(|before| read(before).ok());
        match before.and_then(|before| before.rest) {
            Some(before) if rest != Some(before) => self.remove_parts(log, &key, before).await,
            _ => Ok(()),
        }
    }

    async fn list(
        &self,
        log: &LogId,
        from: Seq,
        limit: usize,
    ) -> Result<Vec<ParkedItem>, Unavailable> {
        let mut items = Vec::new();
        let mut start = None;
        while items.len() < limit {
            let keys = Expression(
                "#pk = :pk AND #sk >= :from",
                [(":pk", text(log.as_str())), (":from", text(sort_key(from, "")))],
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

/// Seqs in the order of their numbers: all with the same number of digits.
fn sort_key(seq: Seq, identity: &str) -> String {
    format!("{:020}#{identity}", seq.0)
}

fn identity(sort_key: &str) -> &str {
    sort_key.split_once('#').map_or("", |(_, identity)| identity)
}

/// What is listed of an item that cannot be read whole. It has no body, not even what there is of
/// it, which somebody might take for a shorter one: it waits for an operator. A put that takes
/// effect after its item was removed, and with it the parts, leaves one behind.
fn damaged(log: &LogId, sort_key: &str, problem: &dyn Display) -> ParkedItem {
    tracing::error!(alarm = "parked_damaged", %log, sort_key, %problem, "it cannot be read");
    let seq = sort_key.split_once('#').and_then(|(seq, _)| seq.parse().ok());
    let identity = identity(sort_key).to_owned();
    ParkedItem { seq: seq.map_or(Seq::ZERO, Seq), identity, body: Bytes::new() }
}

/// A space is in no log's name: these partition keys are nobody else's.
fn parts_key(log: &LogId, sort_key: &str) -> String {
    format!("{log} {sort_key}")
}

/// The sort key of a part, or what those of all parts that a call stored begin with.
fn part_key(nonce: u128, part: Option<u64>) -> String {
    let part = part.map(|part| format!("{part:04}"));
    format!("{nonce:032x}#{}", part.unwrap_or_default())
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
