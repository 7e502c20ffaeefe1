//! Problems, limits and counters of all routes.

use std::time::Duration;

use axum::body::Body;
use fanfold::entry::Outcome;

use crate::{Edge, acme};

#[tokio::test]
async fn an_unknown_path_or_method_is_a_problem() {
    let edge = Edge::new();
    for path in ["/", "/nothing", "/command/", "/logs/ledger", "/logs/ledger/", "/views/balances"] {
        edge.get(path).await.expect_problem(404, "unknown-route");
    }
    for (method, path, allow) in [
        ("GET", "/command", "POST"),
        ("BREW", "/commands", "POST"),
        ("POST", "/logs/ledger/org:acme", "GET,HEAD"),
        ("DELETE", "/views/balances/ledger/org:acme/a/b", "GET,HEAD"),
    ] {
        let answer = edge.call(method, path, "").await;
        let answer = answer.expect_problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
    }
    assert_eq!(edge.call("HEAD", "/healthz", "").await.expect(200).text, "");
    let options = edge.call("OPTIONS", "/command", "").await.expect(204);
    assert_eq!(options.header("allow"), "POST");
}

#[tokio::test]
async fn a_too_long_body_is_refused_with_and_without_an_announced_length() {
    let edge = Edge::new();
    let too_long = || vec![b' '; 1024 * 1024 + 1];
    for path in ["/command", "/commands"] {
        edge.call("POST", path, too_long()).await.expect_problem(413, "body-too-large");
        let pieces = too_long().chunks(1000).map(|p| Ok::<_, std::io::Error>(p.to_vec())).collect();
        let pieces: Vec<Result<Vec<u8>, std::io::Error>> = pieces;
        let chunked = Body::from_stream(futures::stream::iter(pieces));
        edge.call("POST", path, chunked).await.expect_problem(413, "body-too-large");
    }
}

#[tokio::test]
async fn a_command_that_is_not_admitted_gets_a_retry_time() {
    let edge = Edge::new();
    edge.memory.admission.close();
    let answer = edge.open(1).await.expect_problem(503, "not-admitting");
    assert!(answer.header("retry-after").parse::<u64>().is_ok(), "{:?}", answer.headers);
    let request =
        r#"{"type":"ledger","command":"open","id":1,"user":"ann","data":{"account":"a"}}"#;
    let answer = edge.call("POST", "/commands", request).await.expect(202);
    assert!(
        answer.text.starts_with(r#"{"results":[{"problem":{"type":"urn:fanfold:problem:not-ad"#)
    );
    assert!(answer.header("retry-after").parse::<u64>().is_ok(), "{:?}", answer.headers);
}

#[tokio::test]
async fn a_closed_log_is_a_conflict() {
    let edge = Edge::new();
    edge.open(1).await.expect(202);
    assert!(edge.memory.commands.close(&acme()).await.expect("memory"));
    edge.open(2).await.expect_problem(409, "log-closed");
}

#[tokio::test]
async fn a_wait_longer_than_the_host_allows_is_refused() {
    for (most, too_long) in [(25_000, 25_001), (5_000, 5_001), (0, 1)] {
        let edge = Edge::with_wait_ms_max(most);
        for path in ["/logs/ledger/org:acme/1?", "/views/balances/ledger/org:acme?seq=1&"] {
            let refused = edge.get(&format!("{path}wait={too_long}")).await;
            let refused = refused.expect_problem(400, "bad-parameter");
            let detail = format!("`wait`: must be an integer from 0 to {most}");
            assert!(refused.text.contains(&detail), "{}", refused.text);
        }
    }
}

/// With `wait` the answer to a command is its entry, or the receipt if the entry does not come in time.
#[tokio::test]
async fn a_command_can_wait_for_its_entry() {
    let edge = Edge::new();
    let send = async |id, wait_ms| edge.open_at(&format!("/command?wait={wait_ms}"), id).await;
    for wait_ms in [0, 20] {
        let late = send(1 + wait_ms, wait_ms).await.expect(202);
        assert_eq!(late.text, format!(r#"{{"log":"ledger/org:acme","seq":{}}}"#, 1 + wait_ms / 20));
    }
    edge.commit(1, vec![Outcome::Accepted(vec![]), Outcome::rejected("no", "never")]).await;
    let commit = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        edge.commit(3, vec![Outcome::rejected("no", "never")]).await;
    };
    let (answer, ()) = tokio::join!(send(40, 25_000), commit);
    let answer = answer.expect(200);
    assert_eq!(answer.header("location"), "logs/ledger/org:acme/3");
    assert_eq!(answer.text, edge.get("/logs/ledger/org:acme/3").await.expect(200).text);
    send(41, 25_001).await.expect_problem(400, "bad-parameter");
    let all = edge.get("/logs/ledger/org:acme").await.expect(200);
    assert!(all.text.contains(r#""accepted":3"#), "a wrong wait accepts nothing: {}", all.text);
}

#[tokio::test]
async fn metrics_come_in_the_format_that_the_client_asks_for() {
    let edge = Edge::new();
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let open = edge.get_as("/metrics", accept).await.expect(200);
    let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.header("content-type"), media);
    assert!(open.text.ends_with("# EOF\n"), "{}", open.text);
    assert!(open.text.contains("# TYPE fanfold_http_requests counter\n"), "{}", open.text);
    let text = edge.get_as("/metrics", "text/plain").await.expect(200);
    assert!(text.text.contains("# TYPE fanfold_http_requests_total counter\n"), "{}", text.text);
}

#[tokio::test]
async fn a_router_that_answers_is_ready() {
    let edge = Edge::new();
    assert_eq!(edge.get("/healthz").await.expect(200).text, r#"{"status":"ok"}"#);
    assert_eq!(edge.get("/readyz").await.expect(200).text, r#"{"status":"ready"}"#);
}

#[tokio::test]
async fn requests_and_commands_are_counted() {
    let edge = Edge::new();
    edge.open(1).await.expect(202);
    edge.open(0).await.expect(400);
    edge.get("/nothing").await.expect(404);
    edge.get("/something").await.expect(404);
    let metrics = edge.get("/metrics").await.expect(200);
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(metrics.header("vary"), "accept");
    assert!(!metrics.text.contains("# EOF"), "{}", metrics.text);
    for line in [
        r#"fanfold_http_requests_total{method="POST",route="/command",status="202"} 1"#,
        r#"fanfold_http_requests_total{method="POST",route="/command",status="400"} 1"#,
        r#"fanfold_http_requests_total{method="GET",route="other",status="404"} 2"#,
        r#"fanfold_http_commands_total{answer="receipt"} 1"#,
        r#"fanfold_http_commands_total{answer="problem"} 1"#,
        r#"fanfold_refused_total{reason="bad-id"} 1"#,
        "# TYPE fanfold_refused_total counter",
    ] {
        assert!(metrics.text.lines().any(|l| l == line), "no {line} in\n{}", metrics.text);
    }
}
