//! `GET /views`: what is served. `GET /views/…`: rows.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use fanfold::{LogId, RowKey, Seq, Time};
use fanfold_pipeline::ports::{ParkedView, Row, RowRange};
use fanfold_pipeline::read::{AskedRows, Awaited, SeenView, ViewError, ViewPage};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::events::{self, Asked, Feed};
use crate::params::{Path, Query};
use crate::problem::{Kind, Problem};
use crate::{Api, json};

/// The shortest time between two events of a view, in milliseconds. Source: our choice; people hardly
/// notice it, and a busy log then costs four reads of the rows a second.
const EVENTS_EVERY_MS: u64 = 250;

#[derive(Serialize)]
struct PageJson<'a> {
    view: &'a str,
    version: u32,
    log: &'a LogId,
    seq: Seq,
    parked: Option<ParkedJson<'a>>,
    rows: Vec<RowJson<'a>>,
    next: Option<&'a RowKey>,
}

/// Why a view is parked, without the name of the build, which is for operators.
#[derive(Serialize)]
struct ParkedJson<'a> {
    seq: Seq,
    reason: &'a str,
    at: Time,
}

impl<'a> ParkedJson<'a> {
    fn new(ParkedView { seq, reason, at, .. }: &'a ParkedView) -> Self {
        Self { seq: *seq, reason, at: *at }
    }
}

#[derive(Serialize)]
struct RowJson<'a> {
    key: &'a RowKey,
    seq: Seq,
    row: &'a RawValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OneJson<'a> {
    view: &'a str,
    version: u32,
    log: &'a LogId,
    seq: Seq,
    parked: Option<ParkedJson<'a>>,
    key: &'a RowKey,
    row_seq: Seq,
    row: &'a RawValue,
}

#[derive(Serialize)]
struct PendingJson<'a> {
    status: &'static str,
    seq: Seq,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<ParkedJson<'a>>,
}

#[derive(Serialize)]
struct ServedJson<'a> {
    view: &'a str,
    version: u32,
    services: &'a [String],
    events: &'a [String],
    /// Whether `seq` can be given, since the view takes all events of its services.
    awaitable: bool,
    since: Option<Time>,
    table: Option<&'a str>,
}

#[derive(Serialize)]
struct ServedPageJson<'a> {
    views: Vec<ServedJson<'a>>,
}

/// Handles `GET /views`.
pub(crate) async fn served(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Query::parse(query.as_deref(), &[])?;
    let served = api.reads.views().await?;
    let views = served.iter().map(|served| ServedJson {
        view: &served.name,
        version: served.version,
        services: &served.services,
        events: &served.events,
        awaitable: !api.reads.is_filtered(served),
        since: served.since,
        table: served.table_name.as_deref(),
    });
    json::answer(StatusCode::OK, &ServedPageJson { views: views.collect() })
}

/// The answer 202 to a wait that timed out: the seq that the log or view has reached, and, if the
/// view is parked, why.
pub(crate) fn pending(seq: Seq, parked: Option<&ParkedView>) -> Result<Response, Problem> {
    json::answer(
        StatusCode::ACCEPTED,
        &PendingJson { status: "pending", seq, parked: parked.map(ParkedJson::new) },
    )
}

/// Handles `GET /views/{view}/{service}/{partition}`.
pub(crate) async fn rows(
    State(api): State<Arc<Api>>,
    path: Path,
    method: Method,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (view, log) = (path.text("view"), path.log()?);
    let asked = Asked::of(&method, &headers)?;
    // The id of the last event is the seq that events begin behind.
    let of_seq: &[&str] = if asked.is_some() { &[] } else { &["seq"] };
    let known = [of_seq, &["wait", "prefix", "after", "limit", "order"]].concat();
    let query = Query::parse(query.as_deref(), &known)?;
    let range = RowRange {
        prefix: query.prefix()?,
        after: query.after()?,
        descending: query.descending()?,
        limit: query.limit()?,
    };
    if let Some(asked) = asked {
        return events(api, view, log, AskedRows::Range(range), &query, asked).await;
    }
    let (seq, wait_ms) = (query.seq("seq")?, query.wait_ms(api.wait_ms_max)?);
    match api.reads.rows(view, &log, &range, seq, wait_ms).await? {
        Awaited::Ready(page) => Ok(json::written(StatusCode::OK, page_json(view, &log, &page)?)),
        Awaited::Pending { seq, parked } => pending(seq, parked.as_ref()),
    }
}

