//! `GET /logs`: the logs. `GET /logs/…`: entries.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use fanfold::entry::{Outcome, Raw};
use fanfold::{CommandId, Digest, DocumentId, Entry, LogId, Name, Seq, Time, TraceParent};
use fanfold_pipeline::read::Awaited;
use serde::Serialize;

use crate::events::{self, Asked, Feed};
use crate::params::{Path, Query};
use crate::problem::{Kind, Problem};
use crate::{Api, json, params, views};

/// An entry as callers see it: the fields of all entries, then those of its status.
#[derive(Serialize)]
pub(crate) struct EntryJson<'a> {
    log: &'a LogId,
    seq: Seq,
    status: &'static str,
    // An entry that an operator gave up as lost has no command, so it has no user, client or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<CommandId>,
    at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a Name>,
    // Only an entry that uses its id has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    // Only an entry of a recorded trace has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<TraceParent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<EventJson<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct EventJson<'a> {
    #[serde(rename = "type")]
    kind: &'a Name,
    document: &'a DocumentId,
    data: &'a Raw,
    // Absent means 1, since most event types never get another version.
    #[serde(skip_serializing_if = "is_first_version")]
    version: u32,
}

fn is_first_version(version: &u32) -> bool {
    *version == 1
}

impl<'a> EntryJson<'a> {
    pub(crate) fn new(log: &'a LogId, entry: &'a Entry) -> Self {
        let known = !entry.origin.is_nobody();
        let mut json = Self {
            log,
            seq: entry.seq,
            status: entry.outcome.status(),
            user: known.then(|| entry.origin.user_name()),
            client: entry.origin.client_name(),
            id: known.then_some(entry.id),
            at: entry.time,
            command: entry.command.as_ref(),
            digest: entry.digest,
            traceparent: entry.trace,
            events: None,
            code: None,
            message: None,
            of: None,
            reason: None,
        };
        match &entry.outcome {
            Outcome::Accepted(events) => {
                let events = events.iter().map(|event| EventJson {
                    kind: &event.kind,
                    document: &event.document,
                    data: &event.data,
                    version: event.version,
                });
                json.events = Some(events.collect());
            }
            Outcome::Rejected { code, message, of } => {
                json.code = Some(code);
                json.message = Some(message);
                json.of = *of;
            }
            Outcome::Duplicate { of } => json.of = Some(*of),
            Outcome::Stale => {}
            Outcome::Faulted { message, .. } => json.message = Some(message),
            Outcome::Lost { reason } => json.reason = Some(reason),
        }
        json
    }
}

#[derive(Serialize)]
struct PageJson<'a> {
    log: &'a LogId,
    accepted: Seq,
    tail: Seq,
    entries: Vec<EntryJson<'a>>,
    next: Option<Seq>,
}

/// Handles `GET /logs/{service}/{partition}/{seq}`.
pub(crate) async fn entry(
    State(api): State<Arc<Api>>,
    path: Path,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (log, seq) = (path.log()?, path.seq()?);
    let query = Query::parse(query.as_deref(), &["wait", "raw"])?;
    let (wait_ms, raw) = (query.wait_ms(api.wait_ms_max)?, query.flag("raw")?);
    answer(&api, &log, api.reads.entry(&log, seq, wait_ms).await?, raw)
}

fn answer(api: &Api, log: &LogId, entry: Awaited<Entry>, raw: bool) -> Result<Response, Problem> {
    match entry {
        Awaited::Ready(entry) => shown(api, log, entry, raw),
        Awaited::Pending { seq, parked } => views::pending(seq, parked.as_ref()),
    }
}

/// The answer that shows an entry: as it is stored if `raw`, else with its events in their current
/// versions.
pub(crate) fn shown(
    api: &Api,
    log: &LogId,
    mut entry: Entry,
    raw: bool,
) -> Result<Response, Problem> {
    if !raw {
        api.reads.bring_up_to_date(log, &mut entry);
    }
    json::answer(StatusCode::OK, &EntryJson::new(log, &entry))
}

