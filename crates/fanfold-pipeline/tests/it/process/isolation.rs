//! F7: a command that cannot be processed stops no other log. F8: it is parked and reported, never
//! dropped.

use fanfold::entry::Outcome;
use fanfold::host::body::parked::{Content, Parked};
use fanfold::host::body::record::{Part, Record};
use fanfold::host::limits::DOCUMENT_BYTES_MAX;
use fanfold::{LogId, Seq, Services, Time};
use fanfold_pipeline::ports::{Env, ParkedTable};
use fanfold_pipeline::process::ReceivedRecord;
use fanfold_pipeline::testing::{Broken, Op};
use ledger::Ledger;
use serde_json::{Value, json};

use crate::check::play;
use crate::tally::Tally;
use crate::world::{NEVER, World, acme, add, command, commit_of, done, log, run, unfinished};

/// A healthy log beside the failing one.
fn other() -> LogId {
    log("tally/org:other")
}

/// A panic in a service makes a `faulted` entry that keeps the command. So does an event on a
/// document that the command neither declared nor asked for. A command whose entry or document (256 KiB) would be
/// too large is `rejected: too_large`.
#[test]
fn a_failure_of_a_service_becomes_an_entry() {
    let fail = |how: &str| ("fail", json!({"counter": "a", "how": how}));
    let grow = |bytes: usize| ("grow", json!({"counter": "a", "bytes": bytes}));
    let table: &[((&str, Value), &str)] = &[
        (fail("panic_in_decide"), "faulted: `decide` panicked: a test of decide"),
        (fail("panic_in_evolve"), "faulted: `evolve` panicked: a test of evolve"),
        (fail("undeclared"), "faulted: `decide` changes the document `a`"),
        (fail("long_entry"), "too_large: the entry would be"),
        (grow(DOCUMENT_BYTES_MAX.get()), "too_large: the document `a` would be"),
        (grow(DOCUMENT_BYTES_MAX.get() - 100), "accepted"),
        (("fly", json!({})), "unknown_command: "),
        (("add", json!({"counter": "a", "by": "one"})), "invalid_data: `data.by`"),
        (("add", json!({"counter": "a", "by": 0})), "nothing: there is nothing to add"),
    ];
    play(async || {
        for ((name, data), expected) in table {
            let world = World::new();
            let bad = command("ann", 2, name, data.clone());
            let batch = [
                world.record(&acme(), 1, &[add(1), bad, add(3)]),
                world.record(&other(), 1, &[add(1)]),
            ];
            done(&world.processor(), &batch).await;
            let [first, bad, third] = &world.entries(&acme()).await[..] else { panic!("{data}") };
            let shown = match &bad.outcome {
                Outcome::Faulted { message, data: kept, .. } => {
                    assert_eq!(kept.get(), data.to_string(), "the entry keeps the command's data");
                    format!("faulted: {message}")
                }
                Outcome::Rejected { code, message, .. } => format!("{code}: {message}"),
                outcome => outcome.status().to_owned(),
            };
            assert!(shown.starts_with(expected), "{shown} for {name} {data}");
            for entry in [first, third] {
                assert_eq!(entry.outcome.status(), "accepted", "around {name} {data}");
            }
            assert_eq!(world.tail(&other()).await, Seq(1));
            world.audit(&acme()).await;
            // A cold processor folds the same state.
            done(&world.processor(), &[world.record(&acme(), 4, &[add(4)])]).await;
            world.audit(&acme()).await;
        }
    });
}

/// A command for an unregistered service is parked, and processed once the service is registered.
#[test]
fn commands_of_an_unregistered_service_wait_for_it() {
    play(async || {
        let world = World::new();
        let ledger = log("ledger/org:acme");
        let open = command("ann", 1, "open", json!({"account": "cash"}));
        let without = world.processor_of(Services::new().with::<Ledger>());
        done(&without, &[world.acme(1..=2), world.record(&ledger, 1, &[open]), world.acme(3..=3)])
            .await;
        let parked = ["1 ann#1 NoService", "2 ann#2 NoService", "3 ann#3 NoService"];
        assert_eq!(world.parked(&acme()).await, parked);
        assert_eq!(world.tail(&ledger).await, Seq(1), "the other log goes on");
        // A nudge without the service changes nothing.
        done(&without, &[world.nudge(&acme())]).await;
        assert_eq!(world.parked(&acme()).await, parked);
        done(&world.processor(), &[world.nudge(&acme())]).await;
        world.assert_run(3).await;
        assert_eq!(world.published(&acme()), [(1, 3)]);
    });
}

