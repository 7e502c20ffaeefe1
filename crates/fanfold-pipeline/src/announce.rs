//! Announces a view, so that readers find it.

use bytes::Bytes;
use fanfold::host::body::announced::{Announced, Announcement, AnnouncementError};

use crate::ports::{Unavailable, ViewRegistry};

/// How often an announcement is decided again because another one came first. Source: our choice;
/// only environments that start at the same time announce the same view.
const TRIES: usize = 5;

/// Why a view could not be announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The announcement cannot be stored beside the earlier ones.
    #[error(transparent)]
    Refused(#[from] AnnouncementError),
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
    for _ in 0..TRIES {
        let stored = registry.get(view).await?;
        let announcement = announcement.clone();
        let (announced, body) = Announced::announce(stored.as_deref(), view, announcement)?;
        let Some(body) = body else { return Ok(announced) };
        if registry.replace(view, stored.as_ref(), &Bytes::from(body)).await? {
            let version = announced.last().map(|last| last.version);
            tracing::info!(view, version, "the view is announced");
            return Ok(announced);
        }
    }
    let message = format!("others announce the view `{view}` at the same time");
    Err(Unavailable::Failed { hop: "registry of views", message }.into())
}
