//! The HTTP client of the exporter.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use ureq::Agent;

/// How long one request may take. Source: the default of `OTEL_EXPORTER_OTLP_TIMEOUT`, in OpenTelemetry's specification.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of an answer that are read. Source: our choice; an answer counts the spans that were refused.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Sends requests one after another, from the exporter's own thread, which it blocks.
#[derive(Debug)]
pub(crate) struct Client(Agent);

impl Client {
    pub(crate) fn new() -> Self {
        let config = Agent::config_builder();
        let config = config.timeout_global(Some(timeout())).http_status_as_error(false);
        Self(config.build().into())
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let answer = self.0.run(Request::from_parts(head, &body[..]))?;
        let (head, mut body) = answer.into_parts();
        let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }
}

/// Milliseconds. Source of the names: OpenTelemetry's specification of the OTLP exporter.
fn timeout() -> Duration {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
    let set = names.iter().find_map(|name| std::env::var(name).ok()?.parse().ok());
    set.map_or(TIMEOUT, Duration::from_millis)
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let target = request.uri().clone();
        let sent = self.send(request);
        match &sent {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => {
                tracing::warn!(%target, status = answer.status().as_u16(), "the collector refuses spans");
            }
            Err(error) => tracing::warn!(%target, %error, "the collector does not take spans"),
        }
        sent
    }
}
