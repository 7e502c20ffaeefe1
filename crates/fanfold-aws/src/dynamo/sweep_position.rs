use async_trait::async_trait;
use fanfold::Time;
use fanfold_pipeline::ports::{Arrivals, CataloguePosition, Unavailable};

use super::item::{Item, Take, item, number, text};
use super::table::Table;
use crate::Aws;
use crate::call::RetryPolicy;
use crate::names::attribute::{AT, BUCKET, LOG, PK, SK};

const POSITION: &str = "position";
const ARRIVALS: &str = "arrivals";

/// The position of a sweep in the catalogue: an item of a table that the sweep's host owns. Its key
/// cannot be that of a log, whose name has a slash. It costs a read unit to get and a write unit to
/// put.
#[derive(Debug)]
pub struct DynamoSweepPosition {
    table: Table,
}

impl DynamoSweepPosition {
    /// The position in this table.
    pub fn new(aws: &Aws, table: impl Into<String>) -> Self {
        Self { table: Table::new(aws, table, "position of the sweep") }
    }

    /// The position; `None` means the start of the catalogue. If the item cannot be read, it is `None`,
    /// too: with an error the sweep would never run again.
    pub async fn get(&self) -> Result<Option<CataloguePosition>, Unavailable> {
        let found = self.table.get(key_of(POSITION), None).await?;
        let position = found.map(position).transpose();
        Ok(position
            .unwrap_or_else(|problem| {
                tracing::warn!(
                    problem,
                    "the sweep starts at the beginning: its position cannot be read"
                );
                None
            })
            .flatten())
    }

    /// Stores the position.
    pub async fn put(&self, position: Option<&CataloguePosition>) -> Result<(), Unavailable> {
        let mut item = key_of(POSITION);
        if let Some(CataloguePosition { bucket, log }) = position {
            item.insert(BUCKET.to_owned(), number((*bucket).into()));
            item.extend(log.as_ref().map(|log| (LOG.to_owned(), text(log.as_str()))));
        }
        let put = self.table.put::<0>(item, None, RetryPolicy::BRIEF).await;
        put.map(|_| ()).map_err(|error| error.unavailable(&self.table))
    }
}

/// How far the sweep's canaries have arrived: an item beside the sweep's position. It costs a read unit to get and a write
/// unit to put.
#[derive(Debug)]
pub struct DynamoArrivals {
    table: Table,
}

impl DynamoArrivals {
    /// The item in this table.
    pub fn new(aws: &Aws, table: impl Into<String>) -> Self {
        Self { table: Table::new(aws, table, "arrivals of canaries") }
    }
}

#[async_trait]
impl Arrivals for DynamoArrivals {
    async fn get(&self) -> Result<Option<Time>, Unavailable> {
        let found = self.table.get(key_of(ARRIVALS), None).await?;
        found.map(|mut item| item.time(AT)).transpose().map_err(self.table.malformed())
    }

    async fn put(&self, until: Time) -> Result<(), Unavailable> {
        let mut item = key_of(ARRIVALS);
        item.insert(AT.to_owned(), number(until.0));
        let put = self.table.put::<0>(item, None, RetryPolicy::BRIEF).await;
        put.map(|_| ()).map_err(|error| error.unavailable(&self.table))
    }
}

fn position(mut item: Item) -> Result<Option<CataloguePosition>, String> {
    let Some(bucket) = item.take_number(BUCKET).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let bucket = u8::try_from(bucket).map_err(|error| error.to_string())?;
    let log = item.take_text(LOG).map_err(|error| error.to_string())?;
    let log = log.map(|log| log.parse()).transpose();
    Ok(Some(CataloguePosition { bucket, log: log.map_err(|error| format!("{error}"))? }))
}

fn key_of(sk: &str) -> Item {
    item([(PK, text("sweep")), (SK, text(sk))])
}
