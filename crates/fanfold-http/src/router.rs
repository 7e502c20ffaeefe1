//! The routes, and the layers around all of them: a panic is answered, and each request is counted.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use fanfold::TraceParent;
use fanfold_pipeline::doctor::Doctor;
use fanfold_pipeline::operate::Operate;
use fanfold_pipeline::ports::HostChecks;
use fanfold_pipeline::timeline::Timeline;
use futures::FutureExt;

use crate::doctor_host::doctor_host;
use crate::problem::{Kind, Problem};
use crate::timeline::with_timeline;
use crate::{Api, commands, describe, json, logs, metrics, operate, views};

const COMMAND: &str = "/command";
const COMMANDS: &str = "/commands";
const LOGS: &str = "/logs";
const ENTRIES: &str = "/logs/{service}/{partition}";
const ENTRY: &str = "/logs/{service}/{partition}/{seq}";
const VIEWS: &str = "/views";
const ROWS: &str = "/views/{view}/{service}/{partition}";
// Clients encode a slash in a row's key as `%2F`. Some proxies decode it, so it is also taken as `/`.
const ROW: &str = "/views/{view}/{service}/{partition}/{*row}";
const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";
const METRICS: &str = "/metrics";
const OPENAPI: &str = "/openapi.json";
const ASYNCAPI: &str = "/asyncapi.json";
const PATHS: [&str; 13] = [
    COMMAND, COMMANDS, LOGS, ENTRIES, ENTRY, VIEWS, ROWS, ROW, HEALTHZ, READYZ, METRICS, OPENAPI,
    ASYNCAPI,
];

/// Routes that machines ask all the time, and that have no command.
const UNTRACED: [&str; 3] = [HEALTHZ, READYZ, METRICS];
/// The header that names a request's trace. Source: W3C Trace Context.
const TRACEPARENT: &str = "traceparent";

/// The router of the whole API.
pub fn router(api: Api) -> Router {
    router_with(api, Router::new())
}

/// The router of the whole API and of the host's own routes, `more`. For those, too, a panic is
/// answered with a problem, and requests are counted, under the route `other`.
pub fn router_with(api: Api, more: Router<Arc<Api>>) -> Router {
    // Every layer clones its state for every request.
    let api = Arc::new(api);
    more.route(COMMAND, post(commands::one))
        .route(COMMANDS, post(commands::many))
        .route(LOGS, get(logs::logs))
        .route(ENTRIES, get(logs::entries))
        .route(ENTRY, get(logs::entry))
        .route(VIEWS, get(views::served))
        .route(ROWS, get(views::rows))
        .route(ROW, get(views::row))
        .route(HEALTHZ, get(healthz))
        .route(READYZ, get(readyz))
        .route(METRICS, get(show_metrics))
        .route(OPENAPI, get(describe::show_openapi))
        .route(ASYNCAPI, get(describe::show_asyncapi))
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn(catch_panics))
        .layer(from_fn_with_state(api.clone(), trace))
        .layer(from_fn_with_state(api.clone(), count))
        .with_state(api)
}

/// The router of the routes of operators alone, for a host that has no API.
pub fn operators_alone(
    operate: Operate,
    doctor: Doctor,
    timeline: Timeline,
    checks: Arc<dyn HostChecks>,
) -> Router {
    let routes = operate::operators(operate, doctor).merge(doctor_host(checks));
    with_timeline(routes, timeline)
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn(catch_panics))
}

/// Traces a request, and tells its handler of which trace its commands are. Without a tracing system the commands are of the
/// trace that the request names.
async fn trace(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let parent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let parent: Option<TraceParent> = parent.and_then(|value| value.parse().ok());
    let is_traced = |request: &Request| !UNTRACED.contains(&route(request));
    let Some(traces) = api.traces.as_ref().filter(|_| is_traced(&request)) else {
        if let Some(parent) = parent {
            request.extensions_mut().insert(parent);
        }
        return next.run(request).await;
    };
    let span = traces.request(parent, request.method().as_str(), route(&request));
    if let Some(context) = span.context() {
        request.extensions_mut().insert(context);
    }
    let response = next.run(request).await;
    span.end(response.status().as_u16());
    response
}

/// The pattern of the request's path.
fn route(request: &Request) -> &'static str {
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    PATHS.iter().find(|path| Some(**path) == matched).unwrap_or(&"other")
}

async fn count(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path = route(&request);
    let response = next.run(request).await;
    api.metrics.count_request(&method, path, response.status());
    response
}

/// Answers 500 if a handler panics. Without this the connection would end without an answer.
async fn catch_panics(request: Request, next: Next) -> Response {
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    answered.unwrap_or_else(|_| {
        tracing::error!("a handler panicked");
        Problem::new(Kind::INTERNAL, "the request could not be answered").into_response()
    })
}

async fn unknown_route(uri: Uri) -> Problem {
    let hint = if uri.path().ends_with('/') { ": no path here ends with a slash" } else { "" };
    Problem::new(Kind::UNKNOWN_ROUTE, format!("there is nothing at `{}`{hint}", uri.path()))
}

/// Answers a method that the path does not have. axum adds the header `Allow`.
async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let detail = format!("`{}` does not take `{method}`", uri.path());
    Problem::new(Kind::METHOD_NOT_ALLOWED, detail).into_response()
}

/// Answers `GET /healthz`: the process runs. For hosts that have no API yet, too.
pub async fn healthz() -> Result<Response, Problem> {
    json::answer(StatusCode::OK, &serde_json::json!({ "status": "ok" }))
}

/// A router that is served is ready. A host that listens earlier, or longer, answers in its place.
async fn readyz() -> Result<Response, Problem> {
    json::answer(StatusCode::OK, &serde_json::json!({ "status": "ready" }))
}

async fn show_metrics(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let format = metrics::Format::asked_by(&headers);
    let about = [(CONTENT_TYPE, format.content_type()), (VARY, "accept")];
    Ok((about, api.metrics.encode(format)?))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered_with_500() {
        async fn panics() {
            panic!("this test panics on purpose")
        }
        let router = Router::new().route("/", get(panics)).layer(from_fn(catch_panics));
        let request = Request::builder().uri("/").body(Body::empty()).expect("it is a request");
        let response = router.oneshot(request).await.expect("it always answers");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
