//! The clients of all services that Fanfold uses, and what they share.

use std::env;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::SharedCredentialsProvider;

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
    /// As Lambda sets the environment: `AWS_REGION`, the credentials of the function's role; and
    /// `AWS_ENDPOINT_URL`, if it is there. What else may have credentials (profiles, SSO, metadata
    /// of machines) is not asked: it would be a good part of a program that is loaded at each cold
    /// start.
    pub fn of_environment() -> Self {
        let credentials = EnvironmentVariableCredentialsProvider::new();
        let mut config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .credentials_provider(SharedCredentialsProvider::new(credentials));
        config.set_region(env::var("AWS_REGION").ok().map(Region::new));
        let endpoint = env::var("AWS_ENDPOINT_URL").ok().filter(|url| !url.is_empty());
        config.set_endpoint_url(endpoint);
        Self::new(&config.build())
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
