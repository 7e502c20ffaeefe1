//! The sweep of one view: it applies commits from the journal, and delivers dead letters.

use bytes::Bytes;
use fanfold::{LogId, Seq};
use fanfold_pipeline::ports::{
    CommitItem, DeadLetters, Env, Journal, Nonce, ParkedView, ViewTable,
};
use fanfold_pipeline::testing::{Broken, Op};

use super::{ALL, org};
use crate::check::play;
use crate::world::{NEVER, World, acme, add, applied, log, run};

/// The sweep applies a log whose only message was lost. It leaves out recent commits, whose
/// messages are still on their way.
#[test]
fn a_log_whose_message_was_lost_is_applied() {
    play(async || {
        for view in ["sums", "resets"] {
            let world = World::new();
            let [lost, short, young, finished] = ["lost", "short", "young", "finished"].map(org);
            for log in [&lost, &short, &young, &finished] {
                world.accept(log, 4).await;
            }
            let mut messages = Vec::new();
            for log in [&lost, &short, &finished] {
                messages.push(world.commit(log, &run(1..=3)).await);
            }
            world.commit(&short, &run(4..=4)).await;
            let projector = world.projector(view);
            applied(&projector, &messages[1..]).await;
            let ages = [(9_000, vec![]), (2_000, vec![lost.clone(), short.clone()])];
            for (ms, mut expected) in ages {
                world.env.pass(ms);
                if expected.is_empty() {
                    world.commit(&young, &run(1..=4)).await;
                }
                let report = world.view_sweep(view).sweep(None, ALL, NEVER).await.expect("memory");
                let mut caught_up = report.caught_up;
                caught_up.sort();
                expected.sort();
                assert_eq!((caught_up, report.failed), (expected, vec![]), "{view}");
            }
            for (log, seq) in [(&lost, 3), (&short, 4), (&finished, 3), (&young, 0)] {
                assert_eq!(world.cursor(view, log).await.seq, Seq(seq), "{view} {log}");
                world.audit_view(view, log).await;
            }
        }
    });
}

/// The sweep works in bounded steps. Each done step stays, and the next run continues.
#[test]
fn a_sweep_goes_on_where_the_last_one_ended() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 1).await;
        for seq in 1..=350 {
            world.commit(&acme(), &run(seq..=seq)).await;
        }
        world.env.pass(11_000);
        let sweep = world.view_sweep("sums");
        // Each step takes a millisecond.
        let clock = world.env.clone();
        world.faults.after_every(Op::MoveCursor, move || {
            clock.pass(1);
            std::future::ready(())
        });
        for (steps, expected) in [(1, 100), (2, 300), (9, 350)] {
            let deadline = world.env.now().plus_ms(steps);
            sweep.sweep(None, ALL, deadline).await.expect("memory");
            assert_eq!(world.cursor("sums", &acme()).await.seq, Seq(expected));
        }
        world.audit_view("sums", &acme()).await;
    });
}

/// F7: a log that cannot be applied, one for which the view is parked, and one of another service
/// stop no other log.
#[test]
fn a_log_that_cannot_be_applied_stops_no_other() {
    play(async || {
        let world = World::new();
        let [a, b, c] = ["a", "b", "c"].map(org);
        for log in [&a, &b, &c] {
            world.accept(log, 1).await;
            world.commit(log, &[add(1)]).await;
        }
        let ledger = log("ledger/org:a");
        let open = br#"{"type":"ledger","command":"open","id":1,"user":"ann","org":"a","data":{"account":"cash"}}"#;
        assert!(world.ingest().ingest(&[open]).await[0].is_ok());
        let stands = ParkedView {
            seq: Seq(1),
            reason: "a test".to_owned(),
            at: world.env.now(),
            build: None,
            rebuild: None,
        };
        world.table("sums").park(&c, Seq::ZERO, &stands).await.expect("memory");
        world.env.pass(11_000);
        world.faults.fail(Op::JournalRead, "org:b", .., Broken::Before);
        let report = world.view_sweep("sums").sweep(None, ALL, NEVER).await.expect("memory");
        assert_eq!((report.logs, report.parked), (3, [c.clone()].into()));
        assert_eq!((report.caught_up, report.failed), (vec![a], vec![b]));
        assert_eq!(world.cursor("sums", &c).await.seq, Seq::ZERO);
        assert_eq!(world.cursor("sums", &ledger).await.seq, Seq::ZERO);
    });
}

