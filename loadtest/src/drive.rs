//! The open loop: requests leave when they are due, whatever became of those before them.
//!
//! If all connections are busy when a request is due, it leaves late; its time counts from when it
//! was due, so that a target which stands still is seen as its users would see it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::{Builder, Runtime};

use crate::arrivals::{Arrivals, Shape};
use crate::evidence::Evidence;
use crate::exchange::{Context, Exchange, Patience};
use crate::http::Target;
use crate::live::Live;
use crate::measure::{Kind, Measures};
use crate::pacer::Pacer;
use crate::samples::{self, Sample, Turns};
use crate::workload::{OPENINGS, Order, Workload};

/// How long after the end requests may still leave that were due before it.
const LATE_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether the load was stopped.
const LOOK: Duration = Duration::from_millis(100);
/// Requests under way while the accounts are opened.
const OPENINGS_UNDER_WAY: usize = 8;

/// What one thread is to do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Its share of the requests per second.
    pub(crate) shape: Shape,
    /// Where its arrivals stand between those of the others: 0 to 1.
    pub(crate) offset: f64,
    /// As independent users come, with this seed.
    pub(crate) poisson: Option<u64>,
    /// Commands in a request.
    pub(crate) batch: usize,
    /// Whether all of a request are of one organisation.
    pub(crate) batch_of_one_tenant: bool,
    /// Requests under way, at most.
    pub(crate) connections: usize,
    /// Share of the commands that are looked for.
    pub(crate) samples: f64,
    /// How long each request is tried.
    pub(crate) patience: Patience,
}

/// A thread of the load, with its users and connections.
pub(crate) struct Lane {
    pub(crate) workload: Workload,
    pub(crate) evidence: Evidence,
    target: Target,
    runtime: Runtime,
    pacer: Pacer,
    turns: Turns,
    chance: SmallRng,
    clock: Instant,
}

/// What a thread measured, and why the first command that was refused was.
pub(crate) struct Driven {
    pub(crate) measures: Measures,
    pub(crate) refusal: Option<String>,
}

impl Lane {
    /// `clock`: when the run began.
    pub(crate) fn new(
        workload: Workload,
        target: Target,
        evidence: Evidence,
        clock: Instant,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let chance = SmallRng::seed_from_u64(workload.spec().seed);
        let (pacer, turns) = (Pacer::start()?, Turns::default());
        Ok(Self { workload, evidence, target, runtime, pacer, turns, chance, clock })
    }

    /// Drives the target, and returns once everything that left came back.
    pub(crate) fn drive(&mut self, plan: &Plan, began: Instant, live: &Live) -> io::Result<Driven> {
        let Self { workload, evidence, target, runtime, pacer, turns, chance, clock } = self;
        let spec = workload.spec().clone();
        let measures = RefCell::new(Measures::new(plan.shape.seconds()));
        let context = Context {
            target,
            spec: &spec,
            live,
            measures: &measures,
            patience: plan.patience,
            began,
            clock: *clock,
        };
        let sampler = Sampler { turns, chance, share: plan.samples, waiting: VecDeque::new() };
        let refusal =
            runtime.block_on(open_loop(plan, &context, workload, evidence, pacer, sampler))?;
        Ok(Driven { measures: measures.into_inner(), refusal })
    }

    /// Opens the accounts of so many organisations from `first` on, and says how many commands that
    /// were; then waits until a view has the last of them.
    pub(crate) fn open_accounts(
        &mut self,
        patience: Patience,
        commands_per_request: usize,
        live: &Live,
        progress: impl Fn(u64),
    ) -> io::Result<Driven> {
        let Self { workload, evidence, target, runtime, turns, clock, .. } = self;
        let spec = workload.spec().clone();
        let measures = RefCell::new(Measures::new(1.0));
        let began = Instant::now();
        let context = Context {
            target,
            spec: &spec,
            live,
            measures: &measures,
            patience,
            began,
            clock: *clock,
        };
        let per_request = (commands_per_request / OPENINGS).max(1);
        let tenants = (0..spec.tenants).step_by(per_request);
        let requests = futures::stream::iter(tenants).map(|first| {
            let last = spec.tenants.min(first + per_request as u32);
            context.exchange(Workload::openings(first..last), context.now())
        });
        let refusal = runtime.block_on(async {
            let (mut refusal, mut last) = (None, None);
            let mut answered = requests.buffer_unordered(OPENINGS_UNDER_WAY);
            while let Some(exchange) = answered.next().await {
                for (order, seq) in &exchange.outcomes {
                    evidence.sent(&spec, order, *seq)?;
                    last = seq.map(|seq| (order.log(&spec), seq)).or(last);
                }
                refusal = refusal.or(exchange.refusal);
                progress(measures.borrow().counts.accepted);
                if refusal.is_some() || live.is_stopped() {
                    break;
                }
            }
            drop(answered);
            for _ in 0..samples::PLACES {
                if let Some((log, seq)) = &last {
                    let sample = turns.sample(log.clone(), *seq, context.now());
                    context.look_for(&sample).await;
                }
            }
            evidence.flush()?;
            io::Result::Ok(refusal)
        })?;
        Ok(Driven { measures: measures.into_inner(), refusal })
    }
}

