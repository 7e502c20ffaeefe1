//! The routes of operators: what waits, and what can be done with it. They need rights that a client of the API should not
//! have, so a host serves them apart from it, or behind its own authorization.
//!
//! | route | query or body | answer |
//! |---|---|---|
//! | `GET /ops/parked` | `service`, `after`, `limit` | commands, commits and bytes that are parked |
//! | `GET /ops/parked/{view}` | `after`, `limit` | logs for which the view is parked |
//! | `POST /ops/resume` | `{"log","seq","identity"}` or `{"view","log"}` | what was done |
//! | `POST /ops/skip` | as `resume`, with `reason` | what was done |
//! | `POST /ops/resend` | `{"log","seq"}` | the receipt |

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use fanfold::host::body::parked::Reason;
use fanfold::{Command, CommandId, LogId, Name, Raw, Seq, Time};
use fanfold_pipeline::ingest::Receipt;
use fanfold_pipeline::operate::{Done, Operate, OperateError, WaitingItem, WaitingView};
use fanfold_pipeline::ports::ParkedPosition;
use serde::Serialize;

use crate::fields::Fields;
use crate::logs::EntryJson;
use crate::params::{Path, Query};
use crate::problem::{Kind, Problem};
use crate::{Api, body, json};

/// What waits in the parked table, as callers see it.
#[derive(Serialize)]
struct ItemJson<'a> {
    log: &'a LogId,
    seq: Seq,
    identity: &'a str,
    reason: Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Time>,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<CommandJson<'a>>,
    accepted: Seq,
    tail: Seq,
}

#[derive(Serialize)]
struct CommandJson<'a> {
    command: &'a Name,
    id: CommandId,
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
    data: Raw,
}

impl<'a> CommandJson<'a> {
    fn new(Command { origin, id, name, timestamp, data }: &'a Command) -> Self {
        Self {
            command: name,
            id: *id,
            user: origin.user_name(),
            client: origin.client_name(),
            timestamp: *timestamp,
            data: Raw(data.clone()),
        }
    }
}

impl<'a> ItemJson<'a> {
    fn new(item: &'a WaitingItem) -> Self {
        let WaitingItem { log, seq, identity, reason, at, detail, command, accepted, tail } = item;
        Self {
            log,
            seq: *seq,
            identity,
            reason: *reason,
            at: *at,
            detail,
            command: command.as_ref().map(CommandJson::new),
            accepted: *accepted,
            tail: *tail,
        }
    }
}

/// A log for which a view is parked, as callers see it.
#[derive(Serialize)]
struct ViewJson<'a> {
    view: &'a str,
    log: &'a LogId,
    /// The entry that the view cannot apply.
    seq: Seq,
    reason: &'a str,
    at: Time,
    cursor: Seq,
    tail: Seq,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<EntryJson<'a>>,
}

impl<'a> ViewJson<'a> {
    fn new(view: &'a str, of: &'a WaitingView) -> Self {
        Self {
            view,
            log: &of.log,
            seq: of.parked.seq,
            reason: &of.parked.reason,
            at: of.parked.at,
            cursor: of.cursor,
            tail: of.tail,
            entry: of.entry.as_ref().map(|entry| EntryJson::new(&of.log, entry)),
        }
    }
}

#[derive(Serialize)]
struct PageJson<T> {
    parked: Vec<T>,
    next: Option<String>,
}

#[derive(Serialize)]
struct DoneJson {
    /// `begun`: a stage does the rest. `accepted`: the command has a new position. `removed`: it waits no longer.
    done: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<LogId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<Seq>,
}

/// The routes of operators, beside the API's own.
pub fn operators(operate: Operate) -> Router<Arc<Api>> {
    Router::new()
        .route("/ops/parked", get(parked))
        .route("/ops/parked/{view}", get(parked_views))
        .route("/ops/resume", post(resume))
        .route("/ops/skip", post(skip))
        .route("/ops/resend", post(resend))
        .with_state(operate)
}

