//! A stack in memory, and the events that AWS would send for its content.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use fanfold::host::canary::Canary;
use fanfold::{LogId, Services, View, Views};
use fanfold_embedded::testing::Ports;
use fanfold_embedded::{Shards, TransitConfig};
use fanfold_http::{Api, Described, Metrics, Streams};
use fanfold_lambda::{
    ApiHandler, Budget, Handler, InvocationError, ProcessorHandler, RelayHandler, Reply,
    SweepHandler, SweepPosition, ViewHandler,
};
use fanfold_pipeline::arrivals::InProcess;
use fanfold_pipeline::conformance::WithBodies;
use fanfold_pipeline::ports::{CataloguePosition, Change, Env, OperatorView, Unavailable};
use fanfold_pipeline::process::ReceivedRecord;
use fanfold_pipeline::testing::{Broken, Faults, Faulty, ManualEnv, Op};
use fanfold_pipeline::wiring::Wiring;
use ledger::Ledger;
use ledger::views::{Balances, Statement};
use serde_json::{Value, json};

/// More logs than any test has.
const LOGS_PER_RUN: usize = 100;
/// When the clock begins: 02:41:00.
const BEGIN_MS: u64 = 1_795_401_660_000;

/// The position of a sweep, in memory.
#[derive(Default)]
pub(crate) struct StoredPosition(pub(crate) Mutex<Option<CataloguePosition>>);

#[async_trait]
impl SweepPosition for StoredPosition {
    async fn load(&self) -> Result<Option<CataloguePosition>, Unavailable> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn store(&self, position: Option<&CataloguePosition>) -> Result<(), Unavailable> {
        *self.0.lock().unwrap() = position.cloned();
        Ok(())
    }
}

/// The Lambdas of a stack.
pub(crate) struct World {
    pub(crate) memory: Ports,
    pub(crate) clock: Arc<ManualEnv>,
    pub(crate) faults: Faults,
    pub(crate) sweep_position: Arc<StoredPosition>,
    pub(crate) view_sweep_position: Arc<StoredPosition>,
    pub(crate) api: ApiHandler,
    pub(crate) relay: RelayHandler,
    pub(crate) processor: ProcessorHandler,
    pub(crate) sweep: SweepHandler,
    pub(crate) balances: ViewHandler,
    pub(crate) statement: ViewHandler,
}

impl World {
    pub(crate) fn new() -> Self {
        let faults = Faults::default();
        let clock = ManualEnv::new(1, &faults);
        clock.pass(BEGIN_MS - clock.now().0);
        let services = Services::new().with::<Ledger>();
        let views = Views::new().with::<Balances>().with::<Statement>();
        let names = views.iter().map(|view| view.name());
        let config = TransitConfig { shards: 1, ..TransitConfig::default() };
        let memory = Ports::in_memory(&config, names, clock.clone()).expect("ports");
        // With bodies in the slots, as on AWS.
        let commands = Arc::new(WithBodies::new(memory.commands.clone()));
        let wiring = Wiring { commands, ..memory.wiring(clock.clone()) };
        let faulty = |(name, table): (&String, _)| {
            (name.clone(), Faulty::new(table, &faults) as Arc<dyn OperatorView>)
        };
        let faulty = Wiring {
            journal: Faulty::new(&memory.journal, &faults),
            views: memory.views.iter().map(faulty).collect(),
            ..wiring.clone()
        };
        let view = |name, position| {
            let projector = Arc::new(faulty.projector(views.get(name).unwrap()));
            let sweep = faulty.view_sweep(projector.clone());
            ViewHandler::new(projector, sweep, LOGS_PER_RUN, position)
        };
        let api = Api {
            ingest: wiring.ingest(services.clone()),
            reads: wiring.reads(&views, services.clone()),
            metrics: Metrics::new(),
            wait_ms_max: 5_000,
            streams: Streams::Whole,
            described: Described::new(ledger::app().unwrap()),
            traces: None,
        };
        let canaries = wiring.ingest(Services::new().with::<Canary>());
        let sweep = wiring.sweep().with_canaries(canaries, [0], Arc::new(InProcess::default()));
        let (sweep_position, view_sweep_position) =
            (Arc::<StoredPosition>::default(), Arc::<StoredPosition>::default());
        let stream = Faulty::new(&memory.stream, &faults);
        Self {
            api: ApiHandler::new(api, clock.clone()),
            relay: RelayHandler(Wiring { stream, ..wiring }.relay()),
            processor: ProcessorHandler(faulty.processor(services.with::<Canary>())),
            sweep: SweepHandler::new(sweep, LOGS_PER_RUN, sweep_position.clone()),
            balances: view(Balances::NAME, view_sweep_position.clone()),
            statement: view(Statement::NAME, Arc::<StoredPosition>::default()),
            memory,
            clock,
            faults,
            sweep_position,
            view_sweep_position,
        }
    }

