//! Routes that break a running `up --chaos` on purpose.
//!
//! | route | body | answer |
//! |---|---|---|
//! | `GET /ops/chaos` | | what is broken |
//! | `POST /ops/chaos` | `{"fault","at","delay_ms","log","shard","times","for_ms"}` | the fault |
//! | `POST /ops/chaos/heal` | `{}` or `{"id"}` | how many faults were ended |

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use fanfold::{LogId, Time};
use fanfold_embedded::{Chaos, ChaosPort, ChaosStage, Fault, NotPlanted, Planted, Scope, Shards};
use fanfold_http::fields::{Fields, wrong_type};
use fanfold_http::problem::{Kind, Problem};
use fanfold_http::{Api, body, json};
use fanfold_pipeline::process::ReceivedRecord;
use serde::Serialize;
use serde_json::Value;

const TOO_MANY_FAULTS: Kind = Kind {
    urn: "urn:fanfold:problem:too-many-faults",
    title: "Too much is broken already",
    status: StatusCode::CONFLICT,
};

/// What the routes need of the engine.
#[derive(Clone)]
pub(crate) struct ChaosRoutes {
    pub(crate) chaos: Chaos,
    pub(crate) shards: Arc<Shards<ReceivedRecord>>,
    pub(crate) views: Arc<[String]>,
}

/// A fault as callers see it.
#[derive(Serialize)]
struct FaultJson {
    id: u64,
    fault: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<LogId>,
    /// The shard; its range of hash keys, if it was split or merged since.
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<String>,
    until: Time,
    /// How many calls it breaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    /// How many calls it has broken.
    met: u64,
}

#[derive(Serialize)]
struct FaultsJson {
    faults: Vec<FaultJson>,
}

/// The routes.
pub(crate) fn routes(broken: ChaosRoutes) -> Router<Arc<Api>> {
    Router::new()
        .route("/ops/chaos", get(list).post(plant))
        .route("/ops/chaos/heal", post(heal))
        .with_state(broken)
}

impl ChaosRoutes {
    fn json(&self, Planted { id, fault, scope, until, times, met }: Planted) -> FaultJson {
        let (fault, at, delay_ms) = match fault {
            Fault::Fail(port) => ("fail", Some(name(port).to_owned()), None),
            Fault::Refuse => ("refuse", None, None),
            Fault::Hold => ("hold", None, None),
            Fault::Damage => ("damage", None, None),
            Fault::Kill(stage) => ("kill", Some(name_of(&stage)), None),
            Fault::Delay(stage, ms) => ("delay", Some(name_of(&stage)), Some(ms)),
        };
        let (log, shard) = match scope {
            Scope::All => (None, None),
            Scope::Log(log) => (Some(log), None),
            Scope::Range(range) => {
                let shards = self.shards.list();
                let shard = shards.iter().find(|shard| shard.range == range);
                let of_range = || format!("{}-{}", range.first, range.last);
                (None, Some(shard.map_or_else(of_range, |shard| shard.id.to_string())))
            }
        };
        FaultJson { id, fault, at, delay_ms, log, shard, until, times, met }
    }

    fn fault(&self, fields: &Fields) -> Result<Fault, Problem> {
        let fault = fields.required("fault")?.as_str().unwrap_or_default();
        let at = fields.text("at")?;
        let delay_ms = fields.get("delay_ms");
        if fault != "delay" && delay_ms.is_some() {
            return Err(bad("delay_ms", "only together with the fault `delay`"));
        }
        match (fault, at) {
            ("refuse", None) => Ok(Fault::Refuse),
            ("hold", None) => Ok(Fault::Hold),
            ("damage", None) => Ok(Fault::Damage),
            ("refuse" | "hold" | "damage", Some(_)) => {
                Err(bad("at", &format!("the fault `{fault}` has its own place")))
            }
            ("fail", at) => Ok(Fault::Fail(port(at.unwrap_or_default())?)),
            ("kill", at) => Ok(Fault::Kill(self.stage(at.unwrap_or_default())?)),
            ("delay", at) => {
                let stage = self.stage(at.unwrap_or_default())?;
                Ok(Fault::Delay(stage, milliseconds(fields, "delay_ms")?))
            }
            _ => {
                let known = "must be `fail`, `refuse`, `hold`, `damage`, `kill` or `delay`";
                Err(bad("fault", known))
            }
        }
    }

