use std::collections::BTreeSet;

use async_trait::async_trait;
use aws_sdk_sns::operation::publish_batch::PublishBatchError;
use aws_sdk_sns::types::{BatchResultErrorEntry, MessageAttributeValue, PublishBatchRequestEntry};
use fanfold::body::notification::{Message, string_array};
use fanfold_pipeline::packing::MessageTopics;
use fanfold_pipeline::ports::{PublishError, Unavailable};

use crate::Aws;
use crate::call::Tries;
use crate::error::{Call, CallError, is_throttled};

const HOP: &str = "topic";

/// Codes by which SNS refuses a whole `PublishBatch` for what is in its messages.
const OF_A_MESSAGE: &[&str] = &[
    "InvalidParameter",
    "InvalidParameterException",
    "InvalidParameterValue",
    "ParameterValueInvalid",
    "ValidationException",
    "BatchRequestTooLong",
    "BatchRequestTooLongException",
];

/// Codes by which SNS refuses an entry of a `PublishBatch` for what would stop every other one, too.
/// Those of the key begin with `KMS`.
const OF_THE_TOPIC: &[&str] = &[
    "AccessDenied",
    "AccessDeniedException",
    "AuthorizationError",
    "AuthorizationErrorException",
    "EndpointDisabled",
    "InvalidSecurity",
    "InvalidSecurityException",
    "NotFound",
    "NotFoundException",
    "OptInRequired",
];

/// The topics on SNS. Nothing is retried here: [`PackingTopic`](fanfold_pipeline::packing::PackingTopic)
/// sends again what failed.
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
impl MessageTopics for SnsTopic {
    fn topics(&self) -> usize {
        self.arns.len().max(1)
    }

    async fn publish_messages(
        &self,
        topic: usize,
        messages: &[Message],
    ) -> Result<Published, Unavailable> {
        let Some(arn) = self.arns.get(topic) else {
            let message = format!("there is no topic {topic}, they are {}", self.arns.len());
            return Err(Unavailable::Failed { hop: HOP, message });
        };
        match self.publish_batch(arn, messages).await {
            Ok(results) => Ok(results),
            Err(error) if !is_of_a_message(&error) => Err(error.unavailable(HOP)),
            Err(error) if messages.len() <= 1 => {
                Ok(messages.iter().map(|_| Err(PublishError::Refused(error.to_string()))).collect())
            }
            // It does not say which message it is.
            Err(_) => {
                let mut results = Vec::with_capacity(messages.len());
                for message in messages.chunks(1) {
                    match self.publish_batch(arn, message).await {
                        Ok(result) => results.extend(result),
                        Err(error) if is_of_a_message(&error) => {
                            results.push(Err(PublishError::Refused(error.to_string())));
                        }
                        Err(error) => results.push(Err(error.unavailable(HOP).into())),
                    }
                }
                Ok(results)
            }
        }
    }
}

type Published = Vec<Result<(), PublishError>>;
type BatchError = CallError<PublishBatchError>;

impl SnsTopic {
    /// One call. A message's own result says whether it was published.
    async fn publish_batch(
        &self,
        arn: &str,
        messages: &[Message],
    ) -> Result<Published, BatchError> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let entries = messages.iter().enumerate().filter_map(|(id, m)| entry(id, m));
        let request = self.aws.sns.publish_batch().topic_arn(arn);
        let request = request.set_publish_batch_request_entries(Some(entries.collect()));
        let call = Call::new("PublishBatch", arn);
        let output = self.aws.call(call, Tries::ONE, || request.clone().send()).await?;
        // Whatever is in neither list was not acknowledged.
        let unacknowledged = || {
            let message = "neither acknowledged nor refused".to_owned();
            Err(Unavailable::Failed { hop: HOP, message }.into())
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
                *result = Err(publish_error(entry));
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
    let json = Some(string_array(values)).filter(|_| !values.is_empty())?;
    let value = MessageAttributeValue::builder().data_type("String.Array").string_value(json);
    value.build().ok()
}

/// Whether SNS has refused the call for what is in its messages. A bad ARN is a bad parameter, too,
/// but the topic's.
fn is_of_a_message(error: &BatchError) -> bool {
    match error {
        CallError::Refused { said, .. } => {
            let code = said.split(':').next().unwrap_or_default();
            OF_A_MESSAGE.contains(&code) && !said.contains("TopicArn")
        }
        _ => false,
    }
}

fn publish_error(entry: &BatchResultErrorEntry) -> PublishError {
    let code = entry.code();
    let message = format!("{code}: {}", entry.message().unwrap_or("without a message"));
    if is_throttled(code) {
        Unavailable::Throttled { hop: HOP }.into()
    } else if OF_THE_TOPIC.contains(&code) || code.starts_with("KMS") {
        Unavailable::Refused { hop: HOP, message }.into()
    } else if entry.sender_fault() {
        PublishError::Refused(message)
    } else {
        Unavailable::Failed { hop: HOP, message }.into()
    }
}