    /// From now on writes of this organisation's log fail.
    pub(crate) fn trouble(&self, org: &str) {
        let log = format!("ledger/org:{org} ");
        self.faults.fail(Op::JournalAppend, &log, .., Broken::Before);
        self.faults.fail(Op::PutRow, &log, .., Broken::Before);
        self.faults.leave_out(Op::PutRecords, log.trim_end(), ..);
    }

    /// The attempts to apply commits that were stored in a view's table.
    pub(crate) fn attempts(&self) -> usize {
        self.faults.calls(Op::ReplaceLease).iter().filter(|call| !call.ends_with(" 0")).count()
    }

    /// Calls a handler with a budget of a minute.
    pub(crate) async fn call(
        &self,
        handler: &dyn Handler,
        event: &Value,
    ) -> Result<Reply, InvocationError> {
        let now = self.clock.now();
        handler.handle(&event.to_string(), Budget::of(now, now.plus_ms(60_000))).await
    }

    /// Calls a handler with a budget of no time.
    pub(crate) async fn call_late(
        &self,
        handler: &dyn Handler,
        event: &Value,
    ) -> Result<Reply, InvocationError> {
        let now = self.clock.now();
        handler.handle(&event.to_string(), Budget::of(now, now)).await
    }

    /// Calls a handler with a budget of a minute; returns its answer.
    pub(crate) async fn answer(&self, handler: &dyn Handler, event: &Value) -> Value {
        let reply = self.call(handler, event).await.expect("the invocation succeeds");
        serde_json::from_str(&reply.answer).unwrap()
    }

    /// Sends a command as `curl -d` does; it must be accepted.
    pub(crate) async fn command(&self, id: u64, org: &str, command: &str, data: Value) {
        let body = json!({
            "type": "ledger", "command": command, "id": id, "user": "ann", "org": org, "data": data,
        });
        let answer = self.answer(&self.api, &http("POST", "/command", "", Some(&body))).await;
        assert_eq!(answer["statusCode"], 202, "{answer}");
    }

    /// The next event of the commands table's stream.
    pub(crate) fn changes(&self) -> Value {
        let record = |(at, change): (usize, Change)| {
            json!({
                "eventID": at.to_string(),
                "eventName": "MODIFY",
                "eventSource": "aws:dynamodb",
                "dynamodb": {
                    "SequenceNumber": sequence_number(at),
                    "NewImage": {
                        "pk": { "S": change.log.as_str() },
                        "seq": { "N": change.last.to_string() },
                        "n": { "N": change.n.to_string() },
                        "at": { "N": change.at.0.to_string() },
                        "tok": { "B": BASE64_STANDARD.encode(change.token.0.to_be_bytes()) },
                        "b": { "B": BASE64_STANDARD.encode(&change.body) },
                    },
                },
            })
        };
        records(drain(self.memory.commands.changes()).into_iter().enumerate().map(record))
    }

    /// The next event of the command stream.
    pub(crate) fn records(&self) -> Value {
        let record = |(at, record): (usize, ReceivedRecord)| {
            json!({
                "eventSource": "aws:kinesis",
                "kinesis": {
                    "partitionKey": record.key.as_str(),
                    "sequenceNumber": sequence_number(at),
                    "data": BASE64_STANDARD.encode(&record.data),
                    "approximateArrivalTimestamp": record.arrived.0 as f64 / 1_000.0,
                },
            })
        };
        records(drain(self.memory.stream.records()).into_iter().enumerate().map(record))
    }

