//! Deterministic simulation of Fanfold, in one thread, with a virtual clock and one seed. The same
//! seed gives the same trace.
//!
//! - [`run`] simulates the real stages, with the ledger and other services ([`mod@services`]), over the
//!   in-memory ports behind a fault layer ([`faults`]). Clients work under faults, and an auditor
//!   ([`model`]) checks every effect against the invariants. Then the faults stop, and the system
//!   must process everything within bounded time, with nothing lost.
//! - [`engine::run`] simulates the embedded engine itself, with crashes and power cuts, and audits
//!   it after each start.

pub mod attempts;
pub mod clients;
pub mod drive;
pub mod engine;
pub mod executor;
pub mod faults;
pub mod model;
pub mod ports;
pub mod services;
pub mod transport;
pub mod view_table;
pub mod watch;
pub mod workload;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use fanfold::entry::Outcome;
use fanfold::host::body::parked::{Parked, Reason};
use fanfold::host::invariant::{Breach, Invariant};
use fanfold::host::knob;
use fanfold::{LogId, Seq, Time};
use fanfold_embedded::Limit;
use fanfold_embedded::TransitConfig;
use fanfold_embedded::testing::Ports;
use fanfold_embedded::testing::{StoredDeadLetters, StoredParked, StoredView};
use fanfold_pipeline::Others;
use fanfold_pipeline::arrivals::InProcess;
use fanfold_pipeline::calls::ViewCalls;
use fanfold_pipeline::conformance::WithBodies;
use fanfold_pipeline::ingest::{Ingest, IngestPorts};
use fanfold_pipeline::operate::{Operate, OperatePorts, OperatedViews};
use fanfold_pipeline::packing::PackingTopic;
use fanfold_pipeline::ports::{DeadLetters, Env, ParkedItem, ParkedTable, RowRange, ViewTable};
use fanfold_pipeline::process::{ProcessorPorts, Suspicion};
use fanfold_pipeline::project::{Projector, ProjectorPorts};
use fanfold_pipeline::read::{ReadPorts, Reads, ServedView, ServedViews};
use fanfold_pipeline::relay::{Relay, RelayPorts};
use fanfold_pipeline::sweep::{Sweep, SweepPorts, ViewSweep, ViewSweepPorts};

use crate::clients::Clients;
use crate::drive::Stage;
use crate::executor::Executor;
use crate::faults::{Counts, Faults};
use crate::model::{Cases, Model};
use crate::ports::{
    AdmitAll, Refusal, SimCommands, SimJournal, SimParked, SimState, SimStream, SimTopic,
};
use crate::services::{Deployed, services, views};
use crate::transport::{Notifications, Queue};
use crate::view_table::SimViewTable;
use crate::watch::Watch;
use crate::workload::Habits;

/// Longest run in simulated time. A longer one counts as stuck.
const RUN_MS_MAX: u64 = 4 * 60 * 60 * 1_000;
/// Longest simulated time from the end of the faults until the run is quiet. Source: with the smallest limits, hundreds
/// of nudges of one log may be worked on one at a time, and each publishes all of its commits again.
const QUIET_MS_MAX: u64 = 60 * 60 * 1_000;
/// The standstill that the sweep must at least report for a log that has lost commands.
const STANDSTILL_MS: u64 = 5_000;
const SHARDS: usize = 2;
const TOPICS: usize = 2;
const CANARIES: usize = 2;
/// The latest simulated time at which the new version of the service `notes` is deployed. Its views
/// read both versions from the beginning: readers must be deployed before writers.
const DEPLOYED_MS_MAX: u64 = 60_000;
/// Bound of the age at which a lone record becomes suspect. Runs are too short for the default.
const SUSPECT_MS_MAX: u64 = 3_000;

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Violations of the invariants; empty if the run passed.
    pub violations: Vec<Breach>,
    /// Every effect, in order.
    pub trace: Vec<String>,
    /// How often each fault was injected.
    pub faults: Counts,
    /// How often each case came up.
    pub cases: Cases,
    /// The number of accepted commands.
    pub commands: u64,
    /// The length of the run in simulated milliseconds.
    pub took_ms: u64,
}

