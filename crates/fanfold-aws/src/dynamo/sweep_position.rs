use fanfold_pipeline::ports::{CataloguePosition, Unavailable};

use super::item::{Item, Take, item, number, text};
use super::table::Table;
use crate::Aws;
use crate::call::Tries;
use crate::names::attribute::{BUCKET, LOG, PK, SK};

/// Where a sweep's walk over the catalogue goes on: an item of the table that its host owns,
/// beside the logs, whose names all have a slash. A read unit to get it, a write unit to put it.
#[derive(Debug)]
pub struct Positions {
    table: Table,
}

impl Positions {
    /// The position in this table.
    pub fn new(aws: &Aws, table: impl Into<String>) -> Self {
        Self { table: Table::new(aws, table, "position of the sweep") }
    }

    /// Where to go on; `None`: from the start of the catalogue. So is one that cannot be read: the
    /// walk would never begin again.
    pub async fn get(&self) -> Result<Option<CataloguePosition>, Unavailable> {
        let found = self.table.get(key(), None).await?;
        let position = found.map(position).transpose();
        Ok(position
            .unwrap_or_else(|problem| {
                tracing::warn!(problem, "the sweep begins anew: its position cannot be read");
                None
            })
            .flatten())
    }

    /// Stores where to go on.
    pub async fn put(&self, position: Option<&CataloguePosition>) -> Result<(), Unavailable> {
        let mut item = key();
        if let Some(CataloguePosition { bucket, log }) = position {
            item.insert(BUCKET.to_owned(), number((*bucket).into()));
            item.extend(log.as_ref().map(|log| (LOG.to_owned(), text(log.as_str()))));
        }
        let put = self.table.put::<0>(item, None, Tries::SOME).await;
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

fn key() -> Item {
    item([(PK, text("sweep")), (SK, text("position"))])
}
