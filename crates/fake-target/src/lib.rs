//! Two services in memory behind the HTTP API, in which tests plant faults.
//!
//! One is the ledger, whose rules it implements by itself: code that it shared with the auditor
//! would hide a bug of both. The other one, `seats`, knows every command: it accepts one, or, if
//! the data have `refuse`, rejects it with that code. Its views are `holders`, with a row for each
//! accepted command, `counts`, without rows, and `filtered`, which cannot be waited for.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::oneshot;

mod digest;
mod log;
mod manner;
mod plant;

pub use crate::manner::Manner;
pub use crate::plant::Plant;

use crate::log::Log;
use crate::manner::Mannered;

/// The maximum size of a body.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The maximum wait in ms, also if a request asks for more.
const WAIT_MS_MAX: u64 = 50;

const LEDGER_VIEWS: [&str; 3] = ["balances", "statement", "totals"];
const SEATS_VIEWS: [&str; 3] = ["holders", "counts", "filtered"];
const SERVICES: [&str; 2] = ["ledger", "seats"];
/// The commands of the ledger.
const COMMANDS: [&str; 5] = ["open", "deposit", "withdraw", "transfer", "close"];

/// A target on a loopback port, until it is dropped.
pub struct Fake {
    /// Its URL.
    pub url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Shared {
    plant: Option<Plant>,
    mannered: Mannered,
    logs: Arc<Mutex<BTreeMap<String, Log>>>,
}

impl Shared {
    fn logs(&self) -> MutexGuard<'_, BTreeMap<String, Log>> {
        self.logs.lock().expect("no request panics")
    }
}

impl Fake {
    /// Starts a target with at most one fault.
    pub fn start(plant: Option<Plant>) -> Self {
        Self::with(plant, Manner::Plain)
    }

    /// Starts a target that answers in this manner.
    pub fn with(plant: Option<Plant>, manner: Manner) -> Self {
        Self::serve(any_port(), plant, manner, None)
    }

    /// Starts a target that describes itself by this OpenAPI document. The others have none.
    pub fn described(document: Value) -> Self {
        Self::serve(any_port(), None, Manner::Plain, Some(document))
    }

    /// Starts a target on a socket that already listens.
    pub fn on(listener: TcpListener) -> Self {
        Self::serve(listener, None, Manner::Plain, None)
    }

    fn serve(
        listener: TcpListener,
        plant: Option<Plant>,
        manner: Manner,
        document: Option<Value>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        listener.set_nonblocking(true).expect("it may");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("it is one");
                let serve = axum::serve(listener, router(plant, manner, document));
                tokio::select! {
                    served = async { serve.await } => served.expect("it serves"),
                    _ = stopped => {}
                }
            });
        });
        Self { url, stop: Some(stop), thread: Some(thread) }
    }
}

fn any_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn router(plant: Option<Plant>, manner: Manner, document: Option<Value>) -> Router {
    let described = document.map_or_else(Router::new, |document| {
        Router::new().route("/openapi.json", get(async move || answer(200, &document)))
    });
    described
        .route("/readyz", get(async || answer(200, &json!({"status": "ready"}))))
        .route("/healthz", get(async || answer(200, &json!({"status": "ok"}))))
        .route("/command", post(one))
        .route("/commands", post(many))
        .route("/pass/{partition}/{ms}", post(pass))
        .route("/logs/{service}/{partition}", get(entries))
        .route("/logs/{service}/{partition}/{seq}", get(entry))
        .route("/views/{view}/{service}/{partition}", get(rows))
        .with_state(Shared { plant, mannered: Mannered::new(manner), logs: Arc::default() })
}

fn answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).expect("it is one");
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response
}

fn problem(status: u16, detail: &str) -> Value {
    json!({"type": "urn:fake", "title": "It cannot be", "status": status, "detail": detail})
}

fn refuse(status: u16, detail: &str) -> Response {
    answer(status, &problem(status, detail))
}

