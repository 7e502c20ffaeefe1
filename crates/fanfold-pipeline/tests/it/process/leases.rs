//! Leases of the processor: while the call of another process may be under way, its lease does not
//! count as a crash, and the record is retried later.

use fanfold::host::body::lease::Step;
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::Others;
use fanfold_pipeline::process::Suspicion;
use fanfold_pipeline::testing::Op;

use crate::check::play;
use crate::crash::{crash, survives};
use crate::world::{World, acme, done};

const SUSPICION: Suspicion = Suspicion { age_ms: 0, attempts_max: 3, faults_per_hour_max: 10 };

/// Other environments get the record one after another while the first call is still under way. If
/// their attempts counted as crashes, three would make each command run alone, and a fourth would
/// fault it.
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
                    assert_eq!(world.lease(&acme()).await, Some((1, Step::Whole)));
                    // A record among others is no suspect, and a nudge does not touch the lease.
                    let other = world.processor();
                    other
                        .process(&[world.nudge(&acme()), world.nudge(&acme())], world.soon())
                        .await;
                    assert_eq!(world.lease(&acme()).await, Some((1, Step::Whole)));
                }
            }
        });
        let processor = world.processor().with_suspicion(SUSPICION);
        let outcome = processor.process(std::slice::from_ref(&record), world.soon()).await;
        assert_eq!(outcome, BatchOutcome::DONE);
        assert_eq!(world.lease(&acme()).await, None);
        done(&world.processor().with_suspicion(SUSPICION), &[record]).await;
        world.assert_run(3).await;
        assert_eq!(world.lease(&acme()).await, None);
    });
}

/// A lock admits one process at a time, so the process that stored the lease has ended.
#[test]
fn without_other_processes_a_lease_counts_as_a_crash_at_once() {
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
            assert_eq!(world.lease(&acme()).await, Some((attempts, Step::Whole)));
        }
    });
}
