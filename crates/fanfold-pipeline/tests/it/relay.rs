//! The relay groups changes by log in order, packs each log's commands into one record per round
//! (up to 256 KiB, at most 1 MiB), sends rounds with PutRecords (500 records, 5 MiB), retries only
//! failed records with backoff and jitter, and starts a log's next round only when its last was
//! acknowledged (F2).
//!
//! `docs/design.md#relay`.

use bytes::Bytes;
use fanfold::host::body::record::Record;
use fanfold::host::limits::{PUT_RECORDS_BYTES_MAX, STREAM_RECORD_BYTES_SOFT};
use fanfold::{LogId, Seq};
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::ports::{Change, Env, Token};
use fanfold_pipeline::process::ReceivedRecord;
use fanfold_pipeline::testing::{Broken, Op};

use crate::check::{play, seeds};
use crate::world::{NEVER, World, log};

/// A change of one command whose body has `bytes` unreadable bytes.
fn change(log: &LogId, seq: u64, bytes: usize) -> Change {
    Change {
        log: log.clone(),
        last: Seq(seq),
        n: 1,
        at: fanfold::Time(seq),
        token: Token(u128::from(seq) << 64 | bytes as u128),
        body: vec![seq as u8; bytes].into(),
    }
}

/// `changes` changes of each log, in turns.
fn mixed(logs: &[LogId], changes: u64, bytes: usize) -> Vec<Change> {
    (1..=changes).flat_map(|seq| logs.iter().map(move |log| change(log, seq, bytes))).collect()
}

fn logs<const N: usize>(names: [&str; N]) -> [LogId; N] {
    names.map(|name| log(&format!("tally/org:{name}")))
}

/// The seqs in each record of a log on the stream, in order.
fn rounds(world: &World, log: &LogId) -> Vec<Vec<u64>> {
    let records = world.records().into_iter().filter(|record| record.key == *log);
    let seqs = |record: ReceivedRecord| {
        let record = Record::decode(&record.data).expect("a record");
        record.parts.iter().map(|part| part.last.0).collect()
    };
    records.map(seqs).collect()
}

/// A round has one record per log, up to a size. Further commands go into further rounds.
#[test]
fn a_round_is_one_record_per_log_up_to_a_size() {
    play(async || {
        let logs = logs(["a", "b"]);
        for (bytes, limit, expected) in [
            (1_000, STREAM_RECORD_BYTES_SOFT.get(), vec![vec![1, 2, 3, 4, 5]]),
            (1_000, 2_500, vec![vec![1, 2], vec![3, 4], vec![5]]),
            // A command that is larger than the limit has a record of its own.
            (3_000, 2_500, vec![vec![1], vec![2], vec![3], vec![4], vec![5]]),
            (100_000, usize::MAX, vec![vec![1, 2], vec![3, 4], vec![5]]),
        ] {
            let world = World::new();
            let relay = world.relay().with_record_bytes(limit);
            let outcome = relay.relay(&mixed(&logs, 5, bytes), NEVER).await;
            assert_eq!(outcome, BatchOutcome::DONE);
            for log in &logs {
                assert_eq!(rounds(&world, log), expected, "{bytes} bytes, limit {limit}");
            }
            // The records of both logs are in one round.
            assert_eq!(world.faults.counts([Op::PutRecords]), [expected.len()]);
        }
    });
}

/// F2: a log's next round starts only when its last was acknowledged, so no command reaches the
/// stream before an earlier one of its log, whichever records fail.
#[test]
fn the_next_record_waits_for_the_acknowledgement_of_the_last() {
    play(async || {
        let [a, b] = logs(["a", "b"]);
        let world = World::new();
        world.faults.leave_out(Op::PutRecords, "org:a 3-4", 1..=2);
        let relay = world.relay().with_record_bytes(400);
        let outcome = relay.relay(&mixed(&[a.clone(), b.clone()], 6, 50), NEVER).await;
        assert_eq!(outcome, BatchOutcome::DONE);
        assert_eq!(world.faults.overlap(Op::PutRecords), 1);
        for log in [a, b] {
            assert_eq!(rounds(&world, &log), [[1, 2], [3, 4], [5, 6]], "{log}");
        }
    });
}

