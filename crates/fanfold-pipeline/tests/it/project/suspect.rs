//! A redelivered message is applied log by log, each behind a lease, to find the commit that
//! crashes the process. Three crashes park the view for the log.

use bytes::Bytes;
use fanfold::{LogId, Seq};
use fanfold_pipeline::ports::{Cursor, Env, ParkedView};
use fanfold_pipeline::project::ATTEMPTS_MAX;
use fanfold_pipeline::sweep::ViewSweepReport;
use fanfold_pipeline::testing::{Broken, Op};

use super::{say, singles};
use crate::check::play;
use crate::crash::{fate, survives};
use crate::world::{World, acme, add, applied, done, log, run};

/// More logs than these tests have.
const ALL: usize = 1_000;

fn orgs() -> [LogId; 3] {
    ["a", "b", "c"].map(|org| log(&format!("tally/org:{org}")))
}

/// One message about three logs. The second log's commit crashes the process.
async fn deadly(world: &World) -> Bytes {
    for org in orgs() {
        world.accept(&org, 3).await;
    }
    let [a, b, c] = orgs();
    let doom = [add(1), say(2, "doom"), add(3)];
    let records = [
        world.record(&a, 1, &run(1..=3)),
        world.record(&b, 1, &doom),
        world.record(&c, 1, &run(1..=3)),
    ];
    done(&world.elsewhere(), &records).await;
    let [message] = &world.messages()[..] else { panic!("one message") };
    message.clone()
}

/// Delivers a message to a new projector; `None` if it crashed.
async fn deliver(world: &World, message: &Bytes) -> Option<Vec<usize>> {
    let projector = world.projector("sums").suspicious(ATTEMPTS_MAX);
    let messages = std::slice::from_ref(message);
    fate(world, projector.project(messages, world.soon())).await
}

/// Per log: its cursor, and the attempts in its lease.
async fn cursors(world: &World) -> Vec<(u64, u32)> {
    let mut cursors = Vec::new();
    for org in orgs() {
        let cursor = world.cursor("sums", &org).await;
        cursors.push((cursor.seq.0, attempts(&cursor)));
    }
    cursors
}

/// The attempts in the lease.
fn attempts(cursor: &Cursor) -> u32 {
    cursor.lease.map_or(0, |lease| lease.attempts)
}

async fn assert_only_the_second_is_parked(world: &World) {
    assert_eq!(cursors(world).await, [(3, 0), (0, 0), (3, 0)]);
    let [a, b, c] = orgs();
    let ParkedView { seq, reason, .. } = world.cursor("sums", &b).await.parked.expect("parked");
    assert_eq!((seq, &*reason), (Seq(1), "the process ended 3 times while this was applied"));
    for org in [a, c] {
        assert_eq!(world.cursor("sums", &org).await.parked, None);
        world.audit_view("sums", &org).await;
    }
}

/// The other logs of the message are applied.
#[test]
fn three_crashes_park_the_view_for_the_log() {
    play(async || {
        let world = World::new();
        let message = deadly(&world).await;
        for attempt in 1..=3 {
            assert_eq!(deliver(&world, &message).await, None);
            assert_eq!(cursors(&world).await, [(3, 0), (0, attempt), (0, 0)]);
        }
        assert_eq!(deliver(&world, &message).await, Some(vec![]));
        assert_only_the_second_is_parked(&world).await;
        // The log's messages are skipped from now on.
        assert_eq!(deliver(&world, &message).await, Some(vec![]));
        applied(&world.projector("sums"), [&message]).await;
    });
}

