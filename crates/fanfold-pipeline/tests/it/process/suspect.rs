//! Suspects. A record that crashes the process is retried alone, by bisection. For a lone record older
//! than a parameter (5 minutes) the processor first writes a lease, which every return removes. After
//! three crashes it runs and commits the commands one at a time. The one that crashes it again is
//! `faulted` without being run; after a crash while loading, the log's commands are parked. Above ten
//! such faults an hour in one service, commands are parked instead.
//!
//! `docs/design.md#suspects`.

use std::sync::Arc;

use fanfold::entry::Outcome;
use fanfold::host::body::lease::Step;
use fanfold::{Command, LogId, Seq, Services};
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::ports::{Env, ParkedTable};
use fanfold_pipeline::process::{Processor, ReceivedRecord, Suspicion};
use fanfold_pipeline::testing::{Broken, Op};
use serde_json::json;

use crate::check::play;
use crate::crash::{crash, crashes, fate, survives};
use crate::world::{
    LEASE_MS, NEVER, World, acme, add, command, commit_of, done, log, run, unfinished,
};

/// A moment more than the default age.
const OLD_MS: u64 = 5 * 60 * 1_000;

/// A command that crashes the process.
fn fatal(id: u64, how: &str) -> Command {
    command("ann", id, "fail", json!({"counter": "a", "how": how}))
}

/// A record of [`acme`] that is old enough to be a suspect.
fn old(world: &World, first: u64, commands: &[Command]) -> ReceivedRecord {
    let record = world.record(&acme(), first, commands);
    world.env.pass(OLD_MS);
    record
}

/// One call of a new processor; `None` if it crashed.
async fn call(world: &World, record: &ReceivedRecord) -> Option<BatchOutcome> {
    let processor = world.processor();
    fate(world, processor.process(std::slice::from_ref(record), world.soon())).await
}

/// Crashes the process before a port call takes effect.
async fn crash_now() {
    crash();
    std::future::pending().await
}

/// Makes `times` calls, which must crash.
async fn crash_times(world: &World, record: &ReceivedRecord, times: usize) {
    for time in 1..=times {
        assert_eq!(call(world, record).await, None, "crash {time} of {times}");
    }
}

/// Makes a call, which must finish the batch without a crash.
async fn returns(world: &World, record: &ReceivedRecord) {
    assert_eq!(call(world, record).await, Some(BatchOutcome::DONE));
    assert_eq!(world.lease(&acme()).await, None, "a return removes the lease");
}

