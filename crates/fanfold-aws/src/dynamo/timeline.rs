use async_trait::async_trait;
use bytes::Bytes;
use fanfold_pipeline::ports::{ActionId, OperatorTimeline, TimelinePage, Unavailable};

use super::item::{Item, Malformed, Take, bytes, item, number, text};
use super::table::{Expression, Query, Table, WriteError};
use crate::Aws;
use crate::call::RetryPolicy;
use crate::names::attribute::{BODY, PK, SK, TTL};

/// The partition key of all records: operators write a few a second at most, and a partition takes 1,000.
const PARTITION: &str = "actions";
/// How long a record is kept, in seconds. Source: our choice, 90 days, for which CloudTrail shows the calls of an account.
const KEPT_S: u64 = 90 * 24 * 60 * 60;

/// The records of what operators did, in a table of its own. DynamoDB removes a record some time after its 90 days, so older
/// ones may still be listed.
///
/// | call | costs |
/// |---|---|
/// | `begin`, `end` | a write unit per KB of the record; `begin` also if the record is there |
/// | `list` | a read unit for each 4 KB of all records of the page, one if there is none |
#[derive(Debug)]
pub struct DynamoTimeline {
    table: Table,
}

impl DynamoTimeline {
    /// The timeline in this table.
    pub fn new(aws: &Aws, table: impl Into<String>) -> Self {
        Self { table: Table::new(aws, table, "timeline") }
    }
}

fn item_of(id: ActionId, body: &Bytes) -> Item {
    item([
        (PK, text(PARTITION)),
        (SK, text(id.to_string())),
        (BODY, bytes(body)),
        (TTL, number(id.at.0 / 1_000 + KEPT_S)),
    ])
}

#[async_trait]
impl OperatorTimeline for DynamoTimeline {
    async fn begin(&self, id: ActionId, body: &Bytes) -> Result<(), Unavailable> {
        let is_absent = Expression::<0>("attribute_not_exists(#pk)", []);
        match self.table.put(item_of(id, body), Some(is_absent), RetryPolicy::BRIEF).await {
            Ok(_) | Err(WriteError::Conflict(_)) => Ok(()),
            Err(WriteError::Unavailable(unavailable)) => Err(unavailable),
        }
    }

    async fn end(&self, id: ActionId, body: &Bytes) -> Result<(), Unavailable> {
        let put = self.table.put::<0>(item_of(id, body), None, RetryPolicy::BRIEF).await;
        put.map(|_| ()).map_err(|error| error.unavailable(&self.table))
    }

    async fn list(
        &self,
        before: Option<ActionId>,
        limit: usize,
    ) -> Result<TimelinePage, Unavailable> {
        let all = Expression("#pk = :pk", [(":pk", text(PARTITION))]);
        let start = before.map(|id| item([(PK, text(PARTITION)), (SK, text(id.to_string()))]));
        let query = Query { descending: true, limit: Some(limit), start, ..Query::new(all) };
        let page = self.table.query(query).await?;
        let mut records = Vec::with_capacity(page.items.len());
        for item in page.items {
            records.push(record(item).map_err(self.table.malformed())?);
        }
        Ok(TimelinePage { records, more: page.next.is_some() })
    }
}

fn record(mut item: Item) -> Result<(ActionId, Bytes), Malformed> {
    let id = item.text(SK)?.parse();
    let id = id.map_err(|_| Malformed { attribute: SK, problem: "not an action's id" })?;
    Ok((id, item.bytes(BODY)?))
}
