use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use fanfold::host::body::announced::{Announcement, AnnouncementConflict, AnnouncementError};
use fanfold::with_causes;
use fanfold_aws::SqsQueue;
use fanfold_aws::events::{Batch, BatchResponse, Delivery, ViewEvent, view_event};
use fanfold_pipeline::announce::{AnnounceError, announce};
use fanfold_pipeline::ports::{Env, ViewRegistry};
use fanfold_pipeline::project::{ATTEMPTS_MAX, Projector};
use fanfold_pipeline::sweep::ViewSweep;
use serde_json::json;

use crate::budget::Budget;
use crate::error::InvocationError;
use crate::handler::{Handler, Reply, SweepPosition, dropped_schedule, is_outdated};
use crate::metrics::{
    Metrics, VIEW_BEHIND, VIEW_DELIVERED, VIEW_FAILED, VIEW_LOGS, VIEW_PARKED, VIEW_UNDELIVERED,
    VIEW_UNDER_WAY, VIEW_WALKS,
};

/// How long a run of the sweep begins new work, in milliseconds, even if the function has more time.
/// Source: the next run begins a minute after this one, and two runs at the same time would read the
/// same logs.
const RUN_MS: u64 = 45_000;

/// One view as a Lambda: its event source is a topic or a queue, and a schedule invokes its sweep.
pub struct ViewHandler {
    projector: Arc<Projector>,
    sweep: ViewSweep,
    logs_per_run: usize,
    position: Arc<dyn SweepPosition>,
    queue: Option<SqsQueue>,
    announcer: Option<Announcer>,
}

/// Announces the view when the environment starts, and with each run of the sweep. While the announcement
/// contradicts an earlier one, nothing is applied: all messages become dead letters, which the sweep
/// delivers after a deployment that is right.
pub struct Announcer {
    view: String,
    announcement: Announcement,
    registry: Arc<dyn ViewRegistry>,
    env: Arc<dyn Env>,
    /// What the last answered announcement came to; `None` before there is one.
    last: Mutex<Option<Result<(), AnnouncementConflict>>>,
}

impl Announcer {
    /// Announces the view, whose version is described by `announcement`, in this registry.
    pub fn new(
        view: impl Into<String>,
        announcement: Announcement,
        registry: Arc<dyn ViewRegistry>,
        env: Arc<dyn Env>,
    ) -> Self {
        Self { view: view.into(), announcement, registry, env, last: Mutex::new(None) }
    }

    /// Announces the view. It fails only if the announcement contradicts an earlier one. Other failures
    /// are logged: readers then do not find the view until a later announcement.
    pub async fn announce(&self) -> Result<(), AnnouncementConflict> {
        let announcement = Announcement { since: self.env.now(), ..self.announcement.clone() };
        let now = match announce(&*self.registry, &self.view, &announcement).await {
            Ok(_) => Ok(()),
            Err(AnnounceError::Refused(AnnouncementError::Conflict(conflict))) => {
                let error = conflict.to_string();
                tracing::error!(alarm = "view_conflict", error, "the view is not applied");
                Err(conflict)
            }
            Err(AnnounceError::Refused(error)) => {
                let error = with_causes(&error);
                tracing::error!(alarm = "view_undecodable", error, "readers may not find the view");
                Ok(())
            }
            Err(AnnounceError::Unavailable(error)) => {
                tracing::warn!(%error, "the view could not be announced: a later invocation tries again");
                // A missing table or permission stays, so only the sweep tries again.
                let mut last = self.last();
                if !error.may_pass() {
                    last.get_or_insert(Ok(()));
                }
                return last.clone().unwrap_or(Ok(()));
            }
        };
        *self.last() = Some(now.clone());
        now
    }

    fn last(&self) -> MutexGuard<'_, Option<Result<(), AnnouncementConflict>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces the view if no announcement was answered, or the last one was refused.
    async fn make_up(&self) -> Result<(), AnnouncementConflict> {
        let is_announced = *self.last() == Some(Ok(()));
        if is_announced { Ok(()) } else { self.announce().await }
    }
}

impl ViewHandler {
    /// A handler that calls these stages of one view. A run of the sweep visits `logs_per_run` logs,
    /// and the next run continues after them.
    pub fn new(
        projector: Arc<Projector>,
        sweep: ViewSweep,
        logs_per_run: usize,
        position: Arc<dyn SweepPosition>,
    ) -> Self {
        let sweep = sweep.with_run_ms(RUN_MS);
        Self { projector, sweep, logs_per_run, position, queue: None, announcer: None }
    }

    /// Sets the queue that is the event source; `None` if SNS calls the Lambda itself.
    #[must_use]
    pub fn with_queue(mut self, queue: Option<SqsQueue>) -> Self {
        self.queue = queue;
        self
    }

