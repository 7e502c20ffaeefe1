//! The load of a run: its threads, and what they measured together.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use crate::exchange::Timeouts;
use crate::live::Live;
use crate::load_thread::{Driven, LoadThread};
use crate::machine;
use crate::measure::{Measures, add};
use crate::open_loop::Plan;
use crate::openings::Opened;
use crate::options::{ORG_PREFIX, Profile, Run};
use crate::progress::Progress;
use crate::receipt_file::Writer;
use crate::report::{Counts, Report, Search, Workload as Asked};
use crate::search::search;
use crate::workload::{AFTER_NAME, Program, Spec, Workload, WorkloadError};
use auditor::Model;
use auditor::http::Target;
use auditor::receipts::{FORMAT, Run as ReceiptsOf};

/// The interval of the progress display.
const SHOWN_EVERY: Duration = Duration::from_millis(200);
/// The interval of the check whether all threads are done.
const LOOKED_EVERY: Duration = Duration::from_millis(10);

/// The result of a load.
pub(crate) struct Loaded {
    /// The report, without an audit.
    pub(crate) report: Report,
    /// Why the receipts are incomplete, so that an audit is impossible.
    pub(crate) unwritten: Option<anyhow::Error>,
}

/// Sets the tenants up, and drives the target as the options and the workload file say.
pub(crate) fn load(
    run: &Run,
    program: Option<&Arc<Program>>,
    receipts: &Path,
    live: &Live,
) -> Result<Loaded> {
    let (started, clock) = (Timestamp::now(), Instant::now());
    let spec = spec(run, program, started);
    let cannot_write = || format!("cannot write the receipts to {}", receipts.display());
    let model = run.audit.model.map_or_else(|| Model::of(spec.service()), Model::from);
    let of = ReceiptsOf {
        format: FORMAT,
        users: spec.user_prefix.clone(),
        service: spec.service().to_owned(),
        views: spec.views(),
        model: Some(model),
    };
    let writer = Writer::create(receipts, of).with_context(cannot_write)?;
    let mut threads = Vec::new();
    for number in 0..run.threads {
        let target = Target::new(&run.target.url, run.target.token.as_deref())?;
        threads.push(LoadThread::new(
            Workload::new(spec.clone(), number),
            target,
            writer.lines(),
            clock,
        )?);
    }
    let mut load = LoadThreads {
        run,
        live,
        threads,
        refusal: None,
        unusable: None,
        counts: Counts::default(),
        broken: None,
    };
    let driven = load.run(&spec);
    let LoadThreads { threads, refusal, unusable, counts, broken, .. } = load;
    drop(threads);
    // The writer returns the cause, the threads return only that they could not write.
    let written = writer.finish(broken.is_none() && driven.is_ok()).and(broken.map_or(Ok(()), Err));
    if let Some(why) = unusable {
        return Err(why.into());
    }
    let (measures, search) = driven?;
    let counts = match &search {
        Some(_) => counts,
        None => measures.counts(),
    };
    let report = Report {
        started: started.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        target: run.target.url.clone(),
        workload: asked(run, &spec, search.as_ref()),
        machine: machine::this(&run.target.url),
        counts,
        latencies: measures.latencies(),
        timeline: measures.timeline(),
        search,
        refusal,
        interrupted: live.is_stopped() && written.is_ok(),
        audit: None,
    };
    Ok(Loaded { report, unwritten: written.with_context(cannot_write).err() })
}

/// The threads of a load.
struct LoadThreads<'a> {
    run: &'a Run,
    live: &'a Live,
    threads: Vec<LoadThread>,
    refusal: Option<String>,
    /// Why the workload file ended the load early.
    unusable: Option<WorkloadError>,
    /// The counts of all runs of the threads.
    counts: Counts,
    /// Why the receipts could not be written any more.
    broken: Option<io::Error>,
}