    /// The messages that were published since the last call.
    pub(crate) fn messages(&self) -> Vec<String> {
        let log = self.memory.topic.log();
        let published = log.read(log.start(), usize::MAX);
        log.trim(log.end());
        let bodies = published.into_iter().flat_map(|(_, notification)| notification.bodies());
        bodies.map(|body| String::from_utf8(body.to_vec()).unwrap()).collect()
    }

    /// Runs the relay and the processor; returns the published messages.
    pub(crate) async fn until_published(&self) -> Vec<String> {
        let none = json!({ "batchItemFailures": [] });
        assert_eq!(self.answer(&self.relay, &self.changes()).await, none);
        assert_eq!(self.answer(&self.processor, &self.records()).await, none);
        self.messages()
    }
}

fn drain<T: Clone + Send + Sync + 'static>(shards: &Shards<T>) -> Vec<T> {
    let mut items = Vec::new();
    for (_, shard) in shards.iter() {
        items.extend(shard.read(shard.start(), usize::MAX).into_iter().map(|(_, item)| item));
        shard.trim(shard.end());
    }
    items
}

/// The sequence number of the record at this index of a batch.
pub(crate) fn sequence_number(at: usize) -> String {
    format!("4959{at:04}")
}

fn records(records: impl Iterator<Item = Value>) -> Value {
    json!({ "Records": records.collect::<Vec<_>>() })
}

pub(crate) fn failures(ids: &[String]) -> Value {
    let failure = |id: &String| json!({ "itemIdentifier": id });
    json!({ "batchItemFailures": ids.iter().map(failure).collect::<Vec<_>>() })
}

/// The event with which SNS delivers a message.
pub(crate) fn by_topic(message: &str) -> Value {
    records(std::iter::once(json!({
        "EventSource": "aws:sns",
        "EventVersion": "1.0",
        "EventSubscriptionArn": "arn:aws:sns:eu-west-1:123456789012:commits:1",
        "Sns": { "Type": "Notification", "MessageId": "1", "Message": message },
    })))
}

/// The event with which SQS delivers messages. A message's id is its index.
pub(crate) fn by_queue(messages: &[String], receives: u32, is_raw: bool) -> Value {
    records(messages.iter().enumerate().map(|(at, message)| {
        let envelope = json!({ "Type": "Notification", "MessageId": "1", "Message": message });
        json!({
            "messageId": at.to_string(),
            "receiptHandle": format!("h-{at}"),
            "eventSource": "aws:sqs",
            "body": if is_raw { message.clone() } else { envelope.to_string() },
            "attributes": { "ApproximateReceiveCount": receives.to_string() },
        })
    }))
}

/// A scheduled event without a due time.
pub(crate) fn schedule() -> Value {
    json!({
        "version": "0", "id": "1", "detail-type": "Scheduled Event", "source": "aws.events",
        "detail": {},
    })
}

/// A scheduled event with a due time.
pub(crate) fn schedule_at(time: &str) -> Value {
    let mut event = schedule();
    event["time"] = json!(time);
    event
}

/// The event of an HTTP API for a request, with the body as `curl -d` sends it.
pub(crate) fn http(method: &str, path: &str, query: &str, body: Option<&Value>) -> Value {
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": { "content-type": "application/x-www-form-urlencoded", "host": "x" },
        "requestContext": { "stage": "$default", "http": { "method": method, "path": path } },
        "body": body.map(|body| BASE64_STANDARD.encode(body.to_string())),
        "isBase64Encoded": body.is_some(),
    })
}

pub(crate) fn log(org: &str) -> LogId {
    format!("ledger/org:{org}").parse().unwrap()
}

/// The body of a dead letter.
pub(crate) fn letter(message: &str) -> Bytes {
    Bytes::copy_from_slice(message.as_bytes())
}
