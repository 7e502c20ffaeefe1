use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use fanfold_aws::events::{http_request, http_response};
use fanfold_http::problem::{Kind, Problem};
use fanfold_http::{Api, operators_alone, router};
use fanfold_pipeline::arrivals::WhileArriving;
use fanfold_pipeline::doctor::Doctor;
use fanfold_pipeline::operate::Operate;
use fanfold_pipeline::ports::{Env, HostChecks};
use fanfold_pipeline::timeline::Timeline;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::budget::Budget;
use crate::error::InvocationError;
use crate::handler::{Handler, Reply};
use crate::metrics::Metrics;

/// The most bytes of a body. Source: Lambda's quota for the answer of a synchronous invocation is
/// 6,291,556 bytes of JSON; base64 takes four bytes for three, and all other fields take less than
/// 16 KiB. The router's pages are shorter.
const BODY_BYTES_MAX: usize = (6_291_556 - 16 * 1024) / 4 * 3;
/// Time that is kept to answer that the tables took too long, in milliseconds. Source: our choice.
const ANSWER_MS: u64 = 100;
/// Seconds after which a client should try again if the tables took too long. Source: our choice.
const RETRY_AFTER_S: u64 = 5;

/// A router as a Lambda, whose event source is an HTTP API.
pub struct ApiHandler {
    router: Router,
    env: Arc<dyn Env>,
    admission: Option<Arc<WhileArriving>>,
}

impl ApiHandler {
    /// A handler that serves the router's routes except `/metrics`.
    pub fn new(api: Api, env: Arc<dyn Env>) -> Self {
        let router = Router::new().route("/metrics", any(no_metrics)).fallback_service(router(api));
        Self { router, env, admission: None }
    }

    /// A handler that serves the routes of operators.
    pub fn of_operators(
        operate: Operate,
        doctor: Doctor,
        timeline: Timeline,
        checks: Arc<dyn HostChecks>,
        env: Arc<dyn Env>,
    ) -> Self {
        let router = operators_alone(operate, doctor, timeline, checks);
        Self { router, env, admission: None }
    }

    /// Keeps up to date whether the router's ingest admits commands.
    #[must_use]
    pub fn with_admission(self, admission: Option<Arc<WhileArriving>>) -> Self {
        Self { admission, ..self }
    }

    /// The router's answer, or 503 if the time is over. If the invocation failed instead, API Gateway
    /// would answer 500.
    async fn route(&self, request: axum::extract::Request, budget: Budget) -> Response {
        let left_ms = budget.end.since_ms(self.env.now()).saturating_sub(ANSWER_MS);
        let router = self.router.clone();
        let answered = async {
            // Only commands are refused.
            if let Some(admission) =
                self.admission.as_ref().filter(|_| *request.method() == Method::POST)
            {
                admission.refresh().await;
            }
            router.oneshot(request).await
        };
        match timeout(Duration::from_millis(left_ms), answered).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => {
                let detail = "the tables take too long: whether a command was accepted is unknown, \
                              so send it again with the same id";
                Problem::new(Kind::UNAVAILABLE, detail).retry_after(RETRY_AFTER_S).into_response()
            }
        }
    }
}

/// Answers `/metrics`, which is not served: each environment counts only the requests that it has
/// answered itself, and API Gateway picks one at random.
async fn no_metrics() -> Problem {
    let detail = "there is nothing at `/metrics` here: requests are counted by CloudWatch \
                  (AWS/ApiGateway), and the metrics of the stages are in its namespace `Fanfold`";
    Problem::new(Kind::UNKNOWN_ROUTE, detail)
}

#[async_trait]
impl Handler for ApiHandler {
    async fn handle(&self, event: &str, budget: Budget) -> Result<Reply, InvocationError> {
        let response = self.route(http_request(event)?.map(Body::from), budget).await;
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(InvocationError::Body)?;
        Reply::new(&http_response(Response::from_parts(parts, body)), Metrics::new())
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;
    use axum::routing::get;
    use fanfold_aws::SystemEnv;
    use serde_json::Value;

    use super::*;

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_answered_with_503_in_time() {
        let minute = || tokio::time::sleep(Duration::from_secs(60));
        let router = Router::new().route("/", get(minute));
        let handler = ApiHandler { router, env: Arc::new(SystemEnv), admission: None };
        let budget = Budget::of(SystemEnv.now(), SystemEnv.now().plus_ms(400));
        let response = handler.route(Request::new(Body::empty()), budget).await;
        assert!(SystemEnv.now() < budget.end, "no time is left to answer");
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        let body = to_bytes(response.into_body(), BODY_BYTES_MAX).await.expect("it has a body");
        let problem: Value = serde_json::from_slice(&body).expect("it is JSON");
        let detail = problem["detail"].as_str().expect("it says why");
        assert!(detail.contains("same id"), "{detail}");
    }
}
