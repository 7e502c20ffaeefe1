//! Reads the target: with timeouts, with bounded retries, and with waits.

use std::time::Duration;

use hyper::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::Rng;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

use crate::http::{Answer, HttpError, Target, is_transient};
use crate::limits::WAIT_MS_MAX;

/// The timeout of an answer, beyond the time that the request asks it to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The minimum number of attempts, also if the patience is over.
const ATTEMPTS_MIN: u32 = 8;
/// The pause before the second attempt. It doubles up to the maximum, and half of it is random.
const BACKOFF_MS: u64 = 50;
const BACKOFF_MS_MAX: u64 = 2_000;
/// The pause between two requests for something that is not there yet, if the target did not wait.
const POLL_PAUSE: Duration = Duration::from_millis(20);
/// Bytes of an unexpected answer that an error shows.
const SHOWN_BYTES: usize = 200;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The target does not answer, or refuses all requests.
    #[error("`{path}` got no answer in {attempts} attempts: {why}")]
    Unreachable { path: String, attempts: u32, why: String },
    /// The answer is not one that the API has.
    #[error("`{path}` got the answer {why}")]
    Unexpected { path: String, why: String },
}

/// A page of entries, with their JSON unchanged.
#[derive(Debug, Deserialize)]
pub(crate) struct EntriesPage {
    pub(crate) log: String,
    pub(crate) accepted: u64,
    pub(crate) tail: u64,
    pub(crate) entries: Vec<Box<RawValue>>,
    pub(crate) next: Option<u64>,
}

/// A page of rows.
#[derive(Debug, Deserialize)]
pub(crate) struct RowsPage {
    pub(crate) view: String,
    pub(crate) log: String,
    pub(crate) seq: u64,
    pub(crate) parked: Option<IgnoredAny>,
    pub(crate) rows: Vec<Row>,
    pub(crate) next: Option<String>,
}

/// A row, with its JSON unchanged.
#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) seq: u64,
    pub(crate) row: Box<RawValue>,
}

/// The answer 202: what was waited for is not there yet.
#[derive(Debug, Deserialize)]
pub(crate) struct Pending {
    pub(crate) seq: u64,
    pub(crate) parked: Option<IgnoredAny>,
}

#[derive(Debug)]
pub(crate) enum Rows {
    Page(RowsPage),
    Pending(Pending),
}

/// The answer to a lookup of an id.
#[derive(Debug)]
pub(crate) enum Found<T> {
    /// 200: the first entry with the id.
    Entry(T),
    /// 404: the id was never sent.
    Unknown,
    /// 410: the id is below the window.
    BelowWindow,
    /// 202: commands without entries may have the id.
    Pending,
    /// 400: the target refuses the lookup.
    Refused,
}

impl Found<Box<RawValue>> {
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Entry(entry) => entry.to_string(),
            Self::Unknown => "404".to_owned(),
            Self::BelowWindow => "410".to_owned(),
            Self::Pending => "202, pending".to_owned(),
            Self::Refused => "400".to_owned(),
        }
    }
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Range {
    pub(crate) prefix: String,
    pub(crate) after: String,
    pub(crate) limit: u64,
}

/// Reads one target.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) target: &'a Target,
    /// Failed requests are retried until then.
    pub(crate) until: Instant,
}

