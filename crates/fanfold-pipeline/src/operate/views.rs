//! The views that operators see.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfold::host::body::announced::{Announced, Announcement};
use fanfold::with_causes;

use crate::ports::{OperatorView, Unavailable, ViewRegistry};

/// The views that operators see, and their tables.
#[derive(Clone)]
pub enum OperatedViews {
    /// The host's own, by name.
    Own(BTreeMap<String, Arc<dyn OperatorView>>),
    /// Those that are announced, each in its last version.
    Announced {
        /// Where they are announced.
        registry: Arc<dyn ViewRegistry>,
        /// Opens the table.
        open: OpenOperated,
    },
}

/// Opens the table of an announced view, by the view's name; `None` if the table that it names is not this view's.
pub type OpenOperated =
    Arc<dyn Fn(&str, &Announcement) -> Option<Arc<dyn OperatorView>> + Send + Sync>;

impl OperatedViews {
    /// The table of the view of this name, with the version that is announced; `None` for the version if the view is the
    /// host's own.
    pub(crate) async fn get(
        &self,
        name: &str,
    ) -> Result<Option<(Option<u32>, Arc<dyn OperatorView>)>, Unavailable> {
        let (registry, open) = match self {
            Self::Own(views) => return Ok(views.get(name).map(|table| (None, table.clone()))),
            Self::Announced { registry, open } => (registry, open),
        };
        let Some(body) = registry.get(name).await? else { return Ok(None) };
        let announced = Announced::decode(&body).map_err(|error| Unavailable::Damaged {
            hop: "registry of views",
            message: with_causes(&error),
        })?;
        Ok(announced.last().and_then(|last| Some((Some(last.version), open(name, last)?))))
    }
}
