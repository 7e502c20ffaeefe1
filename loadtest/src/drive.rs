//! A thread of the load: its users, its connections, and what it measures.

use std::cell::RefCell;
use std::io;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::runtime::{Builder, Runtime};

use crate::arrivals::Shape;
use crate::evidence::Evidence;
use crate::exchange::{Context, Patience};
use crate::live::Live;
use crate::measure::Measures;
use crate::open_loop::{Desk, Sampler, open_loop};
use crate::pacer::Pacer;
use crate::samples::Turns;
use crate::workload::Workload;
use auditor::http::Target;

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
    /// Commands under way or waiting to be sent again, at most.
    pub(crate) commands_open: usize,
    /// Share of the commands that are looked for.
    pub(crate) samples: f64,
    /// How long each request is tried.
    pub(crate) patience: Patience,
}

/// A thread of the load.
pub(crate) struct Lane {
    workload: Workload,
    pub(crate) evidence: Evidence,
    pub(crate) target: Target,
    pub(crate) runtime: Runtime,
    pacer: Pacer,
    pub(crate) turns: Turns,
    chance: SmallRng,
    pub(crate) clock: Instant,
}

/// What a thread measured, and why the first command that was refused was.
pub(crate) struct Driven {
    pub(crate) measures: Measures,
    pub(crate) refusal: Option<String>,
    /// Why it ended early: what it was told could not be written down.
    pub(crate) broken: Option<io::Error>,
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
    pub(crate) fn drive(&mut self, plan: &Plan, began: Instant, live: &Live) -> Driven {
        let Self { workload, evidence, target, runtime, pacer, turns, chance, clock } = self;
        let spec = workload.spec().clone();
        let measures = RefCell::new(Measures::new(plan.shape.seconds()));
        let (patience, clock) = (plan.patience, *clock);
        let context =
            Context { target, spec: &spec, live, measures: &measures, patience, began, clock };
        let sampler = Sampler::new(turns, chance, plan.samples);
        let mut desk = Desk::new(plan, &context, workload, evidence, sampler);
        let broken = runtime.block_on(open_loop(&mut desk, pacer)).err();
        if broken.is_some() {
            // The others cannot write either, and what nobody writes down nobody can audit.
            live.stop();
        }
        let refusal = desk.refusal;
        Driven { measures: measures.into_inner(), refusal, broken }
    }
}