    /// Announces the view with each run of the sweep.
    #[must_use]
    pub fn with_announcer(mut self, announcer: Announcer) -> Self {
        self.announcer = Some(announcer);
        self
    }

    /// Fails if the view contradicts what it has announced.
    async fn must_be_announced(&self) -> Result<(), InvocationError> {
        match &self.announcer {
            Some(announcer) => Ok(announcer.make_up().await?),
            None => Ok(()),
        }
    }

    async fn of_topic(&self, messages: &[Bytes], budget: Budget) -> Result<Reply, InvocationError> {
        self.must_be_announced().await?;
        let failed = self.projector.project(messages, budget.deadline).await.len();
        let messages = messages.len();
        if failed > 0 {
            return Err(InvocationError::NotApplied { failed, messages });
        }
        Reply::of_batch(&BatchResponse::default(), messages, 0, 0)
    }

    async fn of_queue(
        &self,
        batch: &Batch<Bytes>,
        deliveries: &[Delivery],
        budget: Budget,
    ) -> Result<Reply, InvocationError> {
        self.must_be_announced().await?;
        let received_before: Vec<bool> = deliveries.iter().map(|d| d.times > 1).collect();
        let failed = self.projector.project_with_suspects(
            &batch.items,
            &received_before,
            ATTEMPTS_MAX,
            budget.deadline,
        );
        let failed: Vec<usize> = failed.await.into_iter().collect();
        if let Some(queue) = self.queue.as_ref().filter(|_| !failed.is_empty()) {
            let failed: Vec<&Delivery> =
                failed.iter().filter_map(|at| deliveries.get(*at)).collect();
            if let Err(error) = queue.change_visibility(&failed).await {
                tracing::warn!(
                    %error,
                    "failed messages are delivered again only after the queue's visibility timeout"
                );
            }
        }
        let unfinished = failed.len();
        let response = BatchResponse::of_queue(failed, &batch.ids);
        Reply::of_batch(&response, batch.items.len(), unfinished, batch.unreadable)
    }

    /// Runs the sweep. A failure is logged and counted, but is not an error of the invocation: Lambda
    /// would retry it beside the next run, and then move the event to the dead letters.
    async fn on_schedule(&self, budget: Budget) -> Result<Reply, InvocationError> {
        self.run(budget).await.or_else(|error| {
            tracing::error!(%error, "the view's sweep failed");
            let mut metrics = Metrics::new();
            metrics.of_stack(VIEW_FAILED, 1.0);
            Reply::new(&json!({"failed": error.to_string()}), metrics)
        })
    }

    async fn run(&self, budget: Budget) -> Result<Reply, InvocationError> {
        if let Some(announcer) = &self.announcer {
            announcer.announce().await?;
        }
        let after = self.position.load().await?;
        let report = self.sweep.sweep(after, self.logs_per_run, budget.deadline).await?;
        self.position.store(report.next.as_ref()).await?;
        let mut metrics = Metrics::new();
        metrics.of_stack(VIEW_BEHIND, report.caught_up.len() as f64);
        metrics.of_stack(VIEW_FAILED, report.failed.len() as f64);
        metrics.of_stack(VIEW_UNDER_WAY, report.under_way as f64);
        metrics.of_stack(VIEW_PARKED, report.parked.len() as f64);
        metrics.of_service(VIEW_PARKED, report.parked.len() as f64);
        metrics.of_stack(VIEW_DELIVERED, report.delivered as f64);
        metrics.of_stack(VIEW_UNDELIVERED, report.undelivered as f64);
        metrics.of_service(VIEW_LOGS, report.logs as f64);
        metrics.of_service(VIEW_WALKS, f64::from(u8::from(report.next.is_none())));
        let answer = json!({
            "logs": report.logs,
            "behind": report.caught_up.len(),
            "failed": report.failed.len(),
            "under_way": report.under_way,
            "parked": report.parked.len(),
            "delivered": report.delivered,
            "undelivered": report.undelivered,
        });
        Reply::new(&answer, metrics)
    }
}

#[async_trait]
impl Handler for ViewHandler {
    async fn handle(&self, event: &str, budget: Budget) -> Result<Reply, InvocationError> {
        match view_event(event)? {
            ViewEvent::Topic(messages) => self.of_topic(&messages, budget).await,
            ViewEvent::Queue { batch, deliveries } => {
                self.of_queue(&batch, &deliveries, budget).await
            }
            ViewEvent::Schedule { due } if is_outdated(due, budget) => dropped_schedule(due),
            ViewEvent::Schedule { .. } => self.on_schedule(budget).await,
        }
    }
}
