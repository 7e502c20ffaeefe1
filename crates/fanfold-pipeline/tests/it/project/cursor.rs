//! When the projector applies a commit, and when it acknowledges the message: a commit is done,
//! next in line, or beyond a gap.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use fanfold::{Command, Seq};
use fanfold_pipeline::ports::{CommitItem, Env, Journal, Nonce};
use fanfold_pipeline::testing::{Broken, Op};
use serde_json::json;

use super::singles;
use crate::check::play;
use crate::world::{NEVER, World, acme, add, applied, command, done, log, padded, run};

/// The projector applies a commit that is next, and skips one that is done.
#[test]
fn a_commit_is_applied_once_without_reading_the_journal() {
    play(async || {
        let world = World::new();
        let messages = singles(&world, 6).await;
        let projector = world.projector("sums");
        for (seq, message) in (1..).zip(&messages) {
            applied(&projector, [message]).await;
            assert_eq!(world.cursor("sums", &acme()).await.seq, Seq(seq));
        }
        let rows = ["a@6", "b@4", "c@5"].map(|row| format!("{row} {{\"total\":2,\"said\":\"\"}}"));
        assert_eq!(world.rows("sums").await, rows);
        assert_eq!(world.faults.counts([Op::JournalRead, Op::Sleep]), [0, 0]);
        world.faults.forget();
        applied(&projector, &messages).await;
        assert_eq!(world.faults.counts([Op::PutRow, Op::MoveCursor, Op::JournalRead]), [0; 3]);
        world.audit_view("sums", &acme()).await;
    });
}

/// They are folded together.
#[test]
fn commits_that_arrive_together_are_sorted() {
    play(async || {
        let world = World::new();
        let mut messages = singles(&world, 6).await;
        messages.reverse();
        messages.push(messages[2].clone());
        applied(&world.projector("sums"), &messages).await;
        assert_eq!(world.cursor("sums", &acme()).await.seq, Seq(6));
        let calls = [Op::JournalRead, Op::Sleep, Op::PutRow, Op::MoveCursor];
        assert_eq!(world.faults.counts(calls), [0, 0, 3, 1], "a row is written once");
        world.audit_view("sums", &acme()).await;
    });
}

/// Beyond a gap the projector waits 50–200 ms with jitter, and reads the cursor again as long as it
/// moves. Then it reads the journal from the cursor on, so a lost message loses no commit.
#[test]
fn beyond_a_gap_the_projector_waits_and_then_reads_the_journal() {
    play(async || {
        for delivered in [vec![3], vec![0, 4], vec![5, 3], vec![1, 1]] {
            let world = World::new();
            let messages = singles(&world, 6).await;
            let projector = world.projector("sums");
            for at in delivered {
                let message = messages[at].clone();
                applied(&projector, [&message]).await;
                assert!(world.cursor("sums", &acme()).await.seq.0 > at as u64);
                world.audit_view("sums", &acme()).await;
            }
            let waits: Vec<u64> =
                world.faults.calls(Op::Sleep).iter().flat_map(|ms| ms.parse()).collect();
            assert!(waits.iter().all(|ms| (50..=200).contains(ms)), "{waits:?}");
            assert_eq!(waits.len(), 1, "one wait, since no worker moves the cursor");
            assert!(!world.faults.calls(Op::JournalRead).is_empty());
        }
    });
}

/// When another worker applies the missing commits during the wait, the journal is not read.
#[test]
fn commits_applied_during_the_wait_are_not_read_from_the_journal() {
    play(async || {
        let world = World::new();
        let messages = singles(&world, 4).await;
        for message in &messages[..3] {
            let (other, message) = (world.projector("sums"), message.clone());
            world.faults.before(Op::Sleep, "", move || {
                let (other, message) = (other.clone(), message.clone());
                async move { applied(&other, [&message]).await }
            });
        }
        let last = messages[3].clone();
        applied(&world.projector("sums"), [&last]).await;
        assert_eq!(world.cursor("sums", &acme()).await.seq, Seq(4));
        assert_eq!(world.faults.counts([Op::JournalRead]), [0]);
        world.audit_view("sums", &acme()).await;
    });
}