/// Chooses commands that are looked for, and keeps those that wait for their turn.
struct Sampler<'a> {
    turns: &'a mut Turns,
    chance: &'a mut SmallRng,
    share: f64,
    waiting: VecDeque<Sample>,
}

impl Sampler<'_> {
    fn offer(&mut self, context: &Context<'_>, order: &Order, seq: u64, due: Duration) {
        if self.share == 0.0 || !self.chance.random_bool(self.share) {
            return;
        }
        if self.waiting.len() == samples::WAITING_MAX {
            context.measures.borrow_mut().counts.samples_dropped += 1;
            return;
        }
        let sample = self.turns.sample(order.log(context.spec), seq, due);
        self.waiting.push_back(sample);
    }
}

/// Returns why the first command that was refused was.
async fn open_loop(
    plan: &Plan,
    context: &Context<'_>,
    workload: &mut Workload,
    evidence: &mut Evidence,
    pacer: &mut Pacer,
    mut sampler: Sampler<'_>,
) -> io::Result<Option<String>> {
    let mut arrivals = match plan.poisson {
        Some(seed) => Arrivals::poisson(plan.shape.clone(), seed),
        None => Arrivals::even(plan.shape.clone(), plan.offset),
    };
    let end = Duration::from_secs_f64(plan.shape.seconds());
    let commands = plan.batch as u64;
    let mut under_way = FuturesUnordered::new();
    let mut looking = FuturesUnordered::new();
    let mut look = tokio::time::interval(LOOK);
    let mut next = arrivals.next();
    let mut refusal = None;
    loop {
        let due = next.unwrap_or_default();
        let may_leave = next.is_some() && under_way.len() < plan.connections;
        tokio::select! {
            biased;
            Some(exchange) = under_way.next() => {
                let exchange: Exchange = exchange;
                context.live.came_back();
                for (order, seq) in &exchange.outcomes {
                    evidence.sent(context.spec, order, *seq)?;
                    if let Some(seq) = seq {
                        workload.was_answered(order);
                        sampler.offer(context, order, *seq, exchange.due);
                    }
                }
                refusal = refusal.or(exchange.refusal);
            }
            Some(line) = looking.next() => match line {
                Some(line) => evidence.line(&line)?,
                None => context.measures.borrow_mut().counts.samples_unseen += 1,
            },
            () = pacer.until(context.began + due), if may_leave => {
                let now = context.now();
                let mut measures = context.measures.borrow_mut();
                measures.due(due, commands);
                measures.took(Kind::Send, due, now);
                drop(measures);
                context.live.left((now.saturating_sub(due)).as_micros() as u64);
                let orders = workload.next_request(plan.batch, plan.batch_of_one_tenant);
                under_way.push(context.exchange(orders, due));
                next = arrivals.next();
            }
            _ = look.tick() => {
                evidence.flush()?;
                let now = context.now();
                let is_over = context.live.is_stopped() || now > end + LATE_MAX;
                if is_over && next.is_some() {
                    // What was due until now was due, and never left.
                    let mut measures = context.measures.borrow_mut();
                    for due in next.into_iter().chain(arrivals.by_ref()).take_while(|due| *due <= now) {
                        measures.due(due, commands);
                        measures.counts.unsent += commands;
                    }
                    next = None;
                }
            }
        }
        while looking.len() < samples::UNDER_WAY_MAX
            && let Some(sample) = sampler.waiting.pop_front()
        {
            looking.push(async move { context.look_for(&sample).await });
        }
        if next.is_none() && under_way.is_empty() && looking.is_empty() {
            evidence.flush()?;
            return Ok(refusal);
        }
    }
}