/// Suspects are applied log by log, since otherwise the cause of a crash would be unknown.
#[test]
fn suspects_are_applied_one_at_a_time() {
    play(async || {
        let world = World::new();
        let [a, b, c] = orgs();
        let records = [&a, &b, &c].map(|org| world.record(org, 1, &run(1..=3)));
        done(&world.elsewhere(), &records).await;
        let projector = world.projector("sums");
        assert!(projector.suspicious(3).project(&world.messages(), world.soon()).await.is_empty());
        assert_eq!(cursors(&world).await, [(3, 0); 3]);
        let noted = world.faults.calls(Op::ReplaceLease);
        let expected = [&a, &b, &c].map(|org| [format!("{org} 1"), format!("{org} 0")]).concat();
        assert_eq!(noted, expected, "each attempt returns before the next begins");
        // Commits that are done, or not of the view's services, need no lease.
        assert!(projector.suspicious(3).project(&world.messages(), world.soon()).await.is_empty());
        assert_eq!(world.faults.calls(Op::ReplaceLease).len(), 6);
    });
}

/// A redelivered message makes only its own logs suspect.
#[test]
fn one_message_that_comes_again_makes_no_other_suspect() {
    play(async || {
        let world = World::new();
        let [a, b, c] = orgs();
        let mut messages = Vec::new();
        for (org, ids) in [(&a, 1..=1), (&b, 1..=1), (&c, 1..=1), (&b, 2..=2), (&c, 2..=2)] {
            messages.push(world.commit(org, &run(ids)).await);
        }
        let projector = world.projector("sums");
        let is_suspect = [false, true, false, false, false];
        world.faults.fail(Op::PutRow, c.as_str(), 1..=1, Broken::Before);
        let again = projector.project_with_suspects(&messages, &is_suspect, 3, world.soon()).await;
        assert_eq!(again, [2, 4], "only c's messages are retried");
        assert_eq!(cursors(&world).await, [(1, 0), (2, 0), (0, 0)]);
        let noted = world.faults.calls(Op::ReplaceLease);
        assert_eq!(noted, [format!("{b} 1"), format!("{b} 0")], "both of b's commits at once");
        let advanced = world.faults.calls(Op::MoveCursor);
        assert_eq!(advanced, [format!("{a} 1"), format!("{b} 2")], "the suspects go last");
        let again = projector.project_with_suspects(&messages, &[false; 5], 3, world.soon()).await;
        assert_eq!((again, cursors(&world).await), (vec![], vec![(1, 0), (2, 0), (2, 0)]));
    });
}

/// A message behind a suspect is applied behind a lease, too, since the projector may read the
/// entry that crashes it from the journal.
#[test]
fn a_message_behind_a_suspect_is_suspect_too() {
    play(async || {
        let world = World::new();
        let [a, b, c] = orgs();
        let deadly = world.commit(&b, &[say(1, "doom")]).await;
        let fresh = [
            world.commit(&a, &run(1..=3)).await,
            world.commit(&b, &[add(2)]).await,
            world.commit(&c, &run(1..=3)).await,
        ];
        for attempt in 1..=4 {
            let [a, b, c] = fresh.clone();
            let messages = [a, deadly.clone(), b, c];
            let is_suspect = [false, true, false, false];
            let projector = world.projector("sums");
            let project =
                projector.project_with_suspects(&messages, &is_suspect, ATTEMPTS_MAX, world.soon());
            let again = fate(&world, project).await;
            let expected = (attempt <= 3).then_some(attempt);
            assert_eq!(again.is_none(), expected.is_some());
            assert_eq!(cursors(&world).await, [(3, 0), (0, expected.unwrap_or(0)), (3, 0)]);
        }
        assert_only_the_second_is_parked(&world).await;
    });
}