async fn parked(
    State(operate): State<Operate>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["service", "after", "limit"])?;
    let after = query.text("after").map(|after| ParkedPosition(after.to_owned()));
    let page = operate.waiting(query.text("service"), after.as_ref(), query.limit()?).await?;
    let parked = page.items.iter().map(ItemJson::new).collect();
    let next = page.next.map(|ParkedPosition(next)| next);
    json::answer(StatusCode::OK, &PageJson { parked, next })
}

async fn parked_views(
    State(operate): State<Operate>,
    path: Path,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "limit"])?;
    let after = query.text("after").map(str::parse::<LogId>).transpose();
    let after = after.map_err(|error| Problem::name("after", &error))?;
    let view = path.text("view");
    let page = operate.waiting_of_view(view, after.as_ref(), query.limit()?).await?;
    let parked = page.items.iter().map(|item| ViewJson::new(view, item)).collect();
    json::answer(StatusCode::OK, &PageJson { parked, next: page.next.map(|log| log.to_string()) })
}

async fn resume(State(operate): State<Operate>, request: Request) -> Result<Response, Problem> {
    let fields = Fields::parse(&body::read(request).await?, &["log", "seq", "identity", "view"])?;
    let log = fields.log()?;
    done(match fields.text("view")? {
        Some(view) => {
            alone(&fields)?;
            operate.resume_view(view, &log).await?
        }
        None => operate.resume(&log, fields.seq()?, fields.text("identity")?).await?,
    })
}

async fn skip(State(operate): State<Operate>, request: Request) -> Result<Response, Problem> {
    let known = ["log", "seq", "identity", "view", "reason"];
    let fields = Fields::parse(&body::read(request).await?, &known)?;
    let (log, reason) = (fields.log()?, fields.text("reason")?.unwrap_or_default());
    done(match fields.text("view")? {
        Some(view) => {
            alone(&fields)?;
            operate.skip_view(view, &log, reason).await?
        }
        None => operate.skip(&log, fields.seq()?, fields.text("identity")?, reason).await?,
    })
}

async fn resend(State(operate): State<Operate>, request: Request) -> Result<Response, Problem> {
    let fields = Fields::parse(&body::read(request).await?, &["log", "seq"])?;
    done(Done::Accepted(operate.resend(&fields.log()?, fields.seq()?).await?))
}

/// A view is parked at one entry, which a caller does not choose.
fn alone(fields: &Fields) -> Result<(), Problem> {
    match ["seq", "identity"].into_iter().find(|field| fields.get(field).is_some()) {
        None => Ok(()),
        Some(field) => {
            let detail =
                format!("`{field}`: not together with `view`, which is parked at one entry");
            Err(Problem::new(Kind::UNKNOWN_FIELD, detail))
        }
    }
}

fn done(done: Done) -> Result<Response, Problem> {
    let (done, receipt) = match done {
        Done::Begun => ("begun", None),
        Done::Removed => ("removed", None),
        Done::Accepted(receipt) => ("accepted", Some(receipt)),
    };
    let (log, seq) = receipt.map(|Receipt { log, seq }| (log, seq)).unzip();
    json::answer(StatusCode::OK, &DoneJson { done, log, seq })
}

impl From<OperateError> for Problem {
    fn from(error: OperateError) -> Self {
        let kind = match error {
            OperateError::UnknownView(_) => Kind::UNKNOWN_VIEW,
            OperateError::NothingWaits { .. } | OperateError::NotParked { .. } => {
                Kind::NOTHING_WAITS
            }
            OperateError::Ambiguous { .. } => Kind::AMBIGUOUS,
            OperateError::NotDirectlyBefore { .. }
            | OperateError::Unfit(_)
            | OperateError::NotFaulted { .. }
            | OperateError::Unreadable { .. } => Kind::CANNOT_GO_ON,
            OperateError::NoReason => {
                return Self::new(Kind::MISSING_FIELD, format!("`reason`: {error}"));
            }
            OperateError::NotAccepted(error) => return error.into(),
            OperateError::Unavailable(ref unavailable) => {
                return Self::unavailable(unavailable, error.to_string());
            }
        };
        Self::new(kind, error.to_string())
    }
}