/// The whole sequence: three attempts with all commands, then one command at a time, then the fault.
/// The commands around the suspect are processed.
#[test]
fn a_command_that_ends_its_process_is_faulted_without_a_run() {
    play(async || {
        for how in ["die_in_parse", "die_in_documents", "die_in_decide", "die_in_evolve"] {
            let world = World::new();
            let killer = fatal(3, how);
            let commands = [add(1), add(2), killer.clone(), add(4), add(5)];
            let record = old(&world, 1, &commands);
            for attempt in 1..=3 {
                crash_times(&world, &record, 1).await;
                assert_eq!(world.lease(&acme()).await, Some((attempt, Step::Whole)), "{how}");
                assert_eq!(world.tail(&acme()).await, Seq(0), "all commands in one attempt");
            }
            crash_times(&world, &record, 1).await;
            assert_eq!(world.lease(&acme()).await, Some((4, Step::Deciding(Seq(3)))), "{how}");
            let alone: Vec<u64> = world.commits(&acme()).await.iter().map(|c| c.n).collect();
            assert_eq!(alone, [1, 1], "each earlier command has a commit of its own");

            crashes();
            returns(&world, &record).await;
            assert_eq!(crashes(), 0, "{how}: it is not run again");
            let alone: Vec<u64> = world.commits(&acme()).await.iter().map(|c| c.n).collect();
            assert_eq!(alone, [1; 5]);
            let entries = world.entries(&acme()).await;
            let Outcome::Faulted { message, data, .. } = &entries[2].outcome else {
                panic!("{how}: {:?}", entries[2]);
            };
            assert_eq!(message, "it has ended its process 4 times");
            assert_eq!(data.get(), killer.data.get(), "the entry keeps the command's data");
            let others = entries.iter().filter(|entry| entry.outcome.status() == "accepted");
            assert_eq!(others.count(), 4);
            let mut published = world.published(&acme());
            published.dedup();
            assert_eq!(published, [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
            assert_eq!(world.parked(&acme()).await, [] as [String; 0]);
            // The log goes on normally, also for a processor that loads it cold.
            done(&world.processor(), &[record, world.record(&acme(), 6, &[add(6)])]).await;
            world.audit(&acme()).await;
        }
    });
}

/// Of two such commands in one record, each must crash a process alone before it is faulted.
#[test]
fn each_suspect_command_is_found_by_itself() {
    play(async || {
        let world = World::new();
        let record =
            old(&world, 1, &[fatal(1, "die_in_decide"), add(2), fatal(3, "die_in_decide")]);
        crash_times(&world, &record, 3).await;
        crash_times(&world, &record, 2).await;
        assert_eq!(world.lease(&acme()).await, Some((5, Step::Deciding(Seq(3)))));
        returns(&world, &record).await;
        let expected = ["1 ann#1 faulted", "2 ann#2 accepted", "3 ann#3 faulted"];
        assert_eq!(world.outcomes(&acme()).await, expected);
    });
}

/// A repeat of a suspect has an outcome already, so it is a duplicate and no fault.
#[test]
fn a_repeated_suspect_is_a_duplicate() {
    play(async || {
        let world = World::new();
        let record = old(&world, 1, &[add(1), add(1)]);
        world.faults.before_every(Op::JournalAppend, crash_now);
        crash_times(&world, &record, 4).await;
        world.faults.heal();
        world.faults.before(Op::JournalAppend, "2-2", crash_now);
        crash_times(&world, &record, 1).await;
        returns(&world, &record).await;
        assert_eq!(world.outcomes(&acme()).await, ["1 ann#1 faulted", "2 ann#1 duplicate"]);
        world.audit(&acme()).await;
    });
}

/// Every return removes the lease, whatever its outcome.
#[test]
fn every_call_that_returns_removes_its_lease() {
    let broken = [
        (Op::StateGet, false),
        (Op::JournalRead, false),
        (Op::JournalAppend, false),
        (Op::Publish, false),
        (Op::StatePut, true),
    ];
    play(async || {
        for (op, is_done) in broken {
            for attempts_max in [3, 0] {
                let world = World::new();
                let record = old(&world, 1, &run(1..=3));
                world.faults.fail(op, "", .., Broken::Before);
                let suspicion = Suspicion { attempts_max, ..Suspicion::default() };
                let processor = world.processor().with_suspicion(suspicion);
                let outcome = processor.process(std::slice::from_ref(&record), NEVER).await;
                assert_eq!(outcome.unfinished.is_none(), is_done, "{op:?}");
                assert_eq!(world.lease(&acme()).await, None, "{op:?}");
                assert_eq!(world.faults.counts([Op::ParkedList, Op::ParkedRemove]), [1; 2]);
                world.faults.heal();
                returns(&world, &record).await;
                world.assert_run(3).await;
            }
        }
        // Returns after the deadline, at a gap, and without the service.
        let world = World::new();
        let record = old(&world, 5, &run(5..=6));
        let records = std::slice::from_ref(&record);
        let late = world.processor().process(records, world.env.now()).await;
        assert_eq!(late.unfinished, Some(0));
        assert_eq!(world.lease(&acme()).await, None);
        returns(&world, &record).await;
        assert_eq!(world.parked(&acme()).await, ["5 ann#5 Gap", "6 ann#6 Gap"]);
        done(&world.processor_of(Services::new()), records).await;
        assert_eq!(world.lease(&acme()).await, None);
    });
}

/// No command runs before the lease is stored.
#[test]
fn no_command_runs_before_the_lease_is_stored() {
    play(async || {
        for broken in [Broken::Before, Broken::After] {
            let world = World::new();
            let record = old(&world, 1, &[fatal(1, "die_in_parse")]);
            world.faults.fail(Op::Park, "attempt", .., broken);
            crashes();
            assert_eq!(unfinished(&world.processor(), std::slice::from_ref(&record)).await, 0);
            assert_eq!(crashes(), 0);
            assert_eq!(world.lease(&acme()).await, None);
            world.faults.fail(Op::ParkedList, "", .., Broken::Before);
            assert_eq!(unfinished(&world.processor(), &[record]).await, 0);
            assert_eq!(crashes(), 0);
        }
    });
}

/// A lease that could not be written or removed does not count as a crash for its own process.
#[test]
fn a_lease_that_could_not_be_removed_counts_as_no_crash() {
    play(async || {
        let world = World::new();
        let record = old(&world, 1, &run(1..=2));
        let processor = world.processor();
        world.faults.fail(Op::JournalAppend, "", .., Broken::Before);
        world.faults.fail(Op::ParkedRemove, "", .., Broken::Before);
        for _ in 0..5 {
            assert_eq!(unfinished(&processor, std::slice::from_ref(&record)).await, 0);
            assert_eq!(world.lease(&acme()).await, Some((1, Step::Whole)));
        }
        world.faults.heal();
        done(&processor, std::slice::from_ref(&record)).await;
        world.assert_run(2).await;
        assert_eq!(world.lease(&acme()).await, None);
    });
}

/// A call that is dropped after its deadline, in a process that goes on, does not count as a crash.
#[test]
fn a_dropped_call_counts_as_no_crash() {
    play(async || {
        let world = World::new();
        let record = old(&world, 1, &run(1..=2));
        let record = std::slice::from_ref(&record);
        let processor = world.processor();
        for _ in 0..5 {
            world.faults.before(Op::JournalAppend, "", crash_now);
            assert_eq!(survives(processor.process(record, NEVER)).await, None);
            assert_eq!(world.lease(&acme()).await, Some((1, Step::Whole)));
        }
        done(&processor, record).await;
        world.assert_run(2).await;
        assert_eq!(world.lease(&acme()).await, None);
    });
}

/// After crashes while loading, the log's commands are parked for an operator. The log is not loaded
/// again, whatever the sweep does, and other logs go on.
#[test]
fn a_log_whose_loading_ends_the_process_is_parked() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 8).await;
        done(&world.elsewhere(), &[world.acme(1..=3)]).await;
        world.strange_commit(4, commit_of(4, "said", 1, &json!({"text": "die"}))).await;
        let record = old(&world, 5, &run(5..=6));
        crash_times(&world, &record, 4).await;
        assert_eq!(world.lease(&acme()).await, Some((4, Step::Loading)));
        returns(&world, &record).await;
        let parked = ["5 ann#5 Suspect", "6 ann#6 Suspect"];
        assert_eq!(world.parked(&acme()).await, parked);

        // A lone nudge, a nudge among other records, later commands, and the same record again.
        world.faults.forget();
        let nudge = world.nudge(&acme());
        let other = world.record(&log("tally/org:other"), 1, &[add(1)]);
        done(&world.processor(), &[nudge.clone(), other]).await;
        assert_eq!(world.tail(&log("tally/org:other")).await, Seq(1));
        world.env.pass(OLD_MS);
        returns(&world, &nudge).await;
        returns(&world, &record).await;
        let next = old(&world, 7, &run(7..=7));
        returns(&world, &next).await;
        assert_eq!(world.parked(&acme()).await, [&parked[..], &["7 ann#7 Suspect"]].concat());
        assert_eq!(world.faults.calls(Op::StateGet).join(" ").matches("acme").count(), 0);
        let report = world.sweep().sweep(None, 100, NEVER).await.expect("memory");
        assert_eq!((report.nudged, report.waiting), (vec![], 1), "it waits: no nudge");
    });
}

