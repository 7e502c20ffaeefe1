use async_trait::async_trait;
use fanfold::{LogId, StateKey};
use fanfold_pipeline::ports::{Guarded, State, StateItem, Unavailable};

use super::item::{Item, Malformed, Take, bytes, item, number, text};
use super::table::{Expression, Table, WriteError};
use crate::Aws;
use crate::call::RetryPolicy;
use crate::names::attribute::{BODY, PK, SEQ, SK};

/// The state table.
///
/// | call | costs |
/// |---|---|
/// | `get` | per key a read unit for each 4 KB of its item, one if there is no item |
/// | `heads` | half of that, since it is eventually consistent |
/// | `put` | a write unit per KB of the larger of the new item and the old one |
#[derive(Debug)]
pub struct DynamoState {
    table: Table,
    /// The same table, read eventually consistent.
    eventual: Table,
}

impl DynamoState {
    /// The state in this table.
    pub fn new(aws: &Aws, table: impl Into<String>) -> Self {
        let table = Table::new(aws, table, "state table");
        Self { eventual: table.eventual(), table }
    }

    async fn read(
        table: &Table,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable> {
        let found = table.get_many(log, keys.iter().map(StateKey::as_str)).await?;
        let items = found.into_iter().map(|item| item.map(state_item).transpose());
        items.collect::<Result<_, _>>().map_err(table.malformed())
    }
}

#[async_trait]
impl State for DynamoState {
    async fn get(
        &self,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable> {
        Self::read(&self.table, log, keys).await
    }

    async fn heads(
        &self,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable> {
        Self::read(&self.eventual, log, keys).await
    }

    /// If a first attempt stored the item without an answer, the second finds it, and returns
    /// [`Guarded::Newer`], which the caller treats as stored.
    async fn put(
        &self,
        log: &LogId,
        key: &StateKey,
        state: &StateItem,
    ) -> Result<Guarded, Unavailable> {
        let item = item([
            (PK, text(log.as_str())),
            (SK, text(key.as_str())),
            (SEQ, number(state.seq.0)),
            (BODY, bytes(&state.body)),
        ]);
        let is_newer =
            Expression("attribute_not_exists(#pk) OR #seq < :seq", [(":seq", number(state.seq.0))]);
        match self.table.put(item, Some(is_newer), RetryPolicy::BRIEF).await {
            Ok(_) => Ok(Guarded::Stored),
            Err(WriteError::Conflict(_)) => Ok(Guarded::Newer),
            Err(WriteError::Unavailable(unavailable)) => Err(unavailable),
        }
    }
}

fn state_item(mut item: Item) -> Result<StateItem, Malformed> {
    Ok(StateItem { seq: item.seq(SEQ)?, body: item.bytes(BODY)? })
}
