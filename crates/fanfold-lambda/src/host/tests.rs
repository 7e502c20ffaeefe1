//! Tests of invocations, with a DynamoDB whose answers the test gives.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_types::body::SdkBody;
use fanfold::{LogId, StateKey};
use fanfold_aws::dynamo::DynamoState;
use fanfold_aws::of_emulator;
use fanfold_otel::testing::Collector;
use fanfold_pipeline::ports::State;
use serde_json::Value;

use super::*;
use crate::metrics::RECORDS;

enum Does {
    Answers,
    Panics,
    Waits,
    Fails,
}

#[async_trait]
impl Handler for Does {
    async fn handle(&self, event: &str, budget: Budget) -> Result<Reply, InvocationError> {
        match self {
            Self::Answers => Reply::new(&event, Metrics::new()),
            Self::Panics => panic!("a test of what happens then"),
            Self::Waits => {
                SystemEnv.sleep(60_000).await;
                Reply::new(&budget.end.0, Metrics::new())
            }
            Self::Fails => Err(InvocationError::NotApplied { failed: 1, messages: 2 }),
        }
    }
}

#[test]
fn an_invocation_ends_in_time_and_a_panic_fails_only_its_invocation() {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    for (does, expected) in [
        (Does::Answers, Ok("\"{}\"")),
        (Does::Panics, Err("the handler panicked: a test of what happens then")),
        (Does::Waits, Err("the invocation's time is over")),
        (Does::Fails, Err("1 of 2 messages were not applied")),
    ] {
        let budget = Budget::of(SystemEnv.now(), SystemEnv.now().plus_ms(100));
        let handled = runtime.block_on(bounded(&does, "{}", budget, &SystemEnv));
        let handled = handled.map(|reply| reply.answer).map_err(|error| error.to_string());
        assert_eq!(handled.as_deref().map_err(String::as_str), expected);
    }
}

/// A table without items, which counts its calls. Each costs a read unit.
#[derive(Clone, Default)]
struct EmptyTable(Arc<AtomicU64>);

impl fmt::Debug for EmptyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmptyTable")
    }
}

impl HttpConnector for EmptyTable {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        self.0.fetch_add(1, Ordering::Relaxed);
        let body = r#"{"ConsumedCapacity":{"TableName":"t","CapacityUnits":1.0}}"#;
        let status = 200.try_into().expect("a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
    }
}