/// The parts of the simulation that the end of a run checks.
struct Run {
    stage: Stage,
    changes: Vec<Queue<fanfold_pipeline::ports::Change>>,
    records: Vec<Queue<transport::Received>>,
    parked: Arc<StoredParked>,
    refusal: Refusal,
    dead_letters: Arc<StoredDeadLetters>,
    views: Vec<(&'static str, Arc<StoredView>, Notifications)>,
    clients: Clients,
    sweep: Rc<Sweep>,
}

/// Runs one seed.
pub fn run(seed: u64) -> Report {
    knob::draw(Some(seed));
    let executor = Executor::new(seed);
    let world = executor.world().clone();
    let start = world.now();
    let faults = Faults::new(world.clone());
    let canaries_are_published = world.happens(300);
    let deployed = vec![services(Deployed::Second), services(Deployed::First)];
    let model = Model::new(deployed, views(Deployed::Second), canaries_are_published);
    let watch = Watch::new(world.clone(), faults.clone(), model);
    let stage = Stage { executor: executor.clone(), world, watch, busy: Rc::new(Cell::new(0)) };
    let run = Rc::new(Run::start(&stage, canaries_are_published));

    let main = executor.spawn({
        let run = run.clone();
        async move { run.main().await }
    });
    let ended = executor.run_until(&main, Time(start.0 + RUN_MS_MAX));
    let took_ms = stage.world.now().since_ms(start);
    executor.clear();

    let mut model = stage.watch.model();
    if !ended && model.violations.is_empty() {
        model.check(Invariant::F8, false, || "the run never ended".to_owned());
    }
    let logs = model.log_ids();
    Report {
        seed,
        commands: logs.iter().map(|log| model.accepted_seq(log).0).sum(),
        violations: std::mem::take(&mut model.violations),
        cases: std::mem::take(&mut model.cases),
        trace: stage.watch.trace(),
        faults: faults.counts(),
        took_ms,
    }
}

impl Run {
    /// Wires the stages to the ports, and starts their drivers.
    fn start(stage: &Stage, canaries_are_published: bool) -> Self {
        let Stage { executor, world, watch, .. } = stage;
        let env: Arc<dyn Env> = Arc::new(world.clone());
        let unlimited = Limit { items: usize::MAX, bytes: usize::MAX };
        let config = TransitConfig {
            shards: 1,
            backlog: unlimited,
            dead_letters: unlimited,
            ..TransitConfig::default()
        };
        let names = views(Deployed::Second);
        let names = names.iter().map(|view| view.name());
        // An in-memory disk without faults does not fail.
        let memory = Ports::in_memory(&config, names, env.clone()).expect("ports in memory");
        let (changes, records) = (Queue::shards(SHARDS), Queue::shards(SHARDS));
        let subscribers: Vec<Notifications> =
            views(Deployed::Second).iter().map(|_| Notifications::default()).collect();

        let commands = Arc::new(SimCommands {
            memory: Arc::new(WithBodies::new(memory.commands.clone())),
            stored: memory.commands.clone(),
            changes: changes.clone(),
            watch: watch.clone(),
        });
        let stream = Arc::new(SimStream {
            records: records.clone(),
            watch: watch.clone(),
            world: world.clone(),
        });
        let journal = Arc::new(SimJournal { memory: memory.journal.clone(), watch: watch.clone() });
        let state = Arc::new(SimState {
            memory: memory.state.clone(),
            watch: watch.clone(),
            before: Arc::default(),
            world: world.clone(),
        });
        let memory_parked = memory.parked.clone();
        let parked = Arc::new(SimParked { memory: memory_parked.clone(), watch: watch.clone() });
        let refusal = Refusal::draw(world);
        let topics = Arc::new(SimTopic {
            subscribers: subscribers.clone(),
            topics: TOPICS,
            refusal,
            watch: watch.clone(),
            world: world.clone(),
        });
        let topic = Arc::new(PackingTopic::new(topics, env.clone()));
        let dead_letters = memory.dead_letters.clone();

        for shard in &changes {
            let ports = RelayPorts { stream: stream.clone(), env: env.clone() };
            let make = move || Relay::new(ports.clone());
            executor.spawn(drive::relay(stage.clone(), shard.clone(), make));
        }
        // No command causes a crash here, so the processor may suspect any command, or all of a
        // log. That must have no effect beyond parked commands and faulted entries.
        let suspicion = Suspicion {
            age_ms: world.pick(0..SUSPECT_MS_MAX),
            attempts_max: world.pick(0..3) as u32,
            faults_per_hour_max: world.pick(0..20) as usize,
        };
        // Reads do not fail: an operator only repeats them.
        let operated = OperatePorts {
            commands: memory.commands.clone(),
            journal: memory.journal.clone(),
            state: memory.state.clone(),
            parked: memory_parked.clone(),
            stream: stream.clone(),
            views: OperatedViews::Own(BTreeMap::new()),
            calls: ViewCalls::End { within_ms: drive::VIEW_CALL_MS },
            env: env.clone(),
        };
        let operated_ingest = Ingest::new(
            IngestPorts {
                commands: commands.clone(),
                admission: Arc::new(AdmitAll),
                env: env.clone(),
            },
            services(Deployed::Second),
        );
        executor.spawn(drive::operate(
            stage.clone(),
            Operate::new(operated.clone(), operated_ingest.clone()),
        ));
        let deployed_at = world.now().plus_ms(world.pick(0..DEPLOYED_MS_MAX));
        for shard in &records {
            let ports = ProcessorPorts {
                journal: journal.clone(),
                state: state.clone(),
                parked: parked.clone(),
                topic: topic.clone(),
                stream: stream.clone(),
                env: env.clone(),
            };
            let (shard, memory) = (shard.clone(), memory_parked.clone());
            executor.spawn(drive::process(
                stage.clone(),
                shard,
                ports,
                deployed_at,
                suspicion,
                canaries_are_published,
                memory,
            ));
        }
        let (mut tables, mut served) = (Vec::new(), Vec::new());
        let (mut rebuilt, mut rebuilding) = (Vec::new(), BTreeMap::new());
        for (view, notifications) in views(Deployed::Second).iter().zip(subscribers) {
            let memory = memory.views[view.name()].clone();
            let table = Arc::new(SimViewTable {
                view: view.name(),
                memory: memory.clone(),
                watch: watch.clone(),
            });
            let others = Others::MayRun { grace_ms: drive::GRACE_MS };
            let make = {
                let (view, table) = (view.clone(), table.clone());
                let ports = ProjectorPorts { table, journal: journal.clone(), env: env.clone() };
                move || Arc::new(Projector::new(view.clone(), ports.clone()).among(others))
            };
            executor.spawn(drive::subscribe(
                stage.clone(),
                notifications.clone(),
                make(),
                memory.clone(),
                dead_letters.clone(),
            ));
            served.push(ServedView::new(&**view, table.clone()));
            rebuilt.push((view.clone(), memory.clone()));
            rebuilding.insert(view.name().to_owned(), table.clone() as _);
            executor.spawn(drive::release(stage.clone(), view.name(), memory.clone()));
            let (commands, dead_letters) = (commands.clone(), dead_letters.clone());
            let parked = table.clone();
            let ports = ViewSweepPorts { commands, parked, dead_letters };
            let sweep = move || ViewSweep::new(make(), ports.clone());
            executor.spawn(drive::sweep_view(stage.clone(), sweep));
            tables.push((view.name(), memory, notifications));
        }
        let clients = Clients::default();
        let (admission, services) = (Arc::new(AdmitAll), services(Deployed::Second));
        let ports = IngestPorts { commands: commands.clone(), admission, env: env.clone() };
        let ingest = Rc::new(Ingest::new(ports, services.clone()));
        let ports = SweepPorts {
            commands: commands.clone(),
            journal: journal.clone(),
            parked,
            stream,
            env: env.clone(),
        };
        let (numbers, arrivals) = (0..CANARIES, Arc::new(InProcess::default()));
        let sweep = Sweep::new(ports).with_canaries((*ingest).clone(), numbers, arrivals);
        let sweep = Rc::new(sweep);
        executor.spawn(drive::sweep(stage.clone(), sweep.clone()));
        let waits = Arc::new(drive::Naps(world.clone()));
        let ports = ReadPorts { commands, journal, state, waits, env };
        let reads = Reads::new(ports, ServedViews::new(served), services);
        executor.spawn(clients::read(stage.clone(), reads, clients.clone()));
        let habits = Habits::draw(world);
        for _ in 0..habits.clients {
            let client =
                clients::client(stage.clone(), ingest.clone(), habits.clone(), clients.clone());
            let busy = stage.busy.clone();
            busy.set(busy.get() + 1);
            executor.spawn(async move {
                client.await;
                busy.set(busy.get() - 1);
            });
        }
        let views = OperatedViews::Own(rebuilding);
        let operate = Operate::new(OperatePorts { views, ..operated }, operated_ingest);
        executor.spawn(drive::rebuild(stage.clone(), operate, rebuilt));
        let parked = memory_parked;
        let stage = stage.clone();
        Self {
            stage,
            changes,
            records,
            parked,
            refusal,
            dead_letters,
            views: tables,
            clients,
            sweep,
        }
    }