/// The pauses have backoff and jitter.
#[test]
fn only_failed_records_are_sent_again_after_a_pause() {
    play(async || {
        let logs = logs(["a", "b", "c"]);
        let world = World::new();
        world.faults.leave_out(Op::PutRecords, "org:b", 1..=3);
        assert_eq!(world.relay().relay(&mixed(&logs, 1, 50), NEVER).await, BatchOutcome::DONE);
        let [all, again @ ..] = &world.faults.calls(Op::PutRecords)[..] else { panic!("no puts") };
        assert_eq!(all, "tally/org:a 1-1, tally/org:b 1-1, tally/org:c 1-1");
        assert_eq!(again, ["tally/org:b 1-1"; 3]);
        let pauses: Vec<u64> =
            world.faults.calls(Op::Sleep).iter().flat_map(|ms| ms.parse()).collect();
        assert_eq!(pauses.len(), 3, "a pause before each retry: {pauses:?}");
        for (pause, longest) in pauses.iter().zip([50, 100, 200]) {
            assert!((1..=longest).contains(pause), "{pauses:?}");
        }
    });
}

/// F2: the stream may have duplicates, but no gaps.
#[test]
fn after_a_failure_the_relay_goes_back_to_the_first_unacknowledged() {
    play(async || {
        let [a] = logs(["a"]);
        let changes = mixed(std::slice::from_ref(&a), 6, 50);
        for (broken, expected) in [
            (Broken::Before, vec![vec![1, 2], vec![3, 4], vec![5, 6]]),
            (Broken::After, vec![vec![1, 2], vec![3, 4], vec![3, 4], vec![5, 6]]),
        ] {
            let world = World::new();
            world.faults.fail(Op::PutRecords, "", 2..=2, broken);
            let relay = world.relay().with_record_bytes(400);
            assert_eq!(relay.relay(&changes, NEVER).await, BatchOutcome::DONE);
            assert_eq!(rounds(&world, &a), expected, "{broken:?}");
        }
    });
}

#[test]
fn the_first_unacknowledged_change_is_reported() {
    play(async || {
        let [a, b] = logs(["a", "b"]);
        // a1 b1 a2 b2 a3 b3
        let changes = mixed(&[a.clone(), b], 3, 50);
        for (left_out, calls, unfinished) in [
            ("org:", 1.., Some(0)),
            ("org:a", 1.., Some(0)),
            ("org:b", 1.., Some(1)),
            ("org:b 2-2", 1.., Some(3)),
            ("org:a 3-3", 1.., Some(4)),
            ("nobody", 1.., None),
        ] {
            let world = World::new();
            world.faults.leave_out(Op::PutRecords, left_out, calls);
            let relay = world.relay().with_record_bytes(100);
            let outcome = relay.relay(&changes, NEVER).await;
            assert_eq!(outcome.unfinished, unfinished, "without {left_out}");
            // The batch is retried, by the warm relay or by a cold one, and nothing is lost.
            world.faults.heal();
            for relay in [relay, world.relay()] {
                assert_eq!(relay.relay(&changes, NEVER).await, BatchOutcome::DONE);
            }
            assert!(rounds(&world, &a).concat().starts_with(&[1, 2, 3]), "{left_out}");
        }
    });
}

/// The remaining changes are reported.
#[test]
fn no_round_begins_after_the_deadline() {
    play(async || {
        let [a] = logs(["a"]);
        let changes = mixed(std::slice::from_ref(&a), 3, 50);
        for (rounds_until, unfinished) in [(0, Some(0)), (1, Some(1)), (2, Some(2)), (3, None)] {
            let world = World::new();
            let deadline = world.env.now().plus_ms(1);
            if rounds_until == 0 {
                world.env.pass(1);
            }
            let clock = world.env.clone();
            world.faults.after(
                Op::PutRecords,
                &format!("{rounds_until}-{rounds_until}"),
                move || {
                    clock.pass(1);
                    std::future::ready(())
                },
            );
            let relay = world.relay().with_record_bytes(100);
            assert_eq!(relay.relay(&changes, deadline).await.unfinished, unfinished);
            assert_eq!(rounds(&world, &a).len(), rounds_until);
        }
    });
}

