//! The router over the in-memory ports. Ingest is the only stage that runs. Tests write what the
//! processor and the projector would write, so they can produce every shape and every status.

mod console;
mod describe;
mod edge;
mod follow;
mod ids;
mod shapes;
mod timeline;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use fanfold::entry::{Entry, Outcome};
use fanfold::host::body::commit;
use fanfold::{CommandId, Digest, LogId, Name, Origin, RowKey, Seq, Services, Time, Views};
use fanfold_embedded::SystemEnv;
use fanfold_embedded::TransitConfig;
use fanfold_embedded::testing::Ports;
use fanfold_http::limits::{STREAM_MS_MAX, WAIT_MS_MAX};
use fanfold_http::{Api, Described, Metrics, Streams, router};
use fanfold_pipeline::ports::{CommitItem, Journal, Nonce, StoredRow, ViewTable};
use http_body_util::BodyExt;
use ledger::Ledger;
use ledger::views::Balances;
use serde_json::Value;
use tower::ServiceExt;

/// A router and the ports below it.
pub(crate) struct Edge {
    pub(crate) memory: Ports,
    router: Router,
}

/// An answer with its whole body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Edge {
    pub(crate) fn new() -> Self {
        Self::with_wait_ms_max(WAIT_MS_MAX)
    }

    pub(crate) fn with_wait_ms_max(wait_ms_max: u64) -> Self {
        Self::with(wait_ms_max, Streams::Live { ms_max: STREAM_MS_MAX })
    }

    pub(crate) fn with(wait_ms_max: u64, streams: Streams) -> Self {
        let env = Arc::new(SystemEnv);
        let views = Views::new().with::<Balances>();
        let names = views.iter().map(|view| view.name());
        let memory =
            Ports::in_memory(&TransitConfig::default(), names, env.clone()).expect("ports");
        let services = Services::new().with::<Ledger>();
        let wiring = memory.wiring(env);
        let reads = wiring.reads(&views, services.clone());
        let ingest = wiring.ingest(services);
        let described = Described::new(ledger::app().expect("the ledger is right"));
        let metrics = Metrics::new();
        let router =
            router(Api { ingest, reads, metrics, wait_ms_max, streams, described, traces: None });
        Self { memory, router }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).body(body.into());
        self.send(request.expect("it is a request")).await
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        Answer::of(self.router.clone().oneshot(request).await.expect("it always answers")).await
    }

    /// The answer to a request with these headers and no body, before its own body is read.
    pub(crate) async fn response(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("it is a request");
        self.router.clone().oneshot(request).await.expect("it always answers")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "").await
    }

    /// Reads a path with this header `Accept`.
    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        let request = Request::builder().uri(path).header("accept", accept).body(Body::empty());
        self.send(request.expect("it is a request")).await
    }

    /// Sends `open` of the account `cash`, as ann for acme.
    pub(crate) async fn open(&self, id: u64) -> Answer {
        self.open_at("/command", id).await
    }

    /// The same, to this path and query.
    pub(crate) async fn open_at(&self, path: &str, id: u64) -> Answer {
        let request = format!(
            r#"{{"type":"ledger","command":"open","id":{id},"user":"ann","org":"acme","data":{{"account":"cash"}}}}"#
        );
        self.call("POST", path, request).await
    }

    /// Writes a commit with an entry per outcome, as the processor would.
    pub(crate) async fn commit(&self, first: u64, outcomes: Vec<Outcome>) {
        let mut payload = Vec::new();
        for (seq, outcome) in (first..).zip(&outcomes) {
            let lost = matches!(outcome, Outcome::Lost { .. });
            let user = Origin::user(&name("ann")).expect("it is not reserved");
            let entry = Entry {
                seq: Seq(seq),
                time: Time(1_000 + seq),
                origin: if lost { Origin::nobody() } else { user },
                id: if lost { CommandId::NONE } else { CommandId::new(seq).expect("in range") },
                command: (!lost).then(|| name("open")),
                digest: outcome.uses_id().then(|| Digest::of_json(r#"{"account":"cash"}"#)),
                trace: None,
                outcome: outcome.clone(),
            };
            payload.push(if payload.is_empty() { b'[' } else { b',' });
            commit::write_entry(&entry, &mut payload).expect("it can be written");
        }
        payload.push(b']');
        let item = CommitItem {
            first: Seq(first),
            n: outcomes.len() as u64,
            at: Time(1_000),
            nonce: Nonce(u128::from(first)),
            body: commit::seal(&payload).into(),
        };
        self.memory.journal.append(&acme(), &item).await.expect("it is the next one");
    }

    /// Writes a row and moves the cursor to `seq`, as the projector would.
    pub(crate) async fn put_row(&self, key: &str, seq: u64, json: &str) {
        let table = &self.memory.views["balances"];
        let body = Some(json.to_owned().into());
        let row = StoredRow { seq: Seq(seq), body, expires: None };
        let key = RowKey::new(key).expect("it is a key");
        table.put_row(&acme(), &key, &row, None).await.expect("it is the first");
        table.move_cursor(&acme(), Seq(seq)).await.expect("it is in memory");
    }
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("it is in memory").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("answers are text");
        Self { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    #[track_caller]
    pub(crate) fn expect_problem(self, status: u16, kind: &str) -> Self {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        let json: Value = serde_json::from_str(&self.text).expect("it is JSON");
        assert_eq!(json["type"], format!("urn:fanfold:problem:{kind}"), "{json}");
        assert_eq!(json["status"], status, "{json}");
        self.expect(status)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are text"))
    }
}

pub(crate) fn acme() -> LogId {
    "ledger/org:acme".parse().expect("it is a log")
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("it is a name")
}