    /// Lets clients work under faults, turns faults off, waits until the run is quiet, and audits.
    async fn main(&self) {
        let Stage { world, watch, .. } = &self.stage;
        // Clients count as busy. Drivers between two batches do not.
        while self.stage.busy.get() > 0 || world.happens(300) {
            world.sleep(500).await;
            if world.happens(5) {
                break;
            }
        }
        watch.faults.off();
        watch.note(|| "faults off".to_owned());
        let until = world.now().plus_ms(QUIET_MS_MAX);
        loop {
            match self.unquiet().await {
                None => break,
                Some(what) if world.now() > until => {
                    return watch.audit(|model| {
                        model.check(Invariant::F8, false, || format!("never quiet: {what}"));
                    });
                }
                Some(_) => world.sleep(1_000).await,
            }
        }
        self.audit_end().await;
    }

    /// Why the run is not quiet yet; `None` if it is.
    async fn unquiet(&self) -> Option<String> {
        if self.stage.busy.get() > 0 {
            return Some("invocations under way".to_owned());
        }
        if !self.changes.iter().all(Queue::is_empty) || !self.records.iter().all(Queue::is_empty) {
            return Some("changes or records".to_owned());
        }
        let logs = self.stage.watch.model().log_ids();
        for log in &logs {
            let (accepted, tail) = {
                let model = self.stage.watch.model();
                (model.accepted_seq(log), model.tail(log))
            };
            let is_stopped = self.stage.watch.model().stopped(log).is_some();
            if tail < accepted && !is_stopped {
                return Some(format!("{log} ends at {tail} of {accepted}"));
            }
            let parked =
                self.parked.list(log, (Seq::ZERO, ""), usize::MAX).await.unwrap_or_default();
            // Commits that the topic refuses permanently stay parked. So do the commands behind a
            // lost command, which `audit_stopped` checks. A command whose seq another command has
            // stays parked as a conflict; the processor may have parked it for a gap before.
            let losers = self.stage.watch.model().losers(log);
            let stays = |item: &ParkedItem| match item.identity == Parked::UNPUBLISHED {
                true => self.refusal.keeps(log),
                false if losers.contains(&(item.seq, item.identity.clone())) => is_conflict(item),
                false => is_stopped,
            };
            if let Some(item) = parked.iter().find(|item| !stays(item)) {
                return Some(format!("{log} has {} parked at {}", item.identity, item.seq));
            }
        }
        for (view, table, notifications) in &self.views {
            let letters = self.dead_letters.list(view, None, 1).await.unwrap_or_default();
            if !notifications.is_empty() || !letters.is_empty() {
                return Some(format!("notifications of {view}"));
            }
            for log in &logs {
                if let Some(what) = self.lagging(view, table, log).await {
                    return Some(what);
                }
            }
        }
        None
    }