impl HttpClient for EmptyTable {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

/// Sets the flag when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A handler whose event says how often to read, and what to do then, such as `2 answer`.
struct Reads {
    aws: Aws,
    state: DynamoState,
    /// The time that was left for calls at the beginning of each invocation, in milliseconds.
    left_ms: Mutex<Vec<u128>>,
    dropped: Arc<AtomicBool>,
}

impl Reads {
    async fn read(&self) -> Result<(), InvocationError> {
        let log: LogId = "ledger/org:acme".parse().expect("a log");
        Ok(self.state.get(&log, &[StateKey::head(1)]).await.map(|_| ())?)
    }
}

#[async_trait]
impl Handler for Reads {
    async fn handle(&self, event: &str, _: Budget) -> Result<Reply, InvocationError> {
        let _dropped = Dropped(self.dropped.clone());
        let left = self.aws.deadline.left().expect("an invocation has a deadline");
        self.left_ms.lock().expect("no panic").push(left.as_millis());
        let (reads, then) = event.split_once(' ').expect("two words");
        for _ in 0..reads.parse().expect("a number") {
            self.read().await?;
        }
        let mut metrics = Metrics::new();
        match then {
            "answer" => metrics.of_service(RECORDS, 1.0),
            "answer a request" => {}
            "fail" => return Err(InvocationError::NotApplied { failed: 1, messages: 1 }),
            "panic" => panic!("a test of what happens then"),
            _ => loop {
                // This handler never gives up, even if reads fail.
                let (Ok(()) | Err(_)) = self.read().await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            },
        }
        Reply::new(&"done", metrics)
    }
}

/// A host, and the number of calls of its table.
fn host() -> (Host<Reads>, Arc<AtomicU64>) {
    let table = EmptyTable::default();
    let asked = table.0.clone();
    // No call leaves the process.
    let config =
        of_emulator("http://127.0.0.1:9").into_builder().http_client(SharedHttpClient::new(table));
    let aws = Aws::new(&config.build());
    let state = DynamoState::new(&aws, "t");
    let handler =
        Reads { aws: aws.clone(), state, left_ms: Mutex::default(), dropped: Arc::default() };
    let of = Dimensions { stack: "shop".to_owned(), service: "relay".to_owned() };
    let telemetry = Arc::default();
    (Host { handler, aws, env: Arc::new(SystemEnv), of, telemetry, otel: None }, asked)
}

/// Runs an invocation of ten seconds; returns its answer and its line of metrics.
async fn invoke(host: &Host<Reads>, event: &str) -> (Result<String, String>, Option<Value>) {
    let Invoked { answer, line } = host.invoke(event, host.env.now().plus_ms(10_000)).await;
    let answer = answer.map(|answer| answer.to_string()).map_err(|error| error.to_string());
    (answer, line.map(|line| serde_json::from_str(&line).expect("JSON")))
}

/// A failed invocation has a line, too: it is retried, and costs most.
#[tokio::test(start_paused = true)]
async fn the_line_of_an_invocation_has_the_units_that_it_spent() {
    let (host, _) = host();
    for (event, answer, units) in [
        ("2 answer", Ok("\"done\""), Some(2.0)),
        ("3 answer", Ok("\"done\""), Some(3.0)),
        ("1 answer a request", Ok("\"done\""), None),
        ("4 fail", Err("1 of 1 messages were not applied"), Some(4.0)),
        ("0 answer", Ok("\"done\""), Some(0.0)),
        ("5 panic", Err("the handler panicked: a test of what happens then"), Some(5.0)),
    ] {
        let (answered, line) = invoke(&host, event).await;
        assert_eq!(answered.as_deref().map_err(String::as_str), answer, "{event}");
        let line = line.map(|line| {
            assert_eq!((&line["Stack"], &line["Service"]), (&"shop".into(), &"relay".into()));
            assert_eq!(line[WRITE_UNITS], 0.0, "{event}");
            line[READ_UNITS].as_f64()
        });
        assert_eq!(line, units.map(Some), "{event}");
    }
}

/// Lambda freezes tasks that an invocation leaves behind, and they would continue in the next one.
#[tokio::test(start_paused = true)]
async fn an_invocation_leaves_no_task_behind() {
    let (host, asked) = host();
    let (answer, line) = invoke(&host, "0 go on for ever").await;
    assert_eq!(answer, Err("the invocation's time is over".to_owned()));
    assert!(host.handler.dropped.load(Ordering::Relaxed), "the handler was not dropped");
    let calls = asked.load(Ordering::Relaxed);
    assert!((70..80).contains(&calls), "{calls}");
    assert_eq!(
        line.expect("a line")[READ_UNITS],
        calls as f64,
        "the units are not those of the calls"
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(asked.load(Ordering::Relaxed), calls, "a call was made after the invocation");

    // The next invocation has its own time.
    let (answer, _) = invoke(&host, "1 answer").await;
    assert_eq!(answer.as_deref(), Ok("\"done\""));
    let left_ms = host.handler.left_ms.lock().expect("no panic");
    // A range, since the system's clock is not paused.
    assert!(left_ms.iter().all(|ms| (7_000..=7_500).contains(ms)), "{left_ms:?}");
    assert_eq!(left_ms.len(), 2);
}

/// An environment may stand still behind its answer, so nothing sends the spans later.
#[tokio::test]
async fn the_spans_of_an_invocation_are_sent_before_its_answer() {
    let collector = Collector::start().expect("a port");
    let endpoint = format!("{}/v1/traces", collector.endpoint());
    let otel = Otel::to(&endpoint, "shop-relay").expect("an exporter");
    let (host, _) = host();
    let host = Host { otel: Some(otel.clone()), ..host };
    otel.request(None, "GET", "/logs").end(200);
    assert!(invoke(&host, "0 answer").await.0.is_ok());
    let spans = collector.spans();
    assert_eq!(spans.iter().map(|span| &span.name[..]).collect::<Vec<_>>(), ["GET /logs"]);
    // Nothing ended, so nothing is sent, and a collector that is away costs nothing.
    assert!(invoke(&host, "0 answer").await.0.is_ok());
    assert_eq!(collector.spans().len(), 1);
}