/// The cursor moves during each wait.
#[test]
fn the_projector_waits_two_seconds_at_most() {
    play(async || {
        let world = World::new();
        let messages = singles(&world, 60).await;
        let last = messages[59].clone();
        // In each wait the cursor moves by one, and never gets near the commit.
        let (other, next) = (world.projector("sums"), AtomicUsize::new(0));
        world.faults.before_every(Op::Sleep, move || {
            let message = messages[next.fetch_add(1, Ordering::Relaxed)].clone();
            let other = other.clone();
            async move { applied(&other, [&message]).await }
        });
        let start = world.env.now();
        applied(&world.projector("sums"), [&last]).await;
        let waited_ms = world.env.now().since_ms(start);
        assert!((2_000..2_200).contains(&waited_ms), "{waited_ms} ms");
        assert_eq!(world.cursor("sums", &acme()).await.seq, Seq(60));
        assert!(!world.faults.calls(Op::JournalRead).is_empty());
    });
}

/// A message is acknowledged only when the cursor has reached its commit. When a call fails, only
/// its message is retried.
#[test]
fn a_message_is_not_acknowledged_before_it_is_applied() {
    play(async || {
        for op in [Op::Cursor, Op::Rows, Op::PutRow, Op::MoveCursor, Op::JournalRead] {
            for broken in [Broken::Before, Broken::After] {
                let world = World::new();
                singles(&world, 3).await;
                let mut messages = vec![world.commit(&log("tally/org:b"), &[add(1)]).await];
                messages.push(world.commit(&acme(), &run(4..=5)).await);
                messages.push(world.commit(&log("tally/org:c"), &[add(1)]).await);
                world.faults.fail(op, "org:acme", .., broken);
                let projector = world.projector("sums");
                assert_eq!(projector.project(&messages, NEVER).await, [1], "{op:?} {broken:?}");
                world.audit_view("sums", &acme()).await;
                for org in ["b", "c"] {
                    let org = log(&format!("tally/org:{org}"));
                    assert_eq!(world.cursor("sums", &org).await.seq, Seq(1));
                }
                world.faults.heal();
                applied(&projector, &messages[1..2]).await;
                assert_eq!(world.cursor("sums", &acme()).await.seq, Seq(5));
                world.audit_view("sums", &acme()).await;
            }
        }
    });
}

/// A message with commits of many logs is retried if one of them is not applied.
#[test]
fn a_message_of_many_logs_is_acknowledged_when_all_are_applied() {
    play(async || {
        let world = World::new();
        let logs = ["a", "b", "c"].map(|org| log(&format!("tally/org:{org}")));
        let records = logs.each_ref().map(|log| world.record(log, 1, &[add(1)]));
        done(&world.elsewhere(), &records).await;
        let [message] = &world.messages()[..] else { panic!("one message") };
        world.faults.fail(Op::PutRow, "org:b", 1..=1, Broken::Before);
        let projector = world.projector("sums");
        assert_eq!(projector.project(&world.messages(), NEVER).await, [0]);
        applied(&projector, [message]).await;
        for log in &logs {
            assert_eq!(world.cursor("sums", log).await.seq, Seq(1), "{log}");
            world.audit_view("sums", log).await;
        }
    });
}

/// The projector acknowledges and skips unreadable messages and logs of other services. After the
/// deadline it acknowledges nothing.
#[test]
fn messages_that_are_not_for_the_view_are_skipped() {
    play(async || {
        let world = World::new();
        let open = command("ann", 1, "open", json!({"account": "cash"}));
        let ledger = world.commit(&log("ledger/org:acme"), &[open]).await;
        let ours = world.commit(&acme(), &run(1..=1)).await;
        let batch = [Bytes::from_static(b"[{}]"), ledger, Bytes::from_static(b"\xff"), ours];
        let projector = world.projector("sums");
        assert_eq!(projector.project(&batch, NEVER).await, [] as [usize; 0]);
        assert_eq!(world.cursor("sums", &log("ledger/org:acme")).await.seq, Seq::ZERO);
        assert_eq!(world.cursor("sums", &acme()).await.seq, Seq(1));
        let next = world.commit(&acme(), &run(2..=2)).await;
        assert_eq!(projector.project(&[next], world.env.now()).await, [0], "after the deadline");
    });
}

