//! Assembles an engine: connects each stage to its ports and to the source that drives it.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use fanfold::AnyView;
use fanfold::host::body::notification::ReceivedCommit;
use fanfold::host::knob::Knob;
use fanfold_pipeline::Others;
use fanfold_pipeline::ports::{CataloguePosition, Change, Env, Unavailable};
use fanfold_pipeline::process::{Processor, ReceivedRecord};
use fanfold_pipeline::sweep::{SweepReport, ViewSweep};
use fanfold_pipeline::wiring::Wiring;
use futures::future::join;
use futures::{FutureExt, TryFutureExt};

use crate::chaos::{BrokenStage, Chaos, ChaosStage};
use crate::config::Config;
use crate::event_source::{EventSource, EventSourceConfig};
use crate::ports::Ports;
use crate::recovery::{Durability, Replay, ViewGaps};
use crate::stop::Stop;
use crate::striped::lock;
use crate::subscription::{Deliveries, Messages, Subscription, SubscriptionConfig};
use crate::tasks::Tasks;
use crate::walked::Walked;

/// Bytes of logs that the processor caches between batches. Small, as a miss costs only a read from
/// memory or a local disk.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// The number of logs that one run of a sweep checks. The next run continues after them.
const SWEEP_LOGS_MAX: Knob = Knob::new(10_000, 1);
/// A hosted view, with the counts of its deliveries, its gaps, and how far its sweep has come.
pub(crate) struct HostedView {
    pub(crate) name: &'static str,
    pub(crate) deliveries: Arc<Deliveries>,
    pub(crate) gaps: Arc<ViewGaps>,
    pub(crate) walked: Arc<Walked>,
}

/// The parts of an engine that is being assembled.
pub(crate) struct Start<'a> {
    pub(crate) config: &'a Config,
    pub(crate) ports: &'a Ports,
    pub(crate) chaos: Option<Chaos>,
    pub(crate) wiring: &'a Wiring,
    pub(crate) replay: Arc<Replay>,
    pub(crate) durability: Arc<Durability>,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) stop: Stop,
    pub(crate) stages: Tasks,
    pub(crate) sweeps: Tasks,
    pub(crate) swept: Arc<Mutex<SweepReport>>,
}

