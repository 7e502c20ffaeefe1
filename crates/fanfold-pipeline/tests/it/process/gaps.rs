//! Gaps: a command above the next seq. Another environment may have gone on, so the processor first
//! reads the journal from the cached tail, then the log's parked commands. If the gap remains, it
//! parks and acknowledges the commands at once, since a retried batch has no new records, and puts a
//! nudge behind them. After parking it reads the tail again, and goes on if the gap has closed. It
//! deletes a parked item only after its commit is published.
//!
//! `docs/design.md#process`.

use fanfold::Services;
use fanfold_pipeline::ports::{CommandStream, Env, StreamRecord};
use fanfold_pipeline::process::{Processor, ReceivedRecord};
use fanfold_pipeline::testing::{Broken, Op};
use serde_json::json;

use crate::check::play;
use crate::world::{World, acme, command, done, log, run, unfinished};

/// A processor of a log in which 1 to 3 are done, 4 is missing, and 5 and 6 are parked.
async fn with_a_gap(world: &World) -> Processor {
    let processor = world.processor();
    done(&processor, &[world.acme(1..=3)]).await;
    done(&processor, &[world.acme(5..=6)]).await;
    assert_eq!(world.parked(&acme()).await, ["5 ann#5 Gap", "6 ann#6 Gap"]);
    processor
}

/// A retry of the batch cannot bring the missing command, so the commands behind the gap are parked
/// and acknowledged at once, however young they are. A gap stops no other log.
#[test]
fn a_gap_is_parked_at_once() {
    play(async || {
        for age_ms in [0, 5_000, 3_600_000] {
            let world = World::new();
            let gap = world.acme(5..=6);
            world.env.pass(age_ms);
            let other = log("tally/org:b");
            let batch = [world.acme(1..=3), gap, world.record(&other, 1, &run([1]))];
            done(&world.processor(), &batch).await;
            assert_eq!(world.tail(&acme()).await.0, 3);
            assert_eq!(world.tail(&other).await.0, 1);
            assert_eq!(world.parked(&acme()).await, ["5 ann#5 Gap", "6 ann#6 Gap"]);
        }
    });
}

/// Reordering within a batch makes no gap.
#[test]
fn within_a_batch_the_order_does_not_matter() {
    play(async || {
        let world = World::new();
        let batch = [world.acme(8..=9), world.acme(4..=7), world.acme(5..=6), world.acme(1..=3)];
        done(&world.processor(), &batch).await;
        world.assert_run(9).await;
        assert_eq!(world.faults.counts([Op::Park, Op::PutRecords]), [0, 0]);
    });
}

/// The processor puts one nudge after parking. The missing command comes before the nudge on the
/// stream, so any environment that processes it then reads the parked table. A nudge causes no other
/// nudge.
#[test]
fn a_nudge_follows_what_is_parked() {
    play(async || {
        let world = World::new();
        done(&world.processor(), &[world.acme(1..=3)]).await;
        done(&world.processor(), &[world.acme(5..=6), world.acme(8..=8)]).await;
        assert_eq!(world.faults.calls(Op::PutRecords), ["nudge tally/org:acme"]);
        // The nudge arrives too early, twice. Nothing has changed, so no nudge follows.
        for _ in 0..2 {
            done(&world.processor(), &world.records()).await;
        }
        assert_eq!(world.records().len(), 1);
        // These commands are parked already, so no nudge follows.
        done(&world.processor(), &[world.acme(5..=6)]).await;
        assert_eq!(world.records().len(), 1);
        // A further command behind the same gap is newly parked, so a nudge follows.
        done(&world.processor(), &[world.acme(9..=9)]).await;
        assert_eq!(world.records().len(), 2);
        // The missing command goes to another environment, which does not read the parked table.
        done(&world.elsewhere(), &[world.acme(4..=4)]).await;
        assert_eq!(world.tail(&acme()).await.0, 4);
        done(&world.processor(), &world.records()).await;
        assert_eq!(world.tail(&acme()).await.0, 6);
        done(&world.elsewhere(), &[world.acme(7..=7)]).await;
        done(&world.processor(), &world.records()).await;
        world.assert_run(9).await;
    });
}

