//! Puts each Lambda together from settings, adapters and stages.

use std::process::ExitCode;
use std::sync::Arc;

use fanfold::host::body::announced::Announcement;
use fanfold::host::canary::Canary;
use fanfold::view::AnyView;
use fanfold::{App, AppError, Service, Services, StateKey, Views};
use fanfold_aws::dynamo::{
    DynamoArrivals, DynamoCommands, DynamoJournal, DynamoParked, DynamoState, DynamoSweepPosition,
    DynamoTimeline, DynamoViewRegistry, DynamoViewTable,
};
use fanfold_aws::names::{ROLE, Tables};
use fanfold_aws::{
    Aws, KinesisStream, OpenAdmission, PollingWaits, SnsTopic, SqsDeadLetters, SqsQueue,
    StackChecks, StreamOrder, spread_canaries,
};
use fanfold_http::{Api, Described, Metrics, Streams};
use fanfold_pipeline::Others;
use fanfold_pipeline::arrivals::WhileArriving;
use fanfold_pipeline::calls::ViewCalls;
use fanfold_pipeline::doctor::Doctor;
use fanfold_pipeline::ingest::{Ingest, IngestPorts};
use fanfold_pipeline::operate::{Operate, OperatePorts, OperatedViews};
use fanfold_pipeline::packing::PackingTopic;
use fanfold_pipeline::ports::{Admission, Commands, State, ViewRegistry, ViewTable};
use fanfold_pipeline::process::{Processor, ProcessorPorts};
use fanfold_pipeline::project::{Projector, ProjectorPorts};
use fanfold_pipeline::read::{ReadPorts, Reads, ServedView, ServedViews};
use fanfold_pipeline::relay::{Relay, RelayPorts};
use fanfold_pipeline::sweep::{Sweep, SweepPorts, ViewSweep, ViewSweepPorts};
use fanfold_pipeline::timeline::Timeline;

use crate::api::ApiHandler;
use crate::budget::WIND_UP_MS;
use crate::error::StartError;
use crate::host::{Context, failed, report_warm, run};
use crate::role::Role;

use crate::settings::EnvVars;
use crate::streams::{ProcessorHandler, RelayHandler};
use crate::sweep::SweepHandler;
use crate::view::{Announcer, ViewHandler};

/// Appends to slots that one request makes at the same time. Source: each append needs a connection
/// of its own (HTTP/1.1), and 500 TLS handshakes take longer than a request may. Eight rounds of 64
/// take some 50 ms.
const APPENDS_AT_ONCE: usize = 64;

/// How long after the begin of a call of any view's function none of its writes takes effect any more, in milliseconds.
/// Source: Lambda ends a function after 900 s at the latest, which a view's template allows. The rest is for a request of
/// that function which is still on its way: DynamoDB answers within tens of milliseconds.
const VIEW_CALL_MS: u64 = 900_000 + 10_000;
/// Other environments may work on the same log: Lambda retries a batch after a timeout, and sweeps
/// overlap.
const OTHERS: Others = Others::MayRun { grace_ms: WIND_UP_MS };

/// Runs the function of the app that the environment variable `FANFOLD_ROLE` names, until the process
/// ends. A wrong role or app ends it with one line that says what is wrong.
pub fn main(app: Result<App, AppError>) -> ExitCode {
    let role = |app: App| -> Result<(App, Role), StartError> {
        let text = std::env::var(ROLE).ok();
        let role = Role::read(text.as_deref(), &app)?;
        Ok((app, role))
    };
    let (app, role) = match app.map_err(StartError::App).and_then(role) {
        Ok(found) => found,
        Err(error) => return failed(&error),
    };
    match role {
        Role::Api => api(app),
        Role::Relay => relay(),
        Role::Processor => processor(app.services().clone()),
        Role::Sweep => sweep(),
        Role::Operate => operate(app.services().clone(), app.views().clone()),
        Role::View(view) => self::view(view),
    }
}

