//! The busiest tenants, on a host that sees the load.
//!
//! | route | query | answer |
//! |---|---|---|
//! | `GET /ops/tenants` | `limit` | tenants by accepted and refused commands, bytes, entries and the time to an entry |

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use fanfold::Time;
use fanfold_pipeline::tenants::{Busiest, Busy, TRACKED};
use serde::Serialize;

use crate::json;
use crate::params::Query;
use crate::problem::Problem;

/// Tenants of each list if the caller does not ask for a number. Source: our choice, what a screen shows.
const LIMIT: usize = 20;

#[derive(Serialize)]
struct BusiestJson {
    from: Time,
    to: Time,
    /// Tenants that each list tells apart.
    tracked: usize,
    accepted: Vec<BusyJson>,
    bytes: Vec<BusyJson>,
    refused: Vec<BusyJson>,
    entries: Vec<BusyJson>,
    slowest: Vec<SlowJson>,
}

#[derive(Serialize)]
struct BusyJson {
    tenant: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    count: u64,
    over: u64,
}

#[derive(Serialize)]
struct SlowJson {
    tenant: String,
    ms: u64,
}

impl From<Busy> for BusyJson {
    fn from(Busy { tenant, reason, count, over }: Busy) -> Self {
        Self { tenant, reason, count, over }
    }
}

fn list<T: From<Busy>>(busy: Vec<Busy>) -> Vec<T> {
    busy.into_iter().map(T::from).collect()
}

impl From<Busy> for SlowJson {
    fn from(Busy { tenant, count: ms, .. }: Busy) -> Self {
        Self { tenant, ms }
    }
}

/// The route, for a host whose stages count what tenants do. `busiest` gives as many of them as it is asked for.
pub fn tenants<S, B>(busiest: B) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    B: Fn(usize) -> Busiest + Clone + Send + Sync + 'static,
{
    Router::new().route("/ops/tenants", get(show::<B>)).with_state(busiest)
}

async fn show<B: Fn(usize) -> Busiest>(
    State(busiest): State<B>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["limit"])?;
    let limit = query.number("limit", 1, TRACKED as u64)?.map_or(LIMIT, |limit| limit as usize);
    let Busiest { from, to, accepted, bytes, refused, entries, slowest } = busiest(limit);
    let answer = BusiestJson {
        from,
        to,
        tracked: TRACKED,
        accepted: list(accepted),
        bytes: list(bytes),
        refused: list(refused),
        entries: list(entries),
        slowest: list(slowest),
    };
    json::answer(StatusCode::OK, &answer)
}
