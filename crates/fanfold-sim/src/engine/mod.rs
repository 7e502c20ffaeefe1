//! Runs the embedded engine itself. Its command log, groups, layers, checkpoints, shards, event
//! sources, subscriptions and recovery are those that ship. Only the disk, the clock and the
//! threads are simulated.
//!
//! A run has several lives. A life is one process of the engine, from its start to its end.
//! Meanwhile clients send, readers read, shards are split and merged, the clock jumps, and the disk
//! fails and fills up. Most lives end with a stop of the machine, between two steps or in the
//! middle of a call of the disk. The disk then keeps or loses what was not synced. After each
//! start, once the engine has recovered, everything is audited. The last life has no faults. In it
//! the engine must process everything and become quiet, with nothing lost.

mod audit;
mod fault;
mod machine;
mod readers;
mod seen;
mod seldom;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};

use fanfold::host::body::parked::Reason;
use fanfold::host::invariant::{Breach, Invariant};
use fanfold::host::knob;
use fanfold::{LogId, Seq, Services, Time, Views};
use fanfold_embedded::Limit;
use fanfold_embedded::testing::{Between, MemoryDisk, interleave};
use fanfold_embedded::{Config, Engine, Machine, TransitConfig};
use fanfold_pipeline::ingest::IngestError;
use fanfold_pipeline::operate::LIST_MAX;
use fanfold_pipeline::ports::{Commands, Env, Journal, ParkedTable, ViewTable};
use futures::FutureExt;
use serde_json::Value;

pub use self::fault::Fault;
use self::machine::{SimClock, SimDisk, SimSpawner};
use self::seen::{Promises, Seen};
use self::seldom::Copied;
use crate::attempts::counted;
use crate::executor::{Executor, World};
use crate::model::{Cases, Model};
use crate::services::{Deployed, services, views};
use crate::workload::Habits;

/// The engine's folder.
const FOLDER: &str = "/data";
/// How long a life takes, in milliseconds: from before the first checkpoint to after many.
const LIFE_MS: std::ops::Range<u64> = 20..8_000;
/// The same for a life without clients, which only finishes the work of earlier lives. It is
/// longer, since sweeps ignore what is younger than ten seconds.
const IDLE_LIFE_MS: std::ops::Range<u64> = 20..40_000;
/// How long the last life may take until the engine is quiet, in milliseconds: longer than any
/// retry, and than many sweeps.
const QUIET_MS_MAX: u64 = 20 * 60 * 1_000;
/// How long a life may take at most, in simulated time.
const LIFE_MS_MAX: u64 = 60 * 60 * 1_000;
/// Lives of one run, the last one included.
const LIVES: std::ops::Range<u64> = 2..7;
/// Pauses of clients, and between rare events, such as resharding and a full disk.
const CLIENT_MS: std::ops::Range<u64> = 0..120;
const SELDOM_MS: std::ops::Range<u64> = 100..3_000;
/// How often the operator releases parked suspects and views, in milliseconds.
const OPERATOR_MS: u64 = 5_000;

/// How often each fault happened.
pub type Counts = BTreeMap<Fault, u64>;

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Violations of the invariants; empty if the run passed.
    pub violations: Vec<Breach>,
    /// The lives of the engine.
    pub lives: u64,
    /// The commands in the journal at the end.
    pub commands: u64,
    /// How often each fault happened.
    pub faults: Counts,
    /// The cases in the journals and views at the end.
    pub cases: Cases,
    /// The trace, in order.
    pub trace: Vec<String>,
}

/// What all lives share.
#[derive(Clone)]
struct Run {
    executor: Executor,
    world: World,
    /// Whether the second version is deployed.
    is_deployed: bool,
    services: Services,
    views: Views,
    habits: Habits,
    seen: Rc<RefCell<Seen>>,
    ids: Rc<RefCell<BTreeMap<(String, String), u64>>>,
    /// Commands that were sent and have no final answer.
    unanswered: Rc<RefCell<Vec<Value>>>,
    offset_ms: Arc<AtomicI64>,
    counts: Arc<Mutex<Counts>>,
    trace: Rc<RefCell<Vec<String>>>,
    commands: Rc<Cell<u64>>,
    cases: Rc<RefCell<Cases>>,
    beside: Rc<Beside>,
    /// The last complete backup of this life.
    copied: Rc<RefCell<Option<Copied>>>,
}