/// What one build could not apply, the next may. It tries once, and not again in its own name.
#[test]
fn another_build_tries_what_a_build_has_parked() {
    play(async || {
        let world = World::new();
        let [a, b, c] = ["a", "b", "c"].map(org);
        for log in [&a, &b, &c] {
            world.accept(log, 1).await;
            world.commit(log, &[add(1)]).await;
        }
        let parked = |build: Option<&str>| {
            let (reason, at) = ("a test".to_owned(), world.env.now());
            ParkedView { seq: Seq(1), reason, at, build: build.map(str::to_owned), rebuild: None }
        };
        for (log, build) in [(&a, Some("first")), (&b, Some("second")), (&c, None)] {
            world.table("sums").park(log, Seq::ZERO, &parked(build)).await.expect("memory");
        }
        // The first build tries what the second has parked.
        let sweep = world.view_sweep("sums");
        let run = async || sweep.sweep(None, 0, NEVER).await.expect("memory");
        let report = run().await;
        assert_eq!(
            (report.caught_up, report.parked),
            (vec![b.clone()], [&a, &c].map(LogId::clone).into())
        );
        let report = run().await;
        assert_eq!((report.caught_up, report.parked.len()), (vec![], 2), "nothing has changed");
        world.env.deploy();
        let report = run().await;
        assert_eq!((report.caught_up, report.parked), (vec![a.clone()], [c.clone()].into()));
        for (log, expected) in [(&a, 1), (&b, 1), (&c, 0)] {
            assert_eq!(world.cursor("sums", log).await.seq, Seq(expected), "{log}");
        }
        world.audit_view("sums", &a).await;
    });
}

/// A build that cannot apply the entry, either, parks the view in its own name.
#[test]
fn a_view_that_the_next_build_cannot_apply_either_stays_parked() {
    play(async || {
        let world = World::new();
        let log = acme();
        world.accept(&log, 1).await;
        let body = Bytes::from_static(b"illegible");
        let (first, nonce) = (Seq(1), Nonce(1));
        let illegible = CommitItem { first, n: 1, at: world.env.now(), nonce, body };
        world.memory.journal.append(&log, &illegible).await.expect("memory");
        world.env.pass(11_000);
        let sweep = world.view_sweep("sums");
        for build in ["first", "second"] {
            // The first run parks it, and the second leaves it.
            for _ in 0..2 {
                let report = sweep.sweep(None, ALL, NEVER).await.expect("memory");
                assert_eq!((report.parked, report.caught_up), ([log.clone()].into(), vec![]));
                let parked = world.cursor("sums", &log).await.parked.expect("it is parked");
                assert_eq!((parked.seq, parked.build.as_deref()), (Seq(1), Some(build)));
            }
            world.env.deploy();
        }
    });
}

/// A suspicious projector tries it when a notification comes. Others leave it to the sweep, which is suspicious, since the
/// entry may have crashed a process.
#[test]
fn a_suspicious_projector_tries_again_what_another_build_has_parked() {
    play(async || {
        let world = World::new();
        let log = acme();
        world.accept(&log, 2).await;
        world.commit(&log, &[add(1)]).await;
        let (reason, at) = ("a test".to_owned(), world.env.now());
        let parked =
            ParkedView { seq: Seq(1), reason, at, build: Some("first".to_owned()), rebuild: None };
        world.table("sums").park(&log, Seq::ZERO, &parked).await.expect("memory");
        let message = world.commit(&log, &[add(1)]).await;
        for (expected, says) in [(0, "the same build"), (2, "another build")] {
            let plain = world.projector("sums");
            applied(&plain, std::slice::from_ref(&message)).await;
            assert_eq!(world.cursor("sums", &log).await.seq, Seq(0), "it leaves that");
            applied(&plain.suspicious(3), std::slice::from_ref(&message)).await;
            assert_eq!(world.cursor("sums", &log).await.seq, Seq(expected), "{says}");
            world.env.deploy();
        }
        world.audit_view("sums", &log).await;
    });
}

