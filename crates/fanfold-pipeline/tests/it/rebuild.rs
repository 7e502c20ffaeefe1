//! Rebuilding one log of a view, with workers beside it, and requests that end anywhere.

use std::sync::Arc;

use bytes::Bytes;
use fanfold::{LogId, RowKey, Seq, Time};
use fanfold_pipeline::operate::{Done, Operate, OperateError, OperatePorts, OperatedViews};
use fanfold_pipeline::ports::{Cursor, Env, ParkedView, RowRange, StoredRow, ViewTable};
use fanfold_pipeline::testing::{Broken, Op};

use crate::check::play;
use crate::operate::operate;
use crate::world::{NEVER, World, acme, applied, log, run};

/// A log of six entries, which the view `sums` has applied, with a damaged row, a row that no entry has made, and one that
/// is gone. Returns the messages and the right rows.
async fn damaged() -> (Arc<World>, Vec<Bytes>, Vec<String>) {
    let world = World::new();
    world.accept(&acme(), 6).await;
    let mut messages = Vec::new();
    for seqs in [1..=2, 3..=3, 4..=6] {
        messages.push(world.commit(&acme(), &run(seqs)).await);
    }
    applied(&world.projector("sums"), &messages).await;
    world.env.pass(60_000);
    let right = world.rows("sums").await;
    let all = RowRange { limit: 10, ..RowRange::default() };
    let rows = world.table("sums").scan(&acme(), &all).await.expect("memory").rows;
    let wrong = |seq: u64, body: Option<&'static [u8]>| StoredRow {
        seq: Seq(seq),
        body: body.map(Bytes::from_static),
        expires: body.is_none().then(|| world.env.now().plus_ms(1_000_000)),
    };
    let plant = async |key: &RowKey, row: StoredRow, loaded: Option<Seq>| {
        world.table("sums").put_row(&acme(), key, &row, loaded).await.expect("memory");
    };
    plant(&rows[0].key, wrong(rows[0].seq.0, Some(b"\"wrong\"")), Some(rows[0].seq)).await;
    plant(&rows[1].key, wrong(rows[1].seq.0, None), Some(rows[1].seq)).await;
    plant(&RowKey::new("unknown").expect("a key"), wrong(4, Some(b"1")), None).await;
    assert_ne!(world.rows("sums").await, right);
    (world, messages, right)
}

/// Repeats the request as a client does, until the rebuild has ended. Returns how long it waited, and the rows that were
/// removed.
async fn rebuilt(world: &World, operate: &Operate, begun: Option<Time>) -> (u64, u64) {
    let (mut begun, mut waited, mut removed) = (begun, 0, 0);
    for _ in 0..100 {
        match operate.rebuild("sums", &acme(), begun).await.expect("memory") {
            Done::Rebuilding { begun: of, wait_ms, rows } => {
                (begun, waited, removed) = (of, waited + wait_ms, removed + rows);
                world.env.pass(wait_ms);
            }
            Done::Rebuilt { rows } => return (waited, removed + rows),
            other => panic!("{other:?}"),
        }
    }
    panic!("it does not end");
}

async fn swept(world: &World) {
    for _ in 0..3 {
        world.view_sweep("sums").sweep(None, 100, NEVER).await.expect("memory");
    }
}

async fn parked(world: &World) -> Option<ParkedView> {
    world.cursor("sums", &acme()).await.parked
}

#[test]
fn a_rebuilt_log_has_the_rows_of_its_entries() {
    play(async || {
        let (world, messages, right) = damaged().await;
        let (waited, removed) = rebuilt(&world, &operate(&world), None).await;
        assert_eq!(waited, 65_000, "the longest call, and the difference of clocks");
        assert_eq!(removed, right.len() as u64 + 1, "also the tombstone");
        assert_eq!(world.cursor("sums", &acme()).await, Cursor::default());
        assert_eq!(world.rows("sums").await, [] as [String; 0]);
        swept(&world).await;
        assert_eq!(world.rows("sums").await, right);
        assert_eq!(world.cursor("sums", &acme()).await.seq, Seq(6));
        world.audit_view("sums", &acme()).await;
        // Or the next message brings it forward.
        rebuilt(&world, &operate(&world), None).await;
        applied(&world.projector("sums"), &messages[1..]).await;
        assert_eq!(world.rows("sums").await, right);
    });
}

/// A worker that has read the cursor before may write rows from which earlier entries are missing.
#[test]
fn no_row_is_removed_before_calls_have_ended_that_may_write_it() {
    play(async || {
        let (world, messages, right) = damaged().await;
        world.accept(&acme(), 3).await;
        let late = world.commit(&acme(), &run(7..=9)).await;
        // The call has loaded its rows. Its writes take effect much later.
        world.faults.fail(Op::PutRow, "", .., Broken::Late);
        let projector = world.projector("sums");
        projector.project(std::slice::from_ref(&late), NEVER).await;
        let operate = operate(&world);
        let mut begun = None;
        for _ in 0..5 {
            if let Done::Rebuilding { begun: of, .. } =
                operate.rebuild("sums", &acme(), begun).await.expect("memory")
            {
                begun = of;
            }
            assert!(!world.rows("sums").await.is_empty(), "calls may be under way");
        }
        world.faults.land().await;
        rebuilt(&world, &operate, begun).await;
        world.faults.heal();
        applied(&projector, &messages).await;
        applied(&projector, std::slice::from_ref(&late)).await;
        assert_eq!(world.rows("sums").await.len(), right.len());
        world.audit_view("sums", &acme()).await;
    });
}

