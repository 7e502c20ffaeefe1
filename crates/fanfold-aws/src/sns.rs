use std::collections::BTreeSet;

use async_trait::async_trait;
use aws_sdk_sns::operation::publish_batch::PublishBatchError;
use aws_sdk_sns::types::{BatchResultErrorEntry, MessageAttributeValue, PublishBatchRequestEntry};
use fanfold::host::body::notification::{Message, string_array};
use fanfold_pipeline::packing::MessageTopics;
use fanfold_pipeline::ports::{PublishError, Unavailable};

use crate::Aws;
use crate::call::RetryPolicy;
use crate::error::{Call, CallError, is_throttled};

const HOP: &str = "topic";

/// The codes with which SNS refuses a whole `PublishBatch` because of its messages.
const OF_A_MESSAGE: &[&str] = &[
    "InvalidParameter",
    "InvalidParameterException",
    "InvalidParameterValue",
    "ParameterValueInvalid",
    "ValidationException",
    "BatchRequestTooLong",
    "BatchRequestTooLongException",
];

/// The codes with which SNS refuses an entry of a `PublishBatch` for a reason that concerns every
/// message of the topic. Those of the encryption key begin with `KMS`.
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

/// The topics on SNS. This adapter retries nothing:
/// [`PackingTopic`](fanfold_pipeline::packing::PackingTopic) sends again what failed.
#[derive(Debug, Clone)]
pub struct SnsTopic {
    aws: Aws,
    arns: Vec<String>,
}

impl SnsTopic {
    /// These topics. Their order matters: a log's topic is chosen by index.
    pub fn new(aws: &Aws, arns: Vec<String>) -> Self {
        Self { aws: aws.clone(), arns }
    }

    /// Opens the connection before there is something to publish. It publishes nothing, since SNS
    /// refuses an empty batch, and needs no other permission than publishing.
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
            let message = format!("there is no topic {topic}, only {}", self.arns.len());
            return Err(Unavailable::Failed { hop: HOP, message });
        };
        match self.publish_batch(arn, messages).await {
            Ok(results) => Ok(results),
            Err(error) if !is_of_a_message(&error) => Err(error.unavailable(HOP)),
            Err(error) if messages.len() <= 1 => {
                Ok(messages.iter().map(|_| Err(PublishError::Refused(error.to_string()))).collect())
            }
            // The error does not name the message, so each is published alone.
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
    /// Publishes messages with one call. Each message has its own result.
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
        let output = self.aws.call(call, RetryPolicy::NONE, || request.clone().send()).await?;
        // A message that is in neither list of the answer was not acknowledged.
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

/// The entry of a message in a batch. Its id is its index.
fn entry(id: usize, message: &Message) -> Option<PublishBatchRequestEntry> {
    let mut entry =
        PublishBatchRequestEntry::builder().id(id.to_string()).message(message.body.clone());
    let attributes = &message.attributes;
    for (name, values) in [
        ("services", &attributes.services),
        ("kinds", &attributes.kinds),
        ("partitions", &attributes.partitions),
    ] {
        // A message with only duplicates has no kinds, and SNS refuses an attribute without a value.
        if let Some(values) = array(values) {
            entry = entry.message_attributes(name, values);
        }
    }
    // Never fails, since both required fields are set.
    entry.build().ok()
}

fn array(values: &BTreeSet<String>) -> Option<MessageAttributeValue> {
    let json = Some(string_array(values)).filter(|_| !values.is_empty())?;
    let value = MessageAttributeValue::builder().data_type("String.Array").string_value(json);
    value.build().ok()
}

/// Whether SNS refused the call because of its messages. A wrong ARN has one of these codes, too, but
/// concerns the topic.
fn is_of_a_message(error: &BatchError) -> bool {
    match error {
        CallError::Refused { message, .. } => {
            let code = message.split(':').next().unwrap_or_default();
            OF_A_MESSAGE.contains(&code) && !message.contains("TopicArn")
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