/// Handles `GET /logs/{service}/{partition}`: a page of entries; or, if the query has `user`,
/// `client` or `id`, the entry of the first command with this id; or, if the request asks for them,
/// server-sent events.
pub(crate) async fn entries(
    State(api): State<Arc<Api>>,
    path: Path,
    method: Method,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let log = path.log()?;
    if Query::has_any(query.as_deref(), &["user", "client", "id"]) {
        let query = Query::parse(query.as_deref(), &["user", "client", "id", "wait", "raw"])?;
        let (origin, id) = (query.origin()?, query.id()?);
        let (wait_ms, raw) = (query.wait_ms(api.wait_ms_max)?, query.flag("raw")?);
        return answer(&api, &log, api.reads.lookup(&log, &origin, id, wait_ms).await?, raw);
    }
    if let Some(asked) = Asked::of(&method, &headers)? {
        return events(api, log, query.as_deref(), asked).await;
    }
    let query = Query::parse(query.as_deref(), &["from", "limit", "wait", "raw"])?;
    let (from, limit) = (query.seq("from")?.unwrap_or(Seq(1)), query.limit()?);
    let (wait_ms, raw) = (query.wait_ms(api.wait_ms_max)?, query.flag("raw")?);
    let mut page = api.reads.entries_awaited(&log, from, limit, wait_ms).await?;
    if !raw {
        page.entries.iter_mut().for_each(|entry| api.reads.bring_up_to_date(&log, entry));
    }
    json::answer(
        StatusCode::OK,
        &PageJson {
            log: &log,
            accepted: page.accepted,
            tail: page.tail,
            entries: page.entries.iter().map(|entry| EntryJson::new(&log, entry)).collect(),
            next: page.next,
        },
    )
}

/// An event for each entry, from the one behind the last that the client has, or from `from` on.
async fn events(
    api: Arc<Api>,
    log: LogId,
    query: Option<&str>,
    asked: Asked,
) -> Result<Response, Problem> {
    let query = Query::parse(query, &["from", "wait", "raw"])?;
    let (wait_ms, raw) = (query.wait_ms_or_most(api.wait_ms_max)?, query.flag("raw")?);
    let from = query.seq("from")?.unwrap_or(Seq(1));
    let next = asked.last.map_or(from, Seq::next);
    let feed = Entries { api: api.clone(), log, next, last: asked.last, raw };
    asked.answer(api, wait_ms, feed).await
}

/// The entries of a log as events.
struct Entries {
    api: Arc<Api>,
    log: LogId,
    next: Seq,
    /// The last that the client had when it asked.
    last: Option<Seq>,
    raw: bool,
}

impl Feed for Entries {
    async fn next(&mut self, wait_ms: u64) -> Result<Vec<u8>, Problem> {
        let Self { api, log, next, last, raw } = self;
        let mut page = api.reads.next_entries(log, *next, wait_ms).await?;
        let tail = page.tail;
        if let Some(last) = last.filter(|last| *last > tail) {
            let detail = format!(
                "`last-event-id`: `{log}` has no entry {last}, its last is {tail}: it is not the log \
                 that the event came from"
            );
            return Err(Problem::new(Kind::UNKNOWN_SEQ, detail));
        }
        let mut encoded = Vec::new();
        for entry in &mut page.entries {
            if !*raw {
                api.reads.bring_up_to_date(log, entry);
            }
            let json = json::encode(&EntryJson::new(log, entry))?;
            events::push(&mut encoded, Some(entry.seq), "entry", &json);
            *next = entry.seq.next();
        }
        Ok(encoded)
    }
}

#[derive(Serialize)]
struct LogsJson<'a> {
    logs: Vec<LogJson<'a>>,
    next: Option<String>,
}

#[derive(Serialize)]
struct LogJson<'a> {
    log: &'a LogId,
}

/// Handles `GET /logs`.
pub(crate) async fn logs(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["prefix", "after", "limit"])?;
    let after = query.text("after").map(params::position).transpose()?;
    let prefix = query.text("prefix").unwrap_or_default();
    let page = api.reads.logs(prefix, after, query.limit()?).await?;
    let logs = page.logs.iter().map(|log| LogJson { log }).collect();
    json::answer(StatusCode::OK, &LogsJson { logs, next: page.next.as_ref().map(params::token) })
}
