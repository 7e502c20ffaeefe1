//! Reading the target: with a time-out, again if it does not answer, and never for ever.

use std::time::Duration;

use hyper::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::Rng;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

use crate::http::{Answer, HttpError, Target, is_passing};
use crate::limits::WAIT_MS_MAX;

/// How long an answer may take, beyond what it was asked to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a request is sent at least, also when the patience is over.
const ATTEMPTS_MIN: u32 = 8;
/// Before the second attempt; doubled before each further one, up to the maximum, and half of it
/// at random.
const BACKOFF_MS: u64 = 50;
const BACKOFF_MS_MAX: u64 = 2_000;
/// Between two looks at something that is not there yet, if the target did not wait itself.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Bytes of an unexpected answer that are shown.
const SHOWN_BYTES: usize = 200;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// However often it was tried. Nothing else will be read either.
    #[error("`{path}` is not answered, after {attempts} attempts: {why}")]
    Unreachable { path: String, attempts: u32, why: String },
    /// There is an answer, and nothing can be made of it.
    #[error("`{path}` is answered with {why}")]
    Odd { path: String, why: String },
}

/// A page of entries, each as it came.
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
    pub(crate) seq: u64,
    pub(crate) parked: Option<IgnoredAny>,
    pub(crate) rows: Vec<Row>,
    pub(crate) next: Option<String>,
}

/// A row, as it came.
#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) seq: u64,
    pub(crate) row: Box<RawValue>,
}

/// How far a view, or a log, is.
#[derive(Debug, Deserialize)]
pub(crate) struct Pending {
    pub(crate) seq: u64,
    pub(crate) parked: Option<IgnoredAny>,
}

/// Rows, or how far the view is.
#[derive(Debug)]
pub(crate) enum Rows {
    Page(RowsPage),
    Pending(Pending),
}

/// What looking up an id comes to.
#[derive(Debug)]
pub(crate) enum Found<T> {
    /// The first entry with it.
    Entry(T),
    /// 404: it was never sent.
    Unknown,
    /// 410: it is below the window.
    Below,
    /// 202: it may be among what has no entries yet.
    Pending,
    /// 400: the target refuses to look it up.
    Refused,
}

impl Found<Box<RawValue>> {
    /// For people.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Entry(entry) => entry.to_string(),
            Self::Unknown => "404".to_owned(),
            Self::Below => "410".to_owned(),
            Self::Pending => "202, pending".to_owned(),
            Self::Refused => "400".to_owned(),
        }
    }
}

/// Which rows.
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
    /// Until when what fails is tried again.
    pub(crate) until: Instant,
}

impl Reader<'_> {
    /// An answer that will not be another the next time.
    async fn get(&self, path: &str, wait_ms: u64) -> Result<Answer, Trouble> {
        let timeout = ANSWER_TIMEOUT + Duration::from_millis(wait_ms);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (trouble, asked) = match self.target.get(path, timeout).await {
                Ok(answer) if !is_passing(answer.status.as_u16()) => return Ok(answer),
                Ok(answer) => (failing(path, attempt, &answer), answer.retry_after),
                Err(error) => (silent(path, attempt, &error), None),
            };
            if attempt >= ATTEMPTS_MIN && Instant::now() >= self.until {
                return Err(trouble);
            }
            let ms = (BACKOFF_MS << (attempt - 1).min(ATTEMPTS_MIN)).min(BACKOFF_MS_MAX);
            let pause = Duration::from_millis(rand::rng().random_range(ms / 2..=ms));
            let asked = asked.unwrap_or_default().min(Duration::from_millis(BACKOFF_MS_MAX));
            sleep(pause.max(asked)).await;
        }
    }

    /// Entries from `from` on; `None`: there is no such log.
    pub(crate) async fn entries(
        &self,
        log: &str,
        from: u64,
        limit: u64,
    ) -> Result<Option<EntriesPage>, Trouble> {
        let path = format!("/logs/{log}?from={from}&limit={limit}");
        let answer = self.get(&path, 0).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => parse(&path, &answer).map(Some),
            _ => Err(odd(&path, &answer)),
        }
    }

    /// One entry, waited for until `until`; `None`: it is not there.
    pub(crate) async fn entry(
        &self,
        log: &str,
        seq: u64,
        until: Instant,
    ) -> Result<Option<Box<RawValue>>, Trouble> {
        loop {
            let wait_ms = left_ms(until);
            let path = format!("/logs/{log}/{seq}?wait={wait_ms}");
            let answer = self.get(&path, wait_ms).await?;
            match answer.status {
                StatusCode::OK => return parse(&path, &answer).map(Some),
                StatusCode::NOT_FOUND => return Ok(None),
                StatusCode::ACCEPTED if Instant::now() >= until => return Ok(None),
                StatusCode::ACCEPTED => sleep(LOOK_AGAIN).await,
                _ => return Err(odd(&path, &answer)),
            }
        }
    }

    /// Looks up an id, and waits until `until` for what has no entries yet.
    pub(crate) async fn find(
        &self,
        log: &str,
        user: &str,
        client: Option<&str>,
        id: u64,
        until: Instant,
    ) -> Result<Found<Box<RawValue>>, Trouble> {
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
                StatusCode::GONE => return Ok(Found::Below),
                StatusCode::BAD_REQUEST => return Ok(Found::Refused),
                StatusCode::ACCEPTED if Instant::now() >= until => return Ok(Found::Pending),
                StatusCode::ACCEPTED => sleep(LOOK_AGAIN).await,
                _ => return Err(odd(&path, &answer)),
            }
        }
    }

    /// Rows of a view that has reached `seq`, which is waited for until `until`.
    pub(crate) async fn rows(
        &self,
        view: &str,
        log: &str,
        range: &Range,
        seq: u64,
        until: Instant,
    ) -> Result<Rows, Trouble> {
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
                    sleep(LOOK_AGAIN).await;
                }
                _ => return Err(odd(&path, &answer)),
            }
        }
    }
}

fn left_ms(until: Instant) -> u64 {
    let left = until.saturating_duration_since(Instant::now()).as_millis();
    u64::try_from(left).unwrap_or(u64::MAX).min(WAIT_MS_MAX)
}

fn parse<T: DeserializeOwned>(path: &str, answer: &Answer) -> Result<T, Trouble> {
    serde_json::from_slice(&answer.body).map_err(|error| Trouble::Odd {
        path: path.to_owned(),
        why: format!("no such JSON: {error}"),
    })
}

/// It says that it will answer otherwise later, and does not.
fn failing(path: &str, attempts: u32, answer: &Answer) -> Trouble {
    match answer.status {
        // Not only here: it takes nothing at all.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let (path, why) = (path.to_owned(), answer.status.to_string());
            Trouble::Unreachable { path, attempts, why }
        }
        _ => odd(path, answer),
    }
}

fn silent(path: &str, attempts: u32, error: &HttpError) -> Trouble {
    let cause = std::error::Error::source(error);
    let why = cause.map_or(error.to_string(), |cause| format!("{error}: {cause}"));
    Trouble::Unreachable { path: path.to_owned(), attempts, why }
}

fn odd(path: &str, answer: &Answer) -> Trouble {
    let body = &answer.body[..answer.body.len().min(SHOWN_BYTES)];
    let why = format!("{}: {}", answer.status, String::from_utf8_lossy(body));
    Trouble::Odd { path: path.to_owned(), why }
}
