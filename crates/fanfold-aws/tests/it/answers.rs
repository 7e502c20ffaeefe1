//! Clients of AWS whose answers a test gives.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kinesis::config::http::{HttpRequest, HttpResponse};
use aws_sdk_kinesis::config::{
    Credentials, HttpClient, RuntimeComponents, SharedCredentialsProvider, SharedHttpClient,
};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_types::body::SdkBody;
use fanfold::Time;
use fanfold_aws::Aws;
use fanfold_pipeline::ports::Env;

/// An answer; `None` means that there is never one.
pub(crate) type Answer = Option<(u16, String)>;

type Answers = dyn FnMut(&str) -> Answer + Send;

/// A wire that answers requests by their bodies.
#[derive(Clone)]
struct Wire(Arc<Mutex<Box<Answers>>>);

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
        let answer = (self.0.lock().unwrap())(&body);
        HttpConnectorFuture::new(async move {
            let Some((status, body)) = answer else { return std::future::pending().await };
            Ok(HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body)))
        })
    }
}

impl HttpClient for Wire {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

/// Clients of services that give these answers.
pub(crate) fn aws(answers: impl FnMut(&str) -> Answer + Send + 'static) -> Aws {
    let wire = Wire(Arc::new(Mutex::new(Box::new(answers))));
    let credentials = Credentials::new("AKIDTEST", "secret", None, None, "a test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(SharedHttpClient::new(wire))
        .build();
    Aws::new(&config).with_attempt_timeout(Duration::from_secs(1))
}

/// A clock that advances only when something sleeps, and random numbers of a seed.
pub(crate) struct TestEnv {
    now: Mutex<u64>,
    random: Mutex<u64>,
}

impl TestEnv {
    pub(crate) fn new(seed: u64) -> Self {
        Self { now: Mutex::new(1_795_401_660_000), random: Mutex::new(seed | 1) }
    }
}

#[async_trait]
impl Env for TestEnv {
    fn now(&self) -> Time {
        Time(*self.now.lock().unwrap())
    }

    /// SplitMix64.
    fn random(&self) -> u64 {
        let mut state = self.random.lock().unwrap();
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    async fn sleep(&self, ms: u64) {
        *self.now.lock().unwrap() += ms;
    }
}
