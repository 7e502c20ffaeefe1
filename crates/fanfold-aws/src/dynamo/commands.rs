use async_trait::async_trait;
use aws_sdk_dynamodb::types::ReturnValue;
use fanfold::{LogId, Seq, Time};
use fanfold_pipeline::ports::{
    Append, AppendError, CataloguePage, CataloguePosition, Change, Commands, OperatorCommands,
    Slot, SlotRaise, Token, Unavailable,
};

use super::buckets::{BUCKETS, Buckets, bucket};
use super::item::{Item, Malformed, Take, bytes, item, number, random_bits, text};
use super::table::{Expression, Table, WriteError};
use crate::Aws;
use crate::call::RetryPolicy;
use crate::names::CATALOGUE_INDEX;
use crate::names::attribute::{AT, BODY, CLOSED, N, PK, SEQ, TOKEN};

const UPDATE: &str = "SET #seq = if_not_exists(#seq, :zero) + :n, #n = :n, #b = :b, #at = :at, \
                      #tok = :tok, #h = if_not_exists(#h, :h)";
const CONDITION: &str =
    "attribute_not_exists(#closed) AND (attribute_not_exists(#tok) OR #tok <> :tok)";
/// It leaves an attribute of a closed slot as it is. An empty body, since a slot without one cannot be read.
const RAISE: &str = "SET #seq = :to, #n = :n, #b = :b, #at = :at, #tok = :tok, \
                     #h = if_not_exists(#h, :h)";
const IS_BELOW: &str = "attribute_not_exists(#seq) OR #seq < :to";

/// The commands table, with its catalogue.
///
/// | call | costs |
/// |---|---|
/// | `append` | a write unit per KB of the larger of the new slot and the old one, and one more for the log's first; one attempt, the ingest stage retries |
/// | `slot`, `batch` | a read unit per 4 KB of the slot, its batch included |
/// | `raise` | as `append`, but repeats a try without an answer: the condition guards it |
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
        let batch = found.map(batch).transpose().map_err(self.table.malformed())?;
        Ok(batch.filter(|batch| batch.n > 0))
    }

    async fn catalogue(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
    ) -> Result<CataloguePage, Unavailable> {
        let catalogue = Buckets { table: &self.table, index: CATALOGUE_INDEX, buckets: BUCKETS };
        catalogue.page(after, limit).await
    }
}

#[async_trait]
impl OperatorCommands for DynamoCommands {
    async fn raise(
        &self,
        log: &LogId,
        to: Seq,
        at: Time,
        token: Token,
    ) -> Result<SlotRaise, Unavailable> {
        let update = Expression(
            RAISE,
            [
                (":to", number(to.0)),
                (":n", number(0)),
                (":b", bytes(&[])),
                (":at", number(at.0)),
                (":tok", random_bits(token.0)),
                (":h", number(bucket(log).into())),
            ],
        );
        let (condition, returned, retries) =
            (Some(IS_BELOW), ReturnValue::None, RetryPolicy::BRIEF);
        match self.table.update(key(log), update, condition, returned, retries).await {
            Ok(_) => Ok(SlotRaise::Raised),
            Err(WriteError::Conflict(Some(stored))) => {
                Ok(SlotRaise::Refused(slot(stored).map_err(self.table.malformed())?))
            }
            Err(error) => Err(error.unavailable(&self.table)),
        }
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
