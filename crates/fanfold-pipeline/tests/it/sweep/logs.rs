//! The sweep of logs: when it nudges, sends commands again, and reports.

use std::sync::Arc;

use fanfold::host::body::parked::Reason;
use fanfold::host::canary::Canary;
use fanfold::{LogId, Seq};
use fanfold_pipeline::arrivals::InProcess;
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::process::ReceivedRecord;
use fanfold_pipeline::testing::{Broken, Op};

use super::{ALL, org};
use crate::check::play;
use crate::world::{NEVER, World, add, command, done, run};

/// Parks `count` commands that have waited behind a gap long enough for the sweep.
async fn park(world: &World, log: &LogId, first: u64, count: u64) {
    let commands: Vec<_> = (first..first + count).map(add).collect();
    let record = world.record(log, first, &commands);
    world.env.pass(5_000);
    done(&world.processor(), &[record]).await;
}

/// A command that conflicts with the entry at 1.
fn other(world: &World, log: &LogId, id: u64) -> ReceivedRecord {
    world.record(log, 1, &[command("bob", id, "add", serde_json::json!({"counter": "a", "by": 1}))])
}

/// The sweep nudges logs that stand still, and only counts those that wait for an operator.
#[test]
fn a_log_that_stands_still_is_nudged() {
    play(async || {
        let world = World::new();
        let names = ["done", "still", "half", "gap", "service", "conflict", "hidden", "empty"];
        let logs = names.map(org);
        let [finished, still, half, gap, service, conflict, hidden, _] = &logs;
        for log in [finished, still, half, gap, service, conflict, hidden] {
            world.accept(log, 2).await;
        }
        done(
            &world.elsewhere(),
            &[finished, conflict, hidden].map(|l| world.record(l, 1, &run(1..=2))),
        )
        .await;
        done(&world.elsewhere(), &[world.record(half, 1, &[add(1)])]).await;
        park(&world, gap, 2, 1).await;
        let without = world.processor_of(fanfold::Services::new());
        done(&without, &[world.record(service, 1, &run(1..=2))]).await;
        // Many items that wait for an operator must not hide the other logs.
        done(&world.elsewhere(), &[other(&world, conflict, 1)]).await;
        let conflicts: Vec<_> = (1..=120).map(|id| other(&world, hidden, id)).collect();
        done(&world.elsewhere(), &conflicts).await;
        park(&world, hidden, 4, 1).await;
        // Accepted just now, so its change is still on its way.
        let young = org("young");
        world.env.pass(5_000);
        world.accept(&young, 1).await;
        world.env.pass(9_000);

        world.faults.forget();
        let report = world.sweep().sweep(None, ALL, NEVER).await.expect("memory");
        let nudged = [gap, half, hidden, service, still].map(Clone::clone);
        assert_eq!(report.nudged, nudged);
        assert_eq!((report.logs, report.waiting, report.next), (8, 2, None));
        assert_eq!(report.standstill_ms_max, 24_000);
        let put = world.faults.calls(Op::PutRecords);
        // The sweep sends the slot's batch again if it is next, and a nudge for the parked commands
        // behind it.
        let [gap_1, half_1, still_1] = [gap, half, still].map(|log| format!("{log} 1-2"));
        let [gap_2, hidden, at_service] = [gap, hidden, service].map(|log| format!("nudge {log}"));
        assert_eq!(put, [[gap_1, gap_2, half_1, hidden, at_service, still_1].join(", ")]);
        assert_eq!(report.resent, [gap, half, still].map(Clone::clone));
        // The sweep decides nothing.
        let writes = [Op::SlotAppend, Op::JournalAppend, Op::StatePut, Op::Park, Op::ParkedRemove];
        assert_eq!(world.faults.counts(writes), [0; 5]);

        // After the nudges the processor finishes the logs that can go on.
        let records = world.records();
        done(&world.processor(), &records).await;
        for log in [still, half, gap, service] {
            assert_eq!(world.tail(log).await, Seq(2), "{log}");
        }
        assert_eq!(world.parked(gap).await, [] as [String; 0]);
    });
}

