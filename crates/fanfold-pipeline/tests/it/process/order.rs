//! The order in which commands are processed, and how repeats differ from conflicts.

use fanfold::{Command, Time};
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::testing::Op;
use serde_json::json;

use crate::check::play;
use crate::world::{World, acme, add, command, done, log, run};

/// Enough entries to make a snapshot due.
const SNAPSHOT: u64 = 300;

/// The processor sorts each log's commands by seq, also across the records of a batch.
#[test]
fn commands_are_sorted_by_seq() {
    play(async || {
        let world = World::new();
        let batch = [(4, 6), (1, 3), (9, 9), (7, 8)].map(|(from, to)| world.acme(from..=to));
        done(&world.processor(), &batch).await;
        world.assert_run(9).await;
        assert_eq!(world.published(&acme()), [(1, 9)], "one commit per log and batch");
    });
}

/// F4: a command that arrives twice, in one batch or in the next, has one entry.
#[test]
fn repeats_of_the_stream_change_nothing() {
    play(async || {
        let world = World::new();
        let warm = world.processor();
        let batch = [(1, 3), (2, 5), (1, 5), (3, 3)].map(|(from, to)| world.acme(from..=to));
        done(&warm, &batch).await;
        world.assert_run(5).await;
        done(&warm, &batch).await;
        done(&world.processor(), &batch).await;
        done(&world.processor(), &[world.acme(5..=6), world.acme(1..=1)]).await;
        world.assert_run(6).await;
        world.audit(&acme()).await;
    });
}

#[test]
fn logs_run_concurrently_within_a_bound() {
    play(async || {
        let world = World::new();
        let records: Vec<_> = (0..100)
            .map(|n| world.record(&log(&format!("tally/org:o{n}")), 1, &[add(1)]))
            .collect();
        done(&world.processor(), &records).await;
        for op in [Op::JournalRead, Op::JournalAppend] {
            assert!((2..=32).contains(&world.faults.overlap(op)), "{}", world.faults.overlap(op));
        }
        assert_eq!(world.faults.counts([Op::JournalAppend, Op::Publish]), [100, 1]);
    });
}

/// A command at or below the tail is done if the entry there has its origin and id. Else it is
/// parked as a conflict, and the log goes on. Above the head the cache has the entry, below it the
/// journal.
#[test]
fn another_command_at_a_taken_seq_is_a_conflict() {
    play(async || {
        for (tail, snapshot) in [(3, false), (SNAPSHOT, true)] {
            for is_warm in [true, false] {
                let world = World::new();
                let mut processor = world.processor();
                done(&processor, &[world.acme(1..=tail)]).await;
                assert_eq!(world.head(&acme()).await.0 > 0, snapshot);
                if !is_warm {
                    processor = world.processor();
                }
                let others = [command("bob", 2, "add", json!({"counter": "a", "by": 1})), add(77)];
                let mut batch = vec![world.record(&acme(), 2, &others), world.acme(1..=3)];
                batch.push(world.acme(tail + 1..=tail + 1));
                for _ in 0..2 {
                    done(&processor, &batch).await;
                    let parked = world.parked(&acme()).await;
                    assert_eq!(parked, ["2 bob#2 Conflict", "3 ann#77 Conflict"]);
                }
                let expected: Vec<String> =
                    (1..=tail + 1).map(|n| format!("{n} ann#{n} accepted")).collect();
                assert_eq!(world.outcomes(&acme()).await, expected, "the log goes on");
                world.audit(&acme()).await;
            }
        }
    });
}

/// Both arrive in one batch, and neither has an entry yet. The first one received gets the seq.
#[test]
fn of_two_commands_for_one_seq_one_is_a_conflict() {
    play(async || {
        let world = World::new();
        let batch = [world.acme(1..=3), world.record(&acme(), 2, &[add(9)]), world.acme(2..=4)];
        done(&world.processor(), &batch).await;
        assert_eq!(world.parked(&acme()).await, ["2 ann#9 Conflict"]);
        let expected: Vec<String> = (1..=4).map(|n| format!("{n} ann#{n} accepted")).collect();
        assert_eq!(world.outcomes(&acme()).await, expected);
    });
}

/// The cache has the entries above the head. Repeats below it cost one query per log and batch.
#[test]
fn repeats_below_the_head_cost_one_query() {
    play(async || {
        let world = World::new();
        let processor = world.processor();
        done(&processor, &[world.acme(1..=SNAPSHOT)]).await;
        done(&processor, &[world.acme(SNAPSHOT + 1..=SNAPSHOT + 5)]).await;
        for (first, last, queries) in [(1, SNAPSHOT, 1), (SNAPSHOT + 1, SNAPSHOT + 5, 0)] {
            world.faults.forget();
            done(&processor, &[world.acme(first..=first + 2), world.acme(last - 1..=last)]).await;
            assert_eq!(world.faults.counts([Op::JournalRead, Op::StateGet]), [queries, 0]);
        }
    });
}