    fn stage(&self, text: &str) -> Result<ChaosStage, Problem> {
        match (text, text.strip_prefix("view:")) {
            ("relay", _) => Ok(ChaosStage::Relay),
            ("process", _) => Ok(ChaosStage::Process),
            (_, Some(view)) if self.views.iter().any(|name| name == view) => {
                Ok(ChaosStage::View(view.to_owned()))
            }
            (_, Some(view)) => Err(bad("at", &format!("there is no view `{view}` here"))),
            _ => Err(bad("at", "must be `relay`, `process` or `view:` with a view's name")),
        }
    }

    fn scope(&self, fields: &Fields) -> Result<Scope, Problem> {
        match (fields.get("log"), fields.text("shard")?) {
            (None, None) => Ok(Scope::All),
            (Some(_), None) => Ok(Scope::Log(fields.log()?)),
            (None, Some(shard)) => {
                let shards = self.shards.list();
                let found = shards.iter().find(|of| of.id.to_string() == shard);
                let found = found.ok_or_else(|| {
                    bad("shard", &format!("there is no shard `{shard}`: `fanfold shards list`"))
                })?;
                Ok(Scope::Range(found.range))
            }
            (Some(_), Some(_)) => Err(bad("shard", "not together with `log`")),
        }
    }
}

async fn list(State(broken): State<ChaosRoutes>) -> Result<Response, Problem> {
    let planted = broken.chaos.planted();
    let faults = planted.into_iter().map(|planted| broken.json(planted)).collect();
    json::answer(StatusCode::OK, &FaultsJson { faults })
}

async fn plant(State(broken): State<ChaosRoutes>, request: Request) -> Result<Response, Problem> {
    let known = ["fault", "at", "delay_ms", "log", "shard", "times", "for_ms"];
    let fields = Fields::parse(&body::read(request).await?, &known)?;
    let (fault, scope) = (broken.fault(&fields)?, broken.scope(&fields)?);
    let ms = milliseconds(&fields, "for_ms")?;
    let times = number(&fields, "times", "a number of calls")?;
    let planted = broken.chaos.plant(fault, scope, ms, times);
    let planted = planted.map_err(|error| match error {
        NotPlanted::TooMany => Problem::new(TOO_MANY_FAULTS, error.to_string()),
        NotPlanted::Lasts => bad("for_ms", &error.to_string()),
        NotPlanted::Delay => bad("delay_ms", &error.to_string()),
    })?;
    json::answer(StatusCode::OK, &broken.json(planted))
}

async fn heal(State(broken): State<ChaosRoutes>, request: Request) -> Result<Response, Problem> {
    let fields = Fields::parse(&body::read(request).await?, &["id"])?;
    let ended = broken.chaos.heal(number(&fields, "id", "the number of a fault")?);
    json::answer(StatusCode::OK, &serde_json::json!({ "ended": ended }))
}

fn name(port: ChaosPort) -> &'static str {
    match port {
        ChaosPort::Stream => "stream",
        ChaosPort::Journal => "journal",
        ChaosPort::State => "state",
        ChaosPort::Topic => "topic",
    }
}

fn port(text: &str) -> Result<ChaosPort, Problem> {
    let ports = [ChaosPort::Stream, ChaosPort::Journal, ChaosPort::State, ChaosPort::Topic];
    let port = ports.into_iter().find(|port| name(*port) == text);
    port.ok_or_else(|| bad("at", "must be `stream`, `journal`, `state` or `topic`"))
}

fn name_of(stage: &ChaosStage) -> String {
    match stage {
        ChaosStage::Relay => "relay".to_owned(),
        ChaosStage::Process => "process".to_owned(),
        ChaosStage::View(view) => format!("view:{view}"),
    }
}

fn number(fields: &Fields, field: &str, expected: &str) -> Result<Option<u64>, Problem> {
    let number = |value: &Value| value.as_u64().ok_or_else(|| wrong_type(field, expected));
    fields.get(field).map(number).transpose()
}

fn milliseconds(fields: &Fields, field: &str) -> Result<u64, Problem> {
    let ms = fields.required(field)?.as_u64();
    ms.ok_or_else(|| wrong_type(field, "a number of milliseconds"))
}

fn bad(field: &str, detail: &str) -> Problem {
    Problem::new(Kind::BAD_PARAMETER, format!("`{field}`: {detail}"))
}
