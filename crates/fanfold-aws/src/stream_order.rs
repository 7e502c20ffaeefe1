//! Checks whether the command stream keeps a log's records in order.

use std::sync::{Arc, OnceLock};

use aws_sdk_kinesis::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use fanfold_pipeline::ports::Unavailable;
use serde::Deserialize;

use crate::Aws;
use crate::call::RetryPolicy;
use crate::error::Call;

const HOP: &str = "command stream";

/// The strategy with which a stream ignores partition keys (`UpdateStreamRecordDistributionStrategy`).
/// Only on-demand streams can have it. A user with the right to do so can switch it on at any time.
const IGNORES_KEYS: &str = "AUTO";

/// The check of how a stream distributes records.
#[derive(Debug, Clone)]
pub struct StreamOrder {
    aws: Aws,
    stream: String,
}

impl StreamOrder {
    /// The check of the stream with this name.
    pub fn new(aws: &Aws, stream: impl Into<String>) -> Self {
        Self { aws: aws.clone(), stream: stream.into() }
    }

    /// Raises an alarm if the stream ignores partition keys. Nothing is lost then: the processor
    /// detects by the seqs that records overtook each other, and parks or retries them. But that is
    /// slow and costs more. If the call fails, it only logs a warning.
    pub async fn check(&self) {
        match self.keeps_order().await {
            Ok(true) => {}
            Ok(false) => tracing::error!(
                alarm = "stream_order",
                stream = self.stream,
                "the command stream ignores partition keys: set its record distribution strategy \
                 to USER_PARTITION_KEY"
            ),
            Err(error) => {
                tracing::warn!(%error, "the order of the command stream cannot be checked");
            }
        }
    }

    /// Whether records with the same partition key stay in order. They do if the answer has no
    /// strategy: then the stream is older or provisioned.
    pub async fn keeps_order(&self) -> Result<bool, Unavailable> {
        let body = RawAnswer::default();
        let request = self.aws.kinesis.describe_stream_summary().stream_name(&self.stream);
        let call = Call::new("DescribeStreamSummary", &self.stream);
        let send = || request.clone().customize().interceptor(body.clone()).send();
        let output = self.aws.call(call, RetryPolicy::NONE, send).await;
        output.map_err(|error| error.unavailable(HOP))?;
        let answer = body.0.get().and_then(|bytes| serde_json::from_slice::<Answer>(bytes).ok());
        let strategy = answer.and_then(|answer| answer.summary.strategy);
        Ok(strategy.is_none_or(|strategy| strategy != IGNORES_KEYS))
    }
}

/// The field of the answer that this version of the SDK (1.99) drops. Newer versions have the field,
/// and need Rust 1.94.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "StreamDescriptionSummary")]
    summary: Summary,
}

#[derive(Deserialize)]
struct Summary {
    #[serde(rename = "RecordDistributionStrategy")]
    strategy: Option<String>,
}

/// An interceptor that keeps the bytes of the answer.
#[derive(Debug, Clone, Default)]
struct RawAnswer(Arc<OnceLock<Vec<u8>>>);

impl Intercept for RawAnswer {
    fn name(&self) -> &'static str {
        "StreamOrder"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(bytes) = context.response().body().bytes() {
            // Never set before, since the call has one attempt.
            let _ = self.0.set(bytes.to_vec());
        }
        Ok(())
    }
}