/// A leftover is a parked command that has its entry. The sweep nudges its log although many items
/// that wait for an operator are listed before it.
#[test]
fn items_for_an_operator_do_not_hide_a_leftover() {
    play(async || {
        let (world, log) = (World::new(), org("a"));
        world.accept(&log, 2).await;
        done(&world.processor(), &[world.record(&log, 2, &[add(2)])]).await;
        world.records();
        let conflicts: Vec<_> = (1..=250).map(|id| other(&world, &log, id)).collect();
        world.faults.fail(Op::ParkedRemove, "", 1..=9, Broken::Before);
        done(&world.processor(), &[world.record(&log, 1, &[add(1)])]).await;
        done(&world.processor(), &[world.nudge(&log)]).await;
        done(&world.processor(), &conflicts).await;
        world.faults.heal();
        assert_eq!((world.tail(&log).await, world.parked(&log).await.len()), (Seq(2), 251));
        let report = world.sweep().sweep(None, ALL, NEVER).await.expect("memory");
        assert_eq!(report.nudged, std::slice::from_ref(&log));
        done(&world.processor(), &world.records()).await;
        assert_eq!(world.parked(&log).await.len(), 250);
    });
}

/// F7: the sweep lists 10,000 items of a log at most, and then those above the tail.
#[test]
fn a_sweep_lists_a_bounded_number_of_items() {
    play(async || {
        let (world, log) = (World::new(), org("a"));
        world.accept(&log, 3).await;
        done(&world.processor(), &[world.record(&log, 1, &[add(1)])]).await;
        let ids: Vec<u64> = (1..=12_000).collect();
        for ids in ids.chunks(500) {
            let conflicts: Vec<_> = ids.iter().map(|id| other(&world, &log, *id)).collect();
            done(&world.processor(), &conflicts).await;
        }
        park(&world, &log, 3, 1).await;
        world.faults.forget();
        let report = world.sweep().sweep(None, ALL, NEVER).await.expect("memory");
        assert_eq!(report.nudged, std::slice::from_ref(&log));
        // 100 pages of 100 items, and one above the tail.
        assert_eq!(world.faults.counts([Op::ParkedList]), [101]);
    });
}

#[test]
fn the_next_run_puts_a_nudge_that_failed() {
    play(async || {
        let world = World::new();
        for name in ["a", "b"] {
            world.accept(&org(name), 1).await;
        }
        world.env.pass(11_000);
        world.faults.leave_out(Op::PutRecords, "org:b", 1..=1);
        for expected in [vec!["a"], vec!["a", "a", "b"]] {
            world.sweep().sweep(None, ALL, NEVER).await.expect("memory");
            let mut nudged: Vec<LogId> = world.records().into_iter().map(|r| r.key).collect();
            nudged.sort();
            assert_eq!(nudged, expected.into_iter().map(org).collect::<Vec<_>>());
        }
    });
}

/// F7: a log that cannot be inspected or nudged is reported, and stops neither other logs nor
/// canaries.
#[test]
fn a_log_that_cannot_be_inspected_stops_no_other() {
    play(async || {
        let world = World::new();
        let logs = ["a", "b", "c", "d", "e"].map(org);
        for log in &logs {
            world.accept(log, 1).await;
        }
        let canary = Canary::log(0).expect("a canary");
        world.env.pass(11_000);
        world.faults.fail(Op::SlotGet, "org:a", .., Broken::Before);
        world.faults.fail(Op::JournalTail, "org:b", .., Broken::Before);
        world.faults.fail(Op::ParkedList, "org:c", .., Broken::Before);
        world.faults.leave_out(Op::PutRecords, "org:d", 1..=1);
        world.faults.fail(Op::JournalTail, canary.as_str(), 1..=1, Broken::Before);
        let arrivals = Arc::new(InProcess::default());
        let sweep = world.sweep().with_canaries(world.ingest(), [0], arrivals);
        let [a, b, c, d, e] = &logs;
        let failed = [&canary, a, b, c, d].map(Clone::clone);
        let report = sweep.sweep(None, ALL, NEVER).await.expect("only the catalogue may fail");
        assert_eq!((report.failed, report.nudged), (failed.to_vec(), vec![e.clone()]));
        assert_eq!((report.logs, report.next), (6, None), "the canary's log is counted, too");

        world.faults.heal();
        world.faults.fail(Op::PutRecords, "", 1..=1, Broken::Before);
        let arrivals = Arc::new(InProcess::default());
        let sweep = world.sweep().with_canaries(world.ingest(), [0], arrivals);
        let report = sweep.sweep(None, ALL, NEVER).await.expect("only the catalogue may fail");
        assert_eq!((report.failed, report.nudged), (logs.to_vec(), vec![]), "no nudge was put");
        let report = sweep.sweep(None, ALL, NEVER).await.expect("memory");
        assert_eq!((report.failed, report.nudged), (vec![], logs.to_vec()));
    });
}

