use async_trait::async_trait;
use fanfold::Time;
use fanfold_aws::dynamo::Positions;
use fanfold_aws::events::BatchResponse;
use fanfold_pipeline::ports::{CataloguePosition, Unavailable};
use serde::Serialize;
use serde_json::json;

use crate::budget::Budget;
use crate::error::InvocationError;
use crate::metrics::{Metrics, RECORDS, SCHEDULES_DROPPED, UNFINISHED, UNREADABLE};

/// What a Lambda does with an event: a function from its JSON to the JSON of an answer.
#[async_trait]
pub trait Handler: Send + Sync {
    /// MUST return by `budget.end` with nothing left under way: a frozen environment would thaw it
    /// in the next invocation.
    async fn handle(&self, event: &str, budget: Budget) -> Result<Reply, InvocationError>;
}

/// An answer, and what there is to say of the invocation in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// JSON.
    pub answer: String,
    /// The numbers.
    pub metrics: Metrics,
}

impl Reply {
    /// Writes the answer.
    pub fn new(answer: &impl Serialize, metrics: Metrics) -> Result<Self, InvocationError> {
        Ok(Self { answer: serde_json::to_string(answer)?, metrics })
    }

    /// The answer to an event source mapping.
    pub(crate) fn of_batch(
        response: &BatchResponse,
        records: usize,
        unfinished: usize,
        unreadable: usize,
    ) -> Result<Self, InvocationError> {
        let mut metrics = Metrics::new();
        metrics.of_service(RECORDS, records as f64);
        metrics.of_service(UNFINISHED, unfinished as f64);
        metrics.of_stack(UNREADABLE, unreadable as f64);
        Self::new(response, metrics)
    }
}

/// The age of a scheduled event at which the next one has been sent, in milliseconds: the template's
/// `rate(1 minute)`. Lambda keeps what it cannot start at once for up to six hours, and after a
/// throttle would run all of it at the same time.
pub(crate) const SCHEDULE_MS: u64 = 60_000;

/// Whether the next scheduled event has been sent. One that does not say when it was due was sent
/// by an operator, and counts.
pub(crate) fn is_over(due: Option<Time>, budget: Budget) -> bool {
    due.is_some_and(|due| budget.begin.since_ms(due) >= SCHEDULE_MS)
}

/// The answer to a scheduled event that comes too late.
pub(crate) fn dropped_schedule(due: Option<Time>) -> Result<Reply, InvocationError> {
    let due = due.unwrap_or_default();
    tracing::warn!(due = due.0, "a scheduled event is dropped: the next one has been sent");
    let mut metrics = Metrics::new();
    metrics.of_service(SCHEDULES_DROPPED, 1.0);
    Reply::new(&json!({ "dropped": true }), metrics)
}

/// Where a sweep goes on, kept between invocations.
#[async_trait]
pub trait Bookmark: Send + Sync {
    /// Where; `None`: from the start of the catalogue.
    async fn load(&self) -> Result<Option<CataloguePosition>, Unavailable>;
    /// Notes it.
    async fn store(&self, position: Option<&CataloguePosition>) -> Result<(), Unavailable>;
}

#[async_trait]
impl Bookmark for Positions {
    async fn load(&self) -> Result<Option<CataloguePosition>, Unavailable> {
        self.get().await
    }

    async fn store(&self, position: Option<&CataloguePosition>) -> Result<(), Unavailable> {
        self.put(position).await
    }
}
