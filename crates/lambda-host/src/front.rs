//! An HTTP API before functions, in API Gateway's payload format 2.0.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use percent_encoding::percent_decode;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::function::Function;

/// The timeout of an integration (quota of HTTP APIs).
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest request body (quota of HTTP APIs).
const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;

struct Api {
    /// By the beginnings of paths.
    functions: BTreeMap<String, Arc<Function>>,
    account: String,
}

impl Api {
    /// The function of the longest path that this one begins with.
    fn function(&self, path: &str) -> Option<&Arc<Function>> {
        let of_path = self.functions.iter().filter(|(begin, _)| path.starts_with(begin.as_str()));
        of_path.max_by_key(|(begin, _)| begin.len()).map(|(_, function)| function)
    }
}

/// Serves the API, without end.
pub async fn serve(
    listener: TcpListener,
    functions: BTreeMap<String, Arc<Function>>,
    account: String,
) -> std::io::Result<()> {
    let api = Arc::new(Api { functions, account });
    axum::serve(listener, Router::new().fallback(answer).with_state(api)).await
}

async fn answer(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return message(StatusCode::PAYLOAD_TOO_LARGE, "Request Too Long");
    };
    let Some(function) = api.function(parts.uri.path()) else {
        return message(StatusCode::NOT_FOUND, "Not Found");
    };
    let event = event(&parts, &body, &api.account);
    match timeout(TIMEOUT, function.invoke(Bytes::from(event.to_string()))).await {
        Ok(Ok(answer)) => response(&answer)
            .unwrap_or_else(|| message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")),
        Ok(Err(_)) => message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
        Err(_) => message(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
    }
}

fn message(status: StatusCode, text: &str) -> Response {
    let body = json!({ "message": text }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The event of a request.
fn event(parts: &axum::http::request::Parts, body: &[u8], account: &str) -> Value {
    let now = jiff::Timestamp::now();
    let path = decoded(parts.uri.path());
    let text = is_text(&parts.headers).then(|| std::str::from_utf8(body).ok()).flatten();
    let agent = parts.headers.get(header::USER_AGENT).and_then(|of| of.to_str().ok());
    let domain = parts.headers.get(header::HOST).and_then(|of| of.to_str().ok());
    let mut event = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": parts.uri.query().unwrap_or_default(),
        "headers": headers(&parts.headers),
        "requestContext": {
            "accountId": account,
            "apiId": "host",
            "domainName": domain,
            "domainPrefix": "host",
            "http": {
                "method": parts.method.as_str(),
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": agent.unwrap_or_default(),
            },
            "requestId": format!("{:x}", now.as_nanosecond()),
            "routeKey": "$default",
            "stage": "$default",
            "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
            "timeEpoch": now.as_millisecond(),
        },
        "isBase64Encoded": text.is_none() && !body.is_empty(),
    });
    if !body.is_empty() {
        event["body"] = match text {
            Some(text) => json!(text),
            None => json!(BASE64_STANDARD.encode(body)),
        };
    }
    event
}

/// Whether API Gateway passes the body as text. It encodes all others in base64.
fn is_text(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|of| of.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    kind.starts_with("text/")
        || ["application/json", "application/javascript", "application/xml"]
            .contains(&kind.as_str())
}

/// Decodes a path as API Gateway does: everything but `%25`.
fn decoded(path: &str) -> String {
    let mut parts = path.split("%25").map(|part| percent_decode(part.as_bytes()).decode_utf8());
    let parts: Result<Vec<_>, _> = parts.by_ref().collect();
    parts.map_or_else(|_| path.to_owned(), |parts| parts.join("%25"))
}

/// Joins the values of each header.
fn headers(headers: &HeaderMap) -> Map<String, Value> {
    let names = headers.keys();
    let values = names.map(|name| {
        let all = headers.get_all(name).iter();
        let all: Vec<_> = all.map(|of| String::from_utf8_lossy(of.as_bytes())).collect();
        (name.as_str().to_owned(), json!(all.join(",")))
    });
    values.collect()
}

/// The response in a function's answer. `None`: the answer is not a response.
fn response(answer: &[u8]) -> Option<Response> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let status = u16::try_from(answer["statusCode"].as_u64()?).ok()?;
    let body = answer["body"].as_str().unwrap_or_default();
    let body = match answer["isBase64Encoded"].as_bool() {
        Some(true) => BASE64_STANDARD.decode(body).ok()?,
        _ => body.as_bytes().to_vec(),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    for (name, value) in answer["headers"].as_object().into_iter().flatten() {
        let name: HeaderName = name.parse().ok()?;
        if ![header::CONTENT_LENGTH, header::CONNECTION, header::TRANSFER_ENCODING].contains(&name)
        {
            response.headers_mut().insert(name, HeaderValue::try_from(value.as_str()?).ok()?);
        }
    }
    for cookie in answer["cookies"].as_array().into_iter().flatten() {
        let value = HeaderValue::try_from(cookie.as_str()?).ok()?;
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_requests_are_those_of_api_gateway() {
        for (kind, body, expected) in [
            ("application/json; charset=utf-8", "{}", Some(("{}", false))),
            ("text/csv", "a,b", Some(("a,b", false))),
            ("application/x-www-form-urlencoded", "{}", Some(("e30=", true))),
            ("application/json", "", None),
        ] {
            let request = Request::post("/logs/a%2Fb%2525?x=%20y").header("content-type", kind);
            let request = request.header("x-two", "1").header("x-two", "2");
            let (parts, ()) = request.body(()).expect("it is a request").into_parts();
            let event = event(&parts, body.as_bytes(), "1");
            let body = event["body"].as_str();
            let encoded = event["isBase64Encoded"].as_bool().expect("the event has the flag");
            assert_eq!(body.map(|body| (body, encoded)), expected, "{kind}");
            assert_eq!(event["rawPath"], "/logs/a/b%2525");
            assert_eq!(event["rawQueryString"], "x=%20y");
            assert_eq!(event["headers"]["x-two"], "1,2");
            assert_eq!(event["requestContext"]["http"]["method"], "POST");
        }
    }

    #[tokio::test]
    async fn an_answer_becomes_a_response() {
        let answer = br#"{"statusCode":202,"headers":{"location":"/x"},"body":"e30=",
            "isBase64Encoded":true,"cookies":["a=b","c=d"]}"#;
        let response = response(answer).expect("it is one");
        assert_eq!(response.status(), 202);
        assert_eq!(response.headers()["location"], "/x");
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
        let body = to_bytes(response.into_body(), 10).await.expect("it is short");
        assert_eq!(&body[..], b"{}");
        for wrong in ["", "{}", "null", r#"{"statusCode":1}"#] {
            assert!(super::response(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
