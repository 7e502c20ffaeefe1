//! All of it together: ports, stages, what drives them, and what sweeps behind them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanfold::body::notification::Received;
use fanfold::{AnyView, Services, Views};
use fanfold_pipeline::ingest::Ingest;
use fanfold_pipeline::ports::{CataloguePosition, Change, Env, Unavailable};
use fanfold_pipeline::process::{Processor, ProcessorPorts, ReceivedRecord};
use fanfold_pipeline::project::Projector;
use fanfold_pipeline::read::{Reads, ServedView};
use fanfold_pipeline::relay::Relay;
use fanfold_pipeline::sweep::{Sweep, SweepReport, ViewSweep};
use futures::future::join;
use futures::{FutureExt, TryFutureExt};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::again::Again;
use crate::durable::{Durability, Stages};
use crate::env::SystemEnv;
use crate::event_source::{EventSource, EventSourceConfig};
use crate::hash_key::HashKey;
use crate::memory::{Memory, MemoryConfig};
use crate::ports::Ports;
use crate::shard::Position;
use crate::shards::{ReshardError, ShardId, ShardInfo, Shards};
use crate::stop::{Stop, Stopper};
use crate::store::folder::Folder;
use crate::store::{OpenError, Store};
use crate::striped::lock;
use crate::subscription::{Deliveries, Messages, Subscription, SubscriptionConfig};

/// Logs that one run of a sweep looks at. The next run goes on behind them.
const SWEEP_LOGS_MAX: usize = 10_000;
/// How long the tasks have to end, once they are told to, in milliseconds: an invocation that is
/// under way may come to its end.
const STOP_MS: u64 = 5_000;
/// How often a draining engine looks whether it is empty, in milliseconds.
const DRAIN_LOOK_MS: u64 = 5;

/// What an engine hosts, and how.
#[derive(Clone)]
pub struct Config {
    /// The services.
    pub services: Services,
    /// The views.
    pub views: Views,
    /// Shards of the command stream: so many batches are processed at the same time, times
    /// `parallelization`.
    pub shards: usize,
    /// Lanes per shard, 1 to 10.
    pub parallelization: usize,
    /// How much is kept of what is on its way. Its `shards` are those above.
    pub memory: MemoryConfig,
    /// How often the sweeps run, in milliseconds. On AWS a run costs money, here it does not.
    pub sweep_ms: u64,
    /// What has not come back after so many milliseconds ends the process of a durable engine.
    pub hang_ms: u64,
    /// How long a shutdown waits for what is on its way, in milliseconds.
    pub drain_ms: u64,
}

impl Default for Config {
    /// Hosts nothing.
    fn default() -> Self {
        Self {
            services: Services::default(),
            views: Views::default(),
            shards: MemoryConfig::default().shards,
            parallelization: 1,
            memory: MemoryConfig::default(),
            // What stands still is left alone for ten seconds: looking more often finds no more.
            sweep_ms: 10_000,
            // An invocation has a minute, and ten seconds more before it is given up.
            hang_ms: 80_000,
            // Half of what service managers commonly wait before they kill.
            drain_ms: 5_000,
        }
    }
}

/// How much is on its way, and what became of deliveries.
#[derive(Debug, Clone)]
pub struct Status {
    /// Changes that the relay has not finished.
    pub changes: usize,
    /// Records that the processor has not finished.
    pub records: usize,
    /// Notifications that a view has not come to.
    pub notifications: usize,
    /// By view.
    pub deliveries: Vec<(&'static str, Arc<Deliveries>)>,
    /// What the last run of the sweep saw.
    pub swept: SweepReport,
}

/// Looks at a running engine, also from elsewhere: for metrics.
#[derive(Clone)]
pub struct Watch {
    ports: Ports,
    deliveries: Vec<(&'static str, Arc<Deliveries>)>,
    swept: Arc<Mutex<SweepReport>>,
    durable: Option<Arc<Durability>>,
}

impl Watch {
    /// The store and its threads, if the engine is durable.
    pub fn durable(&self) -> Option<&Durability> {
        self.durable.as_deref()
    }

    /// What is going on.
    pub fn status(&self) -> Status {
        Status {
            changes: self.ports.commands.changes().backlog().items(),
            records: self.ports.stream.records().backlog().items(),
            notifications: self.ports.topic.backlog().items(),
            deliveries: self.deliveries.clone(),
            swept: lock(&self.swept).clone(),
        }
    }
}

/// The stages behind the change stream.
struct Behind {
    watch: Watch,
    again: Arc<Again>,
}

impl Stages for Behind {
    fn records(&self) -> &Shards<ReceivedRecord> {
        self.watch.ports.stream.records()
    }

