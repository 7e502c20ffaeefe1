//! Canaries: commands that the sweep sends through every hop.

use std::sync::Arc;

use fanfold::host::canary::Canary;
use fanfold::{LogId, Seq};
use fanfold_pipeline::arrivals::InProcess;

use super::ALL;
use crate::check::play;
use crate::world::{NEVER, World, done};

/// The sweep reports their ages.
#[test]
fn canaries_go_through_every_hop() {
    play(async || {
        let world = World::new();
        let arrivals = Arc::new(InProcess::default());
        let sweep = world.sweep().with_canaries(world.ingest(), 0..2, arrivals);
        let canaries: Vec<LogId> = (0..2).filter_map(Canary::log).collect();
        let processor = world.processor();
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(sweep.sweep(None, ALL, NEVER).await.expect("memory").canary_age_ms_max);
            assert!(world.relay().relay(&world.changes(), NEVER).await.unfinished.is_none());
            if seen.len() != 3 {
                done(&processor, &world.records()).await;
            }
            world.env.pass(60_000);
        }
        assert_eq!(seen, [0, 60_000, 60_000, 120_000].map(Some));
        for canary in &canaries {
            assert_eq!(world.tail(canary).await, Seq(4));
            assert!(world.outcomes(canary).await.iter().all(|entry| entry.ends_with("accepted")));
        }
    });
}

/// So the command of one run is not a duplicate of the other's.
#[test]
fn canaries_of_two_runs_have_different_ids() {
    play(async || {
        let world = World::new();
        for _ in 0..2 {
            let arrivals = Arc::new(InProcess::default());
            let sweep = world.sweep().with_canaries(world.ingest(), [0], arrivals);
            sweep.sweep(None, ALL, NEVER).await.expect("memory");
        }
        assert!(world.relay().relay(&world.changes(), NEVER).await.unfinished.is_none());
        done(&world.processor(), &world.records()).await;
        let entries = world.outcomes(&Canary::log(0).expect("a canary")).await;
        assert_eq!(entries.len(), 2);
        assert!(entries.iter().all(|entry| entry.ends_with("accepted")), "{entries:?}");
    });
}

/// A canary that has never arrived counts from the first run on, whatever the others do.
#[test]
fn a_canary_that_never_arrives_counts_from_the_first_run() {
    play(async || {
        let world = World::new();
        let arrivals = Arc::new(InProcess::default());
        let sweep = world.sweep().with_canaries(world.ingest(), 0..2, arrivals);
        let stuck = Canary::log(1).expect("a canary");
        let processor = world.processor();
        let (mut ages, mut relayed, mut processed) = (Vec::new(), 0, 0);
        for _ in 0..4 {
            ages.push(sweep.sweep(None, 0, NEVER).await.expect("memory").canary_age_ms_max);
            let mut changes = world.changes().split_off(relayed);
            relayed += changes.len();
            changes.retain(|change| change.log != stuck);
            assert!(world.relay().relay(&changes, NEVER).await.unfinished.is_none());
            let records = world.records();
            done(&processor, &records[processed..]).await;
            processed = records.len();
            world.env.pass(60_000);
        }
        assert_eq!(ages, [0, 60_000, 120_000, 180_000].map(Some));
    });
}

/// A canary that was not sent for a while has an old entry. It does not turn the time back.
#[test]
fn a_canary_with_an_old_entry_does_not_turn_the_time_back() {
    play(async || {
        let world = World::new();
        let arrivals = Arc::new(InProcess::default());
        let (mut relayed, mut processed) = (0, 0);
        let processor = world.processor();
        let mut ages = Vec::new();
        for numbers in [0..2, 0..1, 0..1, 0..2, 0..2] {
            let sweep = world.sweep().with_canaries(world.ingest(), numbers, arrivals.clone());
            ages.push(sweep.sweep(None, 0, NEVER).await.expect("memory").canary_age_ms_max);
            let changes = world.changes().split_off(relayed);
            relayed += changes.len();
            assert!(world.relay().relay(&changes, NEVER).await.unfinished.is_none());
            let records = world.records();
            done(&processor, &records[processed..]).await;
            processed = records.len();
            world.env.pass(60_000);
        }
        // In the fourth run the second canary's last entry is three minutes old, but its path has not been used since.
        assert_eq!(ages, [0, 60_000, 60_000, 120_000, 60_000].map(Some));
    });
}
