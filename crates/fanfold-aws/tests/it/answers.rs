//! Clients of AWS whose answers a test gives.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_kinesis::config::http::{HttpRequest, HttpResponse};
use aws_sdk_kinesis::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_types::body::SdkBody;
use fanfold_aws::{Aws, of_emulator};
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::testing::{Faults, ManualEnv};

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

/// No call leaves the process.
const NOWHERE: &str = "http://127.0.0.1:9";

/// Clients of services that give these answers.
pub(crate) fn aws(answers: impl FnMut(&str) -> Answer + Send + 'static) -> Aws {
    let wire = Wire(Arc::new(Mutex::new(Box::new(answers))));
    let config = of_emulator(NOWHERE).into_builder().http_client(SharedHttpClient::new(wire));
    Aws::new(&config.build()).with_attempt_timeout(Duration::from_secs(1))
}

/// A clock that only sleeps move, and random numbers of a seed.
pub(crate) fn env(seed: u64) -> Arc<ManualEnv> {
    let env = ManualEnv::new(seed, &Faults::default());
    env.pass(1_795_401_660_000 - env.now().0);
    env
}
