use async_trait::async_trait;
use fanfold_aws::events::{Batch, BatchResponse, changes, records};
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::process::Processor;
use fanfold_pipeline::relay::Relay;

use crate::budget::Budget;
use crate::error::InvocationError;
use crate::handler::{Handler, Reply};

/// The relay as a Lambda, whose event source is the commands table's stream.
pub struct RelayHandler(pub Relay);

#[async_trait]
impl Handler for RelayHandler {
    async fn handle(&self, event: &str, budget: Budget) -> Result<Reply, InvocationError> {
        let batch = changes(event)?;
        let outcome = self.0.relay(&batch.items, budget.deadline).await;
        reply(outcome, &batch)
    }
}

/// The processor as a Lambda, whose event source is the command stream. If a record ends the process,
/// the mapping bisects the batch and delivers that record alone and old; the stage recognises it by
/// its age.
pub struct ProcessorHandler(pub Processor);

#[async_trait]
impl Handler for ProcessorHandler {
    async fn handle(&self, event: &str, budget: Budget) -> Result<Reply, InvocationError> {
        let batch = records(event)?;
        let outcome = self.0.process(&batch.items, budget.deadline).await;
        reply(outcome, &batch)
    }
}

fn reply<T>(outcome: BatchOutcome, batch: &Batch<T>) -> Result<Reply, InvocationError> {
    let records = batch.items.len();
    let unfinished = outcome.unfinished.map_or(0, |at| records - at);
    let response = BatchResponse::of_stream(outcome, &batch.ids);
    Reply::of_batch(&response, records, unfinished, batch.unreadable)
}
