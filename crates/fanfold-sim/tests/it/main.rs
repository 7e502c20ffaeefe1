//! The simulator itself: that it repeats itself, that it injects everything, that it bites.

use std::collections::BTreeMap;

use fanfold::planted::Bug;
use fanfold_sim::faults::{Counts, Fault};
use fanfold_sim::run;

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
        Bug::NewTokenOnRetry,
        Bug::NoCatchUp,
        Bug::NoLookAfterParking,
        Bug::NoIdentityCheck,
        Bug::IgnoreNonce,
    ];
    let mut found = BTreeMap::new();
    for bug in bugs {
        let first = bug.plant(|| {
            (1..=SEEDS).map(run).find(|report| !report.violations.is_empty())
        });
        let first = first.map(|report| (report.seed, report.violations[0].clone()));
        println!("{bug:?}: {first:?}");
        found.insert(bug, first);
    }
    let missed: Vec<Bug> =
        found.iter().filter(|(_, first)| first.is_none()).map(|(bug, _)| *bug).collect();
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}