/// Every return resets the count, also after a failure.
#[test]
fn every_return_removes_the_lease() {
    play(async || {
        for op in [Op::Rows, Op::PutRow, Op::MoveCursor, Op::JournalRead, Op::ReplaceLease] {
            let world = World::new();
            let mut messages = singles(&world, 3).await;
            if op == Op::JournalRead {
                messages.remove(0);
            }
            world.faults.fail(op, "", 1..=1, Broken::After);
            let projector = world.projector("sums");
            let again = projector.suspicious(3).project(&messages, world.soon()).await;
            assert!(!again.is_empty(), "{op:?}");
            assert_eq!(attempts(&world.cursor("sums", &acme()).await), 0, "{op:?}");
            let again = projector.suspicious(3).project(&messages, world.soon()).await;
            assert!(again.is_empty(), "{op:?}");
            let cursor = world.cursor("sums", &acme()).await;
            assert_eq!((cursor.seq, attempts(&cursor), cursor.parked), (Seq(3), 0, None));
        }
        // So does a return that parks the view for a fault.
        let world = World::new();
        let message = world.commit(&acme(), &[say(1, "boo")]).await;
        assert_eq!(deliver(&world, &message).await, Some(vec![]));
        let cursor = world.cursor("sums", &acme()).await;
        assert!(
            cursor.parked.as_ref().is_some_and(|parked| parked.reason.contains("a test of views"))
        );
        assert_eq!(attempts(&cursor), 0);
    });
}

/// A lease that could not be removed does not count as a crash for the process that stored it.
#[test]
fn a_lease_that_could_not_be_removed_counts_as_no_crash() {
    play(async || {
        let world = World::new();
        let messages = singles(&world, 1).await;
        let projector = world.projector("sums");
        world.faults.fail(Op::PutRow, "", .., Broken::Before);
        world.faults.fail(Op::ReplaceLease, " 0", .., Broken::Before);
        for _ in 0..5 {
            assert_eq!(projector.suspicious(3).project(&messages, world.soon()).await, [0]);
            assert_eq!(attempts(&world.cursor("sums", &acme()).await), 1);
        }
        world.faults.heal();
        assert!(projector.suspicious(3).project(&messages, world.soon()).await.is_empty());
        assert_eq!(attempts(&world.cursor("sums", &acme()).await), 0);
    });
}

/// A call that is dropped after its deadline, in a process that goes on, does not count as a crash.
#[test]
fn a_dropped_call_counts_as_no_crash() {
    play(async || {
        let world = World::new();
        let messages = singles(&world, 1).await;
        let projector = world.projector("sums");
        for _ in 0..5 {
            world.faults.before(Op::PutRow, "", || async {
                crate::crash::crash();
                std::future::pending().await
            });
            assert_eq!(
                survives(projector.suspicious(3).project(&messages, world.soon())).await,
                None
            );
            assert_eq!(attempts(&world.cursor("sums", &acme()).await), 1);
        }
        assert!(projector.suspicious(3).project(&messages, world.soon()).await.is_empty());
        let cursor = world.cursor("sums", &acme()).await;
        assert_eq!((cursor.seq, attempts(&cursor), cursor.parked), (Seq(1), 0, None));
    });
}

/// A projector without suspicion stores no leases, but removes that of a crash after a success.
#[test]
fn a_projector_without_suspicion_stores_no_leases() {
    play(async || {
        let world = World::new();
        let messages = singles(&world, 4).await;
        let projector = world.projector("sums");
        applied(&projector, &messages[..2]).await;
        assert_eq!(world.faults.counts([Op::ReplaceLease]), [0]);
        world.faults.before(Op::PutRow, "", || async {
            crate::crash::crash();
            std::future::pending().await
        });
        assert_eq!(deliver(&world, &messages[2]).await, None);
        assert_eq!(attempts(&world.cursor("sums", &acme()).await), 1);
        applied(&projector, &messages[2..]).await;
        let cursor = world.cursor("sums", &acme()).await;
        assert_eq!((cursor.seq, attempts(&cursor)), (Seq(4), 0));
        assert_eq!(
            world.faults.calls(Op::ReplaceLease),
            [format!("{} 1", acme()), format!("{} 0", acme())]
        );
    });
}

async fn sweep(world: &World) -> Option<ViewSweepReport> {
    let sweep = world.view_sweep("sums");
    let swept = fate(world, sweep.sweep(None, ALL, world.soon())).await;
    swept.map(|report| report.expect("memory"))
}

