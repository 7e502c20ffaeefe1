//! The load of a run: threads that drive the target, and what they measured together.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use crate::drive::{Driven, Lane, Plan};
use crate::evidence::Writer;
use crate::exchange::Patience;
use crate::http::Target;
use crate::live::Live;
use crate::machine;
use crate::measure::{Measures, add};
use crate::options::{Kind, Run};
use crate::progress::Progress;
use crate::report::{Counts, Report, Search, Workload as Asked};
use crate::search::search;
use crate::workload::{OPENINGS, Spec, Workload};

/// How often the progress is shown.
const SHOWN_EVERY: Duration = Duration::from_millis(200);
/// How often it is looked whether all threads are done.
const LOOKED_EVERY: Duration = Duration::from_millis(10);

/// Opens the accounts, and drives the target as the options say. The report is without an audit.
pub(crate) fn load(run: &Run, receipts: &Path, live: &Live) -> Result<Report> {
    let (started, clock) = (Timestamp::now(), Instant::now());
    let spec = spec(run, started);
    let cannot_write = || format!("cannot write the receipts to {}", receipts.display());
    let writer = Writer::create(receipts, &spec.user_prefix).with_context(cannot_write)?;
    let mut lanes = Vec::new();
    for lane in 0..run.threads {
        let target = Target::new(&run.place.target, run.place.token.as_deref())?;
        lanes.push(Lane::new(Workload::new(spec.clone(), lane), target, writer.evidence(), clock)?);
    }
    let mut fleet = Fleet { run, live, lanes, refusal: None, counts: Counts::default() };
    fleet.open_accounts(&spec)?;
    let (measures, search) = match run.arrivals {
        Kind::Search => {
            let (found, best) = search(&run.slo, run.rate, |rate| fleet.step(rate))?;
            (best.unwrap_or_else(|| Measures::new(1.0)), Some(found))
        }
        Kind::Constant | Kind::Ramp | Kind::Spike => (fleet.drive(run.rate)?, None),
    };
    let Fleet { lanes, refusal, counts, .. } = fleet;
    drop(lanes);
    writer.finish().with_context(cannot_write)?;
    let counts = match &search {
        Some(_) => counts,
        None => measures.counts(),
    };
    Ok(Report {
        started: started.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        target: run.place.target.clone(),
        workload: asked(run, search.as_ref()),
        machine: machine::this(&run.place.target),
        counts,
        latencies: measures.latencies(),
        timeline: measures.timeline(),
        search,
        refusal,
        interrupted: live.is_stopped(),
        audit: None,
    })
}

/// The threads.
struct Fleet<'a> {
    run: &'a Run,
    live: &'a Live,
    lanes: Vec<Lane>,
    refusal: Option<String>,
    /// Over everything that was driven.
    counts: Counts,
}

impl Fleet<'_> {
    fn patience(&self) -> Patience {
        Patience { timeout: self.run.timeout, give_up: self.run.give_up }
    }

    fn open_accounts(&mut self, spec: &Spec) -> Result<()> {
        let bar = Progress::counting("opening accounts", OPENINGS as u64 * u64::from(spec.tenants));
        let (patience, per_request) = (self.patience(), self.run.openings_per_request());
        let opener = &mut self.lanes[0];
        let opened =
            opener.open_accounts(patience, per_request, self.live, |count| bar.count(count))?;
        if self.live.is_stopped() {
            bail!("stopped while the accounts were opened");
        }
        match opened.refusal {
            Some(refusal) => bail!("the accounts cannot be opened: {refusal}"),
            None => Ok(()),
        }
    }

    /// A step of a search; `None`: it was stopped.
    fn step(&mut self, rate: f64) -> Result<Option<Measures>> {
        let measures = self.drive(rate)?;
        Ok((!self.live.is_stopped()).then_some(measures))
    }

    /// Drives the target with all threads, up to a rate.
    fn drive(&mut self, rate: f64) -> Result<Measures> {
        let (run, live, threads) = (self.run, self.live, self.lanes.len());
        let patience = self.patience();
        let shape = run.shape(rate);
        let plan = |lane: usize| Plan {
            shape: shape.times(1.0 / threads as f64),
            offset: lane as f64 / threads as f64,
            poisson: run.poisson.then_some(run.seed ^ ((lane as u64) << 32)),
            batch: run.batch,
            batch_of_one_tenant: run.batch_of_one_tenant,
            connections: run.connections() as usize / threads,
            samples: (run.samples / rate.max(run.highest_rate())).min(1.0),
            patience,
        };
        let mut bar = Progress::lasting(format!("{rate:.0}/s"), run.duration);
        let began = Instant::now();
        let driven: Vec<io::Result<Driven>> = thread::scope(|scope| {
            let mut threads = Vec::new();
            for (number, lane) in self.lanes.iter_mut().enumerate() {
                let plan = plan(number);
                let drive = move || lane.drive(&plan, began, live);
                let thread = thread::Builder::new().name(format!("load {number}"));
                threads.push(thread.spawn_scoped(scope, drive)?);
            }
            let mut shown = began;
            while threads.iter().any(|thread| !thread.is_finished()) {
                thread::sleep(LOOKED_EVERY);
                if shown.elapsed() >= SHOWN_EVERY {
                    shown = Instant::now();
                    bar.show(live, began.elapsed());
                }
            }
            let panicked = |_| Err(io::Error::other("a thread of the load has panicked"));
            io::Result::Ok(threads.into_iter().map(|t| t.join().unwrap_or_else(panicked)).collect())
        })?;
        let mut all = Measures::new(shape.seconds());
        for driven in driven {
            let driven = driven?;
            all.merge(&driven.measures);
            self.refusal = self.refusal.take().or(driven.refusal);
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

fn spec(run: &Run, started: Timestamp) -> Spec {
    let name = || format!("r{:x}-", started.as_millisecond());
    Spec {
        tenants: run.tenants,
        org_prefix: run.org_prefix.clone(),
        zipf: run.zipf,
        users: run.users,
        user_prefix: run.name.clone().unwrap_or_else(name),
        payload: run.payload,
        duplicates: run.duplicates,
        out_of_order: run.out_of_order,
        rejected: run.rejected,
        transfers: run.transfers,
        seed: run.seed,
    }
}

fn asked(run: &Run, search: Option<&Search>) -> Asked {
    let highest = search.and_then(|search| search.highest);
    Asked {
        arrivals: run.arrivals_in_words(),
        rate: highest.unwrap_or(run.highest_rate()),
        duration_s: run.duration.as_secs_f64(),
        tenants: run.tenants,
        zipf: run.zipf,
        users: run.users,
        batch: run.batch,
        batch_of_one_tenant: run.batch_of_one_tenant,
        payload: run.payload,
        duplicates: run.duplicates,
        out_of_order: run.out_of_order,
        rejected: run.rejected,
        seed: run.seed,
        threads: usize::from(run.threads),
        connections: run.connections() as usize,
    }
}
