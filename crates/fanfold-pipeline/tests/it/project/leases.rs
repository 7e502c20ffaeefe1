//! Leases of the projector: while the call of another process may be under way, its lease does not
//! count as a crash, and others do not touch its log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanfold::Seq;
use fanfold_pipeline::project::ATTEMPTS_MAX;
use fanfold_pipeline::testing::{Broken, Op};

use super::singles;
use crate::check::play;
use crate::crash::fate;
use crate::world::{World, acme, add, run};

/// More logs than these tests have.
const ALL: usize = 1_000;

/// The view's cursor for the log, the attempts in its lease, and whether it is parked.
async fn stands(world: &World) -> (Seq, u32, bool) {
    let cursor = world.cursor("sums", &acme()).await;
    let attempts = cursor.lease.map_or(0, |lease| lease.attempts);
    (cursor.seq, attempts, cursor.parked.is_some())
}

/// When sweeps pile up from one position, each in its own process, only the first works on a slow
/// log.
#[test]
fn sweeps_that_pile_up_park_no_slow_log() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 1).await;
        singles(&world, 3).await;
        world.env.pass(11_000);
        let (sweeps, inside) = (Arc::new(AtomicUsize::new(0)), world.clone());
        world.faults.before_every(Op::MoveCursor, move || {
            let (sweeps, world) = (sweeps.clone(), inside.clone());
            async move {
                world.env.pass(15_000);
                if sweeps.fetch_add(1, Ordering::Relaxed) < 4 {
                    let sweep = world.view_sweep("sums");
                    let report = sweep.sweep(None, ALL, world.soon()).await.expect("memory");
                    assert_eq!((report.parked.len(), report.under_way), (0, 1), "{report:?}");
                    assert_eq!((report.caught_up, report.failed), (vec![], vec![]));
                }
            }
        });
        let report = world.view_sweep("sums").sweep(None, ALL, world.soon()).await;
        assert_eq!(report.expect("memory").caught_up, [acme()]);
        assert_eq!(stands(&world).await, (Seq(3), 0, false));
        world.audit_view("sums", &acme()).await;
    });
}

/// A lease lasts as long as the call may, also when the run begins no more logs after `run_ms`.
#[test]
fn a_lease_lasts_as_long_as_the_call() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 1).await;
        singles(&world, 3).await;
        world.env.pass(11_000);
        let inside = world.clone();
        world.faults.before(Op::MoveCursor, "", move || {
            let world = inside.clone();
            async move {
                world.env.pass(59_000);
                let report = world.view_sweep("sums").sweep(None, ALL, world.soon()).await;
                assert_eq!(report.expect("memory").under_way, 1);
            }
        });
        let sweep = world.view_sweep("sums").with_run_ms(1_000);
        sweep.sweep(None, ALL, world.soon()).await.expect("memory");
        assert_eq!(stands(&world).await, (Seq(3), 0, false));
    });
}

/// The message is retried later.
#[test]
fn a_message_redelivered_during_its_first_delivery_is_no_crash() {
    play(async || {
        let world = World::new();
        let messages = vec![world.commit(&acme(), &[add(1)]).await];
        let (inside, again) = (world.clone(), messages.clone());
        world.faults.before(Op::PutRow, "", move || {
            let (world, messages) = (inside.clone(), again.clone());
            async move {
                for _ in 0..4 {
                    let other = world.projector("sums");
                    let again =
                        other.project_with_suspects(&messages, &[true], ATTEMPTS_MAX, world.soon());
                    assert_eq!(again.await, [0]);
                    assert_eq!(stands(&world).await, (Seq(0), 1, false));
                }
            }
        });
        let projector = world.projector("sums");
        let project =
            projector.project_with_suspects(&messages, &[true], ATTEMPTS_MAX, world.soon());
        assert_eq!(project.await, [0_usize; 0]);
        assert_eq!(stands(&world).await, (Seq(1), 0, false));
    });
}

/// The projector neither waits until the lease ends nor removes it.
#[test]
fn a_projector_without_suspicion_ignores_the_lease_of_another() {
    play(async || {
        let world = World::new();
        let messages = singles(&world, 2).await;
        let (inside, first) = (world.clone(), messages[0].clone());
        world.faults.before(Op::PutRow, "", move || {
            let (world, first) = (inside.clone(), first.clone());
            async move {
                let other = world.projector("sums");
                assert_eq!(other.project(&[first], world.soon()).await, [0_usize; 0]);
                assert_eq!(stands(&world).await, (Seq(1), 1, false));
            }
        });
        let suspicious = world.projector("sums").suspicious(ATTEMPTS_MAX);
        assert_eq!(suspicious.project(&messages, world.soon()).await, [0_usize; 0]);
        assert_eq!(stands(&world).await, (Seq(2), 0, false));
        world.audit_view("sums", &acme()).await;
    });
}

#[test]
fn a_lease_that_is_stored_late_is_refused() {
    play(async || {
        for crashes in 0..3 {
            let world = World::new();
            let messages = vec![world.commit(&acme(), &run(1..=3)).await];
            for _ in 0..crashes {
                world.faults.before(Op::PutRow, "", || async {
                    crate::crash::crash();
                    std::future::pending().await
                });
                let suspicious = world.projector("sums").suspicious(ATTEMPTS_MAX);
                assert_eq!(fate(&world, suspicious.project(&messages, world.soon())).await, None);
            }
            assert_eq!(stands(&world).await, (Seq(0), crashes, false));
            let own = format!(" {}", crashes + 1);
            world.faults.fail(Op::ReplaceLease, &own, 1..=1, Broken::Late);
            let suspicious = world.projector("sums").suspicious(ATTEMPTS_MAX);
            assert_eq!(suspicious.project(&messages, world.soon()).await, [0]);
            assert_eq!(stands(&world).await, (Seq(0), 0, false));
            world.faults.land().await;
            assert_eq!(stands(&world).await, (Seq(0), 0, false), "after {crashes} crashes");
        }
    });
}