/// When the entries are far apart, each has a query of its own, so the journal between is not read.
#[test]
fn repeats_far_apart_cost_a_query_each() {
    play(async || {
        let world = World::new();
        let processor = world.processor();
        for seq in 1..=500 {
            done(&processor, &[world.acme(seq..=seq)]).await;
        }
        assert!(world.head(&acme()).await.0 > 400);
        world.faults.forget();
        let batch = [1, 2, 50, 399, 400].map(|seq| world.acme(seq..=seq));
        done(&processor, &batch).await;
        let queries = ["tally/org:acme from 1", "tally/org:acme from 399"];
        assert_eq!(world.faults.calls(Op::JournalRead), queries);
        assert_eq!(world.faults.counts([Op::JournalAppend, Op::Publish, Op::Park]), [0; 3]);
    });
}

/// A large batch is decided in bounded runs, and all of it is done.
#[test]
fn a_long_queue_is_decided_in_bounded_runs() {
    play(async || {
        let world = World::new();
        done(&world.processor(), &[world.acme(1..=5_000)]).await;
        world.assert_run(5_000).await;
        let commits = world.commits(&acme()).await;
        assert!(commits.iter().all(|commit| commit.n <= 2_000));
        world.audit(&acme()).await;
    });
}

/// A known id becomes a `duplicate` entry with the seq of the first. An unknown id at or below the
/// floor becomes a `stale` entry. Rejected and faulted commands use up their ids, too.
#[test]
fn every_id_is_used_once() {
    play(async || {
        for is_cold in [false, true] {
            let world = World::new();
            let mut processor = world.processor();
            let refused = command("ann", 2, "add", json!({"counter": "a", "by": 0}));
            let faulted = json!({"counter": "a", "how": "panic_in_decide"});
            let faulted = command("ann", 3, "fail", faulted);
            let first = [add(1), refused.clone(), faulted.clone()];
            done(&processor, &[world.record(&acme(), 1, &first)]).await;
            if is_cold {
                processor = world.processor();
            }
            let bobs = command("bob", 1, "add", json!({"counter": "a", "by": 1}));
            let again = [add(1), refused, faulted, bobs, add(4)];
            done(&processor, &[world.record(&acme(), 4, &again)]).await;
            let expected = [
                "1 ann#1 accepted",
                "2 ann#2 rejected",
                "3 ann#3 faulted",
                "4 ann#1 duplicate",
                "5 ann#2 duplicate",
                "6 ann#3 duplicate",
                "7 bob#1 accepted",
                "8 ann#4 accepted",
            ];
            assert_eq!(world.outcomes(&acme()).await, expected);
            world.audit(&acme()).await;
        }
    });
}

/// The window holds 2,048 ids. A command whose id is below its floor is stale.
#[test]
fn an_id_below_the_window_is_stale() {
    play(async || {
        let world = World::new();
        let commands: Vec<Command> = (11..=2_060).map(add).collect();
        done(&world.processor(), &[world.record(&acme(), 1, &commands)]).await;
        // Ids 11 and 12 have left the window, and 5 was never in it.
        let late = [add(5), add(12), add(13), add(5), add(2_061)];
        done(&world.processor(), &[world.record(&acme(), 2_051, &late)]).await;
        let outcomes = world.outcomes(&acme()).await;
        let expected = ["5 stale", "12 stale", "13 duplicate", "5 stale", "2061 accepted"];
        for (outcome, expected) in outcomes[2_050..].iter().zip(expected) {
            assert!(outcome.ends_with(&format!("ann#{expected}")), "{outcome}");
        }
        world.audit(&acme()).await;
    });
}

/// An entry's time is max(previous entry's time, min(accept time, now)).
#[test]
fn an_entrys_time_is_between_the_previous_entrys_and_now() {
    play(async || {
        let world = World::new();
        let processor = world.processor();
        let now = world.env.now().0;
        for (seq, (accepted, expected)) in [
            (now - 500, now - 500),
            // The accepting clock was behind this one, then ahead of it.
            (now - 900, now - 500),
            (now + 9_000, now),
            (now - 100, now),
        ]
        .into_iter()
        .enumerate()
        {
            let seq = seq as u64 + 1;
            let record = world.record_at(&acme(), seq, &run([seq]), Time(accepted));
            done(&processor, &[record]).await;
            let entry = world.entries(&acme()).await.pop().expect("it has its entry");
            assert_eq!(entry.time.0, expected, "accepted at {accepted}");
        }
        let commits = world.commits(&acme()).await;
        let times: Vec<u64> = commits.iter().map(|commit| commit.at.0).collect();
        assert_eq!(times, [now - 500, now - 500, now, now]);
    });
}