/// A nudge is best effort: without it the batch is done, and the sweep finds the parked commands.
#[test]
fn a_nudge_that_cannot_be_put_stops_nothing() {
    play(async || {
        for broken in [Broken::Before, Broken::Refused, Broken::After] {
            let world = World::new();
            world.faults.fail(Op::PutRecords, "nudge", .., broken);
            done(&world.processor(), &[world.acme(2..=2)]).await;
            assert_eq!(world.faults.counts([Op::PutRecords]), [1], "one attempt");
            done(&world.elsewhere(), &[world.acme(1..=1)]).await;
            world.faults.heal();
            done(&world.processor(), &[world.nudge(&acme())]).await;
            world.assert_run(2).await;
        }
    });
}

/// Records of one log arrive twice and slightly out of order, in any batches, at any environment. All
/// are processed in order without a sweep, since a nudge follows the parked commands, and the missing
/// ones come before it on the stream.
#[test]
fn reordered_records_are_in_order_without_a_sweep() {
    play(async || {
        for seed in 1..=200 {
            let world = World::seeded(seed);
            let pick = |n: usize| (world.env.random() % n as u64) as usize;
            let environments = [world.processor(), world.processor(), world.processor()];
            let stream = &world.memory.stream;
            let (mut put, mut processed, mut seq) = (Vec::new(), 0, 1);
            while seq <= 40 || processed < world.records().len() {
                // Some records arrive, each at most three places early.
                for _ in 0..pick(6) {
                    if seq > 40 {
                        break;
                    }
                    let last = (seq + pick(3) as u64).min(40);
                    let record = world.acme(seq..=last);
                    let place = put.len() - pick(4).min(put.len());
                    if pick(5) == 0 {
                        put.push(record.clone());
                    }
                    put.insert(place, record);
                    seq = last + 1;
                }
                for ReceivedRecord { key, data, .. } in put.drain(..) {
                    let record = StreamRecord { key, data };
                    stream.put_records(&[record]).await.expect("memory").remove(0).expect("memory");
                }
                let records = world.records();
                let end = records.len().min(processed + 1 + pick(4));
                done(&environments[pick(3)], &records[processed..end]).await;
                processed = end;
            }
            let expected: Vec<String> = (1..=40).map(|n| format!("{n} ann#{n} accepted")).collect();
            assert_eq!(world.outcomes(&acme()).await, expected, "seed {seed}");
            assert_eq!(world.parked(&acme()).await, [] as [String; 0], "seed {seed}");
        }
    });
}

/// Commands behind one that is parked for another reason are parked, too.
#[test]
fn behind_what_is_parked_a_gap_is_parked_too() {
    play(async || {
        let world = World::new();
        let processor = with_a_gap(&world).await;
        done(&processor, &[world.acme(7..=7)]).await;
        let parked = ["5 ann#5 Gap", "6 ann#6 Gap", "7 ann#7 Gap"];
        assert_eq!(world.parked(&acme()).await, parked);

        let world = World::new();
        done(&world.processor(), &[world.acme(1..=3)]).await;
        done(&world.processor_of(Services::new()), &[world.acme(5..=5)]).await;
        done(&world.processor(), &[world.acme(6..=6)]).await;
        assert_eq!(world.parked(&acme()).await, ["5 ann#5 NoService", "6 ann#6 Gap"]);
    });
}

/// Parked commands are taken up when the gap has closed: at once by the processor that parked them,
/// by any other at the next gap or nudge. A plain load does not read the parked table.
#[test]
fn parked_commands_are_taken_up_when_the_gap_has_closed() {
    play(async || {
        // Whether the parking processor gets the missing command, and whether a nudge comes next.
        for (is_warm, nudged, expected) in [
            (true, false, [6, 7]),
            (true, true, [6, 6]),
            (false, false, [4, 7]),
            (false, true, [4, 6]),
        ] {
            let world = World::new();
            let parked_here = with_a_gap(&world).await;
            let processor = if is_warm { parked_here } else { world.processor() };
            done(&processor, &[world.acme(4..=4)]).await;
            assert_eq!(world.tail(&acme()).await.0, expected[0]);
            let next = if nudged { world.nudge(&acme()) } else { world.acme(7..=7) };
            done(&processor, &[next]).await;
            world.assert_run(expected[1]).await;
            let published = world.published(&acme()).iter().map(|(_, last)| *last).max();
            assert_eq!(published, Some(expected[1]));
            world.audit(&acme()).await;
            // From now on the parked table is not read.
            done(&processor, &[world.acme(expected[1] + 1..=8)]).await;
            world.faults.forget();
            done(&processor, &[world.acme(9..=9)]).await;
            assert_eq!(world.faults.counts([Op::ParkedList]), [0]);
        }
    });
}

