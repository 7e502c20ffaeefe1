//! The clients of all services that Fanfold uses, and what they share.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, SdkConfig};

use crate::call::{ATTEMPT_MS, Deadline};
use crate::meter::Meter;

/// AWS, as this process reaches it. A clone shares everything with its original.
#[derive(Debug, Clone)]
pub struct Aws {
    /// DynamoDB.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// Kinesis.
    pub kinesis: aws_sdk_kinesis::Client,
    /// SNS.
    pub sns: aws_sdk_sns::Client,
    /// SQS.
    pub sqs: aws_sdk_sqs::Client,
    /// What the calls have cost.
    pub meter: Meter,
    /// Until when calls may go on.
    pub deadline: Deadline,
    pub(crate) attempt_timeout: Duration,
}

impl Aws {
    /// From the environment: region, credentials, and `AWS_ENDPOINT_URL` if it is set.
    pub async fn load() -> Self {
        Self::new(&aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await)
    }

    /// With a configuration, whose retries are switched off: see [`call`](crate::call).
    pub fn new(config: &SdkConfig) -> Self {
        let config = config.to_builder().retry_config(RetryConfig::disabled()).build();
        Self {
            dynamodb: aws_sdk_dynamodb::Client::new(&config),
            kinesis: aws_sdk_kinesis::Client::new(&config),
            sns: aws_sdk_sns::Client::new(&config),
            sqs: aws_sdk_sqs::Client::new(&config),
            meter: Meter::default(),
            deadline: Deadline::default(),
            attempt_timeout: Duration::from_millis(ATTEMPT_MS),
        }
    }

    /// Gives each attempt of a call this long, instead of [`ATTEMPT_MS`].
    #[must_use]
    pub fn with_attempt_timeout(mut self, attempt_timeout: Duration) -> Self {
        self.attempt_timeout = attempt_timeout;
        self
    }
}