    async fn lagging(&self, view: &str, table: &StoredView, log: &LogId) -> Option<String> {
        if !views(Deployed::Second).get(view)?.services().contains(&log.service()) {
            return None;
        }
        let cursor = table.cursor(log).await.ok().flatten().unwrap_or_default();
        let (tail, broken) = {
            let model = self.stage.watch.model();
            (model.tail(log), model.broken(view, log))
        };
        match (broken, &cursor.parked) {
            (None, None) => (cursor.seq < tail).then(|| {
                format!("the cursor of {view} for {log} stands at {} of {tail}", cursor.seq)
            }),
            (Some(at), Some(parked)) if parked.seq == at => None,
            (broken, parked) => Some(format!("{view} for {log}: {parked:?}, broken at {broken:?}")),
        }
    }

    /// Every log is processed to its end, unless it is stopped, and no view lags.
    async fn audit_isolation(&self, logs: &[LogId]) {
        let watch = &self.stage.watch;
        for log in logs {
            watch.audit(|model| {
                let (accepted, tail) = (model.accepted_seq(log), model.tail(log));
                let faulted = model.has_faults(log);
                let is_at_end = tail == accepted || model.stopped(log).is_some();
                model.check(Invariant::F7, is_at_end, || {
                    format!("{log} ends at {tail} of {accepted}, faulted: {faulted}")
                });
            });
            for (view, table, _) in &self.views {
                let lagging = self.lagging(view, table, log).await;
                watch.audit(|model| {
                    model.check(Invariant::F7, lagging.is_none(), || format!("{lagging:?}"));
                });
            }
        }
    }