/// Attempts are bounded, also without a deadline, since the event source retries the batch.
#[test]
fn the_relay_gives_up_after_rounds_without_an_acknowledgement() {
    play(async || {
        let world = World::new();
        world.faults.fail(Op::PutRecords, "", .., Broken::Before);
        let outcome = world.relay().relay(&mixed(&logs(["a"]), 3, 50), NEVER).await;
        assert_eq!(outcome.unfinished, Some(0));
        assert_eq!(world.faults.counts([Op::PutRecords]), [6]);
    });
}

/// A record that the stream refuses is neither retried at once nor skipped. The batch is retried,
/// and succeeds once an operator has restored the permission.
#[test]
fn a_refused_record_is_reported_without_a_retry() {
    play(async || {
        let world = World::new();
        world.faults.fail(Op::PutRecords, "", .., Broken::Refused);
        let (relay, changes) = (world.relay(), mixed(&logs(["a"]), 3, 50));
        let start = world.env.now();
        assert_eq!(relay.relay(&changes, NEVER).await.unfinished, Some(0));
        assert_eq!(world.faults.counts([Op::PutRecords]), [1]);
        assert_eq!(world.env.now(), start);
        world.faults.heal();
        assert_eq!(relay.relay(&changes, NEVER).await.unfinished, None);
    });
}

/// A warm relay remembers the acknowledged (seq, tok) of each log, and does not send it again when
/// the batch is retried. It compares both, since a restored table counts from a lower seq again.
#[test]
fn a_warm_relay_sends_nothing_twice_and_leaves_nothing_out() {
    play(async || {
        let [a] = logs(["a"]);
        let changes = |seqs: std::ops::RangeInclusive<u64>, bytes: usize| -> Vec<Change> {
            seqs.map(|seq| change(&a, seq, bytes)).collect()
        };
        let none: Vec<u64> = vec![];
        for (what, batch, expected) in [
            ("the same again", changes(1..=5, 50), none.clone()),
            ("a part of it, up to the last", changes(3..=5, 50), none),
            ("more behind it", changes(1..=7, 50), vec![6, 7]),
            ("what follows", changes(6..=7, 50), vec![6, 7]),
            ("a part of it, without the last", changes(1..=4, 50), vec![1, 2, 3, 4]),
            ("of a restored table: other batches, lower", changes(2..=3, 60), vec![2, 3]),
            ("of a restored table: the same seq", changes(5..=5, 60), vec![5]),
            ("of a restored table: further on", changes(4..=6, 60), vec![4, 5, 6]),
        ] {
            let world = World::new();
            let relay = world.relay();
            assert_eq!(relay.relay(&changes(1..=5, 50), NEVER).await, BatchOutcome::DONE);
            let before = rounds(&world, &a).len();
            assert_eq!(relay.relay(&batch, NEVER).await, BatchOutcome::DONE);
            assert_eq!(rounds(&world, &a)[before..].concat(), expected, "{what}");
        }
    });
}

/// A warm relay remembers acknowledged changes, not sent ones.
#[test]
fn a_warm_relay_sends_unacknowledged_changes_again() {
    play(async || {
        let [a] = logs(["a"]);
        let changes = mixed(std::slice::from_ref(&a), 4, 50);
        let world = World::new();
        let relay = world.relay().with_record_bytes(400);
        world.faults.fail(Op::PutRecords, "3-4", .., Broken::After);
        assert_eq!(relay.relay(&changes, NEVER).await.unfinished, Some(2));
        world.faults.heal();
        let before = rounds(&world, &a).len();
        assert_eq!(relay.relay(&changes, NEVER).await, BatchOutcome::DONE);
        assert_eq!(rounds(&world, &a)[before..], [[3, 4]]);
    });
}

