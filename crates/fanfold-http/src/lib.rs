//! The HTTP API of Fanfold: one axum [`router`] over the ingest stage and the reading side, the
//! same for a Lambda and for one process.
//!
//! | route | what |
//! |---|---|
//! | `POST /command` | one request; 202 with its receipt |
//! | `POST /commands` | a JSON array or NDJSON; 202 with a receipt or a problem per request |
//! | `GET /logs/{service}/{partition}/{seq}` | one entry: `wait` |
//! | `GET /logs/{service}/{partition}` | entries: `from`, `limit`; or one: `user`, `client`, `id`, `wait` |
//! | `GET /views/{view}/{service}/{partition}` | rows: `seq`, `wait`, `prefix`, `after`, `limit`, `order` |
//! | `GET /views/{view}/{service}/{partition}/{row}` | one row: `seq`, `wait` |
//! | `GET /healthz`, `GET /metrics` | liveness; counters |
//!
//! It guarantees that 202 to a command means durable, that every error is an RFC 9457 [`problem`]
//! whose detail names the field at fault, that a wait holds no thread, and that no request stops
//! another, not even one that makes a handler panic.
//!
//! A body's content type is not looked at: the article's `curl -d` sends a form's. It knows
//! nothing of storage, of AWS, or of who listens on which address.

pub mod body;
mod commands;
pub mod json;
pub mod limits;
mod logs;
mod metrics;
mod params;
pub mod problem;
mod router;
mod views;

use fanfold_pipeline::ingest::Ingest;
use fanfold_pipeline::read::Reads;

pub use metrics::Metrics;
pub use problem::Problem;
pub use router::{router, router_with};

/// What the router serves. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// Takes commands.
    pub ingest: Ingest,
    /// Reads logs and views.
    pub reads: Reads,
    /// Counts.
    pub metrics: Metrics,
    /// The longest `wait` that a caller may ask for, in milliseconds; see [`limits::WAIT_MS_MAX`].
    pub wait_ms_max: u64,
}