/// The sweep applies such a log first beside others, and after a crash alone.
#[test]
fn a_log_that_crashes_the_sweep_parks_the_view() {
    play(async || {
        let world = World::new();
        deadly(&world).await;
        world.env.pass(11_000);
        let mut crashed = 0;
        let report = loop {
            match sweep(&world).await {
                Some(report) => break report,
                None => crashed += 1,
            }
            assert!(crashed <= 3, "{:?}", cursors(&world).await);
        };
        assert_eq!(crashed, 3);
        assert_eq!((report.failed, report.parked.len()), (vec![], 1));
        assert_only_the_second_is_parked(&world).await;
    });
}

#[test]
fn a_dead_letter_that_crashes_the_sweep_parks_the_view() {
    play(async || {
        let world = World::new();
        let message = deadly(&world).await;
        world.memory.dead_letters.push("sums", message);
        for _ in 0..3 {
            assert_eq!(sweep(&world).await, None);
        }
        assert_eq!(sweep(&world).await.expect("no crash").delivered, 1);
        assert_only_the_second_is_parked(&world).await;
    });
}

/// A host that has lost notifications can catch up their logs at once.
#[test]
fn logs_are_caught_up_at_once() {
    play(async || {
        for attempts_max in [None, Some(3)] {
            let world = World::new();
            for org in orgs() {
                world.commit(&org, &run(1..=3)).await;
            }
            let [a, b, c] = orgs();
            let logs = [a.clone(), log("ledger/org:a"), b.clone(), log("tally/org:unheard")];
            let report = world.view_sweep("sums").catch_up(&logs, attempts_max, world.soon()).await;
            let mut caught_up = report.caught_up;
            caught_up.sort();
            assert_eq!((report.logs, caught_up, report.failed), (3, vec![a, b], vec![]));
            assert_eq!(cursors(&world).await, [(3, 0), (3, 0), (0, 0)], "c was not asked for");
            let noted = world.faults.counts([Op::ReplaceLease]);
            assert_eq!(noted, [if attempts_max.is_some() { 4 } else { 0 }]);
            // No time is left.
            let now = world.env.now();
            let late = world.view_sweep("sums").catch_up(&orgs()[2..], attempts_max, now).await;
            assert_eq!(late.failed, [c]);
        }
    });
}

/// One of the logs crashes the process.
#[test]
fn logs_are_caught_up_behind_leases() {
    play(async || {
        let world = World::new();
        deadly(&world).await;
        let bring_on = async || {
            let sweep = world.view_sweep("sums");
            fate(&world, sweep.catch_up(&orgs(), Some(ATTEMPTS_MAX), world.soon())).await
        };
        for attempt in 1..=3 {
            assert_eq!(bring_on().await, None);
            assert_eq!(cursors(&world).await, [(3, 0), (0, attempt), (0, 0)]);
        }
        let report = bring_on().await.expect("no crash");
        assert_eq!((report.parked.len(), report.failed), (1, vec![]));
        assert_only_the_second_is_parked(&world).await;
    });
}

/// A long catch-up has many steps. Each step that is done resets the count of crashes.
#[test]
fn attempts_count_for_one_step_only() {
    play(async || {
        let world = World::new();
        singles(&world, 250).await;
        let suspicious = || world.projector("sums").suspicious(2);
        let last = world.messages().pop().expect("many");
        for killed_at in [" 200", " 250"] {
            world.faults.before(Op::MoveCursor, killed_at, || async {
                crate::crash::crash();
                std::future::pending().await
            });
            let messages = [last.clone()];
            let (projector, soon) = (suspicious(), world.soon());
            assert_eq!(fate(&world, projector.project(&messages, soon)).await, None);
            assert_eq!(attempts(&world.cursor("sums", &acme()).await), 1);
        }
        applied(&suspicious(), [&last]).await;
        let cursor = world.cursor("sums", &acme()).await;
        assert_eq!((cursor.seq, attempts(&cursor), cursor.parked), (Seq(250), 0, None));
    });
}
