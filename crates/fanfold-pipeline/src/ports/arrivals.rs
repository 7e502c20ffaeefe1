use async_trait::async_trait;
use fanfold::Time;

use super::Unavailable;

/// How far commands have arrived: the sweep writes it, and hosts that accept commands read it.
#[async_trait]
pub trait Arrivals: Send + Sync {
    /// The time up to which the sweep's canaries have arrived; `None` if no sweep has stored one.
    async fn get(&self) -> Result<Option<Time>, Unavailable>;

    /// Stores that time.
    async fn put(&self, until: Time) -> Result<(), Unavailable>;
}