/// Another build tries again what a build has parked, and an operator resumes; a rebuild is neither.
#[test]
fn nothing_else_releases_a_view_that_is_being_rebuilt() {
    play(async || {
        let (world, messages, _) = damaged().await;
        let operate = operate(&world);
        for step in 0..4 {
            operate.rebuild("sums", &acme(), None).await.expect("memory");
            let before = world.cursor("sums", &acme()).await;
            if before.parked.is_none() {
                assert!(step > 1, "it is parked first");
                return;
            }
            world.env.deploy();
            swept(&world).await;
            applied(&world.projector("sums").suspicious(3), &messages).await;
            for result in [
                operate.resume_view("sums", &acme()).await,
                operate.skip_view("sums", &acme(), "a test").await,
            ] {
                let error = result.unwrap_err();
                assert!(matches!(error, OperateError::IsRebuilt { .. }), "{error}");
                assert!(error.to_string().contains("fanfold rebuild tally/org:acme --view sums"));
            }
            assert_eq!(world.cursor("sums", &acme()).await, before);
        }
    });
}

#[test]
fn a_parked_view_can_be_rebuilt_and_a_log_without_entries_cannot() {
    play(async || {
        let (world, _, right) = damaged().await;
        let (reason, at) = ("a test".to_owned(), world.env.now());
        let why = ParkedView { seq: Seq(7), reason, at, build: None, rebuild: None };
        world.table("sums").park(&acme(), Seq(6), &why).await.expect("memory");
        rebuilt(&world, &operate(&world), None).await;
        swept(&world).await;
        assert_eq!(world.rows("sums").await, right);
        let unknown = log("tally/org:nobody");
        let error = operate(&world).rebuild("sums", &unknown, None).await.unwrap_err();
        let expected = "the view `sums` has nothing of tally/org:nobody, which has no entry";
        assert_eq!(error.to_string(), expected);
        assert_eq!(world.cursor("sums", &unknown).await, Cursor::default());
        let error = operate(&world).rebuild("totals", &acme(), None).await.unwrap_err();
        assert_eq!(error.to_string(), "there is no view `totals` here");
    });
}

/// An answer is lost, and the client asks again although the rebuild has ended: it does not begin another one.
#[test]
fn a_request_for_a_rebuild_that_has_ended_does_nothing() {
    play(async || {
        let (world, _, right) = damaged().await;
        let operate = operate(&world);
        let first = operate.rebuild("sums", &acme(), None).await.expect("memory");
        let Done::Rebuilding { begun, .. } = first else { panic!("{first:?}") };
        rebuilt(&world, &operate, begun).await;
        swept(&world).await;
        let again = operate.rebuild("sums", &acme(), begun).await.expect("memory");
        assert_eq!(again, Done::Rebuilt { rows: 0 });
        assert_eq!((world.rows("sums").await, parked(&world).await), (right, None));
    });
}

/// Each call fails once, before or after its effect or with an effect much later, and the request ends there.
#[test]
fn a_rebuild_that_ends_anywhere_goes_on() {
    play(async || {
        let ops = [Op::Cursor, Op::ParkView, Op::ReplaceParked, Op::ClearView];
        for (op, call) in ops.into_iter().flat_map(|op| (1..4).map(move |call| (op, call))) {
            for how in [Broken::Before, Broken::After, Broken::Late] {
                let (world, messages, right) = damaged().await;
                let views = OperatedViews::Own(world.wiring().views);
                let ports = OperatePorts { views, ..world.operated() };
                let operate = Operate::new(ports, world.ingest());
                world.faults.fail(op, "", call..=call, how);
                let mut ended = false;
                for _ in 0..20 {
                    match operate.rebuild("sums", &acme(), None).await {
                        Ok(Done::Rebuilt { .. }) => ended = true,
                        Ok(Done::Rebuilding { wait_ms, .. }) => world.env.pass(wait_ms),
                        Ok(other) => panic!("{other:?}"),
                        Err(OperateError::Unavailable(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                    if ended {
                        break;
                    }
                }
                assert!(ended, "{op:?} {call} {how:?}");
                swept(&world).await;
                world.faults.land().await;
                // What came late may have parked the view for another rebuild.
                if parked(&world).await.is_some() {
                    world.faults.heal();
                    rebuilt(&world, &operate, None).await;
                }
                applied(&world.projector("sums"), &messages).await;
                swept(&world).await;
                assert_eq!(world.rows("sums").await, right, "{op:?} {call} {how:?}");
                world.audit_view("sums", &acme()).await;
            }
        }
    });
}

#[test]
fn other_logs_and_views_stay() {
    play(async || {
        let (world, _, _) = damaged().await;
        let other = log("tally/org:other");
        world.accept(&other, 2).await;
        let message = world.commit(&other, &run(1..=2)).await;
        applied(&world.projector("sums"), std::slice::from_ref(&message)).await;
        let seen = async |log: &LogId| {
            let all = RowRange { limit: 10, ..RowRange::default() };
            let rows = world.table("sums").scan(log, &all).await.expect("memory").rows;
            (world.cursor("sums", log).await, rows)
        };
        let before = seen(&other).await;
        rebuilt(&world, &operate(&world), None).await;
        assert_eq!(seen(&other).await, before);
    });
}
