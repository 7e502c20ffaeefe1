//! What the host answers before it is ready, and while it stops.
//!
//! `/healthz` says that the process runs; `/readyz` says that it takes requests. The host listens
//! while the engine recovers, so that a supervisor can tell a long recovery from a hang.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use fanfold_http::problem::Kind;
use fanfold_http::{Problem, healthz};

/// Seconds after which a client should try again. Source: our choice; most recoveries take less.
const RETRY_AFTER_S: u64 = 1;

/// The router of a host that recovers: only `/healthz` is answered as it is later.
pub(crate) fn recovering() -> Router {
    Router::new().route("/healthz", get(healthz)).fallback(is_recovering)
}

/// The router of a host that stops: it answers as before, but is not ready.
pub(crate) fn stopping(api: Router) -> Router {
    Router::new().route("/readyz", get(is_stopping)).fallback_service(api)
}

async fn is_recovering() -> Response {
    not_ready("the host processes what it had accepted before it started: send the request again")
}

async fn is_stopping() -> Response {
    not_ready("the host stops: send requests to it after its next start")
}

fn not_ready(detail: &str) -> Response {
    Problem::new(Kind::NOT_READY, detail).retry_after(RETRY_AFTER_S).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::host::{BoundAddress, Limits};

    async fn status(router: &Router, method: &str, path: &str) -> (u16, Option<String>) {
        let request = Request::builder().method(method).uri(path).body(Body::empty());
        let answer = router.clone().oneshot(request.expect("it is a request")).await;
        let answer = answer.expect("it always answers");
        let retry = answer.headers().get("retry-after");
        let retry = retry.map(|value| value.to_str().expect("it is text").to_owned());
        (answer.status().as_u16(), retry)
    }

    #[tokio::test]
    async fn a_host_that_recovers_lives_and_is_not_ready() {
        let router = recovering();
        assert_eq!(status(&router, "GET", "/healthz").await, (200, None));
        for (method, path) in
            [("GET", "/readyz"), ("POST", "/command"), ("GET", "/views"), ("GET", "/nothing")]
        {
            assert_eq!(status(&router, method, path).await, (503, Some("1".to_owned())), "{path}");
        }
    }

    #[tokio::test]
    async fn a_host_becomes_ready_on_the_connections_that_it_has() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let any = "127.0.0.1:0".parse().expect("it is an address");
        let bound = BoundAddress::bind(any).await.expect("a port is free");
        let host = bound.serve(recovering(), &[], Limits::default());
        let mut client = tokio::net::TcpStream::connect(host.address()).await.expect("it listens");
        let mut asked = async || {
            let request = "GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n";
            client.write_all(request.as_bytes()).await.expect("it is sent");
            let mut answer = vec![0; 4_096];
            let n = client.read(&mut answer).await.expect("it is read");
            String::from_utf8_lossy(&answer[..n]).into_owned()
        };
        let answer = asked().await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains(":not-ready"), "{answer}");
        host.change(Router::new().route("/readyz", get("ready")));
        let answer = asked().await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    #[tokio::test]
    async fn a_host_that_stops_answers_but_is_not_ready() {
        let api = Router::new().route("/views", get("all")).route("/readyz", get("ready"));
        let router = stopping(api);
        assert_eq!(status(&router, "GET", "/readyz").await, (503, Some("1".to_owned())));
        assert_eq!(status(&router, "GET", "/views").await, (200, None));
        assert_eq!(status(&router, "GET", "/nothing").await, (404, None));
    }
}
