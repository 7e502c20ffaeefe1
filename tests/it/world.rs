//! A host with the ledger and the counter, and callers of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Once;

use fanfold::{Services, Views};
use fanfold_cli::host::Host;
use fanfold_embedded::{Config, Engine};
use fanfold_http::{Api, Metrics, router};
use ledger::Ledger;
use ledger::views::{Balances, Statement, Totals};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::answer::Answer;
use crate::counter::{Counter, Fragile, Narrow, Tally};

/// A running host. It ends when this is dropped.
pub(crate) struct World {
    caller: Caller,
    running: Option<(Host, Engine)>,
    runtime: Runtime,
}

/// One connection to a host.
pub(crate) struct Caller {
    agent: ureq::Agent,
    url: String,
}

impl std::ops::Deref for World {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl World {
    pub(crate) fn new() -> Self {
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
            });
            let api = Api {
                ingest: engine.ingest().clone(),
                reads: engine.reads().clone(),
                metrics: Metrics::new(),
            };
            let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            (Host::listen(any_port, router(api)).await.expect("a port is free"), engine)
        });
        let caller = Caller::new(format!("http://{}", host.address()));
        Self { caller, running: Some((host, engine)), runtime }
    }

    /// One more connection.
    pub(crate) fn another_connection(&self) -> Caller {
        Caller::new(self.caller.url.clone())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some((host, engine)) = self.running.take() {
            let ended = self.runtime.block_on(async {
                let drained = host.drain().await;
                (drained, engine.shutdown().await)
            });
            if !std::thread::panicking() {
                assert!(ended.0.is_ok(), "the host ends: {:?}", ended.0);
                assert!(ended.1, "what was accepted is processed before the end");
            }
        }
    }
}

fn log_panics_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(fanfold_cli::panics::log_those_caught);
}

impl Caller {
    fn new(url: String) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            // After some answers the server closes the connection: no request must meet that.
            .max_idle_connections(0)
            .build();
        Self { agent: config.into(), url }
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
