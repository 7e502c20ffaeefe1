//! Whether the settings of a host are right.
//!
//! | route | answer |
//! |---|---|
//! | `GET /ops/doctor/host` | `findings`, the checks that were made, and those that could not be made |

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use fanfold_pipeline::ports::HostChecks;

use crate::json;
use crate::params::Query;
use crate::problem::Problem;

/// The route, for a host that can check its settings.
pub fn doctor_host<S: Clone + Send + Sync + 'static>(checks: Arc<dyn HostChecks>) -> Router<S> {
    Router::new().route("/ops/doctor/host", get(show)).with_state(checks)
}

async fn show(
    State(checks): State<Arc<dyn HostChecks>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Query::parse(query.as_deref(), &[])?;
    json::answer(StatusCode::OK, &checks.check().await)
}
