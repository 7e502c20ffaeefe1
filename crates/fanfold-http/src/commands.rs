//! `POST /command` and `POST /commands`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, LOCATION, RETRY_AFTER};
use axum::response::Response;
use fanfold::limits::REQUEST_COMMANDS_MAX;
use fanfold::{LogId, Seq};
use fanfold_pipeline::ingest::IngestError;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::params::{Query, encoded};
use crate::problem::{Kind, Problem};
use crate::{Api, body, json};

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

/// One request.
pub(crate) async fn one(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Response, Problem> {
    Query::parse(query.as_deref(), &[])?;
    let body = body::read(body).await?;
    match ingest(&api, &[&body]).await.pop() {
        Some(Answer::Receipt(receipt)) => {
            let mut response = json::answer(StatusCode::ACCEPTED, &receipt)?;
            let (service, partition) = (receipt.log.service(), receipt.log.partition());
            let location = format!("/logs/{service}/{}/{}", encoded(partition), receipt.seq);
            if let Ok(location) = HeaderValue::try_from(location) {
                response.headers_mut().insert(LOCATION, location);
            }
            Ok(response)
        }
        Some(Answer::Problem { problem }) => Err(*problem),
        None => Err(Problem::new(Kind::INTERNAL, "the request was not answered")),
    }
}

/// A batch: 202 whatever became of each.
pub(crate) async fn many(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Response, Problem> {
    Query::parse(query.as_deref(), &[])?;
    let body = body::read(body).await?;
    let results = ingest(&api, &split(&body)?).await;
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

async fn ingest(api: &Api, requests: &[&[u8]]) -> Vec<Answer> {
    let answers = api.ingest.ingest(requests).await.into_iter().map(|answer| match answer {
        Ok(receipt) => Answer::Receipt(Receipt { log: receipt.log, seq: receipt.seq }),
        Err(error) => Answer::Problem { problem: Box::new(IngestError::into(error)) },
    });
    let answers: Vec<Answer> = answers.collect();
    let receipts = answers.iter().filter(|a| matches!(a, Answer::Receipt(_))).count();
    api.metrics.count_commands(receipts, answers.len() - receipts);
    answers
}

/// The requests of a batch: the elements of a JSON array if it begins with `[`, else its lines but
/// for blank ones. What is wrong with a request is for the ingest stage to find.
fn split(body: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let requests: Vec<&[u8]> = if body.trim_ascii_start().starts_with(b"[") {
        let elements: Vec<&RawValue> = serde_json::from_slice(body).map_err(|e| {
            let at = e.to_string();
            match std::str::from_utf8(body) {
                Ok(_) => Problem::new(Kind::NOT_JSON, format!("the batch is not JSON: {at}")),
                Err(e) => not_utf8(e.valid_up_to()),
            }
        })?;
        elements.into_iter().map(|element| element.get().as_bytes()).collect()
    } else {
        let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        lines.filter(|line| !line.is_empty()).collect()
    };
    match requests.len() {
        0 => Err(Problem::new(Kind::NO_COMMANDS, "the batch holds no commands")),
        1..=REQUEST_COMMANDS_MAX => Ok(requests),
        n => Err(Problem::new(
            Kind::TOO_MANY_COMMANDS,
            format!("the batch holds {n} commands, at most {REQUEST_COMMANDS_MAX} are allowed"),
        )),
    }
}

fn not_utf8(at: usize) -> Problem {
    Problem::new(Kind::NOT_UTF8, format!("the batch is not valid UTF-8 from byte {at} on"))
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
        ] {
            assert_eq!(requests(body), expected, "{body}");
        }
    }

    #[test]
    fn a_batch_is_neither_broken_nor_empty_nor_too_long() {
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
    fn deep_nesting_costs_no_stack() {
        let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(split(deep.as_bytes()).map(|requests| requests.len()), Ok(1));
    }
}