/// A nudge has no commands of its own: it takes up the parked ones, and parks them after crashes.
#[test]
fn a_nudge_that_ends_its_process_parks_the_parked_commands_as_suspects() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 8).await;
        done(&world.elsewhere(), &[world.acme(1..=3)]).await;
        let gap = world.acme(6..=7);
        world.env.pass(5_000);
        done(&world.elsewhere(), &[gap]).await;
        world.strange_commit(4, commit_of(4, "said", 1, &json!({"text": "die"}))).await;
        let nudge = world.nudge(&acme());
        world.env.pass(OLD_MS);
        crash_times(&world, &nudge, 4).await;
        returns(&world, &nudge).await;
        assert_eq!(world.parked(&acme()).await, ["6 ann#6 Suspect", "7 ann#7 Suspect"]);
        let report = world.sweep().sweep(None, 100, NEVER).await.expect("memory");
        assert_eq!((report.nudged, report.waiting), (vec![], 1));
    });
}

/// A crash while a document is read is not the fault of a command.
#[test]
fn a_document_that_ends_the_process_parks_the_log() {
    play(async || {
        let world = World::new();
        done(&world.elsewhere(), &[world.acme(1..=300)]).await;
        assert_eq!(world.head(&acme()).await, Seq(300), "the load folds no entries");
        let record = old(&world, 301, &run(301..=302));
        for attempt in 1..=4 {
            world.faults.heal();
            world.faults.before(Op::StateGet, "doc#", crash_now);
            crash_times(&world, &record, 1).await;
            let step = if attempt == 4 { Step::Loading } else { Step::Whole };
            assert_eq!(world.lease(&acme()).await, Some((attempt, step)));
        }
        returns(&world, &record).await;
        assert_eq!(world.parked(&acme()).await, ["301 ann#301 Suspect", "302 ann#302 Suspect"]);
    });
}

