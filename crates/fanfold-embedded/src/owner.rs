//! The app that a folder belongs to, in the meta table under `app`. Two apps have the same default folder, and one
//! would show nothing of what the other has stored.

use bytes::Bytes;

use crate::config::Config;
use crate::store::{OpenError, Store, StoreError, Table};

pub(crate) const APP_KEY: &[u8] = b"app";

/// The name to store: `None` if it is stored already, or the host names no app. Fails if the folder belongs to
/// another app.
pub(crate) fn owner(store: &Store, config: &Config) -> Result<Option<Bytes>, OpenError> {
    let Some(app) = &config.app else { return Ok(None) };
    let stored = store.get(Table::META, APP_KEY).map_err(|error| store.folder().explain(error))?;
    match stored {
        Some(found) if found == app.as_bytes() => Ok(None),
        Some(found) if !config.adopt => Err(OpenError::OtherApp {
            path: store.folder().path().to_owned(),
            found: String::from_utf8_lossy(&found).into_owned(),
            app: app.clone(),
        }),
        _ => Ok(Some(Bytes::from(app.clone()))),
    }
}

/// Stores the name.
pub(crate) fn store_owner(store: &Store, name: Option<Bytes>) -> Result<(), StoreError> {
    name.map_or(Ok(()), |name| store.put_now(Table::META, APP_KEY, Some(name)))
}
