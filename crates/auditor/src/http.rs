//! An HTTP client of the target, with a bearer token if it needs one.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use hyper::http::uri::InvalidUri;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Bytes of an answer. A page of 1,000 rows of 256 KiB each would be larger; no load of the
/// generator makes one.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The target of commands and reads.
#[derive(Clone)]
pub struct Target {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    authorization: Option<HeaderValue>,
}

/// Why a target cannot be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum TargetError {
    #[error("the target `{url}` is not a URL")]
    NotAUrl { url: String, source: InvalidUri },
    #[error("the target `{url}` must begin with http:// or https://, with no query")]
    Scheme { url: String },
    #[error("the token has characters that a header cannot have")]
    Token,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The pause that `Retry-After` asks for.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer. The request may have had its effect nevertheless.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum HttpError {
    #[error("cannot connect")]
    Connect(#[source] hyper_util::client::legacy::Error),
    #[error("the connection broke")]
    Broken(#[source] hyper_util::client::legacy::Error),
    #[error("the answer is cut off, or is larger than {ANSWER_BYTES_MAX} bytes")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the target did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

/// Whether the same request may get another answer later.
pub fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

impl Target {
    /// Makes a target. `url` is the prefix of the API's paths, for example `http://127.0.0.1:8080`.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, TargetError> {
        let base = url.trim_end_matches('/');
        let uri: Uri =
            base.parse().map_err(|source| TargetError::NotAUrl { url: url.to_owned(), source })?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        if !is_http || uri.query().is_some() {
            return Err(TargetError::Scheme { url: url.to_owned() });
        }
        let authorization = token.map(|token| {
            let mut value =
                HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| TargetError::Token)?;
            value.set_sensitive(true);
            Ok(value)
        });
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            // Named, since the SDK for AWS in the same build brings another provider.
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .expect("ring does TLS 1.2 and 1.3")
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(usize::MAX)
            .build(connector);
        Ok(Self { client, base: base.to_owned(), authorization: authorization.transpose()? })
    }

    /// The URL.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Posts JSON to a path.
    pub async fn post(
        &self,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, HttpError> {
        self.send(Method::POST, path, body, timeout).await
    }

    /// Gets a path, with its query.
    pub async fn get(&self, path: &str, timeout: Duration) -> Result<Answer, HttpError> {
        self.send(Method::GET, path, Bytes::new(), timeout).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, HttpError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.base)
            .parse()
            .expect("the base is a URL, and so are our paths");
        if let Some(value) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        let exchange = async {
            let response =
                self.client.request(request).await.map_err(|error| match error.is_connect() {
                    true => HttpError::Connect(error),
                    false => HttpError::Broken(error),
                })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let retry_after = head
                .headers
                .get(RETRY_AFTER)
                .and_then(|value| Some(Duration::from_secs(value.to_str().ok()?.parse().ok()?)));
            let body = body.map_err(HttpError::Body)?.to_bytes();
            Ok(Answer { status: head.status, retry_after, body })
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(HttpError::TimedOut(timeout)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_http_url_without_a_query() {
        for url in ["http://127.0.0.1:8080", "https://api.example.com/stage/", "http://[::1]:1"] {
            assert!(Target::new(url, None).is_ok(), "{url}");
        }
        for url in ["127.0.0.1:8080", "ftp://a", "http://a/?b=c", "http:// a", ""] {
            assert!(Target::new(url, None).is_err(), "{url}");
        }
        assert!(matches!(Target::new("http://a", Some("a\nb")), Err(TargetError::Token)));
    }
}