/// Runs the HTTP API of the app.
fn api(app: App) -> ExitCode {
    let (services, views) = (app.services().clone(), app.views().clone());
    let described = Described::new(app);
    run(
        "api",
        |of| (of.wait_ms_max(), of.admission_ms_max(), of.canaries()),
        async |Context { aws, tables, env, settings, traces, .. }| {
            let (wait_ms_max, admission_ms_max, canaries) = settings;
            let commands = Arc::new(DynamoCommands::new(&aws, tables.commands()));
            warm_commands(&commands).await;
            let journal = Arc::new(DynamoJournal::new(&aws, tables.journal()));
            let own = views.iter().map(|view| {
                let table = DynamoViewTable::new(&aws, tables.view(view.name(), view.version()));
                ServedView::new(&**view, Arc::new(table))
            });
            let registry = Arc::new(DynamoViewRegistry::new(&aws, tables.views()));
            let open = announced(&aws, &tables);
            let open = Box::new(move |view: &str, of: &Announcement| Some(open(view, of)? as _));
            let served = ServedViews::new(own);
            let served = served.with_announced(registry, open, env.clone());
            let waits = PollingWaits::new(journal.clone(), env.clone());
            let arrivals = Arc::new(DynamoArrivals::new(&aws, tables.state()));
            let admission = Arc::new(WhileArriving::new(arrivals, env.clone(), admission_ms_max));
            // Without canaries the time that is stored is that of an earlier deployment.
            let admission = (canaries > 0).then_some(admission);
            let admits: Arc<dyn Admission> = match admission.clone() {
                Some(admission) => admission,
                None => Arc::new(OpenAdmission),
            };
            let ports =
                IngestPorts { commands: commands.clone(), admission: admits, env: env.clone() };
            let ingest = Ingest::new(ports, services.clone()).with_appends_at_once(APPENDS_AT_ONCE);
            let ports = ReadPorts {
                commands,
                journal,
                state: Arc::new(DynamoState::new(&aws, tables.state())),
                waits: Arc::new(waits),
                env: env.clone(),
            };
            let reads = Reads::new(ports, served, services);
            let metrics = Metrics::new();
            let api = Api {
                ingest,
                reads,
                metrics,
                wait_ms_max,
                // API Gateway passes an answer on only when it is whole.
                streams: Streams::Whole,
                described,
                traces,
            };
            ApiHandler::new(api, env).with_admission(admission)
        },
    )
}

/// Runs the relay, whose event source is the stream of the commands table.
fn relay() -> ExitCode {
    run(
        "relay",
        |environment| environment.stream(),
        async |context| {
            let Context { aws, env, telemetry, settings: stream, .. } = context;
            // This call also opens the connection.
            StreamOrder::new(&aws, &stream).check().await;
            let stream = Arc::new(KinesisStream::new(&aws, stream));
            RelayHandler(Relay::new(RelayPorts { stream, env }).with_telemetry(Some(telemetry)))
        },
    )
}

/// Runs the processor of these services, and of the canaries that the sweep sends. It publishes the
/// canaries' commits only if [`Canary`] is among `services`, which a host with a view of it needs.
fn processor(services: Services) -> ExitCode {
    let read = |of: &mut EnvVars<'_>| (of.stream(), of.topics(), of.cache_bytes());
    run("processor", read, async |context| {
        let Context { aws, tables, env, telemetry, settings, .. } = context;
        let (stream, topics, cache_bytes) = settings;
        let state = Arc::new(DynamoState::new(&aws, tables.state()));
        if let Some(log) = Canary::log(0) {
            report_warm("state table", state.get(&log, &[StateKey::head(1)]).await.map(|_| ()));
        }
        let topic = SnsTopic::new(&aws, topics);
        let order = StreamOrder::new(&aws, &stream);
        let ((), warmed) = tokio::join!(order.check(), topic.warm());
        report_warm("topic", warmed);
        let ports = ProcessorPorts {
            journal: Arc::new(DynamoJournal::new(&aws, tables.journal())),
            state,
            parked: Arc::new(DynamoParked::new(&aws, tables.parked())),
            topic: Arc::new(PackingTopic::new(Arc::new(topic), env.clone())),
            // The check of its order has opened the connection.
            stream: Arc::new(KinesisStream::new(&aws, stream)),
            env,
        };
        let processor = match services.get(Canary::NAME) {
            Some(_) => Processor::new(ports, services).with_canaries_published(),
            None => Processor::new(ports, services.with::<Canary>()),
        };
        let processor = processor.among(OTHERS).with_telemetry(Some(telemetry));
        ProcessorHandler(processor.with_cache_bytes(cache_bytes))
    })
}

/// Runs a view, whose event source is a topic or a queue, and its sweep on a schedule.
fn view(view: Arc<dyn AnyView>) -> ExitCode {
    let service = format!("view-{}", view.name());
    run(
        &service,
        |of| (of.dead_letters(), of.queue(), of.logs_per_sweep()),
        async |context| {
            let Context { aws, tables, env, telemetry, settings, .. } = context;
            let (dead_letters, queue, logs) = settings;
            let name = tables.view(view.name(), view.version());
            let table = Arc::new(DynamoViewTable::new(&aws, name.clone()));
            let registry: Arc<dyn ViewRegistry> =
                Arc::new(DynamoViewRegistry::new(&aws, tables.views()));
            let announcement = Announcement::of(&*view, name.clone(), env.now());
            let announcer = Announcer::new(view.name(), announcement, registry, env.clone());
            // These calls also open the connections.
            let warm = async {
                if let Some(log) = Canary::log(0) {
                    report_warm("view table", table.cursor(&log).await.map(|_| ()));
                }
            };
            // A refused announcement is repeated, and fails, in every invocation.
            let ((), _) = tokio::join!(warm, announcer.announce());
            let journal = Arc::new(DynamoJournal::new(&aws, tables.journal()));
            let ports = ProjectorPorts { table: table.clone(), journal, env };
            let parked = table;
            let projector = Projector::new(view, ports).among(OTHERS);
            let projector = Arc::new(projector.with_telemetry(Some(&*telemetry)));
            let commands = Arc::new(DynamoCommands::new(&aws, tables.commands()));
            let dead_letters = Arc::new(SqsDeadLetters::new(&aws, dead_letters));
            let ports = ViewSweepPorts { commands, parked, dead_letters };
            let sweep = ViewSweep::new(projector.clone(), ports);
            let position = Arc::new(DynamoSweepPosition::new(&aws, name));
            let queue = queue.map(|url| SqsQueue::new(&aws, url));
            let handler = ViewHandler::new(projector, sweep, logs, position).with_queue(queue);
            handler.with_announcer(announcer)
        },
    )
}

