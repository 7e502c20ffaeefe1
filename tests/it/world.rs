//! A running API, and its callers: a host in this process, or a deployed stack.
//!
//! With `FANFOLD_URL` set, [`World::new`] is the stack at this URL. All scenarios share it, and it
//! has been used before, so each world has names of its own: see [`World::name`].

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Once;
use std::time::{Duration, Instant};

use fanfold::{Services, Views};
use fanfold_cli::host::Host;
use fanfold_embedded::{Config, Engine};
use fanfold_http::limits::{STREAM_MS_MAX, WAIT_MS_EVERYWHERE, WAIT_MS_MAX};
use fanfold_http::{Api, Described, Metrics, Streams, router};
use ledger::Ledger;
use ledger::views::{Balances, Statement, Totals};
use rand::Rng;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::answer::Answer;
use crate::counter::{Counter, Fragile, Narrow, Tally};

/// The variable with the URL of a deployed API.
const URL: &str = "FANFOLD_URL";
/// The variable with the seconds that a scenario waits. A deployed stack may be cold, or busy.
const PATIENCE: &str = "SCENARIO_PATIENCE";
const PATIENCE_LOCAL: Duration = Duration::from_secs(25);
const PATIENCE_DEPLOYED: Duration = Duration::from_secs(100);
/// The timeout of a request, longer than any `wait`.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running API.
pub(crate) struct World {
    caller: Caller,
    suffix: String,
    local: Option<Local>,
}

/// A host in this process. Dropping the world ends it.
struct Local {
    host: Host,
    engine: Engine,
    runtime: Runtime,
}

/// One connection to a host.
pub(crate) struct Caller {
    agent: ureq::Agent,
    url: String,
    patience: Duration,
}

impl std::ops::Deref for World {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl World {
    /// An API with the ledger and its views. A scenario may rely on nothing else.
    pub(crate) fn new() -> Self {
        match env::var(URL) {
            Ok(url) => Self::at(url, PATIENCE_DEPLOYED, None),
            Err(_) => Self::local(),
        }
    }

    /// A host in this process, even if a stack is deployed: the router without a gateway, its
    /// metrics, and beside the ledger [`Counter`] with its views, which can be made to fail.
    pub(crate) fn local() -> Self {
        log_panics_once();
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let (host, engine) = runtime.block_on(async {
            let engine = Engine::start(Config {
                services: Services::new().with::<Ledger>().with::<Counter>(),
                views: Views::new()
                    .with::<Balances>()
                    .with::<Statement>()
                    .with::<Totals>()
                    .with::<Tally>()
                    .with::<Fragile>()
                    .with::<Narrow>(),
                ..Config::default()
            })
            .expect("an engine");
            let api = Api {
                ingest: engine.ingest().clone(),
                reads: engine.reads().clone(),
                metrics: Metrics::new(),
                wait_ms_max: WAIT_MS_MAX,
                streams: Streams::Live { ms_max: STREAM_MS_MAX },
                described: Described::new(ledger::app().expect("the ledger is right")),
                traces: None,
            };
            let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            (Host::listen(any_port, router(api)).await.expect("a port is free"), engine)
        });
        let url = format!("http://{}", host.address());
        Self::at(url, PATIENCE_LOCAL, Some(Local { host, engine, runtime }))
    }

    /// Whether the host is in this process, where no answer is lost.
    pub(crate) fn is_local(&self) -> bool {
        self.local.is_some()
    }

    fn at(url: String, patience: Duration, local: Option<Local>) -> Self {
        let patience = match env::var(PATIENCE) {
            Ok(seconds) => Duration::from_secs(seconds.parse().expect("patience is in seconds")),
            Err(_) => patience,
        };
        let suffix = format!("-{:012x}", rand::rng().random_range(0..1_u64 << 48));
        Self { caller: Caller::new(url, patience), suffix, local }
    }

    /// A name with this beginning that no other world has, for an org, or a user without one.
    pub(crate) fn name(&self, begin: &str) -> String {
        format!("{begin}{}", self.suffix)
    }

    /// One more connection.
    pub(crate) fn another_connection(&self) -> Caller {
        Caller::new(self.caller.url.clone(), self.caller.patience)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(Local { host, engine, runtime }) = self.local.take() {
            let ended = runtime.block_on(async {
                host.drain().await;
                engine.shutdown().await
            });
            if !std::thread::panicking() {
                assert!(ended, "accepted commands are processed before the end");
            }
        }
    }
}

fn log_panics_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(fanfold_cli::panics::log_those_caught);
}

impl Caller {
    fn new(url: String, patience: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            // The server closes the connection after some answers. No request must use such a
            // connection.
            .max_idle_connections(0)
            .build();
        Self { agent: config.into(), url, patience }
    }

    /// A request of ann's.
    pub(crate) fn request(
        &self,
        service: &str,
        command: &str,
        id: u64,
        org: &str,
        data: Value,
    ) -> Value {
        json!({
            "type": service, "command": command, "id": id, "timestamp": 11178, "user": "ann",
            "org": org, "data": data,
        })
    }

    /// Sends a request of ann's.
    pub(crate) fn send(
        &self,
        service: &str,
        command: &str,
        id: u64,
        org: &str,
        data: Value,
    ) -> Answer {
        let request = self.request(service, command, id, org, data);
        self.post("/command", request.to_string().as_bytes())
    }

    /// Gets `path`, and waits until it is there.
    #[track_caller]
    pub(crate) fn reach(&self, path: &str) -> Answer {
        let and = if path.contains('?') { '&' } else { '?' };
        let wait_ms = self.patience.as_millis().min(WAIT_MS_EVERYWHERE.into());
        let path = format!("{path}{and}wait={wait_ms}");
        let began = Instant::now();
        let mut answer = self.get(&path);
        while answer.status == 202 && began.elapsed() < self.patience {
            answer = self.get(&path);
        }
        answer.expect(200)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.call("GET", path, b"")
    }

    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Answer {
        self.call("POST", path, body)
    }

    pub(crate) fn call(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/x-www-form-urlencoded");
        let answered = match body {
            b"" => self.agent.run(request.body(()).expect("it is a request")),
            body => self.agent.run(request.body(body).expect("it is a request")),
        };
        let response = answered.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        Answer::read(response)
    }
}