/// The relay does not decode bodies, and never fails on content.
#[test]
fn bodies_are_passed_on_unread() {
    play(async || {
        let [a] = logs(["a"]);
        let bodies: [&[u8]; 5] = [b"", b"\0", b"\xff\xfe{", b"[1,2", &[7; 70_000]];
        let changes: Vec<Change> = (1..)
            .zip(bodies)
            .map(|(seq, body)| Change { body: Bytes::copy_from_slice(body), ..change(&a, seq, 0) })
            .collect();
        let world = World::new();
        assert_eq!(world.relay().relay(&changes, NEVER).await, BatchOutcome::DONE);
        let records = world.records();
        let passed = records.iter().map(|record| Record::decode(&record.data).expect("a record"));
        let passed: Vec<&[u8]> = passed.flat_map(|r| r.parts).map(|part| part.body).collect();
        assert_eq!(passed, bodies);
    });
}

/// A round stays within the limits of PutRecords (500 records, 5 MiB): the port refuses more.
#[test]
fn a_round_is_put_within_the_limits() {
    play(async || {
        for (logs, bytes, expected) in [
            (1_100, 10, vec![500, 500, 100]),
            (40, 250_000, vec![20, 20]),
            (13, 900_000, vec![5, 5, 3]),
        ] {
            let names = (0..logs).map(|n| log(&format!("tally/org:o{n}")));
            let changes: Vec<Change> = names.map(|log| change(&log, 1, bytes)).collect();
            let world = World::new();
            assert_eq!(world.relay().relay(&changes, NEVER).await, BatchOutcome::DONE);
            let puts = world.faults.calls(Op::PutRecords);
            let puts: Vec<usize> = puts.iter().map(|put| put.split(", ").count()).collect();
            assert_eq!(puts, expected, "{logs} logs of {bytes} bytes");
            assert!(puts.iter().all(|n| n * bytes <= PUT_RECORDS_BYTES_MAX.get()));
            assert_eq!(world.records().len(), logs);
        }
    });
}

/// F2 under random faults: a log's record begins at its first unacknowledged command, so a reader
/// that skips repeats sees all commands in order.
#[test]
fn no_command_is_lost_or_overtaken() {
    play(async || {
        seeds(60, async |seed| {
            let world = World::seeded(seed);
            let pick = |n: u64| world.env.random() % n;
            let logs = logs(["a", "b", "c"]);
            let changes: Vec<Change> = {
                let mut seqs = [0; 3];
                let next = |_| {
                    let log = pick(3) as usize;
                    seqs[log] += 1;
                    change(&logs[log], seqs[log], pick(200) as usize)
                };
                (0..pick(40)).map(next).collect()
            };
            for _ in 0..pick(12) {
                let at = 1 + pick(20) as usize;
                match pick(4) {
                    0 => world.faults.fail(Op::PutRecords, "", at..at + 2, Broken::Before),
                    1 => world.faults.fail(Op::PutRecords, "", at..at + 2, Broken::After),
                    _ => {
                        let left_out = format!("{} {}", logs[pick(3) as usize], 1 + pick(9));
                        world.faults.leave_out(Op::PutRecords, &left_out, 1..=3);
                    }
                }
            }
            let mut relay = world.relay().with_record_bytes(100 + pick(900) as usize);
            let mut rest = &changes[..];
            while !rest.is_empty() {
                let deadline = world.env.now().plus_ms(1 + pick(300));
                let done = relay.relay(rest, deadline).await.unfinished.unwrap_or(rest.len());
                rest = &rest[done..];
                if pick(3) == 0 {
                    relay = world.relay();
                }
            }
            for log in &logs {
                let mut seen = 0;
                for seq in rounds(&world, log).concat() {
                    assert!(seq <= seen + 1, "{log}: {seq} overtakes {}", seen + 1);
                    seen = seen.max(seq);
                }
                let sent = changes.iter().filter(|change| change.log == *log).count();
                assert_eq!(seen, sent as u64, "{log}");
            }
        })
        .await;
    });
}
