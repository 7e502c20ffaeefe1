//! The callers of the stages: event sources, schedules and operators. Event sources retry and
//! redeliver as Lambda's mappings and SNS do, and inject the transport's faults.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use async_trait::async_trait;
use fanfold::host::body::parked::Reason;
use fanfold::host::body::{notification, record::Record};
use fanfold::{AnyView, LogId, Seq, Time};
use fanfold_embedded::testing::{StoredDeadLetters, StoredParked, StoredView};
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::operate::{Done, LIST_MAX, Operate, WaitingItem};
use fanfold_pipeline::ports::{Change, Env, ParkedTable, ViewTable, Waits};
use fanfold_pipeline::process::{Processor, ProcessorPorts, ReceivedRecord, Suspicion};
use fanfold_pipeline::project::Projector;
use fanfold_pipeline::relay::Relay;
use fanfold_pipeline::sweep::{Sweep, ViewSweep};
use futures::future::{Either, select};

use crate::attempts::counted;
use crate::executor::{Executor, Join, World};
use crate::faults::{Fault, LATE_MS_MAX};
use crate::services::{Deployed, services};
use crate::transport::{Notification, Notifications, Queue, Received};
use crate::watch::Watch;

/// Warm environments of a stage at the same time.
const ENVIRONMENTS: u64 = 3;
/// Most records or changes in a batch.
const BATCH_MAX: u64 = 30;
/// How long an invocation may take.
const DEADLINE_MS: std::ops::Range<u64> = 2_000..15_000;
/// How long an invocation may run past its deadline before it is killed.
pub const GRACE_MS: u64 = 10_000;
/// How long an invocation runs before the driver kills it or abandons it.
const RUNS_MS: std::ops::Range<u64> = 0..400;
/// Pauses between polls, and after failures.
const POLL_MS: std::ops::Range<u64> = 5..60;
pub(crate) const BACKOFF_MS: std::ops::Range<u64> = 50..1_500;
/// How long a shard is delayed: longer than the retry of most batches takes.
const SHARD_DELAY_MS_MAX: u64 = 15_000;
/// SNS retries twice.
const DELIVERIES_MAX: u32 = 3;
/// Concurrent deliveries of one view.
const DELIVERIES_AT_ONCE: usize = 3;
/// The sweeps' interval, and the logs that each run inspects.
const SWEEP_MS: u64 = 15_000;
const SWEEP_LOGS: usize = 5;
/// Bound (exclusive) of extra runs of a view's sweep beside the one that is due.
const PILED_UP_MAX: u64 = 5;
/// The interval at which the operator releases parked suspects and views.
const OPERATOR_MS: u64 = 40_000;
/// Pauses between two rebuilds, and requests of one.
const REBUILD_MS: std::ops::Range<u64> = 1_000..30_000;
const REBUILD_REQUESTS: u64 = 30;
/// How long after the begin of a call of a view none of its writes takes effect any more, in milliseconds: the longest
/// deadline, the grace, the latest effect of a call that timed out, and the latencies.
pub(crate) const VIEW_CALL_MS: u64 = DEADLINE_MS.end + GRACE_MS + LATE_MS_MAX + 100;
/// How long a wait sleeps.
const NAP_MS: u64 = 50;

/// State that all drivers share.
#[derive(Clone)]
pub struct Stage {
    /// Starts tasks.
    pub executor: Executor,
    /// The virtual clock and the randomness.
    pub world: World,
    /// The fault layer and the auditor.
    pub watch: Watch,
    /// Running invocations, deliveries and clients. The run is not quiet until this is zero.
    pub busy: Rc<Cell<usize>>,
}

impl Stage {
    pub(crate) async fn pause(&self, range: std::ops::Range<u64>) {
        self.world.sleep(self.world.pick(range)).await;
    }

    pub(crate) fn deadline(&self) -> Time {
        self.world.now().plus_ms(self.world.pick(DEADLINE_MS))
    }

