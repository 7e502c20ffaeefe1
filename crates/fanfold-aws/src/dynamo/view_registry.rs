use async_trait::async_trait;
use bytes::Bytes;
use fanfold_pipeline::ports::{Unavailable, ViewRegistry};

use super::item::{Item, Malformed, Take, bytes, item, text};
use super::table::{Expression, Table, WriteError};
use crate::Aws;
use crate::call::RetryPolicy;
use crate::names::attribute::{BODY, PK};

/// The announced views: an item for each, under the view's name.
///
/// | call | costs |
/// |---|---|
/// | `get` | a read unit for each 4 KB of the item, one if there is no item |
/// | `replace` | a write unit per KB of the larger of the new item and the old one, also if it is refused |
/// | `list` | a read unit for each 4 KB of all items |
#[derive(Debug)]
pub struct DynamoViewRegistry {
    table: Table,
}

impl DynamoViewRegistry {
    /// The registry in this table.
    pub fn new(aws: &Aws, table: impl Into<String>) -> Self {
        Self { table: Table::new(aws, table, "registry of views") }
    }
}

#[async_trait]
impl ViewRegistry for DynamoViewRegistry {
    async fn get(&self, view: &str) -> Result<Option<Bytes>, Unavailable> {
        let found = self.table.get(item([(PK, text(view))]), None).await?;
        let body = found.map(|mut item| item.bytes(BODY)).transpose();
        body.map_err(self.table.malformed())
    }

    /// If a first attempt replaced the item without an answer, the second is refused. The caller
    /// reads the item again, and finds its own.
    async fn replace(
        &self,
        view: &str,
        before: Option<&Bytes>,
        body: &Bytes,
    ) -> Result<bool, Unavailable> {
        let item = item([(PK, text(view)), (BODY, bytes(body))]);
        let put = match before {
            Some(before) => {
                let is_before = Expression("#b = :before", [(":before", bytes(before))]);
                self.table.put(item, Some(is_before), RetryPolicy::BRIEF).await
            }
            None => {
                let is_absent = Expression("attribute_not_exists(#pk)", []);
                self.table.put(item, Some(is_absent), RetryPolicy::BRIEF).await
            }
        };
        match put {
            Ok(_) => Ok(true),
            Err(WriteError::Conflict(_)) => Ok(false),
            Err(WriteError::Unavailable(unavailable)) => Err(unavailable),
        }
    }

    async fn list(&self, limit: usize) -> Result<Vec<(String, Bytes)>, Unavailable> {
        let (mut views, mut start) = (Vec::new(), None);
        loop {
            let page = self.table.scan(None, limit - views.len(), start).await?;
            // One item that Fanfold did not write hides no other.
            views.extend(page.items.into_iter().filter_map(|item| match view(item) {
                Ok(view) => Some(view),
                Err(error) => {
                    tracing::warn!(%error, "an item of the table of views cannot be read");
                    None
                }
            }));
            start = page.next;
            if start.is_none() || views.len() >= limit {
                return Ok(views);
            }
        }
    }
}

fn view(mut item: Item) -> Result<(String, Bytes), Malformed> {
    Ok((item.text(PK)?, item.bytes(BODY)?))
}
