//! The client of the HTTP API.

use std::cell::Cell;
use std::fmt;
use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use fanfold_http::OPERATOR_HEADER;
use fanfold_http::limits::WAIT_MS_MAX;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::retry::Backoff;
pub(crate) use crate::server::Server;
use crate::signing::Signer;

/// Time for one `GET`. Source: the longest wait, and as much again for a slow network.
const TIMEOUT: Duration = Duration::from_millis(2 * WAIT_MS_MAX);
/// Time for one `POST`. Source: API Gateway ends an integration of an HTTP API after 30 s (its
/// quota), and the network needs some time, too.
const POST_TIMEOUT: Duration = Duration::from_secs(35);
/// The most bytes of an answer. Source: a page of 1,000 entries of the largest size is shorter.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Characters to encode in a path or query: all but letters, digits and the signs that names often
/// have. A `+` is encoded, too, since some servers read it as a space.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b':').remove(b'@').remove(b'-').remove(b'~');

/// The HTTP client of one server.
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
    signer: Option<Signer>,
    /// The name of the operator, percent-encoded, which operators' routes record.
    operator: Option<String>,
    /// Whether the server has answered before.
    has_answered: Cell<bool>,
}

/// An answer of the server, whatever its status.
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The value of the header `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
    /// The body.
    pub(crate) body: Vec<u8>,
    /// The server's URL.
    url: String,
    /// The target of a redirection.
    location: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Unanswered {
    what: String,
    #[source]
    source: Option<ureq::Error>,
    /// Whether the same request may be answered later.
    pub(crate) is_temporary: bool,
}

/// A path with its query, both percent-encoded.
#[derive(Default)]
pub(crate) struct Target {
    text: String,
    has_query: bool,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

impl Target {
    /// The path of these segments: `/{first}/{…}`.
    pub(crate) fn path(segments: &[&str]) -> Self {
        let mut target = Self::default();
        for segment in segments {
            target.text.push('/');
            target.text.extend(utf8_percent_encode(segment, ENCODED));
        }
        target
    }

    /// The path and the query.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Adds a parameter to the query.
    #[must_use]
    pub(crate) fn query(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        self.text.push_str(name);
        self.text.push('=');
        self.text.extend(utf8_percent_encode(&value.to_string(), ENCODED));
        self
    }

    /// Adds a parameter to the query if there is a value.
    #[must_use]
    pub(crate) fn query_if(self, name: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }
}

impl Client {
    /// A client of this server. It connects at its first request. Fails if the environment names a
    /// proxy that cannot be used, or has no credentials to sign with.
    pub(crate) fn new(server: &Server) -> anyhow::Result<Self> {
        let proxy = server.url.proxy(|name| std::env::var(name).ok());
        let proxy = proxy.map(|proxy| {
            ureq::Proxy::new(&proxy).ok().filter(|proxy| !is_socks(proxy.protocol())).ok_or_else(
                || anyhow!("cannot use the proxy `{proxy}` that the environment names: it must be an http:// or https:// URL"),
            )
        });
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A POST that is redirected would become a GET.
            .max_redirects(0)
            .proxy(proxy.transpose()?)
            .timeout_global(Some(TIMEOUT))
            .build();
        let url = server.url.as_str().to_owned();
        let signer = server.sign.as_deref();
        let signer = signer.map(|region| Signer::new(region, |name| std::env::var(name).ok()));
        let signer = signer.transpose()?;
        let operator = operator(|name| std::env::var(name).ok());
        Ok(Self { agent: config.into(), url, signer, operator, has_answered: Cell::new(false) })
    }

    /// Whether the server has answered a request.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered.get()
    }

    /// The server's URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Sends a `GET`.
    pub(crate) fn get(&self, target: &Target) -> Result<Answer, Unanswered> {
        let url = format!("{}{}", self.url, target.text);
        let mut request = self.agent.get(&url);
        for (name, value) in self.signature("GET", &url, &[])? {
            request = request.header(name, value);
        }
        self.answer(request.call())
    }

    /// The headers that sign a request; none if requests are not signed.
    fn signature(
        &self,
        method: &str,
        url: &str,
        body: &[u8],
    ) -> Result<Vec<(String, String)>, Unanswered> {
        let Some(signer) = &self.signer else { return Ok(Vec::new()) };
        signer.headers(method, url, body, SystemTime::now()).map_err(|error| Unanswered {
            what: format!("{error:#}"),
            source: None,
            is_temporary: false,
        })
    }

    /// Sends a `GET`, and retries it after temporary failures until `backoff` gives up; then
    /// returns the last result. Before each pause it calls `on_retry` with the reason.
    pub(crate) fn get_with_retries(
        &self,
        target: &Target,
        backoff: &mut Backoff,
        on_retry: impl FnMut(&str),
    ) -> Result<Answer, Unanswered> {
        Self::with_retries(|| self.get(target), backoff, on_retry)
    }

    /// As [`Client::get_with_retries`], for a `POST` that may be repeated.
    pub(crate) fn post_with_retries(
        &self,
        target: &Target,
        body: &[u8],
        backoff: &mut Backoff,
    ) -> Result<Answer, Unanswered> {
        Self::with_retries(|| self.post(target, body), backoff, |_| {})
    }

    fn with_retries(
        send: impl Fn() -> Result<Answer, Unanswered>,
        backoff: &mut Backoff,
        mut on_retry: impl FnMut(&str),
    ) -> Result<Answer, Unanswered> {
        loop {
            let answer = send();
            let (why, asked) = match &answer {
                Ok(answer) if answer.is_temporary() => {
                    (answer.error().to_string(), answer.retry_after)
                }
                Err(unanswered) if unanswered.is_temporary => (unanswered.with_source(), None),
                _ => return answer,
            };
            on_retry(&why);
            if !backoff.pause(asked) {
                return answer;
            }
        }
    }

    /// Sends a `POST`.
    pub(crate) fn post(&self, target: &Target, body: &[u8]) -> Result<Answer, Unanswered> {
        let url = format!("{}{}", self.url, target.text);
        let mut request = self.agent.post(&url);
        for (name, value) in self.signature("POST", &url, body)? {
            request = request.header(name, value);
        }
        if let Some(operator) = self.operator.as_ref().filter(|_| target.text.starts_with("/ops/"))
        {
            request = request.header(OPERATOR_HEADER, operator);
        }
        self.answer(request.config().timeout_global(Some(POST_TIMEOUT)).build().send(body))
    }

    fn answer(
        &self,
        called: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Answer, Unanswered> {
        let mut response = called.map_err(|error| self.unanswered(error))?;
        self.has_answered.set(true);
        let text = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let seconds = text("retry-after").and_then(|seconds| seconds.trim().parse().ok());
        let (retry_after, location) = (seconds.map(Duration::from_secs), text("location"));
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| Unanswered {
            what: format!("the answer of {} broke off", self.url),
            source: Some(error),
            is_temporary: true,
        })?;
        Ok(Answer { status, retry_after, body, url: self.url.clone(), location })
    }

    fn unanswered(&self, error: ureq::Error) -> Unanswered {
        let url = &self.url;
        let is_temporary = matches!(
            error,
            ureq::Error::Io(_)
                | ureq::Error::Timeout(_)
                | ureq::Error::Protocol(_)
                | ureq::Error::HostNotFound
                | ureq::Error::ConnectionFailed
                | ureq::Error::ConnectProxyFailed(_)
        );
        let (what, source) = match error {
            ureq::Error::Io(e) if e.kind() == ErrorKind::ConnectionRefused => {
                (format!("nothing listens at {url}: is `fanfold up` running?"), None)
            }
            ureq::Error::HostNotFound => (format!("cannot ask {url}: there is no such host"), None),
            error => (format!("cannot ask {url}"), Some(error)),
        };
        Unanswered { what, source, is_temporary }
    }
}

impl Unanswered {
    /// The error and its source, in one line.
    pub(crate) fn with_source(&self) -> String {
        match &self.source {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

/// The operator: `FANFOLD_OPERATOR`, or else the user of this machine.
fn operator(get: impl Fn(&str) -> Option<String>) -> Option<String> {
    let names = ["FANFOLD_OPERATOR", "USER", "USERNAME"].into_iter().filter_map(get);
    let name = names.map(|name| name.trim().to_owned()).find(|name| !name.is_empty())?;
    Some(utf8_percent_encode(&name, ENCODED).to_string())
}

fn is_socks(protocol: ureq::ProxyProtocol) -> bool {
    !matches!(protocol, ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https)
}

/// Whether the same request may succeed later: the server, or a gateway before it, is overloaded or
/// failed.
pub(crate) fn is_temporary_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429)
        || (500..600).contains(&status) && !matches!(status, 501 | 505)
}

impl Answer {
    /// Whether the request succeeded.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the server answers that what was asked for does not exist yet.
    pub(crate) fn is_pending(&self) -> bool {
        self.status == 202
    }

    /// Whether the same request may succeed later.
    pub(crate) fn is_temporary(&self) -> bool {
        is_temporary_status(self.status)
    }

    /// The answer as a `T`. A refusal is an error that says why.
    pub(crate) fn read<'a, T: Deserialize<'a>>(&'a self) -> anyhow::Result<T> {
        if !self.is_success() {
            return Err(self.error());
        }
        let read = serde_json::from_slice(&self.body);
        read.with_context(|| format!("cannot read the answer of {}", self.url))
    }

    /// The error that says why the server refused.
    pub(crate) fn error(&self) -> anyhow::Error {
        let (url, status) = (&self.url, self.status);
        match (self.parsed::<Problem>(), &self.location) {
            (Some(problem), _) => {
                anyhow!("{} ({status}, {}, from {url})", problem.detail, problem.kind)
            }
            (None, Some(to)) if (300..400).contains(&status) => {
                anyhow!(
                    "{url} answers with status {status}, and sends to {to}: give that with --url"
                )
            }
            (None, _) if status == 403 => anyhow!(
                "{url} answers with status 403 and without a problem of Fanfold's: does it need signed requests? Then name its region with --sign"
            ),
            (None, _) => anyhow!(
                "{url} answers with status {status} and without a problem of Fanfold's: is it the right --url?"
            ),
        }
    }

    /// The detail of the problem with which the server refuses the request as wrong.
    pub(crate) fn refusal(&self) -> Option<String> {
        let problem = self.parsed::<Problem>().filter(|_| self.status == 400);
        problem.map(|problem| problem.detail)
    }

    fn parsed<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_the_named_one_or_the_user() {
        let of = |pairs: &[(&str, &str)]| {
            operator(|name| {
                pairs.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("USER", "ann"), ("USERNAME", "bob")]).as_deref(), Some("ann"));
        let named = of(&[("USER", "root"), ("FANFOLD_OPERATOR", "Zoë M")]);
        assert_eq!(named.as_deref(), Some("Zo%C3%AB%20M"));
        assert_eq!(of(&[("USER", " "), ("USERNAME", "bob")]).as_deref(), Some("bob"));
    }

    #[test]
    fn targets_are_encoded() {
        let target = Target::path(&["views", "statement", "ledger", "org:a+b", "cash/1"])
            .query("seq", 7)
            .query_if("prefix", Some("a&b"))
            .query_if("wait", None::<u64>);
        assert_eq!(target.text, "/views/statement/ledger/org:a%2Bb/cash%2F1?seq=7&prefix=a%26b");
    }
}
