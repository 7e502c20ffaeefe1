//! The engine: ports, stages, event sources and sweeps in one process.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fanfold::host::body::announced::{Announced, Announcement, AnnouncementError};
use fanfold::{AnyView, Time, with_causes};
use fanfold_pipeline::doctor::Doctor;
use fanfold_pipeline::ingest::Ingest;
use fanfold_pipeline::operate::Operate;
use fanfold_pipeline::ports::{Env, HostChecks};
use fanfold_pipeline::process::ReceivedRecord;
use fanfold_pipeline::read::{Reads, ServedView, ServedViews};
use fanfold_pipeline::sweep::SweepReport;
use fanfold_pipeline::telemetry::{Figures, Telemetry};
use fanfold_pipeline::tenants::Busiest;
use fanfold_pipeline::timeline::Timeline;
use fanfold_pipeline::wiring::Wiring;
use futures::future::{Either, select};

use crate::backup::Backups;
use crate::chaos::Chaos;
use crate::config::{Config, Machine};
use crate::env::SteadyEnv;
use crate::hash_key::HashKey;
use crate::host_checks::FolderChecks;
use crate::owner::{owner, store_owner};
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
use crate::waiting::Waiting;
use crate::walked::Walked;

/// How long a stop waits for the tasks, in milliseconds, so that invocations under way can finish.
const STOP_MS: u64 = 5_000;
/// How long [`Engine::recovered`] waits, in milliseconds. Recovery usually repeats half a second of
/// work, but takes longer when it processes one record at a time.
const RECOVER_MS: u64 = 60_000;
/// The pause between two checks whether a drain or a recovery is complete, in milliseconds.
const DRAIN_LOOK_MS: u64 = 5;