/// New commands arrive all the time.
#[test]
fn standstill_is_measured_from_the_oldest_command() {
    play(async || {
        let world = World::new();
        let (log, sweep) = (org("busy"), world.sweep());
        let without = world.processor_of(fanfold::Services::new());
        let mut seen = Vec::new();
        for seq in 1..=42 {
            world.accept(&log, 1).await;
            done(&without, &[world.record(&log, seq, &run([seq]))]).await;
            world.env.pass(10_000);
            if seq % 6 == 0 {
                let report = sweep.sweep(None, ALL, NEVER).await.expect("memory");
                let parked = report.parked.get(&Reason::NoService).copied();
                seen.push((report.standstill_ms_max / 1_000, report.waiting, parked));
            }
        }
        // The gauge shows at once what is parked. Only the alarm's waits for minutes.
        let expected =
            [60, 120, 180, 240, 300, 360, 420].map(|s| (s, usize::from(s > 300), Some(1)));
        assert_eq!(seen, expected);
    });
}

/// For a log that lags by several batches without parked commands, the sweep measures a standstill
/// from its first inspection. A log that progresses does not stand still, however far it lags.
#[test]
fn a_log_that_makes_progress_does_not_stand_still() {
    play(async || {
        for goes_on in [false, true] {
            let world = World::new();
            let (log, sweep) = (org("busy"), world.sweep());
            world.accept(&log, 1).await;
            world.commit(&log, &run([1])).await;
            world.env.pass(24 * 60 * 60 * 1_000);
            let mut seen = Vec::new();
            for seq in 2..=25 {
                world.accept(&log, 1).await;
                world.env.pass(10_000);
                if seq > 4 && goes_on {
                    world.commit(&log, &run([seq - 3])).await;
                }
                if seq % 6 == 0 {
                    let report = sweep.sweep(None, ALL, NEVER).await.expect("memory");
                    seen.push(report.standstill_ms_max / 1_000);
                }
            }
            let expected = if goes_on { [10; 4] } else { [10, 60, 120, 180] };
            assert_eq!(seen, expected);
        }
    });
}

/// Commands whose change was lost, and that a later batch overwrote in the slot, are gone. The log
/// stands still: each run reports that, and its nudges, which cannot help, become rare.
#[test]
fn a_lost_batch_that_was_overwritten_is_reported() {
    play(async || {
        let world = World::new();
        let (log, sweep) = (org("lost"), world.sweep());
        world.accept(&log, 1).await;
        world.accept(&log, 1).await;
        park(&world, &log, 2, 1).await;
        let before = world.records().len();
        for minute in 1..=60 {
            world.env.pass(60_000);
            let report = sweep.sweep(None, ALL, NEVER).await.expect("memory");
            assert_eq!(report.standstill_ms_max, minute * 60_000 + 5_000);
            assert_eq!((report.resent, report.waiting), (vec![], usize::from(minute >= 5)));
        }
        let nudges = world.records().len() - before;
        assert!((12..=16).contains(&nudges), "{nudges} nudges in an hour");
        // The commands behind the hole stay parked.
        assert_eq!(world.parked(&log).await, ["2 ann#2 Gap"]);
        world.commit(&log, &[add(1)]).await;
        sweep.sweep(None, ALL, NEVER).await.expect("memory");
        done(&world.processor(), &world.records()).await;
        assert_eq!(world.tail(&log).await, Seq(2));
    });
}