    fn published(&self) -> Position {
        self.watch.ports.topic.log().end()
    }

    fn is_projected(&self, below: Position) -> bool {
        let mut deliveries = self.watch.deliveries.iter();
        self.again.is_brought_on() && deliveries.all(|(_, view)| view.has_passed(below))
    }
}

/// The running engine. Dropping it stops it in the middle; see [`Engine::shutdown`].
pub struct Engine {
    watch: Watch,
    ingest: Ingest,
    reads: Reads,
    drain_ms: u64,
    sweeps: JoinSet<()>,
    stages: JoinSet<()>,
    stopper: Stopper,
}

impl Engine {
    /// Starts an engine that keeps everything in memory. Must be called inside of a tokio runtime
    /// with a timer.
    pub fn start(config: Config) -> Self {
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let memory = MemoryConfig { shards: config.shards, ..config.memory.clone() };
        let names = config.views.iter().map(|view| view.name());
        let ports = Memory::new(&memory, names, env.clone()).into();
        Self::run(config, ports, Again::nothing(), env).0
    }

    /// Starts an engine that keeps everything in a folder, which is made if it is not there; and
    /// goes on with what it finds there. Must be called inside of a tokio runtime with a timer.
    pub fn open(config: Config, folder: &Path) -> Result<Self, OpenError> {
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let memory = MemoryConfig { shards: config.shards, ..config.memory.clone() };
        let table = |view: &Arc<dyn AnyView>| {
            (view.name().to_owned(), format!("view-{}-v{}", view.name(), view.version()))
        };
        let views: BTreeMap<String, String> = config.views.iter().map(table).collect();
        let tables: Vec<String> = views.values().cloned().collect();
        let store = Arc::new(Store::open(Folder::take(folder)?, &tables)?);
        let (ports, commands) = Ports::durable(&memory, &views, &store, env.clone())
            .map_err(|error| store.folder().explain(error))?;
        let mut durability = Durability::begin(store, commands)?;
        let again =
            Again::new(durability.replayed_logs(), views.len(), durability.unclean_starts());
        let hang = Duration::from_millis(config.hang_ms);
        again.watchdog().start(hang).map_err(|error| durability.explain(error))?;
        let (mut engine, processor) = Self::run(config, ports, again.clone(), env);
        durability.start(Behind { watch: engine.watch.clone(), again: again.clone() })?;
        let durability = Arc::new(durability);
        engine.watch.durable = Some(durability.clone());
        engine.sweeps.spawn(async move {
            while !durability.is_recovered() {
                tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
            }
            again.trust(&processor);
            durability.recovered();
        });
        Ok(engine)
    }

    fn run(
        config: Config,
        ports: Ports,
        again: Arc<Again>,
        env: Arc<dyn Env>,
    ) -> (Self, Arc<Processor>) {
        let (stopper, stop) = Stopper::new();
        let mut start = Start {
            config: &config,
            ports: &ports,
            again,
            env: env.clone(),
            stop,
            stages: JoinSet::new(),
            sweeps: JoinSet::new(),
            swept: Arc::default(),
        };
        start.relay();
        let processor = start.process();
        start.sweep();
        let views: Vec<HostedView> = config.views.iter().map(|view| start.view(view)).collect();
        let Start { stages, sweeps, swept, .. } = start;

        let (commands, journal) = (ports.commands.clone(), ports.journal.clone());
        let services = config.services;
        let ingest =
            Ingest::new(commands.clone(), ports.admission.clone(), services.clone(), env.clone());
        let served = views.iter().map(|view| view.served.clone()).collect();
        let reads = Reads::new(commands, journal, served, services, ports.waits.clone(), env);
        let deliveries = views.into_iter().map(|v| (v.served.view.name(), v.deliveries)).collect();
        let engine = Self {
            watch: Watch { ports, deliveries, swept, durable: None },
            ingest,
            reads,
            drain_ms: config.drain_ms,
            sweeps,
            stages,
            stopper,
        };
        (engine, processor)
    }

    /// Returns once everything that was on its way when the engine ended the last time has come to
    /// its entries and views; `false`: it has not, after `drain_ms`.
    pub async fn recovered(&self) -> bool {
        let Some(durable) = &self.watch.durable else { return true };
        let recovered = async {
            while !durable.is_recovered() {
                tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
            }
        };
        timeout(Duration::from_millis(self.drain_ms), recovered).await.is_ok()
    }

