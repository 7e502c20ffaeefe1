//! A marker is a lease: as long as the call of another process may be under way, it counts as no
//! crash, and the record comes again.

use fanfold::body::attempt::Step;
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::Others;
use fanfold_pipeline::process::Suspicion;
use fanfold_pipeline::testing::Op;

use crate::check::play;
use crate::crash::{crash, survives};
use crate::world::{World, acme, done};

const SUSPICION: Suspicion = Suspicion { age_ms: 0, attempts_max: 3, faults_per_hour_max: 10 };

/// The record comes to other environments while the first is still at it, one behind another: with
/// three crashes each command would go alone, and with one more it would be a fault.
#[test]
fn a_record_that_is_under_way_elsewhere_comes_again() {
    play(async || {
        let world = World::new();
        let record = world.acme(1..=3);
        let (inside, again) = (world.clone(), record.clone());
        world.faults.before(Op::JournalAppend, "", move || {
            let (world, record) = (inside.clone(), again.clone());
            async move {
                for _ in 0..5 {
                    let other = world.processor().with_suspicion(SUSPICION);
                    let outcome = other.process(std::slice::from_ref(&record), world.soon()).await;
                    assert_eq!(outcome, BatchOutcome { unfinished: Some(0) });
                    assert_eq!(world.attempt(&acme()).await, Some((1, Step::Whole)));
                    // Among others nothing is suspect, and a nudge leaves the marker alone.
                    let other = world.processor();
                    other
                        .process(&[world.nudge(&acme()), world.nudge(&acme())], world.soon())
                        .await;
                    assert_eq!(world.attempt(&acme()).await, Some((1, Step::Whole)));
                }
            }
        });
        let processor = world.processor().with_suspicion(SUSPICION);
        let outcome = processor.process(std::slice::from_ref(&record), world.soon()).await;
        assert_eq!(outcome, BatchOutcome::DONE);
        assert_eq!(world.attempt(&acme()).await, None);
        done(&world.processor().with_suspicion(SUSPICION), &[record]).await;
        world.assert_run(3).await;
        assert_eq!(world.attempt(&acme()).await, None);
    });
}

/// Where a lock admits one process at a time, what another has begun has ended with it: no process
/// has to wait for a crash to be one.
#[test]
fn without_others_a_crash_is_one_at_once() {
    play(async || {
        for (others, attempts) in [(Others::HaveEnded, 2), (Others::default(), 1)] {
            let world = World::new();
            let record = world.acme(1..=3);
            for _ in 0..2 {
                world.faults.before(Op::JournalAppend, "", || async {
                    crash();
                    std::future::pending().await
                });
                let processor = world.processor().with_suspicion(SUSPICION).among(others);
                let call = processor.process(std::slice::from_ref(&record), world.soon());
                survives(call).await;
            }
            assert_eq!(world.attempt(&acme()).await, Some((attempts, Step::Whole)));
        }
    });
}