/// Runs the sweep on a schedule.
fn sweep() -> ExitCode {
    let read = |environment: &mut EnvVars<'_>| {
        (environment.stream(), environment.canaries(), environment.logs_per_sweep())
    };
    run("sweep", read, async |context| {
        let Context { aws, tables, env, settings: (stream, canaries, logs), .. } = context;
        let commands = Arc::new(DynamoCommands::new(&aws, tables.commands()));
        warm_commands(&commands).await;
        let ports = SweepPorts {
            commands: commands.clone(),
            journal: Arc::new(DynamoJournal::new(&aws, tables.journal())),
            parked: Arc::new(DynamoParked::new(&aws, tables.parked())),
            stream: Arc::new(KinesisStream::new(&aws, &stream)),
            env: env.clone(),
        };
        let services = Services::new().with::<Canary>();
        let ingest = IngestPorts { commands, admission: Arc::new(OpenAdmission), env };
        let arrivals = Arc::new(DynamoArrivals::new(&aws, tables.state()));
        let (ingest, canaries) = (Ingest::new(ingest, services), spread_canaries(canaries));
        let sweep = Sweep::new(ports).with_canaries(ingest, canaries, arrivals);
        let position = Arc::new(DynamoSweepPosition::new(&aws, tables.state()));
        SweepHandler::new(sweep, logs, position).with_order_of(StreamOrder::new(&aws, stream))
    })
}

/// Runs the routes of operators, which need more rights than the API has.
fn operate(services: Services, views: Views) -> ExitCode {
    run(
        "operate",
        |environment| environment.stream(),
        async |Context { aws, tables, env, settings: stream, .. }| {
            let commands = Arc::new(DynamoCommands::new(&aws, tables.commands()));
            warm_commands(&commands).await;
            let registry = Arc::new(DynamoViewRegistry::new(&aws, tables.views()));
            let open = announced(&aws, &tables);
            let open = Arc::new(move |view: &str, of: &Announcement| Some(open(view, of)? as _));
            let checks = Arc::new(StackChecks::new(&aws, tables.clone(), &stream));
            let ports = OperatePorts {
                commands: commands.clone(),
                journal: Arc::new(DynamoJournal::new(&aws, tables.journal())),
                state: Arc::new(DynamoState::new(&aws, tables.state())),
                parked: Arc::new(DynamoParked::new(&aws, tables.parked())),
                stream: Arc::new(KinesisStream::new(&aws, stream)),
                views: OperatedViews::Announced { registry, open },
                calls: ViewCalls::End { within_ms: VIEW_CALL_MS },
                env: env.clone(),
            };
            let doctor = Doctor::new(ports.clone(), services.clone(), views);
            let admission = Arc::new(OpenAdmission);
            let ingest = IngestPorts { commands, admission, env: env.clone() };
            let operate = Operate::new(ports, Ingest::new(ingest, services));
            let timeline = Arc::new(DynamoTimeline::new(&aws, tables.timeline()));
            let timeline = Timeline::new(timeline, env.clone());
            ApiHandler::of_operators(operate, doctor, timeline, checks, env)
        },
    )
}

/// Opens the table of an announced view. No other table: its name is what a view's function has written.
fn announced(
    aws: &Aws,
    tables: &Tables,
) -> impl Fn(&str, &Announcement) -> Option<Arc<DynamoViewTable>> + Send + Sync + use<> {
    let (aws, tables) = (aws.clone(), tables.clone());
    move |view, of| {
        let is_its = of.table == tables.view(view, of.version);
        is_its.then(|| Arc::new(DynamoViewTable::new(&aws, &of.table)))
    }
}

async fn warm_commands(commands: &DynamoCommands) {
    if let Some(log) = Canary::log(0) {
        report_warm("commands table", commands.slot(&log).await.map(|_| ()));
    }
}
