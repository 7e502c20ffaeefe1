use std::collections::BTreeMap;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, HeaderValue, Method, Request};
use fanfold_aws::events::{HttpRequest, http_request, http_response};
use fanfold_http::{Api, router};
use tower::ServiceExt;

use crate::budget::Budget;
use crate::error::InvocationError;
use crate::handler::{Handler, Reply};
use crate::metrics::Metrics;

/// The longest answer of a Lambda, in bytes (its quota for synchronous invocations); the router's
/// pages end well below it.
const ANSWER_BYTES_MAX: usize = 6 * 1024 * 1024;

/// The router behind an HTTP API.
pub struct ApiHandler {
    router: Router,
}

impl ApiHandler {
    /// Serves what the router serves.
    pub fn new(api: Api) -> Self {
        Self { router: router(api) }
    }
}

#[async_trait]
impl Handler for ApiHandler {
    async fn handle(&self, event: &str, _: Budget) -> Result<Reply, InvocationError> {
        let request = request(http_request(event)?);
        // A router has an answer to everything.
        let response = match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, ANSWER_BYTES_MAX).await;
        let body = body.map_err(|error| InvocationError::Panicked(error.to_string()))?;
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in &parts.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            let entry = headers.entry(name.as_str().to_owned()).or_default();
            if !entry.is_empty() {
                entry.push_str(", ");
            }
            entry.push_str(&value);
        }
        Reply::new(&http_response(parts.status.as_u16(), headers, &body), Metrics::new())
    }
}

/// Headers that no HTTP client could have sent are left out.
fn request(request: HttpRequest) -> Request<Body> {
    let HttpRequest { method, uri, headers, body } = request;
    let mut made = Request::new(Body::from(body));
    *made.method_mut() = Method::from_bytes(method.as_bytes()).unwrap_or(Method::TRACE);
    // Its path and query were encoded when it was read.
    *made.uri_mut() = uri.parse().unwrap_or_default();
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            made.headers_mut().append(name, value);
        }
    }
    made
}