#[test]
fn a_lost_batch_is_sent_again_while_the_slot_holds_it() {
    play(async || {
        for is_decided in [0, 1, 3] {
            let world = World::new();
            let log = org("lost");
            world.accept(&log, 3).await;
            if is_decided > 0 {
                let decided: Vec<_> = (1..=is_decided).map(add).collect();
                done(&world.elsewhere(), &[world.record(&log, 1, &decided)]).await;
            }
            world.env.pass(10_000);
            let young = world.sweep().sweep(None, ALL, NEVER).await.expect("memory");
            assert_eq!(young.nudged, []);
            world.env.pass(1_000);
            let report = world.sweep().sweep(None, ALL, NEVER).await.expect("memory");
            let expected = if is_decided < 3 { vec![log.clone()] } else { vec![] };
            assert_eq!((report.resent, report.nudged), (expected.clone(), expected));
            done(&world.processor(), &world.records()).await;
            let entries = ["1 ann#1 accepted", "2 ann#2 accepted", "3 ann#3 accepted"];
            assert_eq!(world.outcomes(&log).await, entries);
            let report = world.sweep().sweep(None, ALL, NEVER).await.expect("memory");
            assert_eq!((report.nudged, report.standstill_ms_max), (vec![], 0));
        }
    });
}

/// So many logs, each with a command that has waited for long enough for the sweep.
async fn waiting_logs(world: &World, count: usize) -> Vec<LogId> {
    let logs: Vec<LogId> = (0..count).map(|n| org(&format!("o{n}"))).collect();
    for log in &logs {
        world.accept(log, 1).await;
    }
    world.env.pass(11_000);
    logs
}

/// When time runs out, the next run begins with the first log that was not inspected.
#[test]
fn a_walk_that_is_cut_off_continues_at_the_same_log() {
    play(async || {
        for ms in [1, 7, 20] {
            let world = World::new();
            let mut logs = waiting_logs(&world, 50).await;
            let clock = world.env.clone();
            world.faults.after_every(Op::ParkedList, move || {
                clock.pass(1);
                std::future::ready(())
            });
            let (mut nudged, mut position, mut runs) = (Vec::new(), None, 0);
            loop {
                let deadline = world.env.now().plus_ms(ms);
                let report = world.sweep().sweep(position, ALL, deadline).await.expect("memory");
                nudged.extend(report.nudged);
                runs += 1;
                position = report.next;
                if position.is_none() {
                    break;
                }
                assert!(runs < 50, "each run makes progress");
            }
            logs.sort();
            nudged.sort();
            nudged.dedup();
            assert_eq!(nudged, logs, "each log is nudged, with {ms} ms per run");
            assert!(runs > 1, "{runs}");
        }
    });
}

/// Each run inspects a bounded number of logs, from the position of the last run.
#[test]
fn the_catalogue_is_walked_page_by_page() {
    play(async || {
        for limit in [1, 3, 7, 23, 100] {
            let world = World::new();
            let mut logs = waiting_logs(&world, 23).await;
            let (mut nudged, mut position, mut runs) = (Vec::new(), None, 0);
            loop {
                let report = world.sweep().sweep(position, limit, NEVER).await.expect("memory");
                assert!(report.logs <= limit);
                nudged.extend(report.nudged);
                runs += 1;
                position = report.next;
                if position.is_none() {
                    break;
                }
            }
            nudged.sort();
            logs.sort();
            assert_eq!(nudged, logs, "each log once, {limit} per run");
            assert!(runs <= 23_usize.div_ceil(limit) + 1, "{runs}");
        }
    });
}
