use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use fanfold_pipeline::ports::{Unavailable, ViewRegistry};

use crate::store::{Store, StoreError, Table};
use crate::striped::lock;

const HOP: &str = "registry of views";
/// What the keys in the meta table begin with.
const PREFIX: &str = "view/";
/// The end of these keys.
const END: &str = "view0";

/// The announced views, in the meta table under `view/NAME`. Each is stored and synced at once.
pub struct StoredViewRegistry {
    store: Arc<Store>,
    alone: Mutex<()>,
}

impl StoredViewRegistry {
    /// The registry in a store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, alone: Mutex::default() }
    }

    /// See [`ViewRegistry::get`].
    pub(crate) fn read(&self, view: &str) -> Result<Option<Bytes>, StoreError> {
        self.store.get(Table::META, format!("{PREFIX}{view}").as_bytes())
    }

    /// See [`ViewRegistry::replace`].
    pub(crate) fn write(
        &self,
        view: &str,
        before: Option<&Bytes>,
        body: &Bytes,
    ) -> Result<bool, StoreError> {
        let _alone = lock(&self.alone);
        if self.read(view)?.as_ref() != before {
            return Ok(false);
        }
        let key = format!("{PREFIX}{view}");
        self.store.put_now(Table::META, key.as_bytes(), Some(body.clone()))?;
        Ok(true)
    }
}

#[async_trait]
impl ViewRegistry for StoredViewRegistry {
    async fn get(&self, view: &str) -> Result<Option<Bytes>, Unavailable> {
        self.read(view).map_err(|error| error.unavailable(HOP))
    }

    async fn replace(
        &self,
        view: &str,
        before: Option<&Bytes>,
        body: &Bytes,
    ) -> Result<bool, Unavailable> {
        self.write(view, before, body).map_err(|error| error.unavailable(HOP))
    }

    async fn list(&self, limit: usize) -> Result<Vec<(String, Bytes)>, Unavailable> {
        let mut views = Vec::new();
        let (from, to) = (PREFIX.as_bytes(), END.as_bytes());
        let scanned = self.store.scan(Table::META, from, to, false, |key, body| {
            let name = key.get(PREFIX.len()..).unwrap_or_default();
            if views.len() < limit {
                views.push((String::from_utf8_lossy(name).into_owned(), body));
                return ControlFlow::Continue(());
            }
            ControlFlow::Break(())
        });
        scanned.map_err(|error| error.unavailable(HOP))?;
        Ok(views)
    }
}