/// What runs between two steps of a call of the engine, as other threads would.
#[derive(Default)]
struct Beside {
    /// How often, in thousandths of the points.
    per_mille: Cell<u64>,
    /// The engine of this life, once it has recovered.
    recovered: RefCell<Option<Rc<Engine>>>,
    /// Nothing runs beside an audit.
    is_audited: Cell<bool>,
}

/// Runs one seed.
pub fn run(seed: u64) -> Report {
    knob::draw(Some(seed));
    let executor = Executor::new(seed);
    let world = executor.world().clone();
    let mut run = Run {
        habits: Habits { requests: u64::MAX, ..Habits::draw(&world) },
        is_deployed: false,
        services: services(Deployed::First),
        views: views(Deployed::First),
        executor,
        world: world.clone(),
        seen: Rc::default(),
        ids: Rc::default(),
        unanswered: Rc::default(),
        offset_ms: Arc::default(),
        counts: Arc::default(),
        trace: Rc::default(),
        commands: Rc::default(),
        cases: Rc::default(),
        beside: Rc::default(),
        copied: Rc::default(),
    };
    let mut disk = MemoryDisk::default();
    let lives = world.pick(LIVES);
    for life in 1..=lives {
        let is_clean;
        (disk, is_clean) = run.live(disk, life, life == lives);
        // After a crash the same version starts again: it decides the replayed commands as before,
        // and readers may have seen their outcomes.
        if is_clean && life < lives && !run.is_deployed {
            run.is_deployed = true;
            (run.services, run.views) = (services(Deployed::Second), views(Deployed::Second));
            run.count(Fault::Deployed);
        }
        if !run.seen.borrow().violations.is_empty() {
            break;
        }
    }
    let violations = std::mem::take(&mut run.seen.borrow_mut().violations);
    let faults = run.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let trace = run.trace.take();
    let (commands, cases) = (run.commands.get(), run.cases.take());
    Report { seed, violations, lives, commands, faults, cases, trace }
}

impl Run {
    fn note(&self, line: impl FnOnce() -> String) {
        self.trace.borrow_mut().push(format!("{} {}", self.world.now().0, line()));
    }

    fn count(&self, fault: Fault) {
        self.note(|| format!("{fault:?}"));
        self.tally(fault);
    }

