//! The client of the HTTP API.

use std::cell::Cell;
use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, anyhow};
use fanfold_http::limits::WAIT_MS_MAX;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::retry::Backoff;
pub use crate::server::Server;

/// Time for one request: the longest wait, and as much again for a slow network.
const TIMEOUT: Duration = Duration::from_millis(2 * WAIT_MS_MAX);
/// Time for a `POST`: API Gateway gives an integration 30 s at most (HTTP APIs, quotas).
const POST_TIMEOUT: Duration = Duration::from_secs(35);
/// Bytes of an answer: a page of 1,000 of the largest entries is below.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// What names are made of stands for itself in a path or query, but for the `+`, which some
/// servers would read as a space.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b':').remove(b'@').remove(b'-').remove(b'~');

/// Asks one server.
pub struct Client {
    agent: ureq::Agent,
    url: String,
    /// Whether the server has answered before.
    has_answered: Cell<bool>,
}

/// What the server said.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// What `Retry-After` asks for.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Vec<u8>,
    /// Whom it is from.
    url: String,
    /// Where a redirection leads to.
    location: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Unanswered {
    what: String,
    /// Whether the same request may have an answer later.
    pub passes: bool,
}

/// A path with its query, both encoded as they are put together.
#[derive(Default)]
pub struct Target {
    text: String,
    has_query: bool,
}

/// The part of a problem that people read.
#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

impl Target {
    /// `/{first}/{…}`.
    pub fn path(segments: &[&str]) -> Self {
        let mut target = Self::default();
        for segment in segments {
            target.text.push('/');
            target.text.extend(utf8_percent_encode(segment, ENCODED));
        }
        target
    }

    /// `?name=value`, or `&name=value`.
    #[must_use]
    pub fn query(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        self.text.push_str(name);
        self.text.push('=');
        self.text.extend(utf8_percent_encode(&value.to_string(), ENCODED));
        self
    }

    /// As [`Target::query`], if there is a value.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }
}

impl Client {
    /// A client of that server. It connects when it is first used.
    pub fn new(server: &Server) -> anyhow::Result<Self> {
        let proxy = server.url.proxy(|name| std::env::var(name).ok());
        let proxy = proxy.map(|proxy| {
            ureq::Proxy::new(&proxy).ok().filter(|proxy| !is_socks(proxy.protocol())).ok_or_else(
                || anyhow!("the proxy `{proxy}` of the environment cannot be used: only http:// and https:// can"),
            )
        });
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A redirected POST would become a GET.
            .max_redirects(0)
            .proxy(proxy.transpose()?)
            .timeout_global(Some(TIMEOUT))
            .build();
        let url = server.url.as_str().to_owned();
        Ok(Self { agent: config.into(), url, has_answered: Cell::new(false) })
    }

    /// Whether the server has answered a request.
    pub fn has_answered(&self) -> bool {
        self.has_answered.get()
    }

    /// Where the server is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `GET`.
    pub fn get(&self, target: &Target) -> Result<Answer, Unanswered> {
        self.answer(self.agent.get(format!("{}{}", self.url, target.text)).call())
    }

    /// `GET`, again after a pause as long as the answer is one that passes, until `backoff` gives
    /// up: then it is the last answer, or why there is none.
    pub fn get_patiently(
        &self,
        target: &Target,
        backoff: &mut Backoff,
        mut waits: impl FnMut(&str),
    ) -> Result<Answer, Unanswered> {
        loop {
            let answer = self.get(target);
            let (why, asked) = match &answer {
                Ok(answer) if answer.passes() => (answer.error().to_string(), answer.retry_after),
                Err(unanswered) if unanswered.passes => (unanswered.to_string(), None),
                _ => return answer,
            };
            waits(&why);
            if !backoff.pause(asked) {
                return answer;
            }
        }
    }

    /// `POST`.
    pub fn post(&self, target: &Target, body: &[u8]) -> Result<Answer, Unanswered> {
        let request = self.agent.post(format!("{}{}", self.url, target.text));
        self.answer(request.config().timeout_global(Some(POST_TIMEOUT)).build().send(body))
    }

    fn answer(
        &self,
        called: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Answer, Unanswered> {
        let mut response = called.map_err(|error| self.unanswered(&error))?;
        self.has_answered.set(true);
        let text = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let seconds = text("retry-after").and_then(|seconds| seconds.trim().parse().ok());
        let (retry_after, location) = (seconds.map(Duration::from_secs), text("location"));
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| {
            let what = format!("the answer of {} broke off: {error}", self.url);
            Unanswered { what, passes: true }
        })?;
        Ok(Answer { status, retry_after, body, url: self.url.clone(), location })
    }

    fn unanswered(&self, error: &ureq::Error) -> Unanswered {
        let url = &self.url;
        let what = match error {
            ureq::Error::Io(e) if e.kind() == ErrorKind::ConnectionRefused => {
                format!("nothing listens at {url}: is `fanfold up` running?")
            }
            ureq::Error::HostNotFound => format!("cannot ask {url}: there is no such host"),
            error => format!("cannot ask {url}: {error}"),
        };
        let passes = matches!(
            error,
            ureq::Error::Io(_)
                | ureq::Error::Timeout(_)
                | ureq::Error::Protocol(_)
                | ureq::Error::HostNotFound
                | ureq::Error::ConnectionFailed
                | ureq::Error::ConnectProxyFailed(_)
        );
        Unanswered { what, passes }
    }
}

fn is_socks(protocol: ureq::ProxyProtocol) -> bool {
    !matches!(protocol, ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https)
}

/// Whether the same request may have another answer later: the server, or a gateway before it, asks
/// to be spared, or is out of order.
pub fn status_passes(status: u16) -> bool {
    matches!(status, 408 | 425 | 429)
        || (500..600).contains(&status) && !matches!(status, 501 | 505)
}

impl Answer {
    /// Whether the server did what it was asked.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Accepted, but not there yet.
    pub fn is_pending(&self) -> bool {
        self.status == 202
    }

    /// Whether the same request may have another answer later.
    pub fn passes(&self) -> bool {
        status_passes(self.status)
    }

    /// Whether it is this kind of problem, as `unknown-log`.
    pub fn is_problem(&self, slug: &str) -> bool {
        let problem = self.parsed::<Problem>();
        problem.is_some_and(|p| p.kind.strip_prefix("urn:fanfold:problem:") == Some(slug))
    }

    /// The answer as a `T`; what the server refused is an error that says why.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> anyhow::Result<T> {
        if !self.is_success() {
            return Err(self.error());
        }
        let read = serde_json::from_slice(&self.body);
        read.with_context(|| format!("the answer of {} is not understood", self.url))
    }

    /// Why the server refused.
    pub fn error(&self) -> anyhow::Error {
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
            (None, _) => anyhow!("{url} answers with status {status}, and no problem of Fanfold's"),
        }
    }

    fn parsed<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_encoded() {
        let target = Target::path(&["views", "statement", "ledger", "org:a+b", "cash/1"])
            .query("seq", 7)
            .maybe("prefix", Some("a&b"))
            .maybe("wait", None::<u64>);
        assert_eq!(target.text, "/views/statement/ledger/org:a%2Bb/cash%2F1?seq=7&prefix=a%26b");
    }
}
