use std::collections::BTreeSet;

use async_trait::async_trait;
use aws_sdk_sns::types::{BatchResultErrorEntry, MessageAttributeValue, PublishBatchRequestEntry};
use fanfold::body::notification::Message;
use fanfold_pipeline::ports::{Topic, Unavailable};

use crate::Aws;
use crate::call::Tries;
use crate::error::{Call, is_throttled};

const HOP: &str = "topic";

/// The topics on SNS. Nothing is retried here: the processor publishes again what was not.
#[derive(Debug, Clone)]
pub struct SnsTopic {
    aws: Aws,
    arns: Vec<String>,
}

impl SnsTopic {
    /// These topics; a log's is chosen by its place.
    pub fn new(aws: &Aws, arns: Vec<String>) -> Self {
        Self { aws: aws.clone(), arns }
    }

    /// Makes the connection before there is something to publish. It publishes nothing: SNS refuses
    /// an empty batch, and no other permission is needed to be refused.
    pub async fn warm(&self) -> Result<(), Unavailable> {
        let request = self.aws.sns.publish_batch().set_topic_arn(self.arns.first().cloned());
        self.aws.warm(HOP, request.set_publish_batch_request_entries(Some(Vec::new())).send()).await
    }
}

#[async_trait]
impl Topic for SnsTopic {
    fn topics(&self) -> usize {
        self.arns.len().max(1)
    }

    async fn publish(
        &self,
        topic: usize,
        messages: &[Message],
    ) -> Result<Vec<Result<(), Unavailable>>, Unavailable> {
        let Some(arn) = self.arns.get(topic) else {
            let message = format!("there is no topic {topic}, they are {}", self.arns.len());
            return Err(Unavailable::Failed { hop: HOP, message });
        };
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let entries = messages.iter().enumerate().filter_map(|(id, m)| entry(id, m));
        let request = self.aws.sns.publish_batch().topic_arn(arn);
        let request = request.set_publish_batch_request_entries(Some(entries.collect()));
        let call = Call::new("PublishBatch", arn);
        let output = self.aws.call(call, Tries::ONE, || request.clone().send()).await;
        let output = output.map_err(|error| error.unavailable(HOP))?;
        // Whatever is in neither list was not acknowledged.
        let unacknowledged = || {
            let message = "neither acknowledged nor refused".to_owned();
            Err(Unavailable::Failed { hop: HOP, message })
        };
        let mut results: Vec<_> = messages.iter().map(|_| unacknowledged()).collect();
        let place = |id: Option<&str>| id.and_then(|id| id.parse::<usize>().ok());
        for entry in output.successful() {
            if let Some(result) = place(entry.id()).and_then(|at| results.get_mut(at)) {
                *result = Ok(());
            }
        }
        for entry in output.failed() {
            if let Some(result) = place(Some(entry.id())).and_then(|at| results.get_mut(at)) {
                *result = Err(unavailable(entry));
            }
        }
        Ok(results)
    }
}

/// Its id is its place in the batch.
fn entry(id: usize, message: &Message) -> Option<PublishBatchRequestEntry> {
    let mut entry =
        PublishBatchRequestEntry::builder().id(id.to_string()).message(message.body.clone());
    let attributes = &message.attributes;
    for (name, values) in [
        ("services", &attributes.services),
        ("kinds", &attributes.kinds),
        ("partitions", &attributes.partitions),
    ] {
        // A message of duplicates only has no kinds; an attribute must have a value.
        if let Some(values) = array(values) {
            entry = entry.message_attributes(name, values);
        }
    }
    // Both that it requires are set.
    entry.build().ok()
}

fn array(values: &BTreeSet<String>) -> Option<MessageAttributeValue> {
    let json = serde_json::to_string(values).ok().filter(|_| !values.is_empty())?;
    let value = MessageAttributeValue::builder().data_type("String.Array").string_value(json);
    value.build().ok()
}

fn unavailable(entry: &BatchResultErrorEntry) -> Unavailable {
    if is_throttled(entry.code()) {
        return Unavailable::Throttled { hop: HOP };
    }
    let message = format!("{}: {}", entry.code(), entry.message().unwrap_or("without a message"));
    Unavailable::Failed { hop: HOP, message }
}
