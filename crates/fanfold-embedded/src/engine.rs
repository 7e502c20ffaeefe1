//! All of it together: ports, stages, what drives them, and what sweeps behind them.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanfold::AnyView;
use fanfold_pipeline::ingest::Ingest;
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::process::ReceivedRecord;
use fanfold_pipeline::read::Reads;
use fanfold_pipeline::sweep::SweepReport;
use futures::future::{Either, select};

use crate::config::{Config, Machine};
use crate::env::SteadyEnv;
use crate::hash_key::HashKey;
use crate::ports::Ports;
use crate::recovery::{Downstream, Durability, Replay, StoredGaps};
use crate::shards::{ReshardError, ShardId, ShardInfo, Shards};
use crate::start::{HostedView, Start};
use crate::stop::Stopper;
use crate::store::folder::Folder;
use crate::store::{Driver, OpenError, Store, StoreError};
use crate::striped::lock;
use crate::subscription::Deliveries;
use crate::tasks::{TaskSet, Tasks};
use crate::transit::Position;

/// How long the tasks have to end, once they are told to, in milliseconds: an invocation that is under way may come to its
/// end.
const STOP_MS: u64 = 5_000;
/// How long a start waits until everything is processed again, in milliseconds. Most often that is half a second of work;
/// one record at a time it may take a while.
const RECOVER_MS: u64 = 60_000;
/// How often a draining engine looks whether it is empty, in milliseconds.
const DRAIN_LOOK_MS: u64 = 5;

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

