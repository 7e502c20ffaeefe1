use std::sync::Arc;

use async_trait::async_trait;
use fanfold::host::body::parked::Reason;
use fanfold_aws::StreamOrder;
use fanfold_aws::events::{ViewEvent, WrongEvent, view_event};
use fanfold_pipeline::sweep::Sweep;
use serde_json::json;

use crate::budget::Budget;
use crate::error::InvocationError;
use crate::handler::{Handler, Reply, SweepPosition, dropped_schedule, is_outdated};
use crate::metrics::{
    ATTEMPTED, CANARY_AGE_MS_MAX, FAILED, LOGS, Metrics, NUDGED, RESENT, STANDSTILL_MS_MAX,
    WAITING, waiting_for,
};

/// The sweep as a Lambda, which a schedule invokes.
pub struct SweepHandler {
    sweep: Sweep,
    logs_per_run: usize,
    position: Arc<dyn SweepPosition>,
    order: Option<StreamOrder>,
}

impl SweepHandler {
    /// A handler that calls this stage. A run visits `logs_per_run` logs, and the next run continues
    /// after them.
    pub fn new(sweep: Sweep, logs_per_run: usize, position: Arc<dyn SweepPosition>) -> Self {
        Self { sweep, logs_per_run, position, order: None }
    }

    /// Checks in each run whether the command stream keeps the order of a log's records.
    #[must_use]
    pub fn with_order_of(mut self, order: StreamOrder) -> Self {
        self.order = Some(order);
        self
    }
}

#[async_trait]
impl Handler for SweepHandler {
    async fn handle(&self, event: &str, budget: Budget) -> Result<Reply, InvocationError> {
        let ViewEvent::Schedule { due } = view_event(event)? else {
            let found = "has messages".to_owned();
            return Err(WrongEvent { expected: "a scheduled event", found }.into());
        };
        if is_outdated(due, budget) {
            return dropped_schedule(due);
        }
        if let Some(order) = &self.order {
            order.check().await;
        }
        let after = self.position.load().await?;
        let report = self.sweep.sweep(after, self.logs_per_run, budget.deadline).await?;
        self.position.store(report.next.as_ref()).await?;
        let mut metrics = Metrics::new();
        metrics.of_stack(LOGS, report.logs as f64);
        metrics.of_stack(NUDGED, report.nudged.len() as f64);
        metrics.of_stack(FAILED, report.failed.len() as f64);
        metrics.of_stack(WAITING, report.waiting as f64);
        for reason in Reason::ALL {
            let logs = report.parked.get(&reason).copied().unwrap_or_default();
            metrics.of_stack(waiting_for(reason), logs as f64);
        }
        metrics.of_stack(RESENT, report.resent.len() as f64);
        metrics.of_stack(ATTEMPTED, report.with_ended_lease as f64);
        metrics.of_stack(STANDSTILL_MS_MAX, report.standstill_ms_max as f64);
        if let Some(age_ms) = report.canary_age_ms_max {
            metrics.of_stack(CANARY_AGE_MS_MAX, age_ms as f64);
        }
        let answer = json!({
            "logs": report.logs,
            "nudged": report.nudged,
            "resent": report.resent,
            "failed": report.failed,
            "waiting": report.waiting,
            "parked": report.parked,
            "attempted": report.with_ended_lease,
            "standstill_ms_max": report.standstill_ms_max,
            "canary_age_ms_max": report.canary_age_ms_max,
        });
        Reply::new(&answer, metrics)
    }
}