    /// Takes commands.
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// Reads logs and views.
    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// The ports below both.
    pub fn ports(&self) -> &Ports {
        &self.watch.ports
    }

    /// For whoever reports what is going on.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// What is going on.
    pub fn status(&self) -> Status {
        self.watch.status()
    }

    /// The shards of the command stream, for whoever splits and merges them from elsewhere.
    pub fn command_shards(&self) -> &Arc<Shards<ReceivedRecord>> {
        self.ports().stream.records()
    }

    /// The shards of the command stream; see [`Shards::list`].
    pub fn shards(&self) -> Vec<ShardInfo> {
        self.command_shards().list()
    }

    /// Splits a shard of the command stream; see [`Shards::split`].
    pub fn split_shard(
        &self,
        shard: ShardId,
        at: Option<HashKey>,
    ) -> Result<Vec<ShardInfo>, ReshardError> {
        self.command_shards().split(shard, at)
    }

    /// Merges two shards of the command stream; see [`Shards::merge`].
    pub fn merge_shards(
        &self,
        one: ShardId,
        other: ShardId,
    ) -> Result<Vec<ShardInfo>, ReshardError> {
        self.command_shards().merge(one, other)
    }

    /// Admits nothing more, waits until what was accepted has come to its entries and views, and
    /// stops all tasks. `false`: that took longer than `drain_ms`, and what was left is gone.
    pub async fn shutdown(mut self) -> bool {
        self.watch.ports.admission.close();
        self.sweeps.shutdown().await;
        let drained = async {
            while !self.is_drained() {
                tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
            }
        };
        let drained = timeout(Duration::from_millis(self.drain_ms), drained).await.is_ok();
        self.stopper.stop();
        let stopped = async { while self.stages.join_next().await.is_some() {} };
        // Whoever does not end is not waited for: a thread cannot be ended from outside.
        let stopped = timeout(Duration::from_millis(STOP_MS), stopped).await.is_ok();
        let clean = drained && stopped;
        if !clean {
            tracing::warn!(drained, stopped, "the engine was stopped in the middle");
        }
        match self.watch.durable.take() {
            // What was accepted is on disk in any case; what was not done is done at the next start.
            Some(durable) => durable.end(clean).await && stopped,
            None => clean,
        }
    }

    /// In the order of the stages: what leaves one is in the next before it is gone.
    fn is_drained(&self) -> bool {
        let status = self.status();
        let (changes, records) = (status.changes, status.records);
        changes == 0
            && records == 0
            && (status.notifications == 0 || status.deliveries.is_empty())
            && status.deliveries.iter().all(|(_, deliveries)| deliveries.under_way() == 0)
    }
}

/// A view, and what became of its messages.
struct HostedView {
    served: ServedView,
    deliveries: Arc<Deliveries>,
}

/// An engine that is being put together.
struct Start<'a> {
    config: &'a Config,
    ports: &'a Ports,
    again: Arc<Again>,
    env: Arc<dyn Env>,
    stop: Stop,
    stages: JoinSet<()>,
    sweeps: JoinSet<()>,
    swept: Arc<Mutex<SweepReport>>,
}

impl Start<'_> {
    fn event_source<I>(&self, name: &'static str, invoke: I) -> Arc<EventSource<I>> {
        let parallelization = self.config.parallelization;
        let config = EventSourceConfig { parallelization, ..EventSourceConfig::new(name) };
        EventSource::new(config, self.env.clone(), self.stop.clone(), invoke)
    }

    fn relay(&mut self) {
        let relay = Arc::new(Relay::new(self.ports.stream.clone(), self.env.clone()));
        let source = self.event_source("relay", move |changes: Vec<Change>, deadline| {
            let relay = relay.clone();
            async move { relay.relay(&changes, deadline).await }
        });
        for (_, shard) in self.ports.commands.changes().iter() {
            source.drive(&shard, &mut self.stages);
        }
    }

