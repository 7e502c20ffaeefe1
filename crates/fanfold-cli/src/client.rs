//! The client of the HTTP API.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use fanfold_http::limits::WAIT_MS_MAX;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Time for one request: the longest wait, and as much again for a slow network.
const TIMEOUT: Duration = Duration::from_millis(2 * WAIT_MS_MAX);
/// Bytes of an answer: a page of 1,000 of the largest entries is below.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// What names are made of stands for itself in a path or query, but for the `+`, which some
/// servers would read as a space.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b':').remove(b'@').remove(b'-').remove(b'~');

/// Which server to ask.
#[derive(Debug, Args)]
pub struct Server {
    /// Where the API is.
    #[arg(long, env = "FANFOLD_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
}

/// Asks one server.
pub struct Client {
    agent: ureq::Agent,
    url: String,
}

/// What the server said.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
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
    pub fn new(server: &Server) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .build();
        Self { agent: config.into(), url: server.url.trim_end_matches('/').to_owned() }
    }

    /// `GET`.
    pub fn get(&self, target: &Target) -> anyhow::Result<Answer> {
        self.answer(self.agent.get(format!("{}{}", self.url, target.text)).call())
    }

    /// `POST`.
    pub fn post(&self, target: &Target, body: &[u8]) -> anyhow::Result<Answer> {
        self.answer(self.agent.post(format!("{}{}", self.url, target.text)).send(body))
    }

    fn answer(
        &self,
        called: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<Answer> {
        let mut response = called.map_err(|error| match error {
            ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                anyhow!("nothing listens at {}: is `fanfold up` running?", self.url)
            }
            error => anyhow!("cannot ask {}: {error}", self.url),
        })?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.with_context(|| format!("the answer of {} broke off", self.url))?;
        Ok(Answer { status, body })
    }
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

    /// The answer as a `T`; what the server refused is an error that says why.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> anyhow::Result<T> {
        if !self.is_success() {
            return Err(self.error());
        }
        serde_json::from_slice(&self.body).context("the server's answer is not understood")
    }

    /// Why the server refused.
    pub fn error(&self) -> anyhow::Error {
        match self.parsed::<Problem>() {
            Some(problem) => anyhow!("{} ({}, {})", problem.detail, self.status, problem.kind),
            None => anyhow!("the server answered with status {}", self.status),
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