/// The sweep delivers the view's dead letters. It removes delivered and unreadable ones, and keeps
/// the others.
#[test]
fn dead_letters_are_delivered() {
    play(async || {
        let world = World::new();
        let [a, b] = ["a", "b"].map(org);
        let mut letters = vec![Bytes::from_static(b"illegible")];
        for log in [&a, &b] {
            letters.push(world.commit(log, &[add(1)]).await);
        }
        for letter in &letters {
            world.memory.dead_letters.push("sums", letter.clone());
        }
        let left = async || {
            let left = world.memory.dead_letters.list("sums", None, 10).await.expect("memory");
            left.into_iter().map(|letter| letter.body).collect::<Vec<_>>()
        };
        world.faults.fail(Op::PutRow, "org:b", 1..=1, Broken::Before);
        let sweep = world.view_sweep("sums");
        for (delivered, expected) in [(2, [2].as_slice()), (1, &[]), (0, &[])] {
            let report = sweep.sweep(None, ALL, NEVER).await.expect("memory");
            assert_eq!(report.delivered, delivered);
            let expected: Vec<Bytes> = expected.iter().map(|at| letters[*at].clone()).collect();
            assert_eq!(left().await, expected);
        }
        for log in [&a, &b] {
            assert_eq!(world.cursor("sums", log).await.seq, Seq(1));
        }
        // A letter that was delivered but not removed is delivered again, without effect.
        world.memory.dead_letters.push("sums", letters[1].clone());
        world.faults.fail(Op::LetterRemove, "", 1..=1, Broken::Before);
        for counts in [(0, 1), (1, 0)] {
            let report = sweep.sweep(None, ALL, NEVER).await.expect("memory");
            assert_eq!((report.delivered, report.undelivered), counts);
        }
        world.audit_view("sums", &a).await;
    });
}

/// A run tries all dead letters once, page by page, while time is left. One that cannot be
/// delivered does not stop those behind it.
#[test]
fn a_run_tries_every_dead_letter_once() {
    play(async || {
        let world = World::new();
        let (_, bad) = lost_messages(&world, "bad", 150).await;
        let (_, good) = lost_messages(&world, "good", 160).await;
        for letter in bad.iter().chain(&good) {
            world.memory.dead_letters.push("sums", letter.clone());
        }
        world.faults.fail(Op::PutRow, "org:bad", .., Broken::Before);
        let sweep = world.view_sweep("sums");
        let report = sweep.sweep(None, ALL, NEVER).await.expect("memory");
        assert_eq!((report.delivered, report.undelivered), (160, 150));
        world.faults.heal();
        let report = sweep.sweep(None, ALL, NEVER).await.expect("memory");
        assert_eq!((report.delivered, report.undelivered), (150, 0));
        // Letters for which no time is left stay.
        for letter in &good {
            world.memory.dead_letters.push("sums", letter.clone());
        }
        let clock = world.env.clone();
        world.faults.after_every(Op::LetterRemove, move || {
            clock.pass(1);
            std::future::ready(())
        });
        let deadline = world.env.now().plus_ms(50);
        let report = sweep.sweep(None, ALL, deadline).await.expect("memory");
        assert_eq!(report.delivered, 100, "one page of letters");
        assert_eq!(
            world.memory.dead_letters.list("sums", None, ALL).await.expect("memory").len(),
            60
        );
    });
}

