//! `fanfold-sim`: runs seeds, on all cores; a seed that fails is printed with the end of its trace.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use fanfold_sim::faults::{Counts, Fault};
use fanfold_sim::{Report, run};

/// The lines of a failed run's trace that are printed.
const TRACE_LINES: usize = 40;

/// Simulates Fanfold: the real stages, every fault, one seed a run.
#[derive(Parser)]
struct Options {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Starts no more seeds once one has failed.
    #[arg(long)]
    fail_fast: bool,
    /// Prints every effect of every run.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // Panics of the simulated services are caught and become outcomes.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !fanfold::catch::is_catching() {
            hook(info);
        }
    }));
    let began = Instant::now();
    let next = AtomicU64::new(options.from);
    let end = options.from + options.seeds;
    let totals = Mutex::new((Counts::new(), 0u64, 0u64, Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let report = run(seed);
                    if options.trace {
                        println!("seed {seed}\n{}", report.trace.join("\n"));
                    }
                    let mut totals = totals.lock().unwrap_or_else(|e| e.into_inner());
                    for (fault, n) in &report.faults {
                        *totals.0.entry(*fault).or_default() += n;
                    }
                    totals.1 += report.commands;
                    totals.2 += report.trace.len() as u64;
                    if !report.violations.is_empty() {
                        print(&report);
                        totals.3.push(seed);
                        if options.fail_fast {
                            next.store(end, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let (faults, commands, effects, failed) =
        totals.into_inner().unwrap_or_else(|e| e.into_inner());
    println!(
        "{} seeds from {} in {:.1} s: {commands} commands, {effects} effects",
        options.seeds,
        options.from,
        began.elapsed().as_secs_f64()
    );
    let counts: Vec<String> = Fault::ALL
        .iter()
        .map(|fault| format!("{fault:?} {}", faults.get(fault).copied().unwrap_or_default()))
        .collect();
    println!("faults: {}", counts.join(", "));
    if failed.is_empty() {
        println!("all invariants held");
        return ExitCode::SUCCESS;
    }
    println!("failed seeds: {failed:?}; run one again with --from SEED --seeds 1 --trace");
    ExitCode::FAILURE
}

fn print(report: &Report) {
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
