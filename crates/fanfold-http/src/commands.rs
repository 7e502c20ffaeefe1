//! `POST /command` and `POST /commands`.

use std::sync::Arc;

use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, LOCATION, RETRY_AFTER};
use axum::response::Response;
use fanfold::host::limits::REQUEST_COMMANDS_MAX;
use fanfold::{LogId, Seq, TraceParent};
use fanfold_pipeline::ingest::IngestError;
use fanfold_pipeline::read::Awaited;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::params::Query;
use crate::problem::{Kind, Problem};
use crate::{Api, body, json, logs};

/// Characters to encode in a path's segment: all but letters, digits, and those that RFC 3986
/// allows there (`pchar`) and that names often have.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b':').remove(b'@').remove(b'-').remove(b'~');

#[derive(Serialize)]
struct Receipt {
    log: LogId,
    seq: Seq,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Receipt(Receipt),
    Problem { problem: Box<Problem> },
}

#[derive(Serialize)]
struct Answers {
    results: Vec<Answer>,
}

/// Handles `POST /command`. With `wait`, the answer is the entry, once it is there within this time;
/// otherwise, and without `wait`, it is the receipt.
pub(crate) async fn one(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    let wait_ms = Query::parse(query.as_deref(), &["wait"])?.wait_ms(api.wait_ms_max)?;
    let trace = trace_of(&request);
    let body = body::read(request).await?;
    body::not_empty(&body)?;
    match ingest(&api, &[&body], trace).await.pop() {
        Some(Answer::Receipt(receipt)) => {
            let Receipt { log, seq } = &receipt;
            // The command is accepted, so no error of a read may hide the receipt.
            let shown = match wait_ms {
                0 => None,
                ms => match api.reads.entry(log, *seq, ms).await {
                    Ok(Awaited::Ready(entry)) => logs::shown(&api, log, entry, false).ok(),
                    _ => None,
                },
            };
            let mut response = match shown {
                Some(shown) => shown,
                None => json::answer(StatusCode::ACCEPTED, &receipt)?,
            };
            if let Ok(location) = HeaderValue::try_from(location(&receipt)) {
                response.headers_mut().insert(LOCATION, location);
            }
            Ok(response)
        }
        Some(Answer::Problem { problem }) => Err(*problem),
        None => Err(Problem::new(Kind::INTERNAL, "ingest gave no answer")),
    }
}

/// The entry's path, relative to the request's own path. So it also holds behind a proxy, or a
/// stage of API Gateway, that puts a prefix before all paths.
fn location(receipt: &Receipt) -> String {
    let encoded = |name| utf8_percent_encode(name, ENCODED);
    let (service, partition) = (receipt.log.service(), receipt.log.partition());
    format!("logs/{}/{}/{}", encoded(service), encoded(partition), receipt.seq)
}

/// Handles `POST /commands`. The status is 202 even if all commands were refused.
pub(crate) async fn many(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    Query::parse(query.as_deref(), &[])?;
    let trace = trace_of(&request);
    let body = body::read(request).await?;
    let results = ingest(&api, &split(&body)?, trace).await;
    let retry_after_s = results.iter().filter_map(|answer| match answer {
        Answer::Receipt(_) => None,
        Answer::Problem { problem } => problem.retry_after_s(),
    });
    let retry_after_s = retry_after_s.max();
    let mut response = json::answer(StatusCode::ACCEPTED, &Answers { results })?;
    if let Some(seconds) = retry_after_s {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    Ok(response)
}

/// The trace of a request's commands.
fn trace_of(request: &Request) -> Option<TraceParent> {
    request.extensions().get().copied()
}

async fn ingest(api: &Api, requests: &[&[u8]], trace: Option<TraceParent>) -> Vec<Answer> {
    let answers =
        api.ingest.ingest_traced(requests, trace).await.into_iter().map(|answer| match answer {
            Ok(receipt) => Answer::Receipt(Receipt { log: receipt.log, seq: receipt.seq }),
            Err(error) => Answer::Problem { problem: Box::new(IngestError::into(error)) },
        });
    let answers: Vec<Answer> = answers.collect();
    let receipts = answers.iter().filter(|a| matches!(a, Answer::Receipt(_))).count();
    let refused = answers.iter().filter_map(|answer| match answer {
        Answer::Receipt(_) => None,
        Answer::Problem { problem } => Some(problem.slug()),
    });
    api.metrics.count_commands(receipts, refused);
    answers
}

/// Splits a batch into its requests: the elements of a JSON array if it begins with `[`, else its
/// lines without the blank ones. The ingest stage checks each request.
fn split<'a>(body: &'a [u8]) -> Result<Vec<&'a [u8]>, Problem> {
    let requests: Vec<&[u8]> = if body.trim_ascii_start().starts_with(b"[") {
        let elements: Vec<&RawValue> =
            serde_json::from_slice(body).map_err(|error| match std::str::from_utf8(body) {
                Ok(_) => Problem::new(Kind::NOT_JSON, format!("the batch is not JSON: {error}")),
                Err(e) => Problem::new(
                    Kind::NOT_UTF8,
                    format!("the batch is not valid UTF-8 from byte {} on", e.valid_up_to()),
                ),
            })?;
        elements.into_iter().map(|element| element.get().as_bytes()).collect()
    } else {
        // Concatenated files may have a byte-order mark in the middle.
        let unmarked = |line: &'a [u8]| line.strip_prefix(body::BYTE_ORDER_MARK).unwrap_or(line);
        let lines = body.split(|byte| *byte == b'\n').map(unmarked).map(<[u8]>::trim_ascii);
        let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
        check_lines(body, &lines)?;
        lines
    };
    match requests.len() {
        0 => Err(Problem::new(Kind::NO_COMMANDS, "the batch has no commands")),
        1..=REQUEST_COMMANDS_MAX => Ok(requests),
        n => Err(Problem::new(
            Kind::TOO_MANY_COMMANDS,
            format!("the batch holds {n} commands, at most {REQUEST_COMMANDS_MAX} are allowed"),
        )),
    }
}

