//! The HTTP API of Fanfold: one axum [`router`] over the ingest stage and the reading side. The
//! Lambda and the embedded engine serve the same router.
//!
//! | route | what |
//! |---|---|
//! | `POST /command` | one request; 202 with its receipt |
//! | `POST /commands` | a JSON array or NDJSON; 202 with a receipt or a problem per request |
//! | `GET /logs/{service}/{partition}/{seq}` | one entry: `wait` |
//! | `GET /logs` | the logs: `prefix`, `after`, `limit` |
//! | `GET /logs/{service}/{partition}` | entries: `from`, `limit`, `wait`; or one: `user`, `client`, `id`, `wait` |
//! | `GET /views` | the views that are served |
//! | `GET /views/{view}/{service}/{partition}` | rows: `seq`, `wait`, `prefix`, `after`, `limit`, `order` |
//! | `GET /views/{view}/{service}/{partition}/{row}` | one row: `seq`, `wait` |
//! | `GET /healthz`, `GET /readyz` | liveness; whether the host takes requests |
//! | `GET /metrics` | metrics for Prometheus |
//! | `GET /console` | the [console](console()) for operators, if the host adds it |
//! | `GET /openapi.json`, `GET /asyncapi.json` | descriptions of the API and of the notification |
//!
//! Entries of a log and rows of a view are also served as server-sent events, to requests with
//! `Accept: text/event-stream`.
//!
//! The router guarantees:
//!
//! - 202 to a command means that it is durable.
//! - Every error is an RFC 9457 [`problem`], whose detail names the field at fault.
//! - A wait holds no thread.
//! - A request stops no other, even if its handler panics.
//!
//! The router ignores a body's content type, because a plain `curl -d` sends that of a form. This
//! crate depends on no provider and listens on no socket: hosts do.

pub mod body;
mod commands;
mod console;
pub mod describe;
mod doctor_host;
mod events;
pub mod fields;
pub mod json;
pub mod limits;
mod logs;
pub mod metrics;
mod operate;
mod params;
pub mod problem;
mod router;
mod tenants;
mod timeline;
mod views;

use std::sync::Arc;

use fanfold_pipeline::ingest::Ingest;
use fanfold_pipeline::read::Reads;
use fanfold_pipeline::traces::Traces;

pub use console::console;
pub use describe::Described;
pub use doctor_host::doctor_host;
pub use metrics::Metrics;
pub use operate::operators;
pub use problem::Problem;
pub use router::{healthz, operators_alone, router, router_with};
pub use tenants::tenants;
pub use timeline::{OPERATOR_HEADER, with_timeline};

/// What the router serves. Clones are cheap and share their state.
#[derive(Clone)]
pub struct Api {
    /// The stage that accepts commands.
    pub ingest: Ingest,
    /// The reading side: entries of logs and rows of views.
    pub reads: Reads,
    /// The counters of requests and commands.
    pub metrics: Metrics,
    /// The longest `wait` that a caller may ask for, in milliseconds: at most
    /// [`limits::WAIT_MS_MAX`].
    pub wait_ms_max: u64,
    /// How answers of server-sent events are sent.
    pub streams: Streams,
    /// The app's description.
    pub described: Described,
    /// Where requests are traced; `None`: nowhere. A request's `traceparent` goes on with its commands anyway.
    pub traces: Option<Arc<dyn Traces>>,
}

/// How a host sends answers of server-sent events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// The host passes each event on as it comes.
    Live {
        /// The time after which an answer ends, in milliseconds. The client then sends its request
        /// again.
        ms_max: u64,
    },
    /// The host passes an answer on only when it is whole, as an HTTP API before a Lambda does. An
    /// answer waits for its first events, at most [`Api::wait_ms_max`], and ends behind them.
    Whole,
}
