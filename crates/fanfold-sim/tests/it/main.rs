//! The simulator itself: that it repeats itself, that it injects everything, that it bites.

use std::sync::Mutex;

use fanfold::planted::Bug;
use fanfold_sim::faults::{Counts, Fault};
use fanfold_sim::{Report, run};

/// The seeds within which every planted bug must be found.
const SEEDS: u64 = 1_000;

fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        if !fanfold::catch::is_catching() {
            eprintln!("{info}");
        }
    }));
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    quiet();
    for seed in 1..=20 {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first.faults, second.faults, "seed {seed}");
    }
}

#[test]
fn every_fault_is_injected() {
    quiet();
    let mut counts = Counts::new();
    for seed in 1..=100 {
        for (fault, n) in run(seed).faults {
            *counts.entry(fault).or_default() += n;
        }
    }
    let missing: Vec<Fault> =
        Fault::ALL.into_iter().filter(|fault| !counts.contains_key(fault)).collect();
    assert!(missing.is_empty(), "never injected: {missing:?} ({counts:?})");
}

#[test]
fn every_planted_bug_is_found() {
    quiet();
    let bugs = [
        Bug::RelayRetriesOutOfOrder,
        Bug::RelayAcknowledgesFailures,
        Bug::NoRepublish,
        Bug::NoRepublishOnColdLoad,
        Bug::AcknowledgeBeforePublishing,
        Bug::DropRefused,
        Bug::KeepAfterUnacknowledged,
        Bug::CommitWithoutReload,
        Bug::UnparkBeforePublishing,
        Bug::DropBeyond,
        Bug::WindowWithoutRejected,
        Bug::HeadBeforeDocuments,
        Bug::ReplayedStayClean,
        Bug::UnguardedSnapshot,
        Bug::HeadBeforePublishing,
        Bug::CursorBeforeRows,
        Bug::UnguardedRow,
        Bug::ApplyBeyond,
        Bug::AcknowledgeUnapplied,
        Bug::LeaseWithoutUntil,
    ];
    let left = Mutex::new(bugs.to_vec());
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            // Bugs are planted in a thread, so that each has its own.
            scope.spawn(|| {
                while let Some(bug) = { left.lock().unwrap().pop() } {
                    match bug.plant(|| (1..=SEEDS).map(run).find(|r| !r.violations.is_empty())) {
                        Some(Report { seed, violations, .. }) => {
                            println!("{bug:?}: seed {seed}, {:?}", violations[0].invariant);
                        }
                        None => missed.lock().unwrap().push(bug),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}