/// What a running engine reports of itself: for metrics.
#[derive(Clone)]
pub struct Monitor {
    ports: Ports,
    deliveries: Vec<(&'static str, Arc<Deliveries>)>,
    swept: Arc<Mutex<SweepReport>>,
    durability: Arc<Durability>,
    is_durable: bool,
}

impl Monitor {
    /// The store and its loops, if the engine is durable.
    pub fn durable(&self) -> Option<&Durability> {
        self.is_durable.then_some(&*self.durability)
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
struct Stages {
    ports: Ports,
    deliveries: Vec<Arc<Deliveries>>,
    replay: Arc<Replay>,
}

impl Downstream for Stages {
    fn records(&self) -> &Shards<ReceivedRecord> {
        self.ports.stream.records()
    }

    fn published(&self) -> Position {
        self.ports.topic.log().end()
    }

    fn is_projected(&self, below: Position) -> bool {
        self.replay.has_caught_up() && self.deliveries.iter().all(|view| view.has_passed(below))
    }
}

/// The running engine. Dropping it stops it in the middle; see [`Engine::shutdown`].
pub struct Engine {
    monitor: Monitor,
    replay: Arc<Replay>,
    ingest: Ingest,
    reads: Reads,
    env: Arc<dyn Env>,
    drain_ms: u64,
    sweeps: TaskSet,
    stages: TaskSet,
    stopper: Stopper,
}

impl Engine {
    /// Starts an engine that keeps everything in memory. Must be called inside of a tokio runtime with a timer.
    pub fn start(config: Config) -> Result<Self, OpenError> {
        let mut engine = Self::open_on(Machine::in_memory(), config, Path::new("/memory"))?;
        engine.monitor.is_durable = false;
        Ok(engine)
    }

    /// Starts an engine that keeps everything in a folder, which is made if it is not there; and goes on with what it
    /// finds there. Must be called inside of a tokio runtime with a timer.
    pub fn open(config: Config, folder: &Path) -> Result<Self, OpenError> {
        Self::open_on(Machine::this(), config, folder)
    }

    /// As [`Engine::open`], on another machine.
    pub fn open_on(machine: Machine, config: Config, folder: &Path) -> Result<Self, OpenError> {
        let steady = Arc::new(SteadyEnv::new(machine.env));
        let env: Arc<dyn Env> = steady.clone();
        let table = |view: &Arc<dyn AnyView>| {
            (view.name().to_owned(), format!("view-{}-v{}", view.name(), view.version()))
        };
        let views: BTreeMap<String, String> = config.views.iter().map(table).collect();
        let tables: Vec<String> = views.values().cloned().collect();
        let began = env.now();
        let ms = move |env: &Arc<dyn Env>| env.now().since_ms(began);
        let folder = Folder::take(machine.disk, folder)?;
        let store = Arc::new(Store::open(folder, &tables, env.clone(), Driver::Loops)?);
        tracing::info!(ms = ms(&env), "the engine has opened its tables");
        let ports = Ports::new(&config.transit, &views, &store, env.clone())
            .map_err(|error| store.folder().explain(error))?;
        steady.not_before(ports.commands.replayed_until());
        let writers = Tasks::new(machine.spawner.clone());
        let durability = Durability::begin(store.clone(), ports.commands.clone(), writers)?;
        let durability = Arc::new(durability);
        let (logs, unclean_starts) = (durability.replayed_logs(), durability.unclean_starts());
        tracing::info!(
            ms = ms(&env),
            logs = logs.len(),
            unclean_starts,
            "the engine has read the command log"
        );
        let replay = Replay::new(logs, views.len(), unclean_starts, store.clone());
        if machine.has_watchdog {
            let hang = Duration::from_millis(config.hang_ms);
            replay.watchdog().start(hang).map_err(|error| durability.explain(error))?;
        }

        let (stopper, stop) = Stopper::new();
        let swept = Arc::<Mutex<SweepReport>>::default();
        let wiring = ports.wiring(env.clone());
        let start = Start {
            config: &config,
            ports: &ports,
            wiring: &wiring,
            replay: replay.clone(),
            durability: durability.clone(),
            env: env.clone(),
            stop,
            stages: Tasks::new(machine.spawner.clone()),
            sweeps: Tasks::new(machine.spawner),
            swept: swept.clone(),
        };
        let (stages, sweeps) = (TaskSet(start.stages.clone()), TaskSet(start.sweeps.clone()));
        start.relay();
        let processor = start.process();
        start.sweep();
        let left = StoredGaps::left(&store).map_err(|error| store.folder().explain(error))?;
        let views = config.views.iter().map(|view| start.view(view, left.contains(view.name())));
        let views: Vec<HostedView> =
            views.collect::<Result<_, _>>().map_err(|error| durability.explain(error))?;

        let deliveries = views.iter().map(|view| view.deliveries.clone()).collect();
        let downstream = Stages { ports: ports.clone(), deliveries, replay: replay.clone() };
        let gaps = views.iter().map(|view| view.gaps.clone()).collect();
        let gaps = StoredGaps::new(store.clone(), gaps, left);
        durability.start(downstream, gaps, env.clone(), replay.watchdog().clone())?;
        let (durable, waiting, replayed) = (durability.clone(), env.clone(), replay.clone());
        sweeps.0.spawn(async move {
            durable.until_recovered(&*waiting).await;
            tracing::info!(ms = ms(&waiting), "recovery has processed all accepted commands");
            replayed.clear_suspicion(&processor);
            durable.recovered();
        });

        let services = config.services;
        let ingest = wiring.ingest(services.clone());
        let reads = wiring.reads(&config.views, services);
        let deliveries = views.into_iter().map(|view| (view.name, view.deliveries)).collect();
        let monitor = Monitor { ports, deliveries, swept, durability, is_durable: true };
        let drain_ms = config.drain_ms;
        Ok(Self { monitor, replay, ingest, reads, env, drain_ms, sweeps, stages, stopper })
    }

    /// Returns once everything that was on its way when the engine ended the last time has come to its entries and views;
    /// `false`: it has not, after a minute.
    pub async fn recovered(&self) -> bool {
        let recovered = async {
            self.monitor.durability.until_recovered(&*self.env).await;
            while !self.replay.is_complete() {
                self.env.sleep(DRAIN_LOOK_MS).await;
            }
        };
        self.within(RECOVER_MS, recovered).await
    }

    /// Returns, with what to say, once the folder that everything is kept in is not there any more: then nothing is
    /// accepted, and the engine is of no use. Never, if everything is in memory.
    pub async fn lost(&self) -> StoreError {
        self.monitor.durability.store().folder().gone().await
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
        &self.monitor.ports
    }

    /// Reports on the engine.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// How much is on its way, and what became of deliveries.
    pub fn status(&self) -> Status {
        self.monitor.status()
    }

    /// The shards of the command stream, to be split and merged from elsewhere.
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

    /// Admits nothing more, waits until what was accepted has come to its entries and views, and stops all tasks. `false`:
    /// that took longer than `drain_ms`; what was left is processed at the next start, and gone if it was in memory.
    pub async fn shutdown(self) -> bool {
        self.stop().await
    }

    /// As [`Engine::shutdown`], by reference: the folder stays in use until the engine is dropped.
    pub async fn stop(&self) -> bool {
        self.monitor.ports.admission.close();
        self.sweeps.0.abort();
        self.sweeps.0.ended().await;
        let drained = async {
            while !self.is_drained() {
                self.env.sleep(DRAIN_LOOK_MS).await;
            }
        };
        let drained = self.within(self.drain_ms, drained).await;
        self.stopper.stop();
        // A task that does not end is not waited for: a thread cannot be ended from outside.
        let stopped = self.within(STOP_MS, self.stages.0.ended()).await;
        let clean = drained && stopped;
        if !clean {
            tracing::warn!(
                drained,
                stopped,
                "the engine stopped before all work was done: the next start does the rest"
            );
        }
        let saved = self.monitor.durability.end(clean).await;
        match self.monitor.is_durable {
            true => saved && stopped,
            false => clean,
        }
    }

    /// Whether some work is done within some milliseconds.
    async fn within(&self, ms: u64, work: impl Future<Output = ()>) -> bool {
        matches!(select(pin!(work), self.env.sleep(ms)).await, Either::Left(_))
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

impl Drop for Engine {
    /// The loops stop where they are, also if a [`Monitor`] outlives the engine: the runtime of their timers may end next.
    fn drop(&mut self) {
        self.monitor.durability.abandon();
    }
}
