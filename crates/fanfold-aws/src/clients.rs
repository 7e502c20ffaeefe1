//! The clients of all services of AWS that Fanfold uses, with their shared meter and deadline.

use std::env;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};

use crate::call::{ATTEMPT_MS, Deadline};
use crate::meter::Meter;

/// The clients of AWS. Clones share everything.
#[derive(Debug, Clone)]
pub struct Aws {
    /// The client of DynamoDB.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// The client of Kinesis.
    pub kinesis: aws_sdk_kinesis::Client,
    /// The client of SNS.
    pub sns: aws_sdk_sns::Client,
    /// The client of SQS.
    pub sqs: aws_sdk_sqs::Client,
    /// The costs of all calls.
    pub meter: Meter,
    /// When all calls end.
    pub deadline: Deadline,
    pub(crate) attempt_timeout: Duration,
}

/// The configuration of clients of an emulator at `endpoint`, which accepts any credentials.
pub fn of_emulator(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "an emulator's");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

impl Aws {
    /// Clients with the settings that Lambda puts into environment variables: `AWS_REGION`, the
    /// credentials of the function's role, and `AWS_ENDPOINT_URL` if it is set. Other sources of
    /// credentials (profiles, SSO, instance metadata) are left out, because their code would be a
    /// large part of the program that each cold start loads.
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

    /// Clients with this configuration. Its retries are switched off: see [`call`](crate::call).
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

    /// Sets how long an attempt of a call may take, instead of [`ATTEMPT_MS`].
    #[must_use]
    pub fn with_attempt_timeout(mut self, attempt_timeout: Duration) -> Self {
        self.attempt_timeout = attempt_timeout;
        self
    }
}