/// A catch-up of more than 5,000 entries is marked `behind` in the cursor, and the view's sweep
/// continues it in bounded steps.
#[test]
fn a_view_far_behind_is_left_to_the_sweep() {
    play(async || {
        let world = World::new();
        let mut messages = Vec::new();
        for first in (1..=7_000).step_by(10) {
            messages.push(world.commit(&acme(), &run(first..first + 10)).await);
        }
        let projector = world.projector("sums");
        let last = messages.pop().expect("many");
        let before = messages.pop().expect("many");
        applied(&projector, [&before]).await;
        let cursor = world.cursor("sums", &acme()).await;
        assert_eq!((cursor.seq, cursor.behind), (Seq(5_000), Some(Seq(6_990))));
        // A further message only raises the target, without reads and waits.
        world.faults.forget();
        applied(&projector, [&last]).await;
        assert_eq!(world.faults.counts([Op::JournalRead, Op::Sleep]), [0, 0]);
        let cursor = world.cursor("sums", &acme()).await;
        assert_eq!((cursor.seq, cursor.behind), (Seq(5_000), Some(Seq(7_000))));

        world.faults.forget();
        // Sweeps find a log by its slot.
        world.accept(&acme(), 1).await;
        let report = world.view_sweep("sums").sweep(None, 10, NEVER).await.expect("memory");
        assert_eq!(report.caught_up, [acme()]);
        let cursor = world.cursor("sums", &acme()).await;
        assert_eq!((cursor.seq, cursor.is_behind()), (Seq(7_000), false));
        let steps = world.faults.calls(Op::MoveCursor);
        assert_eq!(steps.len(), 2, "each step is a page of the journal: {steps:?}");
        world.audit_view("sums", &acme()).await;
    });
}

/// F3: a hole in the journal parks the view for the log, and nothing behind it is applied. When the
/// journal ends before the announced commit, the message is retried.
#[test]
fn nothing_behind_a_hole_in_the_journal_is_applied() {
    play(async || {
        let source = World::new();
        let messages = singles(&source, 9).await;
        let commits = source.commits(&acme()).await;
        for missing in [vec![4], vec![1], vec![2, 3, 8], vec![8, 9]] {
            let world = World::new();
            for commit in commits.iter().filter(|c| !missing.contains(&c.first.0)) {
                let commit = CommitItem { nonce: Nonce(1), ..commit.clone() };
                world.memory.journal.append(&acme(), &commit).await.expect("memory");
            }
            let again = world.projector("sums").project(&messages[8..], NEVER).await;
            let cursor = world.cursor("sums", &acme()).await;
            assert!(cursor.seq.0 < missing[0]);
            if missing == [8, 9] {
                assert_eq!((again, cursor.parked), (vec![0], None));
            } else {
                let parked = cursor.parked.expect("it is parked");
                assert_eq!((again, parked.seq.0), (vec![], missing[0]), "{missing:?}");
                assert!(parked.reason.contains("invariant F3 does not hold"), "{}", parked.reason);
            }
            world.audit_view("sums", &acme()).await;
        }
    });
}

/// A commit that is too large for a message (`"body":"journal"`) is read from the journal.
#[test]
fn a_commit_without_its_body_is_read_from_the_journal() {
    play(async || {
        let world = World::new();
        let first = world.commit(&acme(), &run(1..=1)).await;
        let large: Vec<Command> = (2..=6).map(|id| padded(id, 60_000)).collect();
        let large = world.commit(&acme(), &large).await;
        assert!(String::from_utf8_lossy(&large).contains(r#""body":"journal""#));
        let last = world.commit(&acme(), &run(7..=8)).await;
        for order in [[&first, &large, &last], [&first, &last, &large], [&large, &first, &last]] {
            let projector = world.projector("sums");
            for message in order {
                applied(&projector, [message]).await;
                world.audit_view("sums", &acme()).await;
            }
            assert_eq!(world.cursor("sums", &acme()).await.seq, Seq(8));
        }
        assert!(!world.faults.calls(Op::JournalRead).is_empty());
    });
}
