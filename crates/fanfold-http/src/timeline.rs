//! The timeline: every request that makes something happen as an operator wants it is recorded.
//!
//! | route | query | answer |
//! |---|---|---|
//! | `GET /ops/timeline` | `before`, `limit` | who did what, newest first |
//!
//! The record is made around the routes, so no route can forget it. It is stored before the action is done.

use axum::Router;
use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{RawQuery, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use fanfold::host::body::action::{Action, ActionState};
use fanfold_pipeline::ports::{ActionId, Unavailable};
use fanfold_pipeline::timeline::{Caller, Timeline};
use percent_encoding::percent_decode;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::params::{Query, bad};
use crate::problem::{Kind, Problem};
use crate::{body, json};

/// The header with the name of the operator, as the client says it: UTF-8, percent-encoded.
pub const OPERATOR_HEADER: &str = "fanfold-operator";
/// The most bytes of that name. Source: as of all names.
const NAME_BYTES_MAX: usize = 128;
/// The most bytes of an answer of which the record has a part. Source: our choice; answers to actions are shorter. A longer
/// one is passed on, and not recorded.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// The beginning of the paths of operators' routes.
const OPS: &str = "/ops/";
/// The fields of requests that have a place of their own in a record.
const OWN_FIELDS: [&str; 4] = ["log", "view", "seq", "reason"];

#[derive(Serialize)]
struct ItemJson {
    id: String,
    #[serde(flatten)]
    action: Action,
}

#[derive(Serialize)]
struct PageJson {
    items: Vec<ItemJson>,
    next: Option<String>,
}

/// The routes of operators, each `POST` of which is recorded, and the route that lists the records. An action whose record
/// cannot be stored is answered with a problem, and is not done. One that was done is answered as it came out, whatever
/// becomes of its record.
///
/// The operator is the [`Caller`] in the request's extensions. Without one, it is the name in [`OPERATOR_HEADER`], which
/// is marked as claimed.
pub fn with_timeline<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    timeline: Timeline,
) -> Router<S> {
    let list = Router::new().route("/ops/timeline", get(list)).with_state(timeline.clone());
    routes.route_layer(from_fn_with_state(timeline, record)).merge(list)
}

async fn list(
    State(timeline): State<Timeline>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["before", "limit"])?;
    let before = query.text("before").map(str::parse::<ActionId>).transpose();
    let before =
        before.map_err(|_| bad("before", "must be the `next` of the page before, unchanged"))?;
    let page = timeline.page(before, query.limit()?).await.map_err(unavailable)?;
    let item = |(id, action)| ItemJson { id: ActionId::to_string(&id), action };
    let items = page.actions.into_iter().map(item).collect();
    let next = page.next.map(|id| id.to_string());
    json::answer(StatusCode::OK, &PageJson { items, next })
}

async fn record(
    State(timeline): State<Timeline>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if *request.method() != Method::POST {
        return Ok(next.run(request).await);
    }
    let (parts, body) = request.into_parts();
    let body = body::read_of(&parts.headers, body).await?;
    let begun = timeline.begin(action(&parts, &body)?).await.map_err(unrecorded)?;
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let state = state(response.status());
    let (response, result) = result(response).await;
    timeline.end(begun, state, result).await;
    Ok(response)
}

/// What a request asks for. A body that is no JSON object is the route's to refuse.
fn action(parts: &Parts, body: &[u8]) -> Result<Action, Problem> {
    let caller = parts.extensions.get::<Caller>();
    let (by, is_claimed) = match caller {
        Some(Caller(arn)) => (Some(Action::text(arn.clone())), false),
        None => {
            let claimed = claimed(parts)?;
            let is_claimed = claimed.is_some();
            (claimed, is_claimed)
        }
    };
    let path = parts.uri.path();
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let text = |field: &str| fields.get(field).and_then(Value::as_str).map(Action::text);
    let others = fields
        .iter()
        .filter(|(field, value)| !value.is_null() && !OWN_FIELDS.contains(&field.as_str()));
    let others: Vec<String> = others
        .map(|(field, value)| match value {
            Value::String(text) => format!("{field}={text}"),
            value => format!("{field}={value}"),
        })
        .collect();
    Ok(Action {
        by,
        is_claimed,
        action: Action::text(path.strip_prefix(OPS).unwrap_or(path)),
        log: text("log"),
        view: text("view"),
        seq: fields.get("seq").and_then(Value::as_u64),
        target: (!others.is_empty()).then(|| Action::text(others.join(" "))),
        reason: text("reason"),
        ..Action::default()
    })
}

/// The operator's name, as the client says it.
fn claimed(parts: &Parts) -> Result<Option<String>, Problem> {
    let Some(value) = parts.headers.get(OPERATOR_HEADER) else { return Ok(None) };
    let name = percent_decode(value.as_bytes()).decode_utf8();
    let name = name.map_err(|_| bad(OPERATOR_HEADER, "is not percent-encoded UTF-8"))?;
    let name = name.trim();
    match name.len() {
        0 => Ok(None),
        1..=NAME_BYTES_MAX if !name.chars().any(char::is_control) => Ok(Some(name.to_owned())),
        _ => {
            let why = format!("must be at most {NAME_BYTES_MAX} bytes without control characters");
            Err(bad(OPERATOR_HEADER, &why))
        }
    }
}

fn state(status: StatusCode) -> ActionState {
    match status {
        // Such a problem of a table may come after a part of the action was done.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => ActionState::Failed,
        status if status.is_success() => ActionState::Done,
        status if status.is_client_error() => ActionState::Refused,
        _ => ActionState::Failed,
    }
}

/// The answer unchanged, and what the record says of it.
async fn result(response: Response) -> (Response, Option<String>) {
    let (parts, body) = response.into_parts();
    // Answers in JSON are in memory, so they have a length.
    if body.size_hint().upper().is_none_or(|bytes| bytes > ANSWER_BYTES_MAX) {
        return (Response::from_parts(parts, body), None);
    }
    let Ok(body) = to_bytes(body, ANSWER_BYTES_MAX as usize).await else {
        return (Response::from_parts(parts, Body::empty()), None);
    };
    let text = std::str::from_utf8(&body).ok().filter(|text| !text.is_empty());
    let text = text.map(|text| match serde_json::from_str(text) {
        Ok(Value::Object(answer)) => summary(&answer).unwrap_or_else(|| text.to_owned()),
        _ => text.to_owned(),
    });
    (Response::from_parts(parts, Body::from(body)), text)
}

/// The detail of a problem; what was done, and where; or nothing, of another answer.
fn summary(answer: &Map<String, Value>) -> Option<String> {
    let text = |field: &str| answer.get(field).and_then(Value::as_str);
    match (text("detail"), text("done")) {
        (Some(detail), _) => Some(detail.to_owned()),
        (None, Some(done)) => Some(match (text("log"), answer.get("seq")) {
            (Some(log), Some(seq)) => format!("{done} {log}/{seq}"),
            _ => done.to_owned(),
        }),
        (None, None) => None,
    }
}

fn unavailable(error: Unavailable) -> Problem {
    Problem::unavailable(&error, error.to_string())
}

fn unrecorded(error: Unavailable) -> Problem {
    let detail = format!("the action cannot be recorded, so it was not done: {error}");
    match error {
        // Whatever is wrong with the record: nothing was done, and it can be tried again.
        Unavailable::Damaged { .. } => Problem::new(Kind::UNAVAILABLE, detail),
        error => Problem::unavailable(&error, detail),
    }
}
