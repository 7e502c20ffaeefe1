//! Whether the command stream keeps a log's records in order.

use std::sync::{Arc, OnceLock};

use aws_sdk_kinesis::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use fanfold_pipeline::ports::Unavailable;
use serde::Deserialize;

use crate::Aws;
use crate::call::Tries;
use crate::error::Call;

const HOP: &str = "command stream";

/// The strategy by which a stream ignores partition keys (`UpdateStreamRecordDistributionStrategy`).
/// Only on-demand streams can have it, and anybody with the right can switch it on at any time.
const IGNORES_KEYS: &str = "AUTO";

/// Looks at how the stream distributes records.
#[derive(Debug, Clone)]
pub struct StreamOrder {
    aws: Aws,
    stream: String,
}

impl StreamOrder {
    /// Of the stream with this name.
    pub fn new(aws: &Aws, stream: impl Into<String>) -> Self {
        Self { aws: aws.clone(), stream: stream.into() }
    }

    /// Raises an alarm if the stream ignores partition keys. Nothing is lost then: what overtakes
    /// is seen by its seq, and is parked or tried again. But that is slow, and costs. That the
    /// stream could not be asked is only logged.
    pub async fn check(&self) {
        match self.keeps().await {
            Ok(true) => {}
            Ok(false) => tracing::error!(
                alarm = "stream_order",
                stream = self.stream,
                "the command stream ignores partition keys: set its record distribution strategy \
                 to USER_PARTITION_KEY"
            ),
            Err(error) => tracing::warn!(%error, "the order of the command stream is not known"),
        }
    }

    /// Whether records with one partition key stay in order. A stream that does not say is an older
    /// or a provisioned one: they do.
    pub async fn keeps(&self) -> Result<bool, Unavailable> {
        let body = Body::default();
        let request = self.aws.kinesis.describe_stream_summary().stream_name(&self.stream);
        let call = Call::new("DescribeStreamSummary", &self.stream);
        let send = || request.clone().customize().interceptor(body.clone()).send();
        let output = self.aws.call(call, Tries::ONE, send).await;
        output.map_err(|error| error.unavailable(HOP))?;
        let answer = body.0.get().and_then(|bytes| serde_json::from_slice::<Answer>(bytes).ok());
        let strategy = answer.and_then(|answer| answer.summary.strategy);
        Ok(strategy.is_none_or(|strategy| strategy != IGNORES_KEYS))
    }
}

/// The part of the answer that this version of the SDK (1.99) drops. Newer ones have the field, and
/// need Rust 1.94.
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

/// Keeps the answer as it came.
#[derive(Debug, Clone, Default)]
struct Body(Arc<OnceLock<Vec<u8>>>);

impl Intercept for Body {
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
            // Tried once, so there is one answer.
            let _ = self.0.set(bytes.to_vec());
        }
        Ok(())
    }
}
