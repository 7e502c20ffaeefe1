use async_trait::async_trait;
use bytes::Bytes;

use super::Unavailable;

/// What the hosts of views have announced: one body for each view, by the view's name.
#[async_trait]
pub trait ViewRegistry: Send + Sync {
    /// The body of a view; `None` if it was never announced.
    async fn get(&self, view: &str) -> Result<Option<Bytes>, Unavailable>;

    /// Replaces the body of a view if it is `before` still, where `None` means that there is none.
    /// Returns whether it was. Of several calls with the same `before`, at most one MUST return
    /// `true`.
    async fn replace(
        &self,
        view: &str,
        before: Option<&Bytes>,
        body: &Bytes,
    ) -> Result<bool, Unavailable>;

    /// Views with their bodies, each once, in any order: all, or `limit` if there are more.
    async fn list(&self, limit: usize) -> Result<Vec<(String, Bytes)>, Unavailable>;
}