    /// Calls a stage as Lambda does, and kills it [`GRACE_MS`] after its deadline. Returns `None`
    /// if the invocation was killed, or became a zombie that runs on without a caller.
    pub(crate) async fn invoke<T: 'static>(
        &self,
        deadline: Time,
        invocation: impl Future<Output = T> + 'static,
    ) -> Option<T> {
        self.busy.set(self.busy.get() + 1);
        let join = self.executor.spawn(invocation);
        let end = Box::pin(self.world.sleep(deadline.plus_ms(GRACE_MS).since_ms(self.world.now())));
        let result = if self.watch.faults.invocation(Fault::Killed) {
            let result = self.within(&join).await;
            self.kill(&join);
            result
        } else if self.watch.faults.invocation(Fault::Zombie) {
            let result = self.within(&join).await;
            let stage = self.clone();
            self.executor.spawn(async move {
                stage.world.sleep(deadline.plus_ms(GRACE_MS).since_ms(stage.world.now())).await;
                stage.kill(&join);
            });
            result
        } else {
            match select(&join, end).await {
                Either::Left((result, _)) => Some(result),
                Either::Right(_) => {
                    self.kill(&join);
                    None
                }
            }
        };
        self.busy.set(self.busy.get() - 1);
        result
    }

    fn kill<T>(&self, join: &Join<T>) {
        if join.kill() {
            self.watch.killed(join.id());
        }
    }

    async fn within<T: 'static>(&self, join: &Join<T>) -> Option<T> {
        let end = Box::pin(self.pause(RUNS_MS));
        match select(join, end).await {
            Either::Left((result, _)) => Some(result),
            Either::Right(_) => None,
        }
    }

    /// Drives one shard: delivers batches in order, and retries from the first unfinished record.
    /// As with Lambda, a retry has the rest of the batch or half of it, and no further records.
    async fn drive<T: Clone + Send + 'static, F: Future<Output = BatchOutcome> + 'static>(
        &self,
        shard: &Queue<T>,
        invoke: impl Fn(Vec<T>, Time) -> F,
        acknowledged: impl AsyncFn(&[T]),
    ) {
        let size_max = 1 + self.world.pick(0..BATCH_MAX);
        // Sizes of the parts in which the rest of a batch is retried, the next one last.
        let mut parts: Vec<usize> = Vec::new();
        loop {
            let next = parts.pop();
            let batch =
                shard.take(next.unwrap_or_else(|| 1 + self.world.pick(0..size_max) as usize));
            if batch.is_empty() {
                self.pause(POLL_MS).await;
                continue;
            }
            if self.watch.faults.transport(Fault::ShardDelayed) {
                self.pause(0..SHARD_DELAY_MS_MAX).await;
            }
            let deadline = self.deadline();
            let outcome = self.invoke(deadline, invoke(batch.clone(), deadline)).await;
            let done = match outcome {
                Some(BatchOutcome { unfinished }) => unfinished.unwrap_or(batch.len()),
                None => 0,
            };
            acknowledged(&batch[..done]).await;
            if done == batch.len() && self.watch.faults.transport(Fault::BatchTwice) {
                parts.push(done);
                continue;
            }
            shard.pass(done);
            let left = batch.len() - done;
            let half = left.div_ceil(2);
            if done == 0 && half < left {
                self.watch.faults.count(Fault::Bisected);
                parts.extend([left - half, half]);
            } else if left > 0 {
                parts.push(left);
            }
            if left > 0 {
                self.pause(BACKOFF_MS).await;
            }
        }
    }
}

/// The environments of a stage. Faults replace one, or choose another for the next batch.
struct Environments<T> {
    warm: RefCell<Vec<Rc<T>>>,
    last: Cell<u64>,
}

impl<T> Environments<T> {
    fn new(make: impl Fn() -> T) -> Self {
        let warm = (0..ENVIRONMENTS).map(|_| Rc::new(make())).collect();
        Self { warm: RefCell::new(warm), last: Cell::new(0) }
    }

    fn replace(&self, make: impl Fn() -> T) {
        self.warm.borrow_mut().fill_with(|| Rc::new(make()));
    }

