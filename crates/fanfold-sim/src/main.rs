//! `fanfold-sim`: runs seeds on all cores, and prints the end of the trace of each that fails.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use fanfold::host::invariant::Breach;
use fanfold_sim::faults::Fault;
use fanfold_sim::model::Cases;
use fanfold_sim::{Report, engine, run};

/// The lines of a failed run's trace that are printed.
const TRACE_LINES: usize = 40;

/// Simulates Fanfold's stages, or the embedded engine itself, under faults; one seed a run.
#[derive(Parser)]
struct Options {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Runs the embedded engine itself, with crashes, instead of the stages over faulty ports.
    #[arg(long)]
    engine: bool,
    /// Starts no further seed once one has failed.
    #[arg(long)]
    fail_fast: bool,
    /// Prints every effect of every run.
    #[arg(long)]
    trace: bool,
}

/// The result of a run of either kind.
struct Tally {
    seed: u64,
    violations: Vec<Breach>,
    trace: Vec<String>,
    /// By name, since the two kinds of run have different faults.
    faults: BTreeMap<String, u64>,
    cases: Cases,
    commands: u64,
}

fn named<F: Debug>(faults: BTreeMap<F, u64>) -> BTreeMap<String, u64> {
    faults.into_iter().map(|(fault, n)| (format!("{fault:?}"), n)).collect()
}

fn outcome(seed: u64, of_engine: bool) -> Tally {
    match of_engine {
        true => {
            let engine::Report { violations, trace, faults, cases, commands, .. } =
                engine::run(seed);
            Tally { seed, violations, trace, faults: named(faults), cases, commands }
        }
        false => {
            let Report { violations, trace, faults, cases, commands, .. } = run(seed);
            Tally { seed, violations, trace, faults: named(faults), cases, commands }
        }
    }
}

#[derive(Default)]
struct Totals {
    faults: BTreeMap<String, u64>,
    cases: Cases,
    commands: u64,
    lines: u64,
    failed: Vec<u64>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // Panics of the simulated services are caught and become outcomes.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !fanfold::host::catch::is_catching() {
            hook(info);
        }
    }));
    let began = Instant::now();
    let next = AtomicU64::new(options.from);
    let end = options.from + options.seeds;
    let totals = Mutex::new(Totals::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let run = outcome(seed, options.engine);
                    if options.trace {
                        println!("seed {seed}\n{}", run.trace.join("\n"));
                    }
                    let mut totals = totals.lock().unwrap_or_else(|e| e.into_inner());
                    for (fault, n) in &run.faults {
                        *totals.faults.entry(fault.clone()).or_default() += n;
                    }
                    for (case, n) in &run.cases {
                        *totals.cases.entry(*case).or_default() += n;
                    }
                    totals.commands += run.commands;
                    totals.lines += run.trace.len() as u64;
                    if !run.violations.is_empty() {
                        print(&run);
                        totals.failed.push(seed);
                        if options.fail_fast {
                            next.store(end, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let Totals { faults, cases, commands, lines, failed } =
        totals.into_inner().unwrap_or_else(|e| e.into_inner());
    println!(
        "{} seeds from {} in {:.1} s: {commands} commands, {lines} effects",
        options.seeds,
        options.from,
        began.elapsed().as_secs_f64()
    );
    let all: Vec<String> = match options.engine {
        true => engine::Fault::ALL.iter().map(|fault| format!("{fault:?}")).collect(),
        false => Fault::ALL.iter().map(|fault| format!("{fault:?}")).collect(),
    };
    let counts: Vec<String> = all
        .iter()
        .map(|fault| format!("{fault} {}", faults.get(fault).copied().unwrap_or_default()))
        .collect();
    println!("faults: {}", counts.join(", "));
    let cases: Vec<String> = cases.iter().map(|(case, n)| format!("{case:?} {n}")).collect();
    println!("cases: {}", cases.join(", "));
    if failed.is_empty() {
        println!("all invariants held");
        return ExitCode::SUCCESS;
    }
    println!("failed seeds: {failed:?}; run one again with --from SEED --seeds 1 --trace");
    ExitCode::FAILURE
}

fn print(report: &Tally) {
    println!("seed {} failed", report.seed);
    for violation in report.violations.iter().take(5) {
        println!("  {}: {}", violation.invariant, violation.what);
        println!("    {}: {}", violation.invariant, violation.invariant.text());
    }
    let skipped = report.trace.len().saturating_sub(TRACE_LINES);
    println!("  the last {} of {} effects:", report.trace.len() - skipped, report.trace.len());
    for line in &report.trace[skipped..] {
        println!("    {line}");
    }
}
