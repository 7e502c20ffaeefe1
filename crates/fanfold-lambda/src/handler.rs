use async_trait::async_trait;
use fanfold::Time;
use fanfold_aws::dynamo::DynamoSweepPosition;
use fanfold_aws::events::BatchResponse;
use fanfold_pipeline::ports::{CataloguePosition, Unavailable};
use serde::Serialize;
use serde_json::json;

use crate::budget::Budget;
use crate::error::InvocationError;
use crate::metrics::{Metrics, RECORDS, SCHEDULES_DROPPED, UNFINISHED, UNREADABLE};

/// Handles the events of a Lambda.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Handles an event, given and answered as JSON.
    ///
    /// MUST return by `budget.end` and leave no task behind: Lambda freezes the environment after an
    /// invocation, and a task would continue in the next one.
    async fn handle(&self, event: &str, budget: Budget) -> Result<Reply, InvocationError>;
}

/// The answer to an event, with the invocation's metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The answer as JSON.
    pub answer: String,
    /// The invocation's metrics.
    pub metrics: Metrics,
}

impl Reply {
    /// A reply whose answer is encoded as JSON.
    pub fn new(answer: &impl Serialize, metrics: Metrics) -> Result<Self, InvocationError> {
        Ok(Self { answer: serde_json::to_string(answer)?, metrics })
    }

    /// The reply to an event source mapping.
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

/// The age at which a scheduled event is outdated, in milliseconds. Source: the template's
/// `rate(1 minute)`, after which the next event was sent. Lambda keeps events that it cannot start at
/// once for up to six hours, and after a throttle would run all of them at the same time.
pub(crate) const SCHEDULE_MS: u64 = 60_000;

/// Whether a scheduled event is outdated. An event without a due time comes from an operator, and
/// never is.
pub(crate) fn is_outdated(due: Option<Time>, budget: Budget) -> bool {
    due.is_some_and(|due| budget.begin.since_ms(due) >= SCHEDULE_MS)
}

/// The reply to an outdated scheduled event.
pub(crate) fn dropped_schedule(due: Option<Time>) -> Result<Reply, InvocationError> {
    let due = due.unwrap_or_default();
    tracing::warn!(
        due = due.0,
        "the Lambda drops a scheduled event, because the next one was sent already"
    );
    let mut metrics = Metrics::new();
    metrics.of_service(SCHEDULES_DROPPED, 1.0);
    Reply::new(&json!({ "dropped": true }), metrics)
}

/// The position of a sweep in the catalogue, which is kept between invocations.
#[async_trait]
pub trait SweepPosition: Send + Sync {
    /// The position; `None` means the start of the catalogue.
    async fn load(&self) -> Result<Option<CataloguePosition>, Unavailable>;
    /// Stores the position.
    async fn store(&self, position: Option<&CataloguePosition>) -> Result<(), Unavailable>;
}

#[async_trait]
impl SweepPosition for DynamoSweepPosition {
    async fn load(&self) -> Result<Option<CataloguePosition>, Unavailable> {
        self.get().await
    }

    async fn store(&self, position: Option<&CataloguePosition>) -> Result<(), Unavailable> {
        self.put(position).await
    }
}