/// F8: an unreadable record is parked byte for byte, and the others are processed.
#[test]
fn an_unreadable_record_is_parked_byte_for_byte() {
    let record = |world: &World, data: Vec<u8>| ReceivedRecord {
        key: acme(),
        data: data.into(),
        arrived: world.env.now(),
    };
    let slot = |last: u64, n: u64, body: &'static [u8]| {
        let part = Part { last: Seq(last), n, at: Time(7), body };
        Record { log: acme(), parts: vec![part] }.encode().expect("JSON")
    };
    let elsewhere = Record::nudge(other()).encode().expect("JSON");
    // The record, the seq under which it is parked, and the parked bytes.
    let table: &[(Vec<u8>, u64, Vec<u8>)] = &[
        (b"no record".to_vec(), 0, b"no record".to_vec()),
        (vec![], 0, vec![]),
        (elsewhere.clone(), 0, elsewhere),
        (slot(5, 2, b"no slot"), 4, b"no slot".to_vec()),
        (slot(5, 2, b"\x01\x00[]"), 4, b"\x01\x00[]".to_vec()),
    ];
    play(async || {
        for (data, seq, kept) in table {
            let world = World::new();
            let batch = [
                world.acme(1..=2),
                record(&world, data.clone()),
                world.record(&other(), 1, &[add(1)]),
                world.acme(3..=3),
            ];
            for _ in 0..2 {
                done(&world.processor(), &batch).await;
                let parked =
                    world.memory.parked.list(&acme(), (Seq::ZERO, ""), 10).await.expect("memory");
                let [item] = &parked[..] else { panic!("one item: {parked:?}") };
                let parked = Parked::decode(&item.body).expect("parked");
                assert_eq!((item.seq, &parked.content), (Seq(*seq), &Content::Bytes(kept.clone())));
            }
            assert_eq!(world.tail(&acme()).await, Seq(3), "readable records are processed");
            assert_eq!(world.tail(&other()).await, Seq(1));
            // It waits for an operator.
            done(&world.processor(), &[world.nudge(&acme())]).await;
            assert_eq!(world.parked(&acme()).await.len(), 1);
            // If it cannot be parked, the batch is retried.
            let world = World::new();
            world.faults.fail(Op::Park, "", 1..=1, Broken::Before);
            let batch = [world.acme(1..=2), record(&world, data.clone())];
            assert_eq!(unfinished(&world.processor(), &batch).await, 0);
            done(&world.processor(), &batch).await;
            assert_eq!(world.parked(&acme()).await.len(), 1);
        }
    });
}

/// An entry that this build cannot fold (a rollback, a panic in `evolve`) parks the log's commands,
/// instead of retrying without end.
#[test]
fn a_log_that_cannot_be_folded_waits_for_another_build() {
    let bodies = [
        ("a newer version", commit_of(4, "added", 2, &json!({"by": 1, "total": 9}))),
        ("an unknown event", commit_of(4, "melted", 1, &json!({}))),
        ("a panic in `evolve`", commit_of(4, "broken", 1, &Value::Null)),
        ("an event that does not fit", commit_of(4, "added", 1, &json!({"by": "one"}))),
        ("another format", b"\x09\x00[]".to_vec()),
        ("no commit", b"garbage".to_vec()),
    ];
    play(async || {
        for (what, body) in &bodies {
            for is_warm in [false, true] {
                let world = World::new();
                let processor = world.processor();
                let writer = if is_warm { &processor } else { &world.processor() };
                done(writer, &[world.acme(1..=3)]).await;
                world.strange_commit(4, body.clone()).await;
                // A warm processor finds the entry when it reads on in the journal.
                let batch = [world.acme(5..=6), world.record(&other(), 1, &[add(1)])];
                done(&processor, &batch).await;
                let parked = ["5 ann#5 CannotFold", "6 ann#6 CannotFold"];
                assert_eq!(world.parked(&acme()).await, parked, "{what}, warm: {is_warm}");
                assert_eq!(world.tail(&other()).await, Seq(1));
                done(&processor, &[world.nudge(&acme()), world.acme(7..=7)]).await;
                assert_eq!(world.parked(&acme()).await.len(), 3);
                assert_eq!(world.commits(&acme()).await.len(), 2, "nothing is decided on it");
            }
        }
    });
}

