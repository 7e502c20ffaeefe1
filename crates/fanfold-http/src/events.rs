//! Server-sent events (WHATWG HTML, 9.2): answers that go on, for requests with
//! `Accept: text/event-stream`.
//!
//! An answer begins with `retry`, and then has the events of a [`Feed`] as they come. While there are
//! none, it has a comment from time to time. It ends after a bounded time, and the client sends its
//! request again, with the id of the last event as `Last-Event-ID`. On a host that sends an answer
//! only when it is whole, it ends behind the first events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, Response as HttpResponse};
use axum::response::Response;
use fanfold::Seq;
use fanfold::host::limits::SEQ_END;
use futures::{StreamExt, future, stream};

use crate::params;
use crate::problem::{Kind, Problem};
use crate::{Api, Streams};

/// The content type.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
/// WHATWG HTML, 9.2.2.
const LAST_EVENT_ID: &str = "last-event-id";
/// nginx gathers an answer before it passes it on, unless the answer has this header with `no`.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// How long a client waits before it sends its request again, in milliseconds. Source: our choice;
/// people hardly notice it, and a host that stops gets no flood of requests.
const RETRY_MS: u64 = 1_000;
/// The longest time without an event or a comment, in milliseconds. Source: WHATWG HTML, 9.2.7,
/// advises about 15 s, since some proxies end a connection that is silent for longer. It is less than
/// the time after which `up` takes a client for one that does not read (`Limits::write`).
const COMMENT_EVERY_MS: u64 = 15_000;
/// A line that is no event.
const COMMENT: &[u8] = b":\n\n";

/// Where the events of an answer come from.
pub(crate) trait Feed: Send + 'static {
    /// The next events, encoded by [`push`]. Waits for them up to `wait_ms` milliseconds; empty if
    /// there are none by then.
    fn next(&mut self, wait_ms: u64) -> impl Future<Output = Result<Vec<u8>, Problem>> + Send;
}

/// What a request says about events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The id of the last event that the client has.
    pub(crate) last: Option<Seq>,
    /// Whether the client wants no body.
    is_head: bool,
}

impl Asked {
    /// `None` if the request does not ask for events.
    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        if !prefers_events(accept) {
            return Ok(None);
        }
        let name = LAST_EVENT_ID;
        let mut all = headers.get_all(LAST_EVENT_ID).iter();
        let last = match (all.next(), all.next()) {
            (None, _) => None,
            (Some(one), None) => {
                // Bytes that are no text are no number, either.
                let text = one.to_str().unwrap_or_default();
                Some(Seq(params::number(name, text, 0, SEQ_END - 1)?))
            }
            (Some(_), Some(_)) => {
                let detail = format!("`{name}`: is given twice");
                return Err(Problem::new(Kind::REPEATED_PARAMETER, detail));
            }
        };
        Ok(Some(Self { last, is_head: *method == Method::HEAD }))
    }

    /// The answer. If its first events cannot be had, it is a problem, as that to any other request.
    pub(crate) async fn answer(
        self,
        api: Arc<Api>,
        wait_ms: u64,
        mut feed: impl Feed,
    ) -> Result<Response, Problem> {
        let began_ms = api.reads.env().uptime_ms();
        let first_wait_ms = match api.streams {
            Streams::Whole if !self.is_head => wait_ms,
            Streams::Whole | Streams::Live { .. } => 0,
        };
        let mut first = format!("retry: {RETRY_MS}\n\n").into_bytes();
        first.extend(feed.next(first_wait_ms).await?);
        let body = match api.streams {
            Streams::Live { ms_max } if !self.is_head => {
                let more = more(api, feed, began_ms + ms_max);
                Body::from_stream(stream::once(future::ready(first)).chain(more).map(infallible))
            }
            Streams::Whole | Streams::Live { .. } => Body::from(first),
        };
        let mut response = HttpResponse::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
        Ok(response)
    }
}

fn infallible(bytes: Vec<u8>) -> Result<Vec<u8>, Infallible> {
    Ok(bytes)
}