/// Above ten such faults an hour in one service, the processor parks the command instead.
#[test]
fn too_many_faults_an_hour_are_parked() {
    play(async || {
        let world = World::new();
        let suspicion = Suspicion { age_ms: 0, attempts_max: 0, ..Suspicion::default() };
        let kill = async |org: usize| -> LogId {
            let id = log(&format!("tally/org:o{org}"));
            let record = [world.record(&id, 1, &[fatal(1, "die_in_decide"), add(2)])];
            for survived in [false, true] {
                let processor = world.processor().with_suspicion(suspicion);
                let outcome = fate(&world, processor.process(&record, world.soon())).await;
                assert_eq!(outcome, survived.then_some(BatchOutcome::DONE), "{org}");
            }
            assert_eq!(world.lease(&id).await, None);
            id
        };
        for org in 1..=10 {
            let id = kill(org).await;
            assert_eq!(world.outcomes(&id).await, ["1 ann#1 faulted", "2 ann#2 accepted"]);
        }
        let id = kill(11).await;
        assert_eq!(world.tail(&id).await, Seq::ZERO);
        assert_eq!(world.parked(&id).await, ["1 ann#1 Suspect", "2 ann#2 Gap"]);
        // It waits for an operator, with the commands behind it, also in another process.
        let behind = world.record(&id, 3, &[add(3)]);
        for batch in [vec![behind.clone()], vec![world.nudge(&id), behind]] {
            let processor = world.processor();
            assert_eq!(survives(processor.process(&batch, NEVER)).await, Some(BatchOutcome::DONE));
            assert_eq!(world.tail(&id).await, Seq::ZERO);
            assert_eq!(world.parked(&id).await[..2], ["1 ann#1 Suspect", "2 ann#2 Gap"]);
            assert_eq!(world.parked(&id).await.len(), 3);
        }

        world.env.pass(60 * 60 * 1_000 + 1);
        assert_eq!(world.outcomes(&kill(12).await).await.len(), 2, "an hour later");
        let faults: LogId = log("tally/user:reactor:suspect");
        let noted = world.memory.parked.list(&faults, (Seq::ZERO, ""), 100).await.expect("memory");
        assert_eq!(noted.len(), 1, "faults older than an hour are removed");
    });
}

/// Only a lone record older than 5 minutes costs a lease.
#[test]
fn a_record_that_is_young_or_not_alone_is_not_suspect() {
    play(async || {
        let world = World::new();
        let processor = world.processor();
        let young = world.acme(1..=3);
        world.env.pass(OLD_MS - 1);
        done(&processor, &[young]).await;
        let two = [world.acme(4..=5), world.acme(6..=6)];
        let others = [world.acme(7..=7), world.record(&log("tally/org:other"), 1, &[add(1)])];
        world.env.pass(OLD_MS);
        done(&processor, &two).await;
        done(&processor, &others).await;
        assert_eq!(world.faults.counts([Op::ParkedList, Op::Park, Op::ParkedRemove]), [0; 3]);
        done(&processor, &[old(&world, 8, &run(8..=8))]).await;
        assert_eq!(world.faults.counts([Op::ParkedList, Op::Park, Op::ParkedRemove]), [1; 3]);
        world.assert_run(8).await;
    });
}