/// Makes `n` logs with one commit each, and returns them with their undelivered messages.
async fn lost_messages(world: &World, names: &str, n: usize) -> (Vec<LogId>, Vec<Bytes>) {
    let (mut logs, mut letters) = (Vec::new(), Vec::new());
    for at in 0..n {
        let log = org(&format!("{names}{at}"));
        world.accept(&log, 1).await;
        letters.push(world.commit(&log, &[add(1)]).await);
        logs.push(log);
    }
    (logs, letters)
}

/// Makes each advance of a cursor take a millisecond.
fn slow_down(world: &World) {
    let clock = world.env.clone();
    world.faults.after_every(Op::MoveCursor, move || {
        clock.pass(1);
        std::future::ready(())
    });
}

/// When time runs out, the next run begins with the first log that was not inspected.
#[test]
fn a_views_walk_that_is_cut_off_continues_at_the_same_log() {
    play(async || {
        for ms in [1, 7, 20] {
            let world = World::new();
            let (mut logs, _) = lost_messages(&world, "o", 50).await;
            world.env.pass(11_000);
            slow_down(&world);
            let (mut seen, mut position, mut runs) = (Vec::new(), None, 0);
            loop {
                let deadline = world.env.now().plus_ms(ms);
                let sweep = world.view_sweep("sums");
                let report = sweep.sweep(position, ALL, deadline).await.expect("memory");
                assert!(report.logs < 50, "{} logs in {ms} ms", report.logs);
                seen.extend(report.caught_up);
                runs += 1;
                position = report.next;
                if position.is_none() {
                    break;
                }
                assert!(runs < 50, "each run makes progress");
            }
            logs.sort();
            seen.sort();
            assert_eq!(seen, logs, "each log is swept once, with {ms} ms per run");
        }
    });
}

/// Dead letters and lagging logs share the time, so neither starves the other.
#[test]
fn dead_letters_and_logs_share_the_time() {
    play(async || {
        let world = World::new();
        let (_, _) = lost_messages(&world, "still", 60).await;
        world.env.pass(11_000);
        let (_, letters) = lost_messages(&world, "letter", 60).await;
        letters.into_iter().for_each(|letter| world.memory.dead_letters.push("sums", letter));
        slow_down(&world);
        let deadline = world.env.now().plus_ms(60);
        let report = world.view_sweep("sums").sweep(None, ALL, deadline).await.expect("memory");
        assert!((20..60).contains(&report.caught_up.len()), "{}", report.caught_up.len());
        assert!((20..60).contains(&report.delivered), "{}", report.delivered);
        assert_eq!(report.delivered + report.undelivered, 60);
        assert!(report.next.is_some(), "the run had no time for all logs");
    });
}

/// The report counts a queue that does not answer.
#[test]
fn a_failing_queue_stops_no_log() {
    play(async || {
        let world = World::new();
        let (logs, letters) = lost_messages(&world, "o", 3).await;
        world.memory.dead_letters.push("sums", letters[0].clone());
        world.env.pass(11_000);
        world.faults.fail(Op::LetterList, "", 1..=1, Broken::Before);
        let sweep = world.view_sweep("sums");
        let report = sweep.sweep(None, ALL, NEVER).await.expect("only the catalogue may fail");
        assert_eq!((report.caught_up.len(), report.undelivered), (logs.len(), 1));
        let report = sweep.sweep(None, ALL, NEVER).await.expect("memory");
        assert_eq!((report.delivered, report.undelivered), (1, 0));

        // A catalogue that does not answer stops no dead letter.
        world.memory.dead_letters.push("sums", letters[1].clone());
        world.faults.fail(Op::Catalogue, "", 1..=1, Broken::Before);
        sweep.sweep(None, ALL, NEVER).await.expect_err("there is no catalogue");
        let left = world.memory.dead_letters.list("sums", None, 10).await.expect("memory");
        assert_eq!(left, []);
    });
}