    fn pick(&self, stage: &Stage, make: impl Fn() -> T) -> Rc<T> {
        let mut at = self.last.get();
        if stage.watch.faults.transport(Fault::OtherEnvironment) {
            at = (at + 1 + stage.world.pick(0..ENVIRONMENTS - 1)) % ENVIRONMENTS;
            self.last.set(at);
        }
        let mut warm = self.warm.borrow_mut();
        if stage.watch.faults.transport(Fault::ColdStart) {
            warm[at as usize] = Rc::new(make());
        }
        warm[at as usize].clone()
    }
}

/// The change stream's mapping.
pub async fn relay(stage: Stage, shard: Queue<Change>, make: impl Fn() -> Relay) {
    let relays = Environments::new(&make);
    let invoke = |batch: Vec<Change>, deadline| {
        let relay = relays.pick(&stage, &make);
        async move { relay.relay(&batch, deadline).await }
    };
    let acknowledged = async |batch: &[Change]| {
        for change in batch {
            stage.watch.audit(|model| model.change_acknowledged(&change.log, change.last));
        }
    };
    stage.drive(&shard, invoke, acknowledged).await;
}

/// The command stream's mapping.
pub async fn process(
    stage: Stage,
    shard: Queue<Received>,
    ports: ProcessorPorts,
    deployed_at: Time,
    suspicion: Suspicion,
    canaries_are_published: bool,
    parked: Arc<StoredParked>,
) {
    // In some runs processors have no cache, and load each log for each batch.
    let forgets = stage.world.happens(250);
    let deployed = || match stage.world.now() < deployed_at {
        true => Deployed::First,
        false => Deployed::Second,
    };
    let make = || {
        let services = services(deployed());
        let processor = Processor::new(ports.clone(), services).with_suspicion(suspicion);
        let processor = if forgets { processor.with_cache_bytes(0) } else { processor };
        if canaries_are_published { processor.with_canaries_published() } else { processor }
    };
    let processors = Environments::new(make);
    let current = Cell::new(deployed());
    let invoke = |batch: Vec<Received>, deadline| {
        if current.replace(deployed()) != deployed() {
            // Invocations of the old version go on, but no further one begins.
            stage.watch.faults.count(Fault::Deployed);
            processors.replace(make);
        }
        let processor = processors.pick(&stage, make);
        let records = batch.into_iter().map(|Received { record, arrived }| ReceivedRecord {
            key: record.key,
            data: record.data,
            arrived,
        });
        let records: Vec<ReceivedRecord> = records.collect();
        async move { processor.process(&records, deadline).await }
    };
    let acknowledged = async |batch: &[Received]| {
        for received in batch {
            let Ok(decoded) = Record::decode(&received.record.data) else { continue };
            for part in &decoded.parts {
                for seq in (part.first().0..=part.last.0).map(Seq) {
                    let waiting = parked.list(&decoded.log, (seq, ""), 1).await.unwrap_or_default();
                    let waits = waiting.iter().any(|item| item.seq == seq);
                    let log = &decoded.log;
                    stage.watch.audit(|model| model.command_acknowledged(log, seq, waits));
                }
            }
        }
    };
    stage.drive(&shard, invoke, acknowledged).await;
}

/// A view's subscription.
pub async fn subscribe(
    stage: Stage,
    notifications: Notifications,
    projector: Arc<Projector>,
    table: Arc<StoredView>,
    dead_letters: Arc<StoredDeadLetters>,
) {
    let under_way = Rc::new(Cell::new(0));
    loop {
        let next = match under_way.get() {
            DELIVERIES_AT_ONCE.. => None,
            _ => notifications.take(stage.world.now()),
        };
        let Some(next) = next else {
            stage.pause(POLL_MS).await;
            continue;
        };
        under_way.set(under_way.get() + 1);
        stage.busy.set(stage.busy.get() + 1);
        let (stage, under_way) = (stage.clone(), under_way.clone());
        let (notifications, projector) = (notifications.clone(), projector.clone());
        let (table, dead_letters) = (table.clone(), dead_letters.clone());
        stage.executor.clone().spawn(async move {
            deliver(&stage, next, &notifications, projector, &table, &dead_letters).await;
            under_way.set(under_way.get() - 1);
            stage.busy.set(stage.busy.get() - 1);
        });
    }
}

