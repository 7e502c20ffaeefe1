//! Announces a view, so that readers find it.

use bytes::Bytes;
use fanfold::body::DecodeError;
use fanfold::body::announced::{Announced, Announcement, AnnouncementConflict};

use crate::ports::{Unavailable, ViewRegistry};

/// How often an announcement is decided again because another one came first. Source: our choice;
/// only environments that start at the same time announce the same view.
const TRIES: usize = 5;

/// Why a view could not be announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The version was announced with other services or event types.
    #[error(transparent)]
    Conflict(#[from] AnnouncementConflict),
    /// What is stored of the view cannot be read, or the announcement cannot be written.
    #[error("what is announced of the view `{view}` cannot be read")]
    Undecodable {
        /// The view.
        view: String,
        /// Why.
        #[source]
        error: DecodeError,
    },
    /// The registry does not answer, or others announced the view at the same time.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Announces this version of `view`. It is served from then on, and until another one is announced.
/// Announcing it again changes nothing. Returns what is stored.
pub async fn announce(
    registry: &dyn ViewRegistry,
    view: &str,
    announcement: &Announcement,
) -> Result<Announced, AnnounceError> {
    let undecodable = |error| AnnounceError::Undecodable { view: view.to_owned(), error };
    for _ in 0..TRIES {
        let stored = registry.get(view).await?;
        let announced = match &stored {
            Some(body) => Announced::decode(body).map_err(undecodable)?,
            None => Announced::default(),
        };
        let Some(with) = announced.with(view, announcement.clone())? else { return Ok(announced) };
        let body = Bytes::from(with.encode().map_err(|error| undecodable(error.into()))?);
        if registry.replace(view, stored.as_ref(), &body).await? {
            tracing::info!(view, version = announcement.version, "the view is announced");
            return Ok(with);
        }
    }
    let message = format!("others announce the view `{view}` at the same time");
    Err(Unavailable::Failed { hop: "registry of views", message }.into())
}
