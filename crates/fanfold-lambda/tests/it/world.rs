//! A stack in memory, and the events that AWS would send for its content.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use fanfold::{LogId, Services, Time, View, Views};
use fanfold_embedded::testing::{Ports, StoredCommands};
use fanfold_embedded::{Shards, TransitConfig};
use fanfold_http::{Api, Metrics};
use fanfold_lambda::{
    ApiHandler, Budget, Handler, InvocationError, ProcessorHandler, RelayHandler, Reply,
    SweepHandler, SweepPosition, ViewHandler,
};
use fanfold_pipeline::conformance::WithBodies;
use fanfold_pipeline::ingest::{Ingest, IngestPorts};
use fanfold_pipeline::ports::{CataloguePosition, Change, Env, Unavailable};
use fanfold_pipeline::process::{Processor, ProcessorPorts, ReceivedRecord};
use fanfold_pipeline::project::{Projector, ProjectorPorts};
use fanfold_pipeline::read::{ReadPorts, Reads, ServedView};
use fanfold_pipeline::relay::{Relay, RelayPorts};
use fanfold_pipeline::sweep::{Sweep, SweepPorts, ViewSweep, ViewSweepPorts};
use fanfold_pipeline::testing::{Broken, Faults, Faulty, Op};
use ledger::Ledger;
use ledger::views::{Balances, Statement};
use serde_json::{Value, json};

/// More logs than any test has.
const LOGS_PER_RUN: usize = 100;

/// A clock that advances only when something sleeps.
#[derive(Default)]
pub(crate) struct Clock(Mutex<u64>);

#[async_trait]
impl Env for Clock {
    fn now(&self) -> Time {
        Time(1_795_401_660_000 + *self.0.lock().unwrap())
    }

    /// A different number each time, which is enough for one stack.
    fn random(&self) -> u64 {
        let mut now = self.0.lock().unwrap();
        *now += 1;
        now.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    async fn sleep(&self, ms: u64) {
        *self.0.lock().unwrap() += ms;
    }
}

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
    pub(crate) clock: Arc<Clock>,
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
        let clock = Arc::new(Clock::default());
        let env: Arc<dyn Env> = clock.clone();
        let views = Views::new().with::<Balances>().with::<Statement>();
        let names = views.iter().map(|view| view.name());
        let config = TransitConfig { shards: 1, ..TransitConfig::default() };
        let memory = Ports::in_memory(&config, names, env.clone()).expect("ports");
        let services = Services::new().with::<Ledger>();
        let faults = Faults::default();
        let (sweep_position, view_sweep_position) =
            (Arc::<StoredPosition>::default(), Arc::<StoredPosition>::default());
        let commands = Arc::new(WithBodies::new(memory.commands.clone()));
        let world = Parts { memory: &memory, commands, env, faults: &faults };
        Self {
            api: world.api(&services, &views),
            relay: world.relay(),
            processor: world.processor(&services),
            sweep: world.sweep(sweep_position.clone()),
            balances: world.view::<Balances>(view_sweep_position.clone()),
            statement: world.view::<Statement>(Arc::default()),
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

/// The parts that the handlers are made of.
struct Parts<'a> {
    memory: &'a Ports,
    env: Arc<dyn Env>,
    /// Those of `memory`, with bodies in their slots, as on AWS.
    commands: Arc<WithBodies<StoredCommands>>,
    faults: &'a Faults,
}

impl Parts<'_> {
    fn api(&self, services: &Services, views: &Views) -> ApiHandler {
        let Ports { journal, state, waits, admission, .. } = self.memory.clone();
        let commands = self.commands.clone();
        let served = views.iter().map(|view| ServedView {
            view: view.clone(),
            table: self.memory.views[view.name()].clone(),
        });
        let env = self.env.clone();
        let ports =
            ReadPorts { commands: commands.clone(), journal, state, waits, env: env.clone() };
        let reads = Reads::new(ports, served.collect(), services.clone());
        let ports = IngestPorts { commands, admission, env: env.clone() };
        let ingest = Ingest::new(ports, services.clone());
        ApiHandler::new(Api { ingest, reads, metrics: Metrics::new(), wait_ms_max: 5_000 }, env)
    }

    fn relay(&self) -> RelayHandler {
        let stream = Faulty::new(&self.memory.stream, self.faults);
        RelayHandler(Relay::new(RelayPorts { stream, env: self.env.clone() }))
    }

    fn processor(&self, services: &Services) -> ProcessorHandler {
        let ports = ProcessorPorts {
            journal: Faulty::new(&self.memory.journal, self.faults),
            state: self.memory.state.clone(),
            parked: self.memory.parked.clone(),
            topic: self.memory.topic.clone(),
            stream: self.memory.stream.clone(),
            env: self.env.clone(),
        };
        let services = services.clone().with::<fanfold::canary::Canary>();
        ProcessorHandler(Processor::new(ports, services))
    }

    fn sweep(&self, position: Arc<StoredPosition>) -> SweepHandler {
        let Ports { journal, parked, stream, admission, .. } = self.memory.clone();
        let commands = self.commands.clone();
        let env = self.env.clone();
        let ports =
            SweepPorts { commands: commands.clone(), journal, parked, stream, env: env.clone() };
        let services = Services::new().with::<fanfold::canary::Canary>();
        let ingest = Ingest::new(IngestPorts { commands, admission, env }, services);
        SweepHandler::new(Sweep::new(ports).with_canaries(ingest, 1), LOGS_PER_RUN, position)
    }

    fn view<V: View>(&self, position: Arc<StoredPosition>) -> ViewHandler {
        let views = Views::new().with::<V>();
        let view = views.get(V::NAME).unwrap().clone();
        let table = Faulty::new(&self.memory.views[V::NAME], self.faults);
        let Ports { commands, journal, dead_letters, .. } = self.memory.clone();
        let env = self.env.clone();
        let projector = Arc::new(Projector::new(view, ProjectorPorts { table, journal, env }));
        let sweep = ViewSweep::new(projector.clone(), ViewSweepPorts { commands, dead_letters });
        ViewHandler::new(projector, sweep, LOGS_PER_RUN, position)
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
