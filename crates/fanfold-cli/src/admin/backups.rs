//! Routes for backups of the folder of `up`.
//!
//! | route | body | answer |
//! |---|---|---|
//! | `POST /ops/backup` | `{"folder","mb_per_s"}`; the folder is an absolute path on the host's machine | 202: the backup has begun |
//! | `GET /ops/backup` | | how far the backup is that was requested last |

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use fanfold::with_causes;
use fanfold_embedded::{BackupError, BackupState, BackupStatus, Backups, TargetError};
use fanfold_http::fields::{Fields, wrong_type};
use fanfold_http::problem::{Kind, Problem};
use fanfold_http::{Api, body, json};
use serde::Serialize;
use tokio::task::spawn_blocking;

const CANNOT_BACK_UP: Kind = Kind {
    urn: "urn:fanfold:problem:cannot-back-up",
    title: "No backup can be made like this",
    status: StatusCode::CONFLICT,
};
const BACKUP_UNDER_WAY: Kind = Kind {
    urn: "urn:fanfold:problem:backup-under-way",
    title: "A backup is under way",
    status: StatusCode::CONFLICT,
};

/// The bytes of a megabyte, as disks are sold.
const MB_BYTES: u64 = 1_000_000;

/// A backup as callers see it.
#[derive(Serialize)]
struct Shown {
    /// `None`: no backup was requested since the start.
    folder: Option<String>,
    state: &'static str,
    bytes: u64,
    seconds: f64,
    position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Shown {
    fn of(status: Option<BackupStatus>) -> Self {
        let Some(BackupStatus { folder, state, bytes, ms, position }) = status else {
            let (folder, state, position, error) = (None, "none", None, None);
            return Self { folder, state, bytes: 0, seconds: 0.0, position, error };
        };
        let (state, error) = match state {
            BackupState::Running => ("running", None),
            BackupState::Complete => ("complete", None),
            BackupState::Failed(error) => ("failed", Some(error)),
        };
        let folder = Some(folder.display().to_string());
        Self { folder, state, bytes, seconds: ms as f64 / 1e3, position, error }
    }
}

type Made = Option<Arc<Backups>>;

/// The routes. `backups`: `None` if the host keeps nothing on disk.
pub(crate) fn routes(backups: Made) -> Router<Arc<Api>> {
    Router::new().route("/ops/backup", get(last).post(begin)).with_state(backups)
}

fn made(backups: Made) -> Result<Arc<Backups>, Problem> {
    backups.ok_or_else(|| {
        let detail = "the host keeps everything in memory, so there is no folder to back up: start `up` with `--data`";
        Problem::new(CANNOT_BACK_UP, detail)
    })
}

async fn last(State(backups): State<Made>) -> Result<Response, Problem> {
    json::answer(StatusCode::OK, &Shown::of(made(backups)?.last()))
}

async fn begin(State(backups): State<Made>, request: Request) -> Result<Response, Problem> {
    let fields = Fields::parse(&body::read(request).await?, &["folder", "mb_per_s"])?;
    fields.required("folder")?;
    let folder = fields.text("folder")?.unwrap_or_default().to_owned();
    let rate = fields.get("mb_per_s").map(|rate| {
        let rate = rate.as_u64().and_then(|rate| rate.checked_mul(MB_BYTES));
        rate.and_then(NonZeroU64::new).ok_or_else(|| wrong_type("mb_per_s", "a number from 1"))
    });
    let rate = rate.transpose()?;
    let backups = made(backups)?;
    // In a thread for blocking calls, since the folder is made.
    let begun = spawn_blocking(move || backups.begin(Path::new(&folder), rate)).await;
    let begun =
        begun.map_err(|_| Problem::new(Kind::INTERNAL, "the backup could not be started"))?;
    json::answer(StatusCode::ACCEPTED, &Shown::of(Some(begun.map_err(|error| problem(&error))?)))
}

fn problem(error: &BackupError) -> Problem {
    match error {
        BackupError::UnderWay(_) => Problem::new(BACKUP_UNDER_WAY, error.to_string()),
        BackupError::Folder(TargetError::Relative(_) | TargetError::Inside { .. }) => {
            Problem::new(Kind::BAD_PARAMETER, format!("`folder`: {error}"))
        }
        BackupError::Folder(_) => {
            Problem::new(CANNOT_BACK_UP, format!("`folder`: {}", with_causes(error)))
        }
        error => Problem::new(CANNOT_BACK_UP, with_causes(error)),
    }
}
