use async_trait::async_trait;
use fanfold_aws::events::{BatchResponse, changes};
use fanfold_pipeline::relay::Relay;

use crate::budget::Budget;
use crate::error::InvocationError;
use crate::handler::{Handler, Reply};

/// The relay as a Lambda, whose event source is the commands table's stream.
pub struct RelayHandler {
    relay: Relay,
}

impl RelayHandler {
    /// A handler that calls this stage.
    pub fn new(relay: Relay) -> Self {
        Self { relay }
    }
}

#[async_trait]
impl Handler for RelayHandler {
    async fn handle(&self, event: &str, budget: Budget) -> Result<Reply, InvocationError> {
        let batch = changes(event)?;
        let outcome = self.relay.relay(&batch.items, budget.deadline).await;
        let unfinished = outcome.unfinished.map_or(0, |at| batch.items.len() - at);
        let response = BatchResponse::of_stream(outcome, &batch.ids);
        Reply::of_batch(&response, batch.items.len(), unfinished, batch.unreadable)
    }
}