async fn deliver(
    stage: &Stage,
    notification: Notification,
    notifications: &Notifications,
    projector: Arc<Projector>,
    table: &StoredView,
    dead_letters: &StoredDeadLetters,
) {
    let Notification { attempts, body, .. } = notification;
    let (view, deadline) = (projector.view().clone(), stage.deadline());
    let messages = vec![body.clone()];
    let invocation = async move { projector.project(&messages, deadline).await };
    match stage.invoke(deadline, invocation).await {
        Some(failed) if failed.is_empty() => {
            let text = std::str::from_utf8(&body).unwrap_or_default();
            for commit in notification::decode(text).unwrap_or_default() {
                if view.services().contains(&commit.log.service()) {
                    let cursor = table.cursor(&commit.log).await.ok().flatten().unwrap_or_default();
                    let excused = cursor.parked.is_some() || cursor.behind.is_some();
                    let commit = (&commit.log, commit.last);
                    stage.watch.audit(|model| {
                        model.message_acknowledged(view.name(), commit, cursor.seq, excused);
                    });
                }
            }
        }
        _ if attempts + 1 < DELIVERIES_MAX => {
            let due = stage.world.now().plus_ms(stage.world.pick(BACKOFF_MS));
            notifications.again(Notification { due, attempts: attempts + 1, body });
        }
        _ => {
            stage.watch.faults.count(Fault::DeadLetter);
            dead_letters.push(view.name(), body);
        }
    }
}

/// The schedule of the sweep.
pub async fn sweep(stage: Stage, sweep: Rc<Sweep>) {
    let mut next = None;
    loop {
        stage.world.sleep(SWEEP_MS).await;
        let (sweep, after, deadline) = (sweep.clone(), next.clone(), stage.deadline());
        let swept = async move { sweep.sweep(after, SWEEP_LOGS, deadline).await };
        if let Some(Ok(report)) = stage.invoke(deadline, swept).await {
            next = report.next;
        }
    }
}

