//! Controls a host by HTTP: its counters, and faults to plant in it.
//!
//! | | |
//! |---|---|
//! | `GET /counts` | the counters of each function and mapping |
//! | `PUT /mappings/<function>/<on, off or drop>` | see [`Mode`] |
//! | `PUT /kill/<function>` | kills all its processes now |
//! | `PUT /kill/<function>/<invocations>/<ms>` | kills the processes of its next invocations, each within so many milliseconds |

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::function::Functions;
use crate::mapping::{Mappings, Mode};

/// What the control port controls.
pub struct Controlled {
    /// The functions.
    pub functions: Functions,
    /// The mappings, subscriptions among them.
    pub mappings: Mappings,
}

/// Serves the control port, without end.
pub async fn serve(listener: TcpListener, controlled: Controlled) -> std::io::Result<()> {
    let router = Router::new()
        .route("/counts", get(counts))
        .route("/mappings/{name}/{mode}", put(set_mode))
        .route("/kill/{name}", put(kill))
        .route("/kill/{name}/{invocations}/{ms}", put(kill_next))
        .with_state(Arc::new(controlled));
    axum::serve(listener, router).await
}

type Shared = State<Arc<Controlled>>;

async fn counts(State(host): Shared) -> Response {
    let functions = host.functions.iter();
    let functions: serde_json::Map<_, _> =
        functions.map(|(name, of)| (name.clone(), json!(of.invocations()))).collect();
    let mappings = host.mappings.iter();
    let mappings: serde_json::Map<_, _> =
        mappings.map(|(name, of)| (name.clone(), json!(of.counts()))).collect();
    answer(&json!({ "functions": functions, "mappings": mappings }))
}

async fn set_mode(State(host): Shared, Path((name, mode)): Path<(String, Mode)>) -> Response {
    let Some(mapping) = host.mappings.get(&name) else { return unknown(&name) };
    mapping.set(mode);
    answer(&json!({ "mode": mode }))
}

async fn kill(State(host): Shared, Path(name): Path<String>) -> Response {
    let Some(function) = host.functions.get(&name) else { return unknown(&name) };
    answer(&json!({ "idle": function.kill().await }))
}

async fn kill_next(
    State(host): Shared,
    Path((name, invocations, ms)): Path<(String, u64, u64)>,
) -> Response {
    let Some(function) = host.functions.get(&name) else { return unknown(&name) };
    function.kill_next(invocations, Duration::from_millis(ms));
    answer(&json!({ "invocations": invocations }))
}

fn answer(with: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], with.to_string()).into_response()
}

fn unknown(name: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("there is no {name}")).into_response()
}