impl Start<'_> {
    fn event_source<I>(&self, name: &'static str, invoke: I) -> Arc<EventSource<I>> {
        let parallelization = self.config.parallelization;
        let config = EventSourceConfig { parallelization, ..EventSourceConfig::new(name) };
        EventSource::new(config, self.env.clone(), self.stop.clone(), invoke)
    }

    pub(crate) fn relay(&self) {
        let relay = Arc::new(self.wiring.relay());
        let broken = self.broken(ChaosStage::Relay);
        let source = self.event_source("relay", move |changes: Vec<Change>, deadline| {
            let (relay, broken) = (relay.clone(), broken.clone());
            async move {
                broken.invocation(changes.iter().map(|change| &change.log)).await;
                relay.relay(&changes, deadline).await
            }
        });
        for (_, shard) in self.ports.commands.changes().iter() {
            source.drive(&shard, &self.stages);
        }
    }

    pub(crate) fn process(&self) -> Arc<Processor> {
        let processor = self.wiring.processor(self.config.services.clone());
        // The folder's lock admits one process at a time, so other processes have ended.
        let processor = processor.with_cache_bytes(CACHE_BYTES).among(Others::HaveEnded);
        let processor = Arc::new(processor.with_suspicion(self.replay.suspicion()));
        let (replay, hosted) = (self.replay.clone(), processor.clone());
        let broken = self.broken(ChaosStage::Process);
        let source = self.event_source("process", move |records: Vec<ReceivedRecord>, deadline| {
            let (replay, processor, broken) = (replay.clone(), hosted.clone(), broken.clone());
            async move {
                broken.invocation(records.iter().map(|record| &record.key)).await;
                replay.process(&processor, &records, deadline).await
            }
        });
        source.drive_all(self.ports.stream.records(), &self.stages);
        processor
    }

    pub(crate) fn sweep(&self) {
        let sweep = self.wiring.sweep();
        let (every, swept) = (self.every(), self.swept.clone());
        self.sweeps.spawn(async move {
            let mut after = None;
            while every.pause().await {
                let deadline = every.env.now().plus_ms(every.ms);
                let run =
                    sweep.sweep(after.clone(), SWEEP_LOGS_MAX.get(), deadline).map_ok(|report| {
                        let next = report.next.clone();
                        *lock(&swept) = report;
                        next
                    });
                after = every.run("sweep", after, run).await;
            }
        });
    }

    /// Starts a view on its own thread: its fold is the service author's code, and if that is slow
    /// it must not delay other stages. `has_gaps`: an earlier run has left gaps.
    pub(crate) fn view(&self, view: &Arc<dyn AnyView>, has_gaps: bool) -> io::Result<HostedView> {
        let name = view.name();
        // Cannot panic: the tables were created from the same list of views.
        let table = self.ports.views[name].clone();
        let Ports { topic, dead_letters, .. } = self.ports;
        let projector = Arc::new(self.wiring.projector(view).among(Others::HaveEnded));
        let sweep = self.wiring.view_sweep(projector.clone());
        let replay = self.replay.clone();
        let broken = self.broken(ChaosStage::View(name.to_owned()));
        let deliver = move |messages: Messages, deadline| {
            let (replay, projector, broken) = (replay.clone(), projector.clone(), broken.clone());
            async move {
                let logs = messages.iter().flat_map(|message| message.commits.iter());
                broken.invocation(logs.map(|commit| &commit.log)).await;
                let commits: Vec<&[ReceivedCommit]> =
                    messages.iter().map(|message| &message.commits[..]).collect();
                replay.project(&projector, &commits, deadline).await
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
        let gaps = ViewGaps::new(name, deliveries.clone(), table, has_gaps);
        let gaps = Arc::new(gaps);
        let (every, replay) = (self.every(), self.replay.clone());
        let (ports, noted) = (self.ports.clone(), gaps.clone());
        let walked = Arc::new(Walked::default());
        let counted = walked.clone();
        let durability = self.durability.clone();
        let sweeping = async move {
            if !replay.has_caught_up() {
                let catch_up = replay.catch_up(&sweep, &noted, &ports, &*every.env);
                every.stop.or(catch_up).await;
            }
            let completed = replay.complete(&sweep, &noted, &durability, &*every.env);
            let completed = every.stop.or(completed);
            join(completed, every.walk(name, &sweep, &noted, &replay, &counted)).await;
        };
        self.stages.spawn_thread(&format!("fanfold-view-{name}"), async move {
            join(subscription.run(), sweeping).await;
        })?;
        Ok(HostedView { name, deliveries, gaps, walked })
    }

    /// What breaks the invocations of a stage on purpose.
    fn broken(&self, stage: ChaosStage) -> BrokenStage {
        BrokenStage::new(self.chaos.clone(), stage)
    }

    fn every(&self) -> Every {
        Every { ms: self.config.sweep_ms, env: self.env.clone(), stop: self.stop.clone() }
    }
}

/// Runs a sweep every `ms` milliseconds.
struct Every {
    ms: u64,
    env: Arc<dyn Env>,
    stop: Stop,
}

impl Every {
    /// Waits for the next run. `false`: stop was signalled.
    async fn pause(&self) -> bool {
        self.stop.or(self.env.sleep(self.ms)).await.is_some()
    }

    /// Runs a view's sweep over all logs repeatedly, until stop is signalled. The first walk begins at once and does not
    /// pause, since the view may be new.
    async fn walk(
        &self,
        name: &'static str,
        sweep: &ViewSweep,
        gaps: &ViewGaps,
        replay: &Replay,
        walked: &Walked,
    ) {
        let mut after = None;
        // The gaps that the current walk closes; `None`: it has missed a log.
        let mut closes = None;
        let mut is_first = true;
        loop {
            if after.is_none() {
                closes = Some(gaps.walk_begins(self.env.now()));
                walked.begin();
            }
            let deadline = self.env.now().plus_ms(self.ms);
            let run = sweep.sweep(after.clone(), SWEEP_LOGS_MAX.get(), deadline);
            let mut ran = None;
            let run = replay.sweep(run).map_ok(|report| {
                let missed = report.failed.len() + report.under_way + report.undelivered;
                ran = Some(missed == 0);
                walked.inspected(report.logs, report.parked.len());
                report.next
            });
            let next = self.run(name, after.clone(), run).await;
            closes = closes.filter(|_| ran == Some(true));
            if ran.is_some() && next.is_none() {
                walked.end(closes.is_some());
                if let Some(closed) = closes {
                    gaps.walk_ended(closed);
                }
            }
            is_first &= next.is_some() || ran.is_none();
            let progressed = ran.is_some() && next.is_some() && next != after;
            after = next;
            if progressed && is_first {
                continue;
            }
            if !self.pause().await {
                return;
            }
        }
    }

    /// Runs a sweep over a part of the catalogue. Returns where the next run continues.
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