/// The operator of commands: lets parked suspects go on or gives them up, and nudges logs with commits
/// that the topic refused, so that the processor publishes them again.
pub async fn operate(stage: Stage, operate: Operate) {
    loop {
        stage.world.sleep(OPERATOR_MS).await;
        let (mut after, mut nudged) = (None, BTreeSet::new());
        loop {
            // If a call fails, the next round repeats it.
            let Ok(page) = operate.waiting(None, after.as_ref(), LIST_MAX).await else { break };
            for WaitingItem { log, seq, identity, reason, .. } in page.items {
                let identity = Some(identity.as_str());
                match reason {
                    Reason::Suspect if stage.world.pick(0..4) == 0 => {
                        stage.watch.note(|| format!("give up {log} {seq}"));
                        stage.watch.audit(|model| model.given_up(&log, seq));
                        let _ = operate.skip(&log, seq, identity, "it crashes").await;
                    }
                    // A nudge of the log is for all of its refused commits.
                    Reason::Unpublished if !nudged.insert(log.clone()) => {}
                    Reason::Suspect | Reason::Unpublished => {
                        stage.watch.note(|| format!("resume {log} {seq}"));
                        let _ = operate.resume(&log, seq, identity).await;
                    }
                    Reason::Gap
                    | Reason::NoService
                    | Reason::CannotFold
                    | Reason::Conflict
                    | Reason::Undecodable
                    | Reason::GivenUp => {}
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
}

/// The schedule of a view's sweep. Sometimes several runs begin at the same position, each in its
/// own environment.
pub async fn sweep_view(stage: Stage, make: impl Fn() -> ViewSweep) {
    let sweeps = Environments::new(&make);
    let mut next = None;
    loop {
        stage.world.sleep(SWEEP_MS).await;
        if stage.watch.faults.piles_up() {
            for _ in 0..stage.world.pick(1..PILED_UP_MAX) {
                let (stage, sweep, after) = (stage.clone(), make(), next.clone());
                let deadline = stage.deadline();
                stage.executor.clone().spawn(async move {
                    stage.pause(RUNS_MS).await;
                    let swept = async move { sweep.sweep(after, SWEEP_LOGS, deadline).await };
                    stage.invoke(deadline, swept).await
                });
            }
        }
        let (sweep, after) = (sweeps.pick(&stage, &make), next.clone());
        let deadline = stage.deadline();
        let swept = async move { sweep.sweep(after, SWEEP_LOGS, deadline).await };
        if let Some(Ok(report)) = stage.invoke(deadline, swept).await {
            next = report.next;
        }
    }
}

/// The operator of views: releases a view that was parked after crashes.
pub async fn release(stage: Stage, view: &'static str, table: Arc<StoredView>) {
    loop {
        stage.world.sleep(OPERATOR_MS).await;
        let logs = stage.watch.model().log_ids();
        for log in logs {
            let cursor = table.cursor(&log).await.ok().flatten().unwrap_or_default();
            if let Some(parked) = cursor.parked.filter(|parked| counted(&parked.reason).is_some()) {
                stage.watch.note(|| format!("release {view} {log}"));
                // The in-memory table does not fail.
                let _ = table.release(&log, &parked, None).await;
            }
        }
    }
}

/// The operator that has single logs of views rebuilt. It may leave one half-way, and comes back to it. Without faults it
/// begins none.
pub async fn rebuild(
    stage: Stage,
    operate: Operate,
    views: Vec<(Arc<dyn AnyView>, Arc<StoredView>)>,
) {
    let begins = stage.world.happens(600);
    loop {
        stage.pause(REBUILD_MS).await;
        let mut all = Vec::new();
        let mut half = Vec::new();
        let logs = stage.watch.model().log_ids();
        for log in logs {
            for (view, table) in views.iter().filter(|(v, _)| v.services().contains(&log.service()))
            {
                // The in-memory table does not fail.
                let cursor = table.cursor(&log).await.ok().flatten().unwrap_or_default();
                let list = match cursor.parked.and_then(|parked| parked.rebuild) {
                    Some(_) => &mut half,
                    None => &mut all,
                };
                list.push((view.name(), log.clone()));
            }
        }
        let from = match (half.is_empty(), begins && stage.watch.faults.are_on()) {
            (false, _) => half,
            (true, true) if !all.is_empty() => all,
            (true, _) => continue,
        };
        let (view, log) = from[stage.world.pick(0..from.len() as u64) as usize].clone();
        rebuild_one(&stage, &operate, view, &log).await;
    }
}

async fn rebuild_one(stage: &Stage, operate: &Operate, view: &'static str, log: &LogId) {
    let mut begun = None;
    for _ in 0..1 + stage.world.pick(0..REBUILD_REQUESTS) {
        let (operate, log) = (operate.clone(), log.clone());
        let request = async move { operate.rebuild(view, &log, begun).await };
        match stage.invoke(stage.deadline(), request).await {
            Some(Ok(Done::Rebuilding { begun: of, wait_ms, .. })) => {
                begun = of;
                stage.world.sleep(wait_ms).await;
            }
            Some(Ok(_)) => return,
            Some(Err(_)) | None => stage.pause(BACKOFF_MS).await,
        }
    }
}

/// Waits by sleeping. It may return early; the caller reads again.
pub struct Naps(pub World);

#[async_trait]
impl Waits for Naps {
    async fn entry(&self, _: &LogId, _: Seq, ms: u64) {
        self.0.sleep(ms.min(NAP_MS)).await;
    }

    async fn view(&self, _: &str, _: &dyn ViewTable, _: &LogId, _: Seq, ms: u64) {
        self.0.sleep(ms.min(NAP_MS)).await;
    }
}