/// The amount of data in transit, and the outcomes of deliveries.
#[derive(Debug, Clone)]
pub struct Status {
    /// Changes that the relay has not finished.
    pub changes: usize,
    /// Records that the processor has not finished.
    pub records: usize,
    /// Notifications that at least one view has not taken.
    pub notifications: usize,
    /// The counts of deliveries, by view.
    pub deliveries: Vec<(&'static str, Arc<Deliveries>)>,
    /// How far the sweeps of views have come, by view.
    pub walked: Vec<(&'static str, Arc<Walked>)>,
    /// The report of the last run of the sweep.
    pub swept: SweepReport,
}

/// How old the oldest items are that wait, in milliseconds; 0 where nothing waits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lags {
    /// Of the changes that the relay has not finished.
    pub relay_ms: u64,
    /// Of the records that the processor has not finished, from their arrival on the stream.
    pub process_ms: u64,
    /// Of the notifications that each view has not taken, with their number.
    pub views: Vec<(&'static str, Waiting)>,
}

/// Reports on a running engine, for metrics.
#[derive(Clone)]
pub struct Monitor {
    ports: Ports,
    deliveries: Vec<(&'static str, Arc<Deliveries>)>,
    walked: Vec<(&'static str, Arc<Walked>)>,
    swept: Arc<Mutex<SweepReport>>,
    durability: Arc<Durability>,
    is_durable: bool,
    telemetry: Arc<Telemetry>,
    env: Arc<dyn Env>,
}

impl Monitor {
    /// The store and its loops, if the engine is durable.
    pub fn durable(&self) -> Option<&Durability> {
        self.is_durable.then_some(&*self.durability)
    }

    /// What the stages have measured since the start.
    pub fn figures(&self) -> Figures {
        self.telemetry.figures()
    }

    /// The `limit` busiest tenants of the last one to two minutes.
    pub fn busiest(&self, limit: usize) -> Busiest {
        let tenants = self.telemetry.tenants();
        tenants.map(|tenants| tenants.busiest(self.env.now(), limit)).unwrap_or_default()
    }

    /// How long the oldest items have waited. What is unfinished is read shard by shard, so it may be
    /// of slightly different times.
    pub fn lags(&self) -> Lags {
        let now = self.env.now();
        let changes = self.ports.commands.changes();
        let relay = changes.iter().filter_map(|(_, shard)| Some(shard.oldest()?.at));
        let records = self.ports.stream.records().readable();
        let process = records.values().filter_map(|shard| Some(shard.oldest()?.arrived));
        let views = self.deliveries.iter();
        let views = views.map(|(view, of)| (*view, of.waiting(self.ports.topic.log(), now)));
        let age = |oldest: Option<Time>| oldest.map_or(0, |oldest| now.since_ms(oldest));
        Lags { relay_ms: age(relay.min()), process_ms: age(process.min()), views: views.collect() }
    }

    /// The current status.
    pub fn status(&self) -> Status {
        Status {
            changes: self.ports.commands.changes().backlog().items(),
            records: self.ports.stream.records().backlog().items(),
            notifications: self.ports.topic.backlog().items(),
            deliveries: self.deliveries.clone(),
            walked: self.walked.clone(),
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

/// The running engine. Dropping it abandons the work under way; see [`Engine::shutdown`].
pub struct Engine {
    monitor: Monitor,
    replay: Arc<Replay>,
    ingest: Ingest,
    operate: Operate,
    doctor: Doctor,
    backups: Arc<Backups>,
    reads: Reads,
    env: Arc<dyn Env>,
    drain_ms: u64,
    chaos: Option<Chaos>,
    backing_up: TaskSet,
    sweeps: TaskSet,
    stages: TaskSet,
    stopper: Stopper,
}

impl Engine {
    /// Starts an engine in memory. Must be called inside of a tokio runtime with a timer.
    pub fn start(config: Config) -> Result<Self, OpenError> {
        let mut engine = Self::open_on(Machine::in_memory(), config, Path::new("/memory"))?;
        engine.monitor.is_durable = false;
        Ok(engine)
    }

    /// Starts an engine that keeps everything in a folder. Creates the folder if it is missing,
    /// else continues with its data. Must be called inside of a tokio runtime with a timer.
    pub fn open(config: Config, folder: &Path) -> Result<Self, OpenError> {
        Self::open_on(Machine::this(), config, folder)
    }

    /// As [`Engine::open`], on the given machine.
    pub fn open_on(machine: Machine, config: Config, folder: &Path) -> Result<Self, OpenError> {
        let config = Config { views: config.views.beside(&config.services), ..config };
        let steady = Arc::new(SteadyEnv::new(machine.env));
        let env: Arc<dyn Env> = steady.clone();
        let table = |view: &Arc<dyn AnyView>| (view.name().to_owned(), table_name(&**view));
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
        // Before the run is noted, so that a refused start is no crash.
        let owner = owner(&store, &config)?;
        let served = config.views.iter().map(|view| announced(&**view, &ports, &store, &*env));
        let served: Vec<AnnouncedView> = served.collect::<Result<_, OpenError>>()?;
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
        let replay = Replay::new(logs, views.len(), unclean_starts, store.clone(), env.random());
        if machine.has_watchdog {
            let hang = Duration::from_millis(config.hang_ms);
            replay.watchdog().start(hang).map_err(|error| durability.explain(error))?;
        }

        let (stopper, stop) = Stopper::new();
        let swept = Arc::<Mutex<SweepReport>>::default();
        let telemetry = Telemetry::new().with_traces(config.traces.clone()).with_tenants();
        let telemetry = Arc::new(telemetry);
        let wiring = Wiring { telemetry: Some(telemetry.clone()), ..ports.wiring(env.clone()) };
        let chaos = config.chaos.then(|| Chaos::new(env.clone()));
        let of_stages = chaos.as_ref().map(|chaos| chaos.before(&wiring));
        store_owner(&store, owner).map_err(|error| store.folder().explain(error))?;
        let served = served.into_iter().map(|view| view.store(&ports));
        let served: Vec<ServedView> =
            served.collect::<Result<_, _>>().map_err(|error| store.folder().explain(error))?;
        let start = Start {
            config: &config,
            ports: &ports,
            chaos: chaos.clone(),
            wiring: of_stages.as_ref().unwrap_or(&wiring),
            replay: replay.clone(),
            durability: durability.clone(),
            env: env.clone(),
            stop,
            stages: Tasks::new(machine.spawner.clone()),
            sweeps: Tasks::new(machine.spawner.clone()),
            swept: swept.clone(),
        };
        let backing_up = TaskSet(Tasks::new(machine.spawner));
        let backups = Backups::new(
            store.clone(),
            ports.commands.clone(),
            env.clone(),
            start.stop.clone(),
            backing_up.0.clone(),
        );
        let (stages, sweeps) = (TaskSet(start.stages.clone()), TaskSet(start.sweeps.clone()));
        if let Some(chaos) = chaos.clone() {
            start.stages.spawn(chaos.deliver_held(ports.stream.clone(), start.stop.clone()));
        }
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
        let operated = ports.operated(replay.calls(), env.clone());
        let doctor = Doctor::new(operated.clone(), services.clone(), config.views.clone());
        let operate = Operate::new(operated, ingest.clone());
        let reads = wiring.reads_of(ServedViews::new(served), services);
        let walked = views.iter().map(|view| (view.name, view.walked.clone())).collect();
        let deliveries = views.into_iter().map(|view| (view.name, view.deliveries)).collect();
        let monitor = Monitor {
            ports,
            deliveries,
            walked,
            swept,
            durability,
            is_durable: true,
            telemetry,
            env: env.clone(),
        };
        let drain_ms = config.drain_ms;
        Ok(Self {
            monitor,
            replay,
            ingest,
            operate,
            doctor,
            backups: Arc::new(backups),
            reads,
            env,
            drain_ms,
            chaos,
            backing_up,
            sweeps,
            stages,
            stopper,
        })
    }

    /// Waits until all commands that were in transit when the engine last ended have entries, and
    /// the views have these. `false`: a minute was not enough.
    pub async fn recovered(&self) -> bool {
        let recovered = async {
            self.monitor.durability.until_recovered(&*self.env).await;
            while !self.replay.is_complete() {
                self.env.sleep(DRAIN_LOOK_MS).await;
            }
        };
        self.within(RECOVER_MS, recovered).await
    }

    /// Waits until the engine's folder is gone, and returns the error. The engine then accepts no
    /// more commands. In memory, never returns.
    pub async fn lost(&self) -> StoreError {
        self.monitor.durability.store().folder().gone().await
    }

    /// Accepts commands.
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// What operators do.
    pub fn operate(&self) -> &Operate {
        &self.operate
    }

    /// Compares what is stored.
    pub fn doctor(&self) -> &Doctor {
        &self.doctor
    }

    /// What operators did.
    pub fn timeline(&self) -> Timeline {
        Timeline::new(self.ports().timeline.clone(), self.env.clone())
    }

    /// Checks the folder.
    pub fn host_checks(&self) -> Arc<dyn HostChecks> {
        let store = self.monitor.durability.store().clone();
        Arc::new(FolderChecks { store, ports: self.ports().clone() })
    }

    /// Makes backups of the folder. `None`: the engine is in memory.
    pub fn backups(&self) -> Option<&Arc<Backups>> {
        self.monitor.is_durable.then_some(&self.backups)
    }

    /// Reads logs and views.
    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// Breaks the stages on purpose, with [`Config::chaos`].
    pub fn chaos(&self) -> Option<&Chaos> {
        self.chaos.as_ref()
    }

    /// The ports of the engine.
    pub fn ports(&self) -> &Ports {
        &self.monitor.ports
    }

    /// Reports on the engine.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// The amount of data in transit, and the outcomes of deliveries.
    pub fn status(&self) -> Status {
        self.monitor.status()
    }

    /// The shards of the command stream.
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

    /// Admits no more commands, waits at most `drain_ms` until the accepted ones have entries and
    /// the views have these, and stops all tasks. `false`: in memory, work is left and lost; in a
    /// folder, a task did not end, or the last checkpoint failed. In a folder, the next start does
    /// the work that is left.
    pub async fn shutdown(self) -> bool {
        self.stop().await
    }

    /// As [`Engine::shutdown`], by reference: the folder stays locked until the engine is dropped.
    pub async fn stop(&self) -> bool {
        self.monitor.ports.admission.close();
        if let Some(chaos) = &self.chaos {
            chaos.heal(None);
        }
        self.sweeps.0.abort();
        self.sweeps.0.ended().await;
        let drained = async {
            while !self.is_drained() {
                self.env.sleep(DRAIN_LOOK_MS).await;
            }
        };
        let drained = self.within(self.drain_ms, drained).await;
        self.stopper.stop();
        // A thread cannot be ended from outside, so a task that does not end is left behind.
        let stopped = self.within(STOP_MS, self.stages.0.ended()).await;
        let clean = drained && stopped;
        if !clean {
            tracing::warn!(
                drained,
                stopped,
                "the engine stopped before all work was done: the next start does the rest"
            );
        }
        // A backup that is cut off is not complete, and that is no work of the engine's.
        self.within(STOP_MS, self.backing_up.0.ended()).await;
        let saved = self.monitor.durability.end(clean).await;
        match self.monitor.is_durable {
            true => saved && stopped,
            false => clean,
        }
    }

    /// Whether `work` completes within `ms` milliseconds.
    async fn within(&self, ms: u64, work: impl Future<Output = ()>) -> bool {
        matches!(select(pin!(work), self.env.sleep(ms)).await, Either::Left(_))
    }

    /// Whether no data is in transit. `status` reads the stages in order, and an item enters the
    /// next stage before it leaves the one before, so no item is missed.
    fn is_drained(&self) -> bool {
        let status = self.status();
        let (changes, records) = (status.changes, status.records);
        let held = self.chaos.as_ref().map_or(0, Chaos::held);
        changes == 0
            && held == 0
            && records == 0
            && (status.notifications == 0 || status.deliveries.is_empty())
            && status.deliveries.iter().all(|(_, deliveries)| deliveries.under_way() == 0)
    }
}

/// A view as it is served, and what is stored of it.
struct AnnouncedView {
    served: ServedView,
    before: Option<Bytes>,
    /// What has to be stored.
    body: Option<Bytes>,
}

impl AnnouncedView {
    fn store(self, ports: &Ports) -> Result<ServedView, StoreError> {
        if let Some(body) = &self.body {
            // No other process can have replaced it.
            ports.view_registry.write(&self.served.name, self.before.as_ref(), body)?;
        }
        Ok(self.served)
    }
}

/// Announces a view. Stores nothing yet.
fn announced(
    view: &dyn AnyView,
    ports: &Ports,
    store: &Store,
    env: &dyn Env,
) -> Result<AnnouncedView, OpenError> {
    let (name, registry) = (view.name(), &ports.view_registry);
    let explain = |error| store.folder().explain(error);
    let before = registry.read(name).map_err(explain)?;
    let now = Announcement::of(view, table_name(view), env.now());
    let (announced, body) = match Announced::announce(before.as_deref(), name, now) {
        Ok(announced) => announced,
        Err(AnnouncementError::Conflict(conflict)) => return Err(conflict.into()),
        Err(error) => return Err(explain(StoreError::damaged(with_causes(&error)))),
    };
    // Cannot panic: the tables were created from the same list of views.
    let table = ports.views[name].clone();
    let served = match announced.last() {
        Some(last) => ServedView::announced(name, last, table),
        None => ServedView::new(view, table),
    };
    Ok(AnnouncedView { served, before, body: body.map(Bytes::from) })
}

/// The name of the table of a view's version.
fn table_name(view: &dyn AnyView) -> String {
    format!("view-{}-v{}", view.name(), view.version())
}

impl Drop for Engine {
    /// Stops the loops, even if a [`Monitor`] is left: the runtime of their timers may end next.
    fn drop(&mut self) {
        self.monitor.durability.abandon();
    }
}