impl Reader<'_> {
    /// Gets a path, and retries while the answer may change.
    async fn get(&self, path: &str, wait_ms: u64) -> Result<Answer, ReadError> {
        let timeout = ANSWER_TIMEOUT + Duration::from_millis(wait_ms);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (error, asked) = match self.target.get(path, timeout).await {
                Ok(answer) if !is_transient(answer.status.as_u16()) => return Ok(answer),
                Ok(answer) => (still_failing(path, attempt, &answer), answer.retry_after),
                Err(error) => (no_answer(path, attempt, &error), None),
            };
            if attempt >= ATTEMPTS_MIN && Instant::now() >= self.until {
                return Err(error);
            }
            let ms = (BACKOFF_MS << (attempt - 1).min(ATTEMPTS_MIN)).min(BACKOFF_MS_MAX);
            let pause = Duration::from_millis(rand::rng().random_range(ms / 2..=ms));
            let asked = asked.unwrap_or_default().min(Duration::from_millis(BACKOFF_MS_MAX));
            sleep(pause.max(asked)).await;
        }
    }

    /// Reads entries from `from` on; `None`: the log does not exist.
    pub(crate) async fn entries(
        &self,
        log: &str,
        from: u64,
        limit: u64,
    ) -> Result<Option<EntriesPage>, ReadError> {
        let path = format!("/logs/{log}?from={from}&limit={limit}");
        let answer = self.get(&path, 0).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => parse(&path, &answer).map(Some),
            _ => Err(unexpected(&path, &answer)),
        }
    }

    /// Reads one entry, and waits for it until `until`; `None`: it is not there.
    pub(crate) async fn entry(
        &self,
        log: &str,
        seq: u64,
        until: Instant,
    ) -> Result<Option<Box<RawValue>>, ReadError> {
        loop {
            let wait_ms = left_ms(until);
            let path = format!("/logs/{log}/{seq}?wait={wait_ms}");
            let answer = self.get(&path, wait_ms).await?;
            match answer.status {
                StatusCode::OK => return parse(&path, &answer).map(Some),
                StatusCode::NOT_FOUND => return Ok(None),
                StatusCode::ACCEPTED if Instant::now() >= until => return Ok(None),
                StatusCode::ACCEPTED => sleep(POLL_PAUSE).await,
                _ => return Err(unexpected(&path, &answer)),
            }
        }
    }

    /// Looks up an id, and waits until `until` while commands have no entries.
    pub(crate) async fn find(
        &self,
        log: &str,
        user: &str,
        client: Option<&str>,
        id: u64,
        until: Instant,
    ) -> Result<Found<Box<RawValue>>, ReadError> {
        let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let client = client.map(|client| format!("&client={}", encoded(client)));
        let whose = format!("user={}{}", encoded(user), client.unwrap_or_default());
        loop {
            let wait_ms = left_ms(until);
            let path = format!("/logs/{log}?{whose}&id={id}&wait={wait_ms}");
            let answer = self.get(&path, wait_ms).await?;
            match answer.status {
                StatusCode::OK => return parse(&path, &answer).map(Found::Entry),
                StatusCode::NOT_FOUND => return Ok(Found::Unknown),
                StatusCode::GONE => return Ok(Found::BelowWindow),
                StatusCode::BAD_REQUEST => return Ok(Found::Refused),
                StatusCode::ACCEPTED if Instant::now() >= until => return Ok(Found::Pending),
                StatusCode::ACCEPTED => sleep(POLL_PAUSE).await,
                _ => return Err(unexpected(&path, &answer)),
            }
        }
    }

    /// Reads rows, and waits until `until` for the view to reach `seq`.
    pub(crate) async fn rows(
        &self,
        view: &str,
        log: &str,
        range: &Range,
        seq: u64,
        until: Instant,
    ) -> Result<Rows, ReadError> {
        let mut query = format!("limit={}&seq={seq}", range.limit);
        for (name, value) in [("prefix", &range.prefix), ("after", &range.after)] {
            if !value.is_empty() {
                query = format!("{query}&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
            }
        }
        loop {
            let wait_ms = left_ms(until);
            let path = format!("/views/{view}/{log}?{query}&wait={wait_ms}");
            let answer = self.get(&path, wait_ms).await?;
            match answer.status {
                StatusCode::OK => return parse(&path, &answer).map(Rows::Page),
                StatusCode::ACCEPTED => {
                    let pending: Pending = parse(&path, &answer)?;
                    if pending.parked.is_some() || Instant::now() >= until {
                        return Ok(Rows::Pending(pending));
                    }
                    sleep(POLL_PAUSE).await;
                }
                _ => return Err(unexpected(&path, &answer)),
            }
        }
    }
}

fn left_ms(until: Instant) -> u64 {
    let left = until.saturating_duration_since(Instant::now()).as_millis();
    u64::try_from(left).unwrap_or(u64::MAX).min(WAIT_MS_MAX)
}

fn parse<T: DeserializeOwned>(path: &str, answer: &Answer) -> Result<T, ReadError> {
    serde_json::from_slice(&answer.body).map_err(|error| ReadError::Unexpected {
        path: path.to_owned(),
        why: format!("with unexpected JSON: {error}"),
    })
}

/// The error for an answer that says "later", after the last attempt.
fn still_failing(path: &str, attempts: u32, answer: &Answer) -> ReadError {
    match answer.status {
        // These two statuses refuse every request, not only this one.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let (path, why) = (path.to_owned(), answer.status.to_string());
            ReadError::Unreachable { path, attempts, why }
        }
        _ => unexpected(path, answer),
    }
}

fn no_answer(path: &str, attempts: u32, error: &HttpError) -> ReadError {
    let cause = std::error::Error::source(error);
    let why = cause.map_or(error.to_string(), |cause| format!("{error}: {cause}"));
    ReadError::Unreachable { path: path.to_owned(), attempts, why }
}

fn unexpected(path: &str, answer: &Answer) -> ReadError {
    let body = &answer.body[..answer.body.len().min(SHOWN_BYTES)];
    let why = format!("{}: {}", answer.status, String::from_utf8_lossy(body));
    ReadError::Unexpected { path: path.to_owned(), why }
}