/// The events behind the first, until `end_ms` of the host's uptime, or until a problem, which is the
/// last event.
fn more(api: Arc<Api>, feed: impl Feed, end_ms: u64) -> impl stream::Stream<Item = Vec<u8>> + Send {
    stream::unfold(Some((api, feed)), move |goes_on| async move {
        let (api, mut feed) = goes_on?;
        let left_ms = end_ms.saturating_sub(api.reads.env().uptime_ms());
        if left_ms == 0 {
            return None;
        }
        match feed.next(COMMENT_EVERY_MS.min(left_ms)).await {
            Ok(events) if events.is_empty() => Some((COMMENT.to_vec(), Some((api, feed)))),
            Ok(events) => Some((events, Some((api, feed)))),
            Err(problem) => {
                let mut event = Vec::new();
                push(&mut event, None, "problem", &problem.to_json());
                Some((event, None))
            }
        }
    })
}

/// Appends an event. An event without an id leaves the client's last id as it is.
pub(crate) fn push(to: &mut Vec<u8>, id: Option<Seq>, kind: &str, json: &[u8]) {
    if let Some(id) = id {
        to.extend(format!("id: {id}\n").as_bytes());
    }
    to.extend(format!("event: {kind}\n").as_bytes());
    // A line end would end the field. Within a text JSON has none, so it may be any other blank,
    // which is what the client makes of several lines.
    for line in json.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty()) {
        to.extend(b"data: ");
        to.extend(line);
        to.push(b'\n');
    }
    to.push(b'\n');
}

/// Whether the values of `Accept` name event streams, and prefer them to JSON if they name that, too.
/// A range such as `*/*` names neither.
fn prefers_events<'a>(accept: impl Iterator<Item = &'a str>) -> bool {
    let (mut events, mut json) = (0, 0);
    for range in accept.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts.find_map(quality).unwrap_or(1_000);
        if name.eq_ignore_ascii_case(EVENT_STREAM) {
            events = events.max(quality);
        } else if name.eq_ignore_ascii_case("application/json") {
            json = json.max(quality);
        }
    }
    events > json
}

/// The quality that a parameter gives, in thousandths (RFC 9110, 12.4.2); `None` if it is another
/// parameter. One that is not valid is 0.
fn quality(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let value: f32 = value.trim().parse().unwrap_or(0.0);
    Some(if (0.0..=1.0).contains(&value) { (value * 1_000.0) as u16 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_accept_that_names_events_asks_for_them() {
        for (accept, expected) in [
            (&["text/event-stream"][..], true),
            (&["Text/Event-Stream; charset=utf-8"], true),
            (&["text/event-stream, */*"], true),
            (&["text/html", "text/event-stream;q=0.1"], true),
            (&["application/json;q=0.5, text/event-stream"], true),
            (&["application/json, text/event-stream"], false),
            (&["application/json, text/event-stream;q=0.5"], false),
            (&["text/event-stream;q=0"], false),
            (&["text/event-stream; q=0.000"], false),
            (&["text/event-stream;q=x"], false),
            (&["text/event-stream;q=NaN"], false),
            (&["text/event-stream;q=2"], false),
            (&["*/*"], false),
            (&["text/*"], false),
            (&["text/event-streams"], false),
            (&[""], false),
            (&[], false),
        ] {
            assert_eq!(prefers_events(accept.iter().copied()), expected, "{accept:?}");
        }
    }

    #[test]
    fn an_event_has_no_line_end_within_its_data() {
        let mut events = Vec::new();
        push(&mut events, Some(Seq(7)), "row", b"{\n  \"a\":\r\n1}");
        push(&mut events, None, "problem", b"{}");
        let expected =
            "id: 7\nevent: row\ndata: {\ndata:   \"a\":\ndata: 1}\n\nevent: problem\ndata: {}\n\n";
        assert_eq!(String::from_utf8(events).expect("it is text"), expected);
    }
}