/// A damaged item parks the log's commands: retries without end would stop the shard (F7).
#[test]
fn a_log_with_damaged_data_waits_for_an_operator() {
    let table = [
        (Op::JournalRead, "its commits"),
        (Op::StateGet, "its head, or a document"),
        (Op::JournalAppend, "the commit that is stored in its place"),
    ];
    play(async || {
        for (op, what) in table {
            let world = World::new();
            done(&world.processor(), &[world.acme(1..=3)]).await;
            world.faults.fail(op, acme().as_str(), .., Broken::Damaged);
            let batch = [world.acme(4..=5), world.record(&other(), 1, &[add(1)])];
            done(&world.processor(), &batch).await;
            let parked = ["4 ann#4 CannotFold", "5 ann#5 CannotFold"];
            assert_eq!(world.parked(&acme()).await, parked, "{what}");
            assert_eq!(world.tail(&other()).await, Seq(1), "{what}");

            world.faults.heal();
            done(&world.processor(), &[world.nudge(&acme()), world.acme(6..=6)]).await;
            assert_eq!(world.tail(&acme()).await, Seq(6), "{what}: once it is repaired");
        }
    });
}

#[test]
fn another_build_takes_up_the_commands_that_waited_for_it() {
    play(async || {
        let world = World::new();
        let newer = || world.processor_of(Services::new().with::<Tally<1, 2>>());
        done(&newer(), &[world.acme(1..=3)]).await;
        done(&world.processor(), &[world.acme(4..=5)]).await;
        assert_eq!(world.parked(&acme()).await, ["4 ann#4 CannotFold", "5 ann#5 CannotFold"]);
        done(&newer(), &[world.nudge(&acme())]).await;
        world.assert_run(5).await;
    });
}

/// The batch is retried from the first unfinished record of a failed log, and finished logs are not
/// harmed by the retry.
#[test]
fn a_failing_log_reports_its_first_unfinished_record() {
    let [a, b, c] = ["a", "b", "c"].map(|org| log(&format!("tally/org:{org}")));
    let batch = |world: &World| {
        // The batch closes the gap behind b's first record, but not the one behind c's.
        [(&a, 1, 2), (&b, 1, 2), (&c, 1, 2), (&b, 4, 5), (&a, 3, 3), (&c, 4, 4), (&b, 3, 3)]
            .map(|(log, from, to)| world.record(log, from, &run(from..=to)))
    };
    let table: &[(Op, &str, usize)] = &[
        (Op::JournalAppend, "org:b", 1),
        (Op::StateGet, "org:b", 1),
        (Op::JournalRead, "org:b", 1),
        (Op::JournalAppend, "org:c", 2),
        (Op::JournalAppend, "org:", 0),
        // The commands behind c's gap cannot be parked.
        (Op::Park, "org:c", 5),
    ];
    play(async || {
        for (op, about, expected) in table {
            let world = World::new();
            let batch = batch(&world);
            world.faults.fail(*op, about, .., Broken::Before);
            let processor = world.processor();
            assert_eq!(unfinished(&processor, &batch).await, *expected, "{op:?} {about}");
            for (org, seqs) in [(&a, 3), (&b, 5), (&c, 2)] {
                let failed = format!("{org}").contains(about) && *op != Op::Park;
                let expected = if failed { 0 } else { seqs };
                assert_eq!(world.tail(org).await.0, expected, "{org} with {op:?} {about}");
            }
            world.faults.heal();
            let rest = [&batch[*expected..], &[world.record(&c, 3, &run(3..=3))]].concat();
            done(&processor, &rest).await;
            for (org, seqs) in [(&a, 3), (&b, 5), (&c, 4)] {
                assert_eq!(world.tail(org).await.0, seqs, "{org} after {op:?} {about}");
                assert_eq!(world.published(org).last().map(|(_, last)| *last), Some(seqs));
                world.audit(org).await;
            }
        }
    });
}

/// After the deadline the processor begins nothing, and reports all records as unfinished.
#[test]
fn after_the_deadline_all_records_are_reported_as_unfinished() {
    play(async || {
        let world = World::new();
        let (processor, batch) = (world.processor(), [world.acme(1..=3), world.acme(4..=4)]);
        let deadline = world.env.now();
        assert_eq!(processor.process(&batch, deadline).await.unfinished, Some(0));
        assert_eq!(world.faults.counts([Op::JournalAppend, Op::Park]), [0, 0]);
        assert_eq!(processor.process(&batch, NEVER).await.unfinished, None);
        world.assert_run(4).await;
    });
}