impl Shared {
    /// Takes a command. Returns its receipt or a problem.
    fn take(&self, request: &Value) -> Result<Value, Value> {
        let text = |name: &str| request[name].as_str().ok_or(problem(400, name));
        let (user, command) = (text("user")?, text("command")?);
        let id = request["id"].as_u64().ok_or(problem(400, "id"))?;
        let service = text("type")?;
        if !SERVICES.contains(&service) {
            return Err(problem(404, "type"));
        }
        if service == "ledger" && !COMMANDS.contains(&command) {
            return Err(problem(400, &format!("`command`: the ledger has no `{command}`")));
        }
        let partition = match request["org"].as_str() {
            Some(org) => format!("org:{org}"),
            None => format!("user:{user}"),
        };
        let name = format!("{service}/{partition}");
        let origin = match request["client"].as_str() {
            Some(client) => format!("{user}/{client}"),
            None => user.to_owned(),
        };
        let mut logs = self.logs();
        let log = logs.entry(name.clone()).or_insert_with(|| Log::new(&name, self.plant));
        let seq = log.take(&origin, id, command, &request["data"]);
        match log.is_refused_and_taken(user) {
            true => Err(problem(400, "it is refused")),
            false => Ok(json!({"log": name, "seq": seq})),
        }
    }
}

async fn body(body: Body) -> Vec<u8> {
    axum::body::to_bytes(body, BODY_BYTES_MAX).await.map(Vec::from).unwrap_or_default()
}

async fn one(State(shared): State<Shared>, request: Body) -> Response {
    match serde_json::from_slice(&body(request).await) {
        Ok(request) if shared.mannered.is_busy(&request).await => {
            let mut response = refuse(503, "come again");
            response.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
            response
        }
        Ok(request) => match shared.take(&request) {
            Ok(receipt) => answer(202, &receipt),
            Err(problem) => answer(400, &problem),
        },
        Err(error) => refuse(400, &error.to_string()),
    }
}

async fn many(State(shared): State<Shared>, request: Body) -> Response {
    let body = body(request).await;
    let requests: Result<Vec<Value>, _> = match body.trim_ascii_start().starts_with(b"[") {
        true => serde_json::from_slice(&body),
        false => serde_json::Deserializer::from_slice(&body).into_iter().collect(),
    };
    match requests {
        Ok(requests) if requests.len() > 500 => refuse(413, "too many"),
        Ok(requests) => {
            let results = requests.iter().map(|request| {
                let taken = match shared.mannered.refusal_in_batch(request) {
                    Some(status) => Err(problem(status, "not this one")),
                    None => shared.take(request),
                };
                taken.unwrap_or_else(|problem| json!({"problem": problem}))
            });
            answer(202, &json!({"results": results.collect::<Vec<Value>>()}))
        }
        Err(error) => refuse(400, &error.to_string()),
    }
}

/// Sets the clock of a log forward.
async fn pass(
    State(shared): State<Shared>,
    Path((partition, ms)): Path<(String, u64)>,
) -> Response {
    if let Some(log) = shared.logs().get_mut(&format!("ledger/{partition}")) {
        log.pass(ms);
    }
    answer(200, &json!({}))
}

/// The parameters of a query.
struct Query(BTreeMap<String, String>);

impl Query {
    fn read(raw: Option<String>) -> Self {
        let raw = raw.unwrap_or_default();
        let pairs = raw.split('&').filter_map(|pair| pair.split_once('='));
        let decode = |text: &str| {
            percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
        };
        Self(pairs.map(|(name, value)| (name.to_owned(), decode(value))).collect())
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.text(name).parse().unwrap_or(default)
    }