/// The missing command may arrive together with a nudge, or with further commands behind the gap.
#[test]
fn parked_commands_are_taken_up_with_the_missing_one() {
    play(async || {
        for first in [7, 5, 6] {
            let world = World::new();
            let processor = with_a_gap(&world).await;
            done(&processor, &[world.acme(first..=7), world.acme(4..=4)]).await;
            done(&processor, &[world.nudge(&acme())]).await;
            world.assert_run(7).await;
        }
    });
}

/// The processor deletes a parked item only after its commit is published.
#[test]
fn a_parked_command_stays_until_its_commit_is_published() {
    play(async || {
        let world = World::new();
        let processor = with_a_gap(&world).await;
        done(&world.elsewhere(), &[world.acme(4..=4)]).await;
        world.faults.fail(Op::Publish, "5-6", .., Broken::Before);
        assert_eq!(unfinished(&processor, &[world.nudge(&acme())]).await, 0);
        assert_eq!(world.tail(&acme()).await.0, 6);
        assert_eq!(world.parked(&acme()).await.len(), 2, "only they lead to publishing");
        world.faults.heal();
        done(&world.processor(), &[world.nudge(&acme())]).await;
        world.assert_run(6).await;
        assert!(world.published(&acme()).contains(&(5, 6)));
    });
}

/// A later call finds a parked item that could not be deleted to be done, and deletes it.
#[test]
fn a_parked_item_that_could_not_be_deleted_is_deleted_later() {
    play(async || {
        let world = World::new();
        let processor = with_a_gap(&world).await;
        world.faults.fail(Op::ParkedRemove, " 5 ", 1..=1, Broken::Before);
        done(&processor, &[world.acme(4..=4)]).await;
        assert_eq!(world.tail(&acme()).await.0, 6);
        assert_eq!(world.parked(&acme()).await[0], "5 ann#5 Gap");
        done(&processor, &[world.nudge(&acme())]).await;
        world.assert_run(6).await;
        world.audit(&acme()).await;
    });
}

/// After parking, the processor reads the tail again, and goes on if the gap has closed. The
/// environment that closed it may not have seen the parked commands.
#[test]
fn a_gap_that_closes_while_its_commands_are_parked_is_noticed() {
    play(async || {
        for missing in [4..=4, 4..=5] {
            let world = World::new();
            let processor = world.processor();
            done(&processor, &[world.acme(1..=3)]).await;
            let record = world.acme(5..=6);
            let (other, closing) = (world.clone(), missing.clone());
            world.faults.before(Op::Park, " 5 ", move || {
                let (world, missing) = (other.clone(), closing.clone());
                async move { done(&world.elsewhere(), &[world.acme(missing)]).await }
            });
            done(&processor, &[record]).await;
            world.assert_run(6).await;
            world.audit(&acme()).await;
        }
    });
}

/// Commands that cannot be parked are not acknowledged.
#[test]
fn a_command_that_could_not_be_parked_comes_again() {
    play(async || {
        for broken in [Broken::Before, Broken::After] {
            let world = World::new();
            let processor = world.processor();
            let batch = [world.acme(1..=3), world.acme(5..=5), world.acme(6..=6)];
            world.faults.fail(Op::Park, " 6 ", 1..=1, broken);
            assert_eq!(unfinished(&processor, &batch).await, 2);
            done(&processor, &batch[2..]).await;
            assert_eq!(world.parked(&acme()).await, ["5 ann#5 Gap", "6 ann#6 Gap"]);
        }
    });
}

/// On a nudge the processor loads the log anew, takes up parked commands, and publishes commits that
/// it does not know to be published.
#[test]
fn a_nudge_loads_afresh_and_publishes_what_is_unknown() {
    play(async || {
        let world = World::new();
        let processor = world.processor();
        done(&processor, &[world.acme(1..=3)]).await;
        world.faults.fail(Op::Publish, "4-4", 1..=5, Broken::Before);
        assert_eq!(unfinished(&processor, &[world.acme(4..=4)]).await, 0);
        let (published, other) = (world.published(&acme()), world.elsewhere());
        done(&other, &[world.acme(5..=6)]).await;
        world.faults.forget();
        done(&processor, &[world.nudge(&acme())]).await;
        assert_eq!(world.faults.counts([Op::JournalRead]), [1]);
        assert!(!world.faults.calls(Op::ParkedList).is_empty());
        let after = world.published(&acme());
        assert_eq!(after[published.len() + 1..], [(1, 3), (4, 4), (5, 6)]);
        // The processor knows the commits that it published on the nudge.
        done(&processor, &[world.acme(4..=6)]).await;
        assert_eq!(world.published(&acme()).len(), after.len());
        assert_eq!(world.tail(&acme()).await.0, 6);
    });
}