    /// The sweep reports a stopped log, and the commands behind the lost one stay parked.
    async fn audit_stopped(&self, logs: &[LogId]) {
        let watch = &self.stage.watch;
        let mut is_any = false;
        for log in logs {
            let (stopped, waiting) = {
                let model = watch.model();
                (model.stopped(log), model.waiting(log))
            };
            if stopped.is_none() {
                continue;
            }
            is_any = true;
            let parked =
                self.parked.list(log, (Seq::ZERO, ""), usize::MAX).await.unwrap_or_default();
            let is_parked = |seq: &Seq| parked.iter().any(|item| item.seq == *seq);
            watch.audit(|model| {
                model.check(Invariant::F8, waiting.iter().all(is_parked), || {
                    format!(
                        "{log} stopped at {stopped:?}: of {waiting:?} only {parked:?} are parked"
                    )
                });
            });
        }
        if is_any {
            // The lost command may have been accepted just now.
            self.stage.world.sleep(STANDSTILL_MS + 1).await;
            let swept = self.sweep.sweep(None, usize::MAX, Time(u64::MAX)).await;
            let standstill_ms = swept.map_or(0, |report| report.standstill_ms_max);
            watch.audit(|model| {
                model.check(Invariant::F8, standstill_ms > STANDSTILL_MS, || {
                    format!("a log has lost commands, but the sweep reports {standstill_ms} ms")
                });
            });
        }
    }

    /// Every receipt has its entry, every commit is published, and every row is its fold.
    async fn audit_end(&self) {
        let watch = &self.stage.watch;
        for promise in self.clients.promises.borrow().iter() {
            watch.audit(|model| {
                let entry = model.entry(&promise.log, promise.seq);
                let kept = match (entry, model.stopped(&promise.log)) {
                    (Some(entry), _) => {
                        let loser = format!("{}#{}", promise.origin, promise.id);
                        entry.origin.as_str() == promise.origin && entry.id.get() == promise.id
                            || model.losers(&promise.log).contains(&(promise.seq, loser))
                            // That an operator gave it up is checked when the entry comes.
                            || matches!(entry.outcome, Outcome::Lost { .. })
                    }
                    (None, stopped) => stopped.is_some_and(|stopped| promise.seq >= stopped),
                };
                let found = format!("{promise:?}, found {entry:?}");
                model.check(Invariant::F8, kept, || found);
            });
        }
        let logs = watch.model().log_ids();
        for log in &logs {
            let losers = watch.model().losers(log);
            let parked =
                self.parked.list(log, (Seq::ZERO, ""), usize::MAX).await.unwrap_or_default();
            for (seq, identity) in losers {
                let is_there = |item: &ParkedItem| {
                    (item.seq, &item.identity) == (seq, &identity) && is_conflict(item)
                };
                watch.audit(|model| {
                    model.check(Invariant::F8, parked.iter().any(is_there), || {
                        format!("{log} {seq}: {identity} is neither the entry nor parked")
                    });
                });
            }
        }
        self.audit_isolation(&logs).await;
        for log in &logs {
            watch.audit(|model| {
                let unpublished = model.unpublished(log);
                model.check(Invariant::F5, unpublished.is_empty(), || {
                    format!("{log}: the commits from {unpublished:?} were never published")
                });
            });
            for (view, table, _) in &self.views {
                if watch.model().broken(view, log).is_some() {
                    continue;
                }
                let range = RowRange { limit: usize::MAX, ..RowRange::default() };
                let stored = table.scan(log, &range).await.unwrap_or_default().rows;
                let stored: Vec<_> =
                    stored.into_iter().map(|r| (r.key, (r.seq, Some(r.body.to_vec())))).collect();
                watch.audit(|model| {
                    let rows = model.rows(view, log).into_iter();
                    let rows: Vec<_> = rows.filter(|(_, (_, body))| body.is_some()).collect();
                    model.check(Invariant::F6, rows == stored, || {
                        format!("{view} {log}: {} rows, should be {}", stored.len(), rows.len())
                    });
                });
            }
        }
        // Last, since its sweep sends canaries.
        self.audit_stopped(&logs).await;
    }
}

fn is_conflict(item: &ParkedItem) -> bool {
    Parked::decode(&item.body).is_ok_and(|parked| parked.reason == Reason::Conflict)
}
