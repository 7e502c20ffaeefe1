//! Canaries: commands that the sweep sends through every hop.

use fanfold::host::canary::Canary;
use fanfold::{LogId, Seq};

use super::ALL;
use crate::check::play;
use crate::world::{NEVER, World, done};

/// The sweep reports their ages.
#[test]
fn canaries_go_through_every_hop() {
    play(async || {
        let world = World::new();
        let sweep = world.sweep().with_canaries(world.ingest(), 2);
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
        assert_eq!(seen, [None, Some(60_000), Some(60_000), Some(120_000)]);
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
            let sweep = world.sweep().with_canaries(world.ingest(), 1);
            sweep.sweep(None, ALL, NEVER).await.expect("memory");
        }
        assert!(world.relay().relay(&world.changes(), NEVER).await.unfinished.is_none());
        done(&world.processor(), &world.records()).await;
        let entries = world.outcomes(&Canary::log(0).expect("a canary")).await;
        assert_eq!(entries.len(), 2);
        assert!(entries.iter().all(|entry| entry.ends_with("accepted")), "{entries:?}");
    });
}
