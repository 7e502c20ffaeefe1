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
//! | `POST /ops/raise` | `{"log"}` | what was done |
//! | `POST /ops/rebuild` | `{"view","log"}`, and `begun` of an answer to go on | what was done, and how long to wait |
//! | `GET /ops/doctor` | `after`, `limit`, `depth`, `source` | logs, each with what does not fit |
//! | `GET /ops/doctor/{service}/{partition}` | `depth` | one log |
//!
//! `GET /ops/doctor/host` is in `doctor_host.rs`, and `GET /ops/tenants` in `tenants.rs`. Each `POST` is recorded in the timeline (`timeline.rs`), which has a route of its own.

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use fanfold::host::body::parked::Reason;
use fanfold::{Command, CommandId, LogId, Name, Raw, Seq, Time};
use fanfold_pipeline::doctor::{Depth, Doctor, Examined, ExaminedPage};
use fanfold_pipeline::ingest::Receipt;
use fanfold_pipeline::operate::{Done, Operate, OperateError, WaitingItem, WaitingView};
use fanfold_pipeline::ports::{ParkedPosition, Unavailable};
use serde::Serialize;

use crate::fields::Fields;
use crate::logs::EntryJson;
use crate::params::{Path, Query};
use crate::problem::{Kind, Problem};
use crate::{body, json, params};

/// The most logs that one request examines. Source: our choice. A log takes some ten reads, and a request of AWS ends after
/// 29 s.
const EXAMINED_MAX: usize = 50;

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
    fn new(Command { origin, id, name, timestamp, data, .. }: &'a Command) -> Self {
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
    /// The build that parked it.
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<&'a str>,
    /// Whether an operator has the log rebuilt: only that releases the view.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    rebuild: bool,
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
            build: of.parked.build.as_deref(),
            rebuild: of.parked.rebuild.is_some(),
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
    /// `begun`: a stage does the rest. `accepted`: the command has a new position. `removed`: it waits no longer. `raised`:
    /// the slot is at the tail now, which is `seq`. `fits`: there is nothing to do.
    done: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<LogId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<Seq>,
}

/// `rebuilding`: the request comes again with `begun`, after `wait_ms`. `begun`: the view goes on.
#[derive(Serialize)]
struct RebuildingJson {
    done: &'static str,
    /// `None` if the view could not be parked yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    begun: Option<Time>,
    wait_ms: u64,
    rows: u64,
}

/// The routes of operators, for a host that serves them beside others.
pub fn operators<S: Clone + Send + Sync + 'static>(operate: Operate, doctor: Doctor) -> Router<S> {
    let examined = Router::new()
        .route("/ops/doctor", get(doctor_of_all))
        .route("/ops/doctor/{service}/{partition}", get(doctor_of_one))
        .with_state(doctor);
    Router::new()
        .route("/ops/parked", get(parked))
        .route("/ops/parked/{view}", get(parked_views))
        .route("/ops/resume", post(resume))
        .route("/ops/skip", post(skip))
        .route("/ops/resend", post(resend))
        .route("/ops/raise", post(raise))
        .route("/ops/rebuild", post(rebuild))
        .with_state(operate)
        .merge(examined)
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

#[derive(Serialize)]
struct ExaminedPageJson {
    logs: Vec<Examined>,
    next: Option<String>,
}

async fn doctor_of_all(
    State(doctor): State<Doctor>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "limit", "depth", "source"])?;
    let (limit, depth) = (query.limit()?.min(EXAMINED_MAX), depth(&query)?);
    let page = if is_of_journal(&query)? {
        let after = query.text("after").map(str::parse::<LogId>).transpose();
        let after = after.map_err(|error| Problem::name("after", &error))?;
        let page = doctor.page_of_journal(after.as_ref(), limit, depth).await;
        let ExaminedPage { logs, next } = page.map_err(unavailable)?;
        ExaminedPageJson { logs, next: next.map(|log| log.to_string()) }
    } else {
        let after = query.text("after").map(params::position).transpose()?;
        let page = doctor.page(after, limit, depth).await.map_err(unavailable)?;
        ExaminedPageJson { logs: page.logs, next: page.next.as_ref().map(params::token) }
    };
    json::answer(StatusCode::OK, &page)
}

async fn doctor_of_one(
    State(doctor): State<Doctor>,
    path: Path,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["depth"])?;
    let examined = doctor.examine(&path.log()?, depth(&query)?).await.map_err(unavailable)?;
    json::answer(StatusCode::OK, &examined)
}

/// Whether the logs are those of the journal, and not those of the catalogue.
fn is_of_journal(query: &Query) -> Result<bool, Problem> {
    match query.text("source") {
        None | Some("catalogue") => Ok(false),
        Some("journal") => Ok(true),
        Some(_) => {
            let detail = "`source`: must be `catalogue` or `journal`";
            Err(Problem::new(Kind::BAD_PARAMETER, detail))
        }
    }
}

fn depth(query: &Query) -> Result<Depth, Problem> {
    match query.text("depth") {
        None | Some("sample") => Ok(Depth::Sample),
        Some("all") => Ok(Depth::All),
        Some(_) => {
            let detail = "`depth`: must be `sample` or `all`";
            Err(Problem::new(Kind::BAD_PARAMETER, detail))
        }
    }
}

fn unavailable(error: Unavailable) -> Problem {
    Problem::unavailable(&error, error.to_string())
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

async fn raise(State(operate): State<Operate>, request: Request) -> Result<Response, Problem> {
    let fields = Fields::parse(&body::read(request).await?, &["log"])?;
    done(operate.raise(&fields.log()?).await?)
}

async fn rebuild(State(operate): State<Operate>, request: Request) -> Result<Response, Problem> {
    let fields = Fields::parse(&body::read(request).await?, &["view", "log", "begun"])?;
    let log = fields.log()?;
    fields.required("view")?;
    let view = fields.text("view")?.unwrap_or_default();
    done(operate.rebuild(view, &log, fields.time("begun")?).await?)
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
    let (done, position) = match done {
        Done::Begun => ("begun", None),
        Done::Removed => ("removed", None),
        Done::Accepted(Receipt { log, seq }) => ("accepted", Some((log, seq))),
        Done::Raised { log, to } => ("raised", Some((log, to))),
        Done::Fits => ("fits", None),
        Done::Rebuilding { begun, wait_ms, rows } => {
            let rebuilding = RebuildingJson { done: "rebuilding", begun, wait_ms, rows };
            return json::answer(StatusCode::OK, &rebuilding);
        }
        Done::Rebuilt { rows } => {
            let rebuilt = RebuildingJson { done: "begun", begun: None, wait_ms: 0, rows };
            return json::answer(StatusCode::OK, &rebuilt);
        }
    };
    let (log, seq) = position.unzip();
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
            | OperateError::IsRebuilt { .. }
            | OperateError::Unfit(_)
            | OperateError::NotFaulted { .. }
            | OperateError::Unreadable { .. } => Kind::CANNOT_GO_ON,
            OperateError::NoPosition(_) => {
                return Self::new(Kind::BAD_PARAMETER, format!("`after`: {error}"));
            }
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
