use async_trait::async_trait;
use fanfold_aws::events::{BatchResponse, records};
use fanfold_pipeline::process::Processor;

use crate::budget::Budget;
use crate::error::InvocationError;
use crate::handler::{Handler, Reply};

/// The processor as a Lambda, whose event source is the command stream. If a record ends the process,
/// the mapping bisects the batch and delivers that record alone and old; the stage recognises it by
/// its age.
pub struct ProcessorHandler {
    processor: Processor,
}

impl ProcessorHandler {
    /// A handler that calls this stage.
    pub fn new(processor: Processor) -> Self {
        Self { processor }
    }
}

#[async_trait]
impl Handler for ProcessorHandler {
    async fn handle(&self, event: &str, budget: Budget) -> Result<Reply, InvocationError> {
        let batch = records(event)?;
        let outcome = self.processor.process(&batch.items, budget.deadline).await;
        let unfinished = outcome.unfinished.map_or(0, |at| batch.items.len() - at);
        let response = BatchResponse::of_stream(outcome, &batch.ids);
        Reply::of_batch(&response, batch.items.len(), unfinished, batch.unreadable)
    }
}