/// Refuses JSON objects that each take several lines, as people write them. Otherwise each line
/// would get a problem of its own, and none of these would name the cause.
fn check_lines(body: &[u8], lines: &[&[u8]]) -> Result<(), Problem> {
    let is_json = |text: &[u8]| serde_json::from_slice::<IgnoredAny>(text).is_ok();
    if lines.len() < 2 || is_json(lines[0]) {
        return Ok(());
    }
    let mut objects = 0;
    for object in serde_json::Deserializer::from_slice(body).into_iter::<IgnoredAny>() {
        if object.is_err() {
            return Ok(());
        }
        objects += 1;
    }
    let detail = format!(
        "the batch holds {objects} JSON object{} on {} lines: send each command on one line, or all \
         of them as a JSON array, or a single one to `/command`",
        if objects == 1 { "" } else { "s" },
        lines.len(),
    );
    Err(Problem::new(Kind::NOT_LINES, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(body: &str) -> Vec<String> {
        let requests = split(body.as_bytes()).expect(body);
        requests.into_iter().map(|r| String::from_utf8_lossy(r).into_owned()).collect()
    }

    #[test]
    fn a_batch_is_an_array_or_lines() {
        for (body, expected) in [
            ("[{\"a\": [1]}, 2,\n\"x\"]", &["{\"a\": [1]}", "2", "\"x\""][..]),
            (" \r\n [ 1 ]\n", &["1"]),
            ("{}\n\n{\"a\":1}\r\nnonsense\n  \n{}", &["{}", "{\"a\":1}", "nonsense", "{}"]),
            ("{}", &["{}"]),
            ("\u{feff}{}\n\u{feff}{}", &["{}", "{}"]),
            ("{\n}\n{]", &["{", "}", "{]"]),
        ] {
            assert_eq!(requests(body), expected, "{body}");
        }
    }

    #[test]
    fn a_broken_an_empty_and_a_too_long_batch_are_refused() {
        let kind = |body: &[u8]| {
            let problem = split(body).expect_err("it is a problem");
            serde_json::to_value(problem).expect("a problem can be written")["type"].clone()
        };
        assert_eq!(kind(b"[1,"), Kind::NOT_JSON.urn);
        assert_eq!(kind(b"[1] 2"), Kind::NOT_JSON.urn);
        assert_eq!(kind(b"[\"\xff\"]"), Kind::NOT_UTF8.urn);
        assert_eq!(kind(b"[]"), Kind::NO_COMMANDS.urn);
        assert_eq!(kind(b" \n \n"), Kind::NO_COMMANDS.urn);
        assert_eq!(kind("{}\n".repeat(501).as_bytes()), Kind::TOO_MANY_COMMANDS.urn);
        assert_eq!(
            kind(format!("[{}0]", "0,".repeat(500)).as_bytes()),
            Kind::TOO_MANY_COMMANDS.urn
        );
        assert_eq!(split("{}\n".repeat(500).as_bytes()).map(|r| r.len()), Ok(500));
    }

    #[test]
    fn a_location_keeps_the_prefix_of_the_request() {
        let log: LogId = "ledger/org:acme@x+y".parse().expect("it is a log");
        let location = location(&Receipt { log, seq: Seq(17) });
        for (command, entry) in [
            ("http://h/command", "http://h/logs/ledger/org:acme@x%2By/17"),
            ("http://h/prefix/command?x", "http://h/prefix/logs/ledger/org:acme@x%2By/17"),
        ] {
            let command = url::Url::parse(command).expect("it is a URL");
            assert_eq!(command.join(&location).expect("it is relative").as_str(), entry);
        }
    }

    #[test]
    fn objects_over_several_lines_get_one_problem_that_names_the_cause() {
        for (body, says) in [
            ("{\n  \"a\": 1\n}\n", "1 JSON object on 3 lines"),
            ("{\n}\n{\n}\n", "2 JSON objects on 4 lines"),
        ] {
            let problem = split(body.as_bytes()).expect_err(body);
            let problem = serde_json::to_value(&problem).expect("a problem can be written");
            assert_eq!(problem["type"], Kind::NOT_LINES.urn);
            let detail = problem["detail"].as_str().expect("it has one");
            assert!(detail.contains(says) && detail.contains("`/command`"), "{detail}");
        }
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(split(deep.as_bytes()).map(|requests| requests.len()), Ok(1));
    }
}