/// A host can change at any time when a record is a suspect.
#[test]
fn a_host_may_suspect_young_records() {
    play(async || {
        let world = World::new();
        let processor: Arc<Processor> = Arc::new(world.processor());
        let marks = async |seq: u64| {
            world.faults.forget();
            done(&processor, &[world.acme(seq..=seq + 1)]).await;
            world.faults.calls(Op::Park).len()
        };
        assert_eq!(marks(1).await, 0);
        processor.suspect(Suspicion { age_ms: 0, ..Suspicion::default() });
        assert_eq!(marks(3).await, 1);
        processor.suspect(Suspicion { age_ms: 0, attempts_max: 0, ..Suspicion::default() });
        assert_eq!(marks(5).await, 3, "before loading, and before each command");
        processor.suspect(Suspicion::default());
        assert_eq!(marks(7).await, 0);
        world.assert_run(8).await;
    });
}

/// The sweep finds an old lease that was left because the record was retried among others.
#[test]
fn the_sweep_has_an_old_lease_removed() {
    play(async || {
        for is_alone in [true, false] {
            let world = World::new();
            world.accept(&acme(), 4).await;
            let record = old(&world, 1, &run(1..=3));
            world.faults.before(Op::JournalAppend, "", crash_now);
            let call = world.processor();
            let call = call.process(std::slice::from_ref(&record), world.soon());
            assert_eq!(survives(call).await, None);
            done(&world.processor(), &[record, world.acme(4..=4)]).await;
            assert_eq!(world.lease(&acme()).await, Some((1, Step::Whole)));
            let young = world.sweep().sweep(None, 100, NEVER).await.expect("memory");
            assert_eq!((young.with_ended_lease, young.nudged), (0, vec![]));
            world.env.pass(LEASE_MS);
            let report = world.sweep().sweep(None, 100, NEVER).await.expect("memory");
            assert_eq!(
                (report.with_ended_lease, report.nudged, report.waiting),
                (1, vec![acme()], 0)
            );
            let mut nudge = world.records();
            if is_alone {
                world.env.pass(OLD_MS);
            } else {
                nudge.push(world.record(&log("tally/org:other"), 1, &[add(1)]));
            }
            done(&world.processor(), &nudge).await;
            assert_eq!(world.lease(&acme()).await, None, "alone: {is_alone}");
            world.assert_run(4).await;
        }
    });
}

/// The stream delivers at least once: a suspect may have its entry already, or get it from another
/// environment meanwhile.
#[test]
fn a_suspect_that_another_environment_decided_is_done() {
    play(async || {
        for attempts_max in [3, 0] {
            for meanwhile in [1..=2, 1..=3, 1..=4] {
                let world = World::new();
                let record = old(&world, 1, &run(1..=3));
                let (other, seqs) = (world.clone(), meanwhile.clone());
                world.faults.before(Op::JournalAppend, "", move || {
                    let (world, seqs) = (other.clone(), seqs.clone());
                    async move { done(&world.elsewhere(), &[world.acme(seqs)]).await }
                });
                let suspicion = Suspicion { attempts_max, ..Suspicion::default() };
                let processor = world.processor().with_suspicion(suspicion);
                done(&processor, &[record]).await;
                world.assert_run(3.max(*meanwhile.end())).await;
                world.audit(&acme()).await;
            }
        }
    });
}

/// A host may take a young record for a suspect, if it comes alone.
#[test]
fn a_host_can_have_a_record_processed_as_suspect() {
    play(async || {
        for (records, leases) in [(1, [1, 1]), (2, [0, 0])] {
            let world = World::new();
            let batch = [world.acme(1..=1), world.acme(2..=2)];
            let suspicion = Suspicion::default();
            let processor = world.processor();
            let outcome =
                processor.process_suspect(&batch[..records], suspicion, world.soon()).await;
            assert_eq!(outcome, BatchOutcome::DONE);
            assert_eq!(world.tail(&acme()).await, Seq(records as u64));
            assert_eq!(world.faults.counts([Op::Park, Op::ParkedRemove]), leases);
        }
    });
}