    fn process(&mut self) -> Arc<Processor> {
        let ports = ProcessorPorts {
            journal: self.ports.journal.clone(),
            state: self.ports.state.clone(),
            parked: self.ports.parked.clone(),
            topic: self.ports.topic.clone(),
            env: self.env.clone(),
        };
        let processor = Processor::new(ports, self.config.services.clone());
        let processor = Arc::new(processor.with_suspicion(self.again.suspicion()));
        let (again, hosted) = (self.again.clone(), processor.clone());
        let source = self.event_source("process", move |records: Vec<ReceivedRecord>, deadline| {
            let (again, processor) = (again.clone(), hosted.clone());
            async move { again.process(&processor, &records, deadline).await }
        });
        source.drive_all(self.ports.stream.records(), &mut self.stages);
        processor
    }

    fn sweep(&mut self) {
        let Ports { commands, journal, parked, stream, .. } = self.ports;
        let sweep = Sweep::new(
            commands.clone(),
            journal.clone(),
            parked.clone(),
            stream.clone(),
            self.env.clone(),
        );
        let (every, swept) = (self.every(), self.swept.clone());
        self.sweeps.spawn(async move {
            let mut after = None;
            while every.pause().await {
                let run = sweep.sweep(after.clone(), SWEEP_LOGS_MAX).map_ok(|report| {
                    let next = report.next.clone();
                    *lock(&swept) = report;
                    next
                });
                after = every.run("sweep", after, run).await;
            }
        });
    }

    /// A view has a thread of its own: folding is the author's code, which may take its time, and
    /// must not take that of others.
    fn view(&mut self, view: &Arc<dyn AnyView>) -> HostedView {
        let name = view.name();
        // There is one for each view: the tables were made from the same list.
        let table = self.ports.views[name].clone();
        let Ports { commands, journal, topic, dead_letters, .. } = self.ports;
        let projector =
            Projector::new(view.clone(), table.clone(), journal.clone(), self.env.clone());
        let projector = Arc::new(projector);

        let sweep = ViewSweep::new(
            projector.clone(),
            table.clone(),
            commands.clone(),
            journal.clone(),
            dead_letters.clone(),
            self.env.clone(),
        );
        let again = self.again.clone();
        let deliver = move |messages: Messages, deadline| {
            let (again, projector) = (again.clone(), projector.clone());
            async move {
                let commits = messages.iter().map(|message| message.commits(&projector));
                let commits: Vec<Cow<'_, [Received]>> = commits.collect();
                let commits: Vec<&[Received]> = commits.iter().map(|c| &**c).collect();
                again.project(&projector, &commits, deadline).await
            }
        };
        let subscription = Subscription::new(
            topic.clone(),
            dead_letters.clone(),
            SubscriptionConfig::new(name, view.services()),
            self.env.clone(),
            self.stop.clone(),
            deliver,
        );
        let deliveries = subscription.deliveries().clone();
        let (every, runtime, again) = (self.every(), Handle::current(), self.again.clone());
        self.stages.spawn_blocking(move || {
            let sweeping = async {
                if !again.is_brought_on() {
                    let bring_on = again.bring_on(name, &sweep, every.env.now());
                    every.stop.or(bring_on).await;
                }
                let mut after = None;
                while every.pause().await {
                    let deadline = every.env.now().plus_ms(every.ms);
                    let run = sweep.sweep(after.clone(), SWEEP_LOGS_MAX, deadline);
                    let run = again.sweep(run).map(|run| run.map(|run| run.next));
                    after = every.run(name, after, run).await;
                }
            };
            runtime.block_on(join(subscription.run(), sweeping));
        });
        HostedView { served: ServedView { view: view.clone(), table }, deliveries }
    }

    fn every(&self) -> Every {
        Every { ms: self.config.sweep_ms, env: self.env.clone(), stop: self.stop.clone() }
    }
}

/// Runs something again and again.
struct Every {
    ms: u64,
    env: Arc<dyn Env>,
    stop: Stop,
}

impl Every {
    /// `false`: it is time to stop.
    async fn pause(&self) -> bool {
        self.stop.or(self.env.sleep(self.ms)).await.is_some()
    }

    /// One run over a part of the catalogue; where the next one goes on.
    async fn run(
        &self,
        name: &'static str,
        after: Option<CataloguePosition>,
        run: impl Future<Output = Result<Option<CataloguePosition>, Unavailable>>,
    ) -> Option<CataloguePosition> {
        match self.stop.or(AssertUnwindSafe(run).catch_unwind()).await {
            Some(Ok(Ok(next))) => next,
            Some(Ok(Err(error))) => {
                tracing::warn!(sweep = name, %error, "a sweep failed");
                after
            }
            Some(Err(_)) => {
                tracing::error!(sweep = name, "a sweep panicked");
                after
            }
            None => after,
        }
    }
}