    fn tally(&self, fault: Fault) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(fault).or_default() += 1;
    }

    async fn pause(&self, range: std::ops::Range<u64>) {
        self.world.sleep(self.world.pick(range)).await;
    }

    fn config(&self) -> Config {
        let world = &self.world;
        let many = Limit { items: 100_000, bytes: 1 << 26 };
        let backlog = if world.happens(200) { Limit { items: 5, bytes: 20_000 } } else { many };
        let notifications_bytes_max = if world.happens(300) { 4_000 } else { 1 << 24 };
        Config {
            services: self.services.clone(),
            views: self.views.clone(),
            parallelization: world.pick(1..4) as usize,
            transit: TransitConfig {
                shards: world.pick(1..4) as usize,
                backlog,
                notifications_bytes_max,
                ..TransitConfig::default()
            },
            sweep_ms: world.pick(200..10_000),
            drain_ms: world.pick(1..6_000),
            ..Config::default()
        }
    }

    /// Runs one life of the engine. Returns its disk afterwards, and whether the engine was shut
    /// down properly.
    fn live(&self, disk: MemoryDisk, life: u64, is_last: bool) -> (MemoryDisk, bool) {
        self.world.resume();
        let is_idle = !is_last && self.world.happens(200);
        let few = match (life, is_idle) {
            // The calls that create the folder.
            (1, _) => 20,
            // The calls that open the folder and store a checkpoint after a sweep.
            (_, true) => 200,
            (_, false) => 40,
        };
        let faults = Arc::new(SimDisk::draw(&self.world, self.counts.clone(), few));
        if is_last {
            faults.off();
        }
        let build = if self.is_deployed { "second" } else { "first" };
        let (world, offset_ms) = (self.world.clone(), self.offset_ms.clone());
        let clock = SimClock { world, offset_ms, build };
        let faulty = disk.with_faults(faults.clone());
        let machine = Machine {
            disk: Arc::new(faulty.clone()),
            env: Arc::new(clock),
            spawner: Arc::new(SimSpawner(self.world.clone())),
            has_watchdog: false,
        };
        self.note(|| format!("life {life}"));
        let is_clean = match Engine::open_on(machine, self.config(), Path::new(FOLDER)) {
            Ok(engine) => {
                let engine = Rc::new(engine);
                self.beside.per_mille.set([0, 5, 50, 300][self.world.pick(0..4) as usize]);
                let beside = self.clone();
                let interleaved = interleave(move |between| beside.step_beside(between));
                let (run, spoiled) = (self.clone(), faults.clone());
                let main = self.executor.spawn(async move {
                    match is_last {
                        true => run.end(engine).await,
                        false => run.work(engine, spoiled, is_idle).await,
                    }
                });
                let until = Time(self.world.now().0 + LIFE_MS_MAX);
                let ended = self.executor.run_until(&main, until);
                drop(interleaved);
                self.beside.recovered.take();
                let is_clean = main.take();
                let stopped = faults.has_stopped();
                self.seen
                    .borrow_mut()
                    .check(Invariant::F8, ended || stopped, || format!("life {life} stands still"));
                is_clean.unwrap_or(false)
            }
            Err(error) => {
                self.count(Fault::NotOpened);
                let excused = faults.has_failed();
                let what = || format!("life {life} does not begin: {error:?}");
                self.seen.borrow_mut().check(Invariant::F8, excused, what);
                false
            }
        };
        // No task of this process has an effect after this.
        self.executor.clear();
        let disk = match (is_clean, self.world.happens(500)) {
            (true, _) => faulty.copied(),
            (false, true) => {
                self.count(Fault::Killed);
                faulty.copied()
            }
            (false, false) => {
                self.count(Fault::PowerCut);
                faulty.after_power_cut(&mut |n| self.world.pick(0..n))
            }
        };
        self.check_copied(&disk, build);
        (disk, is_clean)
    }

    /// Runs a life with faults. Returns whether the engine was shut down properly.
    async fn work(&self, engine: Rc<Engine>, faults: Arc<SimDisk>, is_idle: bool) -> bool {
        self.report(&engine);
        for _ in 0..if is_idle { 0 } else { self.habits.clients } {
            let (run, engine) = (self.clone(), engine.clone());
            self.executor.spawn(async move { run.send(&engine).await });
        }
        let (run, resharded) = (self.clone(), engine.clone());
        self.executor.spawn(async move { run.reshard(&resharded).await });
        let (run, backed_up, disk) = (self.clone(), engine.clone(), faults.clone());
        self.executor.spawn(async move { run.back_up(&backed_up, &disk).await });
        let (run, operated) = (self.clone(), engine.clone());
        self.executor.spawn(async move { run.rebuild(&operated).await });
        let (run, filled) = (self.clone(), faults.clone());
        self.executor.spawn(async move { run.spoil(&filled).await });
        let (run, read) = (self.clone(), engine.clone());
        let due = self.seen.borrow().promised.clone();
        let reading = async move {
            // Readers wait, since a host answers no request before the engine has recovered.
            if read.recovered().await {
                run.note(|| "recovered".to_owned());
                run.audit(&read, &due).await;
                run.beside.recovered.replace(Some(read.clone()));
                run.read(&read).await;
            }
        };
        self.executor.spawn(reading);
        self.pause(if is_idle { IDLE_LIFE_MS } else { LIFE_MS }).await;
        let stops_properly = if self.is_deployed { 150 } else { 400 };
        if !self.world.happens(stops_properly) {
            return false;
        }
        // Clients, readers and faults go on meanwhile.
        let is_clean = engine.stop().await;
        if is_clean {
            self.count(Fault::ShutDown);
        }
        is_clean
    }

    fn report(&self, engine: &Engine) {
        let Some(durability) = engine.monitor().durable() else { return };
        if !durability.replayed_logs().is_empty() {
            self.count(Fault::Replayed);
        }
        if durability.unclean_starts() >= 2 {
            self.count(Fault::Suspicious);
        }
    }

    /// Runs the last life, without faults, until the engine is quiet. Returns whether it was shut
    /// down properly.
    async fn end(&self, engine: Rc<Engine>) -> bool {
        self.report(&engine);
        let recovered = engine.recovered().await;
        let due = self.seen.borrow().promised.clone();
        if recovered {
            self.audit(&engine, &due).await;
        }
        let until = self.world.now().plus_ms(QUIET_MS_MAX);
        let mut operated = self.world.now();
        loop {
            if self.world.now().since_ms(operated) >= OPERATOR_MS {
                operated = self.world.now();
                self.operate(&engine).await;
            }
            match self.unquiet(&engine).await {
                None => break,
                Some(what) if self.world.now() > until => {
                    let what = || format!("never quiet (recovered: {recovered}): {what}");
                    self.seen.borrow_mut().check(Invariant::F8, false, what);
                    return false;
                }
                Some(_) => self.world.sleep(200).await,
            }
        }
        let model = self.audit(&engine, &due).await;
        self.cases.replace(model.cases.clone());
        self.commands.set(model.log_ids().iter().map(|log| model.tail(log).0).sum());
        let is_clean = engine.stop().await;
        self.seen.borrow_mut().check(Invariant::F8, is_clean, || {
            "a quiet engine does not shut down properly".to_owned()
        });
        is_clean
    }

    async fn audit(&self, engine: &Engine, due: &Promises) -> Model {
        // Reads of the ports do not wait here, so no other task uses `seen` meanwhile,
        // and none runs beside it.
        self.beside.is_audited.set(true);
        let mut seen = std::mem::take(&mut *self.seen.borrow_mut());
        let mut model = audit::audit(engine, &self.services, &self.views, &seen, due).await;
        seen.violations.append(&mut model.violations);
        *self.seen.borrow_mut() = seen;
        self.beside.is_audited.set(false);
        model
    }

    /// At a point of the engine: now and then other tasks go on there, or a reader reads.
    fn step_beside(&self, between: Between) {
        if self.beside.is_audited.get() || !self.world.happens(self.beside.per_mille.get()) {
            return;
        }
        match between {
            Between::Steps => {
                for _ in 0..=self.world.pick(0..3) {
                    if self.executor.step_beside() {
                        self.tally(Fault::Interleaved);
                    }
                }
            }
            Between::Checkpoint => {
                let engine = self.beside.recovered.borrow().clone();
                if let Some(engine) = engine {
                    let read = self.read_once(&engine, 1).now_or_never();
                    if read.expect("a read without a wait is ready at once") {
                        self.tally(Fault::ReadInCheckpoint);
                    }
                }
            }
        }
    }

    async fn logs(&self, engine: &Engine) -> Vec<LogId> {
        let page = engine.ports().commands.catalogue(None, usize::MAX).await;
        page.map_or(vec![], |page| page.logs)
    }

    /// Why the engine is not quiet yet; `None` if it is.
    async fn unquiet(&self, engine: &Engine) -> Option<String> {
        let ports = engine.ports();
        let status = engine.status();
        if status.changes + status.records > 0 {
            return Some(format!("{} changes, {} records", status.changes, status.records));
        }
        for log in self.logs(engine).await {
            let accepted = ports.commands.slot(&log).await.ok().flatten().map(|slot| slot.seq);
            let tail = ports.journal.tail(&log).await.unwrap_or_default();
            if accepted != Some(tail) {
                return Some(format!("{log} ends at {tail} of {accepted:?}"));
            }
            let parked = ports.parked.list(&log, (Seq::ZERO, ""), 1).await.unwrap_or_default();
            if let Some(item) = parked.first() {
                return Some(format!("{log} has {} parked at {}", item.identity, item.seq));
            }
            for view in self.views.iter().filter(|v| v.services().contains(&log.service())) {
                let cursor = ports.views[view.name()].cursor(&log).await.ok().flatten();
                let cursor = cursor.unwrap_or_default();
                // A view that cannot apply an entry stays parked. The audit checks at which entry.
                let is_parked = cursor
                    .parked
                    .as_ref()
                    .is_some_and(|p| counted(&p.reason).is_none() && p.rebuild.is_none());
                if cursor.parked.as_ref().is_some_and(|parked| parked.rebuild.is_some()) {
                    return Some(format!("{} of {log} is being rebuilt", view.name()));
                }
                if cursor.seq < tail && !is_parked {
                    return Some(format!("{} of {log} at {cursor:?} of {tail}", view.name()));
                }
            }
        }
        None
    }

    /// The operator: lets parked suspects and views that were parked after crashes go on.
    async fn operate(&self, engine: &Engine) {
        let operate = engine.operate();
        let waiting = operate.waiting(None, None, LIST_MAX).await;
        for item in waiting.map(|page| page.items).unwrap_or_default() {
            if item.reason == Reason::Suspect {
                self.note(|| format!("resume {} {}", item.log, item.seq));
                // If it fails, the next round repeats it.
                let _ = operate.resume(&item.log, item.seq, Some(&item.identity)).await;
            }
        }
        for view in self.views.iter().map(|view| view.name()) {
            let waiting = operate.waiting_of_view(view, None, LIST_MAX).await;
            for item in waiting.map(|page| page.items).unwrap_or_default() {
                if item.parked.rebuild.is_some() {
                    let _ = operate.rebuild(view, &item.log, None).await;
                } else if counted(&item.parked.reason).is_some() {
                    let _ = operate.resume_view(view, &item.log).await;
                }
            }
        }
    }

    /// A client: sends batches, again and again.
    async fn send(&self, engine: &Engine) {
        loop {
            self.pause(CLIENT_MS).await;
            let batch = self.batch();
            let requests: Vec<_> = batch
                .iter()
                .map(|command| self.seen.borrow_mut().sends(command, &self.services))
                .collect();
            let texts: Vec<String> = batch.iter().map(Value::to_string).collect();
            let bytes: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
            // If the machine stops before the answer, a later life sends these commands again.
            let from = self.unanswered.borrow().len();
            self.unanswered.borrow_mut().extend(batch.iter().cloned());
            let answers = engine.ingest().ingest(&bytes).await;
            let (mut again, mut newest) = (Vec::new(), None);
            for ((command, request), answer) in batch.into_iter().zip(requests).zip(answers) {
                match (answer, request) {
                    (Ok(receipt), Some(request)) => {
                        let mut seen = self.seen.borrow_mut();
                        newest = Some((receipt.log.clone(), receipt.seq));
                        seen.promises(receipt.log, receipt.seq, request.command);
                    }
                    (Err(IngestError::Invalid(_) | IngestError::Closed { .. }), _) => {}
                    _ => again.push(command),
                }
            }
            {
                let mut unanswered = self.unanswered.borrow_mut();
                // Another client may have taken some of them.
                let end = (from + texts.len()).min(unanswered.len());
                unanswered.drain(from.min(end)..end);
                unanswered.append(&mut again);
            }
            // Some clients read at once what they have written.
            let has_recovered = self.beside.recovered.borrow().is_some();
            if let Some((log, seq)) = newest.filter(|_| has_recovered && self.world.happens(200)) {
                self.read_at(engine, &log, seq, 2_000).await;
            }
        }
    }

    fn batch(&self) -> Vec<Value> {
        let n = 1 + self.world.pick(0..self.habits.batch_max);
        let mut batch = Vec::new();
        for _ in 0..n {
            let mut unanswered = self.unanswered.borrow_mut();
            if !unanswered.is_empty() && self.world.happens(300) {
                let at = self.world.pick(0..unanswered.len() as u64) as usize;
                batch.push(unanswered.swap_remove(at));
                continue;
            }
            batch.push(self.habits.command(&self.world, |org, origin| {
                let mut ids = self.ids.borrow_mut();
                let id = ids.entry((org.to_owned(), origin.to_owned())).or_default();
                if *id == 0 || !self.world.happens(15) {
                    *id += 1;
                }
                *id
            }));
        }
        batch
    }
}
