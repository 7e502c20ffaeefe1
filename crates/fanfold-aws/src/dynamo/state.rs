use std::collections::HashMap;

use async_trait::async_trait;
use fanfold::{LogId, StateKey};
use fanfold_pipeline::ports::{Guarded, State, StateItem, Unavailable};

use super::item::{Item, Malformed, Take, bytes, item, number, text};
use super::table::{Expression, Table, WriteError};
use crate::Aws;
use crate::call::Tries;
use crate::names::attribute::{BODY, PK, SEQ, SK};

/// The state table.
///
/// | call | costs |
/// |---|---|
/// | `get` | per key a read unit for each 4 KB of its item, one if there is none |
/// | `put` | a write unit per KB of the larger of the new item and the one before |
#[derive(Debug)]
pub struct DynamoState {
    table: Table,
}

impl DynamoState {
    /// The state in this table.
    pub fn new(aws: &Aws, table: impl Into<String>) -> Self {
        Self { table: Table::new(aws, table, "state table") }
    }
}

#[async_trait]
impl State for DynamoState {
    async fn get(
        &self,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable> {
        let sks = keys.iter().map(StateKey::as_str);
        let found = self.table.get_many(log.as_str(), sks).await?;
        let items = found.into_iter().map(|(sk, item)| Ok((sk, state_item(item)?)));
        let items: HashMap<String, StateItem> =
            items.collect::<Result<_, _>>().map_err(self.table.malformed())?;
        Ok(keys.iter().map(|key| items.get(key.as_str()).cloned()).collect())
    }

    /// A second attempt finds what the first has stored, which is as good as new.
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
        match self.table.put(item, Some(is_newer), Tries::SOME).await {
            Ok(_) => Ok(Guarded::Stored),
            Err(WriteError::Conflict(_)) => Ok(Guarded::Newer),
            Err(WriteError::Unavailable(unavailable)) => Err(unavailable),
        }
    }
}

fn state_item(mut item: Item) -> Result<StateItem, Malformed> {
    Ok(StateItem { seq: item.seq(SEQ)?, body: item.bytes(BODY)? })
}
