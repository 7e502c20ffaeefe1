use std::sync::Arc;

use async_trait::async_trait;
use fanfold_aws::events::{ViewEvent, WrongEvent, view_event};
use fanfold_pipeline::sweep::Sweep;
use serde_json::json;

use crate::budget::Budget;
use crate::error::InvocationError;
use crate::handler::{Bookmark, Handler, Reply};
use crate::metrics::Metrics;

/// Logs that one run of a sweep looks at; the next run goes on behind them. Each costs about three
/// reads, and has its turn within the hour while there are at most 60,000 and a run each minute.
pub const LOGS_PER_RUN: usize = 1_000;

/// The sweep on its schedule.
pub struct SweepHandler {
    sweep: Sweep,
    bookmark: Arc<dyn Bookmark>,
}

impl SweepHandler {
    /// Of this stage.
    pub fn new(sweep: Sweep, bookmark: Arc<dyn Bookmark>) -> Self {
        Self { sweep, bookmark }
    }
}

#[async_trait]
impl Handler for SweepHandler {
    async fn handle(&self, event: &str, _: Budget) -> Result<Reply, InvocationError> {
        if view_event(event)? != ViewEvent::Schedule {
            let found = "has messages".to_owned();
            return Err(WrongEvent { expected: "a scheduled event", found }.into());
        }
        let after = self.bookmark.load().await?;
        let report = self.sweep.sweep(after, LOGS_PER_RUN).await?;
        self.bookmark.store(report.next.as_ref()).await?;
        let mut metrics = Metrics::new();
        metrics.count("logs", report.logs);
        metrics.count("nudged", report.nudged.len());
        metrics.count("waiting", report.waiting);
        metrics.count("attempted", report.attempted);
        metrics.ms("standstill_ms_max", report.standstill_ms_max);
        if let Some(age_ms) = report.canary_age_ms_max {
            metrics.ms("canary_age_ms", age_ms);
        }
        let answer = json!({
            "logs": report.logs,
            "nudged": report.nudged,
            "waiting": report.waiting,
            "attempted": report.attempted,
            "standstill_ms_max": report.standstill_ms_max,
            "canary_age_ms": report.canary_age_ms_max,
        });
        Reply::new(&answer, metrics)
    }
}
