//! A thread of the load: its users, its connections, and its measurements.

use std::cell::RefCell;
use std::io;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::runtime::{Builder, Runtime};

use crate::exchange::Context;
use crate::live::Live;
use crate::measure::Measures;
use crate::open_loop::{OpenLoop, Plan, Sampler};
use crate::pacer::Pacer;
use crate::receipt_file::ReceiptLines;
use crate::samples::SampleSources;
use crate::workload::{Workload, WorkloadError};
use auditor::http::Target;

/// A thread of the load.
pub(crate) struct LoadThread {
    workload: Workload,
    pub(crate) receipt_lines: ReceiptLines,
    pub(crate) target: Target,
    pub(crate) runtime: Runtime,
    pacer: Pacer,
    pub(crate) sources: SampleSources,
    rng: SmallRng,
    pub(crate) clock: Instant,
}

/// What one run of a thread measured.
pub(crate) struct Driven {
    pub(crate) measures: Measures,
    pub(crate) refusal: Option<String>,
    /// Why the workload file ended the run early.
    pub(crate) unusable: Option<WorkloadError>,
    /// Why the receipts could not be written, which ended the run early.
    pub(crate) broken: Option<io::Error>,
}

impl LoadThread {
    /// `clock`: the beginning of the whole run.
    pub(crate) fn new(
        workload: Workload,
        target: Target,
        receipt_lines: ReceiptLines,
        clock: Instant,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let rng = SmallRng::seed_from_u64(workload.spec().seed);
        let (pacer, sources) = (Pacer::start()?, SampleSources::new(workload.spec()));
        Ok(Self { workload, receipt_lines, target, runtime, pacer, sources, rng, clock })
    }

    /// Drives the target until every request is answered or given up.
    pub(crate) fn drive(&mut self, plan: &Plan, began: Instant, live: &Live) -> Driven {
        let Self { workload, receipt_lines, target, runtime, pacer, sources, rng, clock } = self;
        let spec = workload.spec().clone();
        let measures = RefCell::new(Measures::new(plan.shape.seconds()));
        let (timeouts, clock) = (plan.timeouts, *clock);
        let context =
            Context { target, spec: &spec, live, measures: &measures, timeouts, began, clock };
        let sampler = Sampler::new(sources, rng, plan.samples);
        let mut open_loop = OpenLoop::new(plan, &context, workload, receipt_lines, sampler);
        let broken = runtime.block_on(open_loop.run(pacer)).err();
        if broken.is_some() {
            // No thread can write receipts any more, and a load without receipts cannot be audited.
            live.stop();
        }
        let OpenLoop { refusal, unusable, .. } = open_loop;
        Driven { measures: measures.into_inner(), refusal, unusable, broken }
    }
}