    async fn wait(&self) {
        let ms = self.number("wait", 0).min(WAIT_MS_MAX);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

async fn entries(
    State(shared): State<Shared>,
    Path((service, partition)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    if !SERVICES.contains(&service.as_str()) {
        return refuse(404, "there is no such service");
    }
    if shared.mannered.read_fails() {
        return refuse(500, "it went wrong");
    }
    let query = Query::read(query);
    let name = format!("{service}/{partition}");
    if !query.text("id").is_empty() {
        let origin = match query.text("client") {
            "" => query.text("user").to_owned(),
            client => format!("{}/{client}", query.text("user")),
        };
        let logs = shared.logs();
        let Some(log) = logs.get(&name) else { return refuse(404, "it is not known") };
        return match log.look_up(&origin, query.number("id", 0)) {
            (_, Some(entry)) => answer(200, &entry),
            (status, None) => refuse(status, "it is not known"),
        };
    }
    let limit = query.number("limit", 100);
    if !(1..=1_000).contains(&limit) {
        return refuse(400, "limit");
    }
    let is_gone = shared.plant == Some(Plant::Gone) && query.number("from", 1) > 1;
    match shared.logs().get_mut(&name).filter(|_| !is_gone) {
        Some(log) => answer(200, &log.page(query.number("from", 1), limit)),
        // A partition that has never sent anything is an empty log.
        None if !is_gone => {
            let page = json!({"log": name, "accepted": 0, "tail": 0, "entries": [], "next": null});
            answer(200, &page)
        }
        None => refuse(404, "there is no such log"),
    }
}

async fn entry(
    State(shared): State<Shared>,
    Path((service, partition, seq)): Path<(String, String, u64)>,
    RawQuery(query): RawQuery,
) -> Response {
    let log = format!("{service}/{partition}");
    let look = || {
        let logs = shared.logs();
        let log = logs.get(&log)?;
        Some((log.entry(seq), log.accepted(), log.tail()))
    };
    match look() {
        None => refuse(404, "there is no such log"),
        Some((Some(entry), ..)) => answer(200, &entry),
        Some((None, accepted, _)) if seq > accepted => refuse(404, "there is no such seq"),
        Some((None, _, tail)) => {
            Query::read(query).wait().await;
            answer(202, &json!({"status": "pending", "seq": tail}))
        }
    }
}

async fn rows(
    State(shared): State<Shared>,
    Path((view, service, partition)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let (query, name) = (Query::read(query), format!("{service}/{partition}"));
    let views = if service == "ledger" { LEDGER_VIEWS } else { SEATS_VIEWS };
    if !views.contains(&view.as_str()) {
        return refuse(404, &format!("there is no view `{view}` here"));
    }
    if view == "filtered" && !query.text("seq").is_empty() {
        return refuse(400, "`seq`: the view reads only some event types");
    }
    let (limit, wanted) = (query.number("limit", 100), query.number("seq", 0));
    if !(1..=1_000).contains(&limit) || query.number("wait", 0) > 25_000 {
        return refuse(400, "limit or wait");
    }
    if shared.mannered.manner == Manner::ViewsStand {
        tokio::time::sleep(Duration::from_millis(query.number("wait", 0))).await;
        return answer(202, &json!({"status": "pending", "seq": 0, "parked": null}));
    }
    let (cursor, parked) = {
        let mut logs = shared.logs();
        let Some(log) = logs.get_mut(&name) else {
            if wanted > 0 {
                return refuse(404, "there is no such seq");
            }
            let page = json!({
                "view": view, "version": 1, "log": name, "seq": 0, "parked": null, "rows": [],
                "next": null,
            });
            return answer(200, &page);
        };
        if wanted > log.accepted().max(log.tail()) {
            return refuse(404, "there is no such seq");
        }
        let (cursor, parked) = log.cursor(&view);
        if cursor >= wanted || log.is_too_early() {
            let (prefix, after) = (query.text("prefix"), query.text("after"));
            let descending = query.text("order") == "desc";
            let Some(mut rows) = log.rows(&view) else { return refuse(404, "no such view") };
            if descending {
                rows.reverse();
            }
            rows.retain(|row| {
                let key = row["key"].as_str().unwrap_or("");
                let is_after = if descending { key < after } else { key > after };
                key.starts_with(prefix) && (after.is_empty() || is_after)
            });
            let more = rows.len() as u64 > limit;
            rows.truncate(limit as usize);
            let next = rows.last().filter(|_| more).map(|row| row["key"].clone());
            let next = log.next_row(next);
            let (mut view, mut name) = (view, name.clone());
            match shared.plant {
                Some(Plant::RowsOfAnotherLog) => name = "ledger/org:elsewhere".to_owned(),
                Some(Plant::RowsOfAnotherView) => view = "elsewhere".to_owned(),
                _ => {}
            }
            let page = json!({
                "view": view, "version": 1, "log": name, "seq": cursor, "parked": parked,
                "rows": rows, "next": next,
            });
            return answer(200, &page);
        }
        (cursor, parked)
    };
    query.wait().await;
    answer(202, &json!({"status": "pending", "seq": cursor, "parked": parked}))
}
