//! Routes for operators of the embedded engine: the shards of its command stream, and backups ([`backups`]).
//!
//! | route | body | answer |
//! |---|---|---|
//! | `GET /ops/shards` | | all shards |
//! | `POST /ops/shards/split` | `{"shard","at"}`; `at` is the first hash key of the upper child, in decimal, by default the middle | the children |
//! | `POST /ops/shards/merge` | `{"shards":["…","…"]}` | the child |

pub(crate) mod backups;

use std::error::Error;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use fanfold_embedded::HashKey;
use fanfold_embedded::{ReshardError, ShardId, ShardInfo, ShardState, Shards};
use fanfold_http::fields::{Fields, wrong_type};
use fanfold_http::problem::{Kind, Problem};
use fanfold_http::{Api, body, json};
use serde::Serialize;
use serde_json::Value;
use tokio::task::spawn_blocking;

const UNKNOWN_SHARD: Kind = Kind {
    urn: "urn:fanfold:problem:unknown-shard",
    title: "There is no such shard",
    status: StatusCode::NOT_FOUND,
};
const SHARD_CLOSED: Kind = Kind {
    urn: "urn:fanfold:problem:shard-closed",
    title: "The shard was split or merged before",
    status: StatusCode::CONFLICT,
};
const CANNOT_RESHARD: Kind = Kind {
    urn: "urn:fanfold:problem:cannot-reshard",
    title: "The shards cannot be split or merged like this",
    status: StatusCode::CONFLICT,
};

/// Seconds after which a client should try again: closed shards may be drained then, or the disk
/// may work again. Source: our choice.
const RETRY_AFTER_S: u64 = 1;

/// A shard as callers see it. Hash keys are text, since they have 128 bits.
#[derive(Serialize)]
struct Shard {
    id: ShardId,
    range: Range,
    state: &'static str,
    parents: Vec<ShardId>,
    /// Records that are not processed yet.
    backlog: usize,
    /// The shard's part of all hash keys.
    percent: f64,
}

/// A range of hash keys, with both ends included.
#[derive(Serialize)]
struct Range {
    start: HashKey,
    end: HashKey,
}

#[derive(Serialize)]
struct Answer {
    shards: Vec<Shard>,
}

impl From<ShardInfo> for Shard {
    fn from(ShardInfo { id, range, state, parents, backlog }: ShardInfo) -> Self {
        let state = match state {
            ShardState::Open => "open",
            ShardState::Closed => "closed",
        };
        // Rounded to four decimal places, for people.
        let percent = (range.share() * 1e6).round() / 1e4;
        let range = Range { start: range.first, end: range.last };
        Self { id, range, state, parents, backlog, percent }
    }
}

/// The routes for the shards of a stream.
pub(crate) fn routes<T: Clone + Send + Sync + 'static>(shards: Arc<Shards<T>>) -> Router<Arc<Api>> {
    Router::new()
        .route("/ops/shards", get(list::<T>))
        .route("/ops/shards/split", post(split::<T>))
        .route("/ops/shards/merge", post(merge::<T>))
        .with_state(shards)
}

async fn list<T: Clone>(State(shards): State<Arc<Shards<T>>>) -> Result<Response, Problem> {
    answer(shards.list())
}

async fn split<T: Clone + Send + Sync + 'static>(
    State(shards): State<Arc<Shards<T>>>,
    request: Request,
) -> Result<Response, Problem> {
    let fields = Fields::parse(&body::read(request).await?, &["shard", "at"])?;
    let shard = shard("shard", fields.required("shard")?)?;
    let at = fields.get("at").map(hash_key).transpose()?;
    reshard(move || shards.split(shard, at)).await
}

async fn merge<T: Clone + Send + Sync + 'static>(
    State(shards): State<Arc<Shards<T>>>,
    request: Request,
) -> Result<Response, Problem> {
    let fields = Fields::parse(&body::read(request).await?, &["shards"])?;
    let two = fields.required("shards")?.as_array().map(Vec::as_slice);
    let Some([one, other]) = two else {
        return Err(wrong_type("shards", "an array of two strings"));
    };
    let (one, other) = (shard("shards", one)?, shard("shards", other)?);
    reshard(move || shards.merge(one, other)).await
}

/// Reshards in a thread for blocking calls, since storing the layout waits for the disk.
async fn reshard(
    reshard: impl FnOnce() -> Result<Vec<ShardInfo>, ReshardError> + Send + 'static,
) -> Result<Response, Problem> {
    let resharded = spawn_blocking(reshard)
        .await
        .map_err(|_| Problem::new(Kind::INTERNAL, "the shards could not be changed"))?;
    answer(resharded.map_err(problem)?)
}

fn answer(shards: Vec<ShardInfo>) -> Result<Response, Problem> {
    let shards = shards.into_iter().map(Shard::from).collect();
    json::answer(StatusCode::OK, &Answer { shards })
}

fn problem(error: ReshardError) -> Problem {
    let kind = match &error {
        ReshardError::Unknown { .. } => UNKNOWN_SHARD,
        ReshardError::Closed { .. } => SHARD_CLOSED,
        ReshardError::OutOfRange { .. } => Kind::BAD_PARAMETER,
        ReshardError::TooNarrow { .. }
        | ReshardError::NotAdjacent { .. }
        | ReshardError::TooManyOpen
        | ReshardError::TooManyClosed => CANNOT_RESHARD,
        ReshardError::NotStored(_) => {
            // The disk's message goes into the log and not to callers.
            tracing::error!(error = error.source(), "the layout of the shards was not stored");
            Kind::UNAVAILABLE
        }
    };
    let problem = Problem::new(kind, error.to_string());
    match error {
        ReshardError::TooManyClosed | ReshardError::NotStored(_) => {
            problem.retry_after(RETRY_AFTER_S)
        }
        _ => problem,
    }
}

fn shard(field: &str, value: &Value) -> Result<ShardId, Problem> {
    let text = value.as_str().ok_or_else(|| wrong_type(field, "a shard's name"))?;
    text.parse().map_err(|error| Problem::new(Kind::BAD_NAME, format!("`{field}`: {error}")))
}

fn hash_key(value: &Value) -> Result<HashKey, Problem> {
    let text = value.as_str().ok_or_else(|| wrong_type("at", "a hash key, as a string"))?;
    text.parse().map_err(|error| Problem::new(Kind::BAD_PARAMETER, format!("`at`: {error}")))
}
