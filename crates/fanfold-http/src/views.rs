//! `GET /views`: what is served. `GET /views/…`: rows.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use fanfold::{LogId, RowKey, Seq, Time};
use fanfold_pipeline::ports::{ParkedView, RowRange};
use fanfold_pipeline::read::Awaited;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::params::{Path, Query};
use crate::problem::{Kind, Problem};
use crate::{Api, json};

#[derive(Serialize)]
struct PageJson<'a> {
    view: &'a str,
    version: u32,
    log: &'a LogId,
    seq: Seq,
    parked: Option<&'a ParkedView>,
    rows: Vec<RowJson<'a>>,
    next: Option<&'a RowKey>,
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
    parked: Option<&'a ParkedView>,
    key: &'a RowKey,
    row_seq: Seq,
    row: &'a RawValue,
}

#[derive(Serialize)]
struct PendingJson<'a> {
    status: &'static str,
    seq: Seq,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<&'a ParkedView>,
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
    let views: Vec<ServedJson<'_>> = views.collect();
    json::answer(StatusCode::OK, &serde_json::json!({ "views": views }))
}

/// The answer 202 to a wait that timed out: the seq that the log or view has reached, and, if the
/// view is parked, why.
pub(crate) fn pending(seq: Seq, parked: Option<&ParkedView>) -> Result<Response, Problem> {
    json::answer(StatusCode::ACCEPTED, &PendingJson { status: "pending", seq, parked })
}

/// Handles `GET /views/{view}/{service}/{partition}`.
pub(crate) async fn rows(
    State(api): State<Arc<Api>>,
    path: Path,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (view, log) = (path.text("view"), path.log()?);
    let known = ["seq", "wait", "prefix", "after", "limit", "order"];
    let query = Query::parse(query.as_deref(), &known)?;
    let range = RowRange {
        prefix: query.prefix()?,
        after: query.after()?,
        descending: query.descending()?,
        limit: query.limit()?,
    };
    let (seq, wait_ms) = (query.seq("seq")?, query.wait_ms(api.wait_ms_max)?);
    let page = match api.reads.rows(view, &log, &range, seq, wait_ms).await? {
        Awaited::Ready(page) => page,
        Awaited::Pending { seq, parked } => return pending(seq, parked.as_ref()),
    };
    let rows = page.rows.iter().map(|row| {
        let (key, seq) = (&row.key, row.seq);
        Ok(RowJson { key, seq, row: json::stored("a row", &row.body)? })
    });
    json::answer(
        StatusCode::OK,
        &PageJson {
            view,
            version: page.version,
            log: &log,
            seq: page.seq,
            parked: page.parked.as_ref(),
            rows: rows.collect::<Result<_, Problem>>()?,
            next: page.next.as_ref(),
        },
    )
}

/// Handles `GET /views/{view}/{service}/{partition}/{row}`.
pub(crate) async fn row(
    State(api): State<Arc<Api>>,
    path: Path,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (view, log, key) = (path.text("view"), path.log()?, path.row()?);
    let query = Query::parse(query.as_deref(), &["seq", "wait"])?;
    let (seq, wait_ms) = (query.seq("seq")?, query.wait_ms(api.wait_ms_max)?);
    let page = match api.reads.row(view, &log, &key, seq, wait_ms).await? {
        Awaited::Ready(page) => page,
        Awaited::Pending { seq, parked } => return pending(seq, parked.as_ref()),
    };
    let row = page.rows.first();
    let row = row.ok_or_else(|| Problem::new(Kind::INTERNAL, "the row was not read"))?;
    json::answer(
        StatusCode::OK,
        &OneJson {
            view,
            version: page.version,
            log: &log,
            seq: page.seq,
            parked: page.parked.as_ref(),
            key: &row.key,
            row_seq: row.seq,
            row: json::stored("the row", &row.body)?,
        },
    )
}
