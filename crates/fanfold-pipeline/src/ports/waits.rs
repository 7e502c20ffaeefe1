use async_trait::async_trait;
use fanfold::{LogId, Seq};

use super::ViewTable;

/// Waiting for a log or a view to reach a seq. Holds no thread.
///
/// Both calls return when the seq is reached, or after about `ms` milliseconds. They MUST return at
/// once if it was reached before the call, and MUST NOT miss it if it is reached meanwhile. They
/// MAY return early: the caller reads again, and waits again if necessary.
#[async_trait]
pub trait Waits: Send + Sync {
    /// Waits until the journal has the entry.
    async fn entry(&self, log: &LogId, seq: Seq, ms: u64);

    /// Waits until the cursor in the view's table is at `seq` or above. Returns at once if the view
    /// is parked.
    async fn view(&self, view: &str, table: &dyn ViewTable, log: &LogId, seq: Seq, ms: u64);
}