fn page_json(view: &str, log: &LogId, page: &ViewPage) -> Result<Vec<u8>, Problem> {
    let rows = page.rows.iter().map(|row| {
        let (key, seq) = (&row.key, row.seq);
        Ok(RowJson { key, seq, row: json::stored("a row", &row.body)? })
    });
    json::encode(&PageJson {
        view,
        version: page.version,
        log,
        seq: page.seq,
        parked: page.parked.as_ref().map(ParkedJson::new),
        rows: rows.collect::<Result<_, Problem>>()?,
        next: page.next.as_ref(),
    })
}

/// Handles `GET /views/{view}/{service}/{partition}/{row}`.
pub(crate) async fn row(
    State(api): State<Arc<Api>>,
    path: Path,
    method: Method,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (view, log, key) = (path.text("view"), path.log()?, path.row()?);
    if let Some(asked) = Asked::of(&method, &headers)? {
        let query = Query::parse(query.as_deref(), &["wait"])?;
        return events(api, view, log, AskedRows::One(key), &query, asked).await;
    }
    let query = Query::parse(query.as_deref(), &["seq", "wait"])?;
    let (seq, wait_ms) = (query.seq("seq")?, query.wait_ms(api.wait_ms_max)?);
    let page = match api.reads.row(view, &log, &key, seq, wait_ms).await? {
        Awaited::Ready(page) => page,
        Awaited::Pending { seq, parked } => return pending(seq, parked.as_ref()),
    };
    let row = page.rows.first();
    let row = row.ok_or_else(|| Problem::new(Kind::INTERNAL, "the row was not read"))?;
    Ok(json::written(StatusCode::OK, row_json(view, &log, &page, row)?))
}

fn row_json(view: &str, log: &LogId, page: &ViewPage, row: &Row) -> Result<Vec<u8>, Problem> {
    json::encode(&OneJson {
        view,
        version: page.version,
        log,
        seq: page.seq,
        parked: page.parked.as_ref().map(ParkedJson::new),
        key: &row.key,
        row_seq: row.seq,
        row: json::stored("the row", &row.body)?,
    })
}

/// An event for each answer that differs from the one before. The first is sent at once, or, if the
/// client has an event, as soon as the view is further.
async fn events(
    api: Arc<Api>,
    view: &str,
    log: LogId,
    rows: AskedRows,
    query: &Query,
    asked: Asked,
) -> Result<Response, Problem> {
    let wait_ms = query.wait_ms_or_most(api.wait_ms_max)?;
    let seen = asked.last.map(|seq| SeenView { seq, is_parked: None });
    let feed =
        Answers { api: api.clone(), view: view.to_owned(), log, rows, seen, pause_until_ms: 0 };
    asked.answer(api, wait_ms, feed).await
}

/// The answers of a view as events.
struct Answers {
    api: Arc<Api>,
    view: String,
    log: LogId,
    rows: AskedRows,
    /// The last answer that the client has.
    seen: Option<SeenView>,
    /// When the next event may be sent, in the host's uptime.
    pause_until_ms: u64,
}

impl Feed for Answers {
    async fn next(&mut self, wait_ms: u64) -> Result<Vec<u8>, Problem> {
        let Self { api, view, log, rows, seen, pause_until_ms } = self;
        let env = api.reads.env();
        let pause_ms = pause_until_ms.saturating_sub(env.uptime_ms()).min(wait_ms);
        if pause_ms > 0 {
            env.sleep(pause_ms).await;
        }
        let mut encoded = Vec::new();
        let left_ms = wait_ms - pause_ms;
        if let Some(page) = api.reads.rows_unlike(*seen, view, log, rows, left_ms).await? {
            let (kind, json) = match (&*rows, page.rows.first()) {
                (AskedRows::Range(_), _) => ("rows", page_json(view, log, &page)?),
                (AskedRows::One(_), Some(row)) => ("row", row_json(view, log, &page, row)?),
                (AskedRows::One(key), None) => {
                    let (view, log, key) = (view.clone(), log.clone(), key.clone());
                    ("no-row", Problem::from(ViewError::UnknownRow { view, log, key }).to_json())
                }
            };
            events::push(&mut encoded, Some(page.seq), kind, &json);
            *seen = Some(SeenView { seq: page.seq, is_parked: Some(page.parked.is_some()) });
            *pause_until_ms = env.uptime_ms() + EVENTS_EVERY_MS;
        }
        Ok(encoded)
    }
}