impl LoadThreads<'_> {
    fn timeouts(&self) -> Timeouts {
        Timeouts { timeout: self.run.timeout, give_up: self.run.give_up }
    }

    /// Sets the tenants up, and drives the target. A stopped load returns what was measured until
    /// then.
    fn run(&mut self, spec: &Spec) -> Result<(Measures, Option<Search>)> {
        self.set_up(spec)?;
        if self.live.is_stopped() {
            return Ok((Measures::new(1.0), None));
        }
        if self.run.arrivals != Profile::Search {
            return Ok((self.drive(self.run.rate)?, None));
        }
        let (slo, first) = (self.run.slo, self.run.rate);
        let (found, best) = search(&slo, first, |rate| {
            let measures = self.drive(rate)?;
            anyhow::Ok((measures, !self.live.is_stopped()))
        })?;
        Ok((best.unwrap_or_else(|| Measures::new(1.0)), Some(found)))
    }

    fn set_up(&mut self, spec: &Spec) -> Result<()> {
        let (what, refused) = match spec.program {
            None => ("opening accounts", "the accounts cannot be opened"),
            Some(_) => ("setting up", "the target refuses the setup of the workload"),
        };
        let commands = spec.openings() as u64 * u64::from(spec.tenants);
        let bar = Progress::counting(what, commands);
        let timeouts = self.timeouts();
        let per_request = self.run.openings_per_request(spec.program.as_deref());
        let opener = &mut self.threads[0];
        let count = |settled| bar.count(settled);
        match opener.open_accounts(spec, timeouts, per_request, self.live, count) {
            Ok(Opened::Yes) => Ok(()),
            Ok(Opened::Refused(refusal)) if !self.live.is_stopped() => {
                bail!("{refused}: {refusal}")
            }
            Ok(Opened::Refused(refusal)) => {
                self.refusal = Some(refusal);
                Ok(())
            }
            Ok(Opened::NamesUsedBefore) => bail!(
                "the target already has commands of users whose names begin with `{}`, and would \
                 take new ones for repetitions: choose another --name",
                spec.user_prefix
            ),
            Ok(Opened::Unusable(error)) => Err(error.into()),
            Err(broken) => {
                self.broken = Some(broken);
                self.live.stop();
                Ok(())
            }
        }
    }

    /// Drives the target with all threads, at up to `rate`.
    fn drive(&mut self, rate: f64) -> Result<Measures> {
        let (run, live, count) = (self.run, self.live, self.threads.len());
        let timeouts = self.timeouts();
        let shape = run.shape(rate);
        let plan = |number: usize| Plan {
            shape: shape.times(1.0 / count as f64),
            offset: number as f64 / count as f64,
            poisson: run.poisson.then_some(run.seed ^ ((number as u64) << 32)),
            batch: run.batch,
            batch_of_one_tenant: run.batch_of_one_tenant,
            connections: run.connections() as usize / count,
            commands_open: run.commands_open() / count,
            samples: (run.samples / (shape.highest() * run.batch as f64)).min(1.0),
            timeouts,
        };
        let mut bar = Progress::lasting(format!("{rate:.0}/s"), run.duration, live);
        let began = Instant::now();
        let driven: Vec<thread::Result<Driven>> = thread::scope(|scope| {
            let mut handles = Vec::new();
            for (number, thread) in self.threads.iter_mut().enumerate() {
                let plan = plan(number);
                let drive = move || thread.drive(&plan, began, live);
                let builder = thread::Builder::new().name(format!("load {number}"));
                handles.push(builder.spawn_scoped(scope, drive)?);
            }
            let mut shown = began;
            while handles.iter().any(|handle| !handle.is_finished()) {
                thread::sleep(LOOKED_EVERY);
                if shown.elapsed() >= SHOWN_EVERY {
                    shown = Instant::now();
                    bar.show(live, began.elapsed());
                }
            }
            io::Result::Ok(handles.into_iter().map(ScopedJoinHandle::join).collect())
        })?;
        let mut all = Measures::new(shape.seconds());
        for driven in driven {
            let Ok(driven) = driven else { bail!("a thread of the load panicked") };
            all.merge(&driven.measures);
            self.refusal = self.refusal.take().or(driven.refusal);
            self.unusable = self.unusable.take().or(driven.unusable);
            self.broken = self.broken.take().or(driven.broken);
        }
        let (counts, before) = (all.counts(), self.counts.elapsed_s);
        add(&mut self.counts, &counts);
        let elapsed_s = before + counts.elapsed_s;
        self.counts.elapsed_s = elapsed_s;
        self.counts.accepted_per_s = self.counts.accepted as f64 / elapsed_s;
        self.counts.requests_per_s = self.counts.requests as f64 / elapsed_s;
        Ok(all)
    }
}

fn spec(run: &Run, program: Option<&Arc<Program>>, started: Timestamp) -> Spec {
    let name = || format!("r{:x}", started.as_millisecond());
    let name = run.name.clone().unwrap_or_else(name);
    // A service accepts many commands, such as "open", once for each organisation.
    let org_prefix = run.org_prefix.clone().unwrap_or_else(|| match program {
        Some(_) => format!("{ORG_PREFIX}{name}-"),
        None => ORG_PREFIX.to_owned(),
    });
    Spec {
        program: program.cloned(),
        threads: run.threads,
        tenants: run.tenants,
        org_prefix,
        zipf: run.zipf,
        users: run.users,
        clients: run.clients,
        user_prefix: format!("{name}{AFTER_NAME}"),
        payload: run.payload(),
        duplicates: run.duplicates,
        reused: run.reused,
        out_of_order: run.out_of_order,
        rejected: run.rejected(),
        transfers: run.transfers(),
        seed: run.seed,
    }
}

fn asked(run: &Run, spec: &Spec, search: Option<&Search>) -> Asked {
    let highest = search.and_then(|search| search.highest);
    let program = spec.program.as_deref();
    let of_ledger = program.is_none();
    Asked {
        service: spec.service().to_owned(),
        file: program.map(|program| program.path().display().to_string()),
        partition: spec.partition(),
        arrivals: run.arrivals_in_words(),
        rate: highest.unwrap_or(run.highest_rate()),
        duration_s: run.duration.as_secs_f64(),
        tenants: run.tenants,
        zipf: run.zipf,
        users: run.users,
        clients: run.clients,
        batch: run.batch,
        batch_of_one_tenant: run.batch_of_one_tenant,
        payload: of_ledger.then(|| run.payload()),
        duplicates: run.duplicates,
        reused: run.reused,
        out_of_order: run.out_of_order,
        rejected: of_ledger.then(|| run.rejected()),
        seed: run.seed,
        threads: usize::from(run.threads),
        connections: run.connections() as usize,
    }
}
