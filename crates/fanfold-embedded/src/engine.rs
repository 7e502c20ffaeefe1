//! All of it together: ports, stages, what drives them, and what sweeps behind them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fanfold::{AnyView, Services, Views};
use fanfold_pipeline::ingest::{Ingest, IngestPorts};
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::process::{Processor, ReceivedRecord};
use fanfold_pipeline::read::{ReadPorts, Reads};
use fanfold_pipeline::sweep::SweepReport;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::again::Again;
use crate::durable::{Durability, Stages};
use crate::env::{LaterEnv, SystemEnv};
use crate::hash_key::HashKey;
use crate::memory::{Memory, MemoryConfig};
use crate::ports::Ports;
use crate::shard::Position;
use crate::shards::{ReshardError, ShardId, ShardInfo, Shards};
use crate::start::{HostedView, Start};
use crate::stop::Stopper;
use crate::store::folder::Folder;
use crate::store::{OpenError, Store, StoreError};
use crate::striped::lock;
use crate::subscription::Deliveries;

/// How long the tasks have to end, once they are told to, in milliseconds: an invocation that is
/// under way may come to its end.
const STOP_MS: u64 = 5_000;
/// How long a start waits for what is done again, in milliseconds. Most often that is half a second of
/// work; one thing at a time it may take a while.
const RECOVER_MS: u64 = 60_000;
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
        let later = Arc::new(LaterEnv::default());
        let env: Arc<dyn Env> = later.clone();
        let memory = MemoryConfig { shards: config.shards, ..config.memory.clone() };
        let table = |view: &Arc<dyn AnyView>| {
            (view.name().to_owned(), format!("view-{}-v{}", view.name(), view.version()))
        };
        let views: BTreeMap<String, String> = config.views.iter().map(table).collect();
        let tables: Vec<String> = views.values().cloned().collect();
        let began = Instant::now();
        let ms = move || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let store = Arc::new(Store::open(Folder::take(folder)?, &tables)?);
        tracing::info!(ms = ms(), "the tables are open");
        let (ports, commands) = Ports::durable(&memory, &views, &store, env.clone())
            .map_err(|error| store.folder().explain(error))?;
        later.not_before(commands.replayed_until());
        let mut durability = Durability::begin(store, commands)?;
        let (logs, unclean_starts) = (durability.replayed_logs(), durability.unclean_starts());
        tracing::info!(ms = ms(), logs = logs.len(), unclean_starts, "the command log is read");
        let known = Some(durability.store().clone());
        let again = Again::new(logs, views.len(), unclean_starts, known);
        let hang = Duration::from_millis(config.hang_ms);
        again.watchdog().start(hang).map_err(|error| durability.explain(error))?;
        let (mut engine, processor) = Self::run(config, ports, again.clone(), env);
        let behind = Behind { watch: engine.watch.clone(), again: again.clone() };
        durability.start(behind, again.watchdog().clone())?;
        let durability = Arc::new(durability);
        engine.watch.durable = Some(durability.clone());
        engine.sweeps.spawn(async move {
            until_recovered(&durability).await;
            tracing::info!(ms = ms(), "everything is done again");
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
        let ingest = Ingest::new(
            IngestPorts {
                commands: commands.clone(),
                admission: ports.admission.clone(),
                env: env.clone(),
            },
            services.clone(),
        );
        let served = views.iter().map(|view| view.served.clone()).collect();
        let (state, waits) = (ports.state.clone(), ports.waits.clone());
        let read_ports = ReadPorts { commands, journal, state, waits, env };
        let reads = Reads::new(read_ports, served, services);
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
    /// its entries and views; `false`: it has not, after a minute.
    pub async fn recovered(&self) -> bool {
        let Some(durable) = &self.watch.durable else { return true };
        timeout(Duration::from_millis(RECOVER_MS), until_recovered(durable)).await.is_ok()
    }

    /// Returns, with what to say, once the folder that everything is kept in is not there any more:
    /// then nothing is accepted, and the engine is of no use. Never, if all is in memory.
    pub async fn lost(&self) -> StoreError {
        match &self.watch.durable {
            Some(durable) => durable.store().folder().gone().await,
            None => std::future::pending().await,
        }
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

async fn until_recovered(durability: &Durability) {
    while !durability.is_recovered() {
        tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
    }
}