/// Every nudge makes progress, however many commands are parked, and is followed by another one until
/// all are taken up.
#[test]
fn much_that_is_parked_is_taken_up_in_bounded_steps() {
    play(async || {
        let world = World::new();
        done(&world.processor(), &[world.acme(2..=2_500)]).await;
        assert_eq!(world.parked(&acme()).await.len(), 2_499);
        done(&world.processor(), &[world.acme(1..=1)]).await;
        let (mut nudges, mut seen) = (vec![world.nudge(&acme())], world.records().len());
        for _ in 0..3 {
            let before = world.tail(&acme()).await;
            done(&world.processor(), &nudges).await;
            assert!(world.tail(&acme()).await > before);
            nudges = world.records().split_off(seen);
            seen += nudges.len();
        }
        assert_eq!(nudges.len(), 0, "no nudge is needed any longer");
        world.assert_run(2_500).await;
        world.audit(&acme()).await;
    });
}

/// Parks so many conflicts at seq 1. One read lists 1,000 items.
pub(super) async fn with_conflicts(world: &World, count: u64) {
    let other = |id| [command("bob", id, "add", json!({"counter": "a", "by": 1}))];
    let ids: Vec<u64> = (1..=count).collect();
    for ids in ids.chunks(500) {
        let conflicts: Vec<_> =
            ids.iter().map(|id| world.record(&acme(), 1, &other(*id))).collect();
        done(&world.processor(), &conflicts).await;
    }
}

/// Items that wait for an operator do not hide commands that can be processed, however many there are.
#[test]
fn items_for_an_operator_hide_no_command() {
    play(async || {
        for is_nudged in [true, false] {
            let world = World::new();
            with_a_gap(&world).await;
            with_conflicts(&world, 1_001).await;
            assert_eq!(world.parked(&acme()).await.len(), 1_003);
            done(&world.processor(), &[world.acme(4..=4)]).await;
            let next = if is_nudged { world.nudge(&acme()) } else { world.acme(7..=7) };
            done(&world.processor(), &[next]).await;
            assert_eq!(world.tail(&acme()).await.0, if is_nudged { 6 } else { 7 });
            assert_eq!(world.parked(&acme()).await.len(), 1_001);
        }
    });
}

/// Neither do they hide a command that has its entry and was not removed.
#[test]
fn items_for_an_operator_hide_no_leftover() {
    play(async || {
        let world = World::new();
        with_a_gap(&world).await;
        with_conflicts(&world, 1_001).await;
        world.faults.fail(Op::ParkedRemove, "", 1..=9, Broken::Before);
        done(&world.processor(), &[world.acme(4..=4)]).await;
        done(&world.processor(), &[world.nudge(&acme())]).await;
        assert_eq!(world.tail(&acme()).await.0, 6);
        world.faults.heal();
        assert_eq!(world.parked(&acme()).await.len(), 1_003, "two were not removed");
        done(&world.processor(), &[world.nudge(&acme())]).await;
        assert_eq!(world.parked(&acme()).await.len(), 1_001);
    });
}

/// F7: one walk over the parked items lists 10,000 at most, and a call makes a few walks. The
/// commands behind the gap are above the tail, so the processor finds them however much waits for an
/// operator below.
#[test]
fn a_call_lists_a_bounded_number_of_items() {
    play(async || {
        let world = World::new();
        with_a_gap(&world).await;
        with_conflicts(&world, 12_000).await;
        done(&world.processor(), &[world.acme(4..=4)]).await;
        world.faults.forget();
        done(&world.processor(), &[world.nudge(&acme())]).await;
        assert_eq!(world.tail(&acme()).await.0, 6);
        assert_eq!(world.parked(&acme()).await.len(), 12_000);
        // The search for suspects and the nudge each read 10 pages of 1,000 items, and one above the
        // tail.
        assert_eq!(world.faults.counts([Op::ParkedList]), [22]);
    });
}
