//! Appends to the journal: the nonce of an attempt, other writers, and unacknowledged puts.
//!
//! `docs/design.md#tables`.

use fanfold::host::body::envelope;
use fanfold::host::body::head::encode_document;
use fanfold::host::limits::COMMIT_BYTES_MAX;
use fanfold::{Seq, StateKey};
use fanfold_pipeline::ports::{State, StateItem};
use fanfold_pipeline::process::Processor;
use fanfold_pipeline::testing::{Broken, Op};
use serde_json::json;

use crate::check::play;
use crate::world::{NEVER, World, acme, add, command, done, log, padded, unfinished};

/// A processor that has the log in its cache, up to 3.
async fn warm(world: &World) -> Processor {
    let processor = world.processor();
    done(&processor, &[world.acme(1..=3)]).await;
    world.faults.forget();
    processor
}

/// When the put's condition fails and the stored commit has the nonce of this append, an earlier
/// attempt succeeded. There was no other writer, so the log is not loaded again.
#[test]
fn an_earlier_attempt_is_recognised_by_its_nonce() {
    play(async || {
        for lost in [1..=1, 1..=2] {
            let world = World::new();
            let processor = warm(&world).await;
            world.faults.fail(Op::JournalAppend, "", lost.clone(), Broken::After);
            done(&processor, &[world.acme(4..=6)]).await;
            world.assert_run(6).await;
            assert_eq!(world.faults.counts([Op::JournalAppend]), [lost.count() + 1]);
            assert_eq!(world.faults.counts([Op::JournalRead, Op::StateGet]), [0, 0]);
            // The cache keeps the decisions.
            done(&processor, &[world.acme(7..=7)]).await;
            assert_eq!(world.faults.counts([Op::JournalRead, Op::StateGet]), [0, 0]);
            assert_eq!(world.published(&acme()), [(1, 3), (4, 6), (7, 7)]);
        }
    });
}

/// An unacknowledged put evicts the log from the cache. Whether it takes effect now, later or
/// never, the log goes on from the journal.
fn unacknowledged_append_evicts_the_log(broken: Broken) {
    play(async || {
        let world = World::new();
        let processor = warm(&world).await;
        world.faults.fail(Op::JournalAppend, "", 1..=3, broken);
        assert_eq!(unfinished(&processor, &[world.acme(4..=6)]).await, 0);
        assert_eq!(world.faults.counts([Op::StatePut, Op::Park]), [0, 0]);
        done(&processor, &[world.acme(4..=6)]).await;
        done(&processor, &[world.acme(7..=7)]).await;
        world.faults.land().await;
        done(&processor, &[world.acme(8..=8)]).await;
        world.assert_run(8).await;
        world.audit(&acme()).await;
        assert_eq!(world.published(&acme()), [(1, 3), (4, 6), (7, 7), (8, 8)]);
    });
}

#[test]
fn an_append_that_failed_evicts_the_log() {
    unacknowledged_append_evicts_the_log(Broken::Before);
}

#[test]
fn an_append_without_an_answer_evicts_the_log() {
    unacknowledged_append_evicts_the_log(Broken::After);
}

#[test]
fn an_append_that_takes_effect_late_evicts_the_log() {
    unacknowledged_append_evicts_the_log(Broken::Late);
}

/// The put takes effect between the next load and the next append.
#[test]
fn an_unacknowledged_append_may_take_effect_before_the_next() {
    play(async || {
        let world = World::new();
        let processor = warm(&world).await;
        world.faults.fail(Op::JournalAppend, "4-6", 1..=3, Broken::Late);
        assert_eq!(unfinished(&processor, &[world.acme(4..=6)]).await, 0);
        let late = world.faults.clone();
        world.faults.before(Op::JournalAppend, "4-8", move || {
            let late = late.clone();
            async move { late.land().await }
        });
        done(&processor, &[world.acme(4..=8)]).await;
        world.assert_run(8).await;
        world.audit(&acme()).await;
        assert_eq!(world.published(&acme()), [(1, 3), (4, 6), (7, 8)]);
    });
}

/// A commit with another nonce means another writer: the processor loads the log again, and decides
/// again.
#[test]
fn after_a_conflict_the_commands_are_decided_again() {
    play(async || {
        for others in [4..=4, 4..=5, 4..=6, 4..=9] {
            let world = World::new();
            let stale = warm(&world).await;
            done(&world.elsewhere(), &[world.acme(others.clone())]).await;
            done(&stale, &[world.acme(4..=6)]).await;
            world.assert_run(6.max(*others.end())).await;
            world.audit(&acme()).await;
            // The other writer may not have published its commit.
            assert_eq!(world.published(&acme())[2], (4, *others.end()), "others: {others:?}");
        }
    });
}

/// Another writer appends before each append of this one.
#[test]
fn a_log_with_constant_conflicts_is_finished() {
    play(async || {
        let world = World::new();
        let stale = warm(&world).await;
        for seq in 4..=30 {
            let other = world.clone();
            world.faults.before(Op::JournalAppend, &format!(" {seq}-30"), move || {
                let world = other.clone();
                async move { done(&world.elsewhere(), &[world.acme(seq..=seq)]).await }
            });
        }
        // In each conflict the other writer has decided one command, so the conflicts end.
        done(&stale, &[world.acme(4..=30)]).await;
        world.assert_run(30).await;
        world.audit(&acme()).await;
    });
}

/// A state table that is ahead of the journal, as after a restore, contradicts the head. The log is
/// parked after a bounded number of reads, and other logs go on.
#[test]
fn a_log_whose_state_is_ahead_of_the_journal_is_parked() {
    play(async || {
        let world = World::new();
        let processor = warm(&world).await;
        let (document, other) = ("x".parse().expect("a document"), log("tally/org:other"));
        let item =
            StateItem { seq: Seq(99), body: encode_document(b"{\"total\":9,\"pad\":\"\"}").into() };
        let key = StateKey::document(1, &document);
        world.memory.state.put(&acme(), &key, &item).await.expect("memory");
        let ahead = command("ann", 4, "add", json!({"counter": "x", "by": 1}));
        let batch = [world.record(&other, 1, &[add(1)]), world.record(&acme(), 4, &[ahead])];
        done(&processor, &batch).await;
        assert_eq!(world.parked(&acme()).await, ["4 ann#4 CannotFold"]);
        let [reads] = world.faults.counts([Op::JournalRead]);
        assert!(reads < 50, "{reads}");
        assert_eq!([world.tail(&acme()).await, world.tail(&other).await], [Seq(3), Seq(1)]);
    });
}

/// Commits are split below 350 KiB, and the parts are put one after another.
#[test]
fn a_large_batch_is_split_and_put_one_after_another() {
    let commands: Vec<_> = (1..=14).map(|id| padded(id, 60_000)).collect();
    let parts = [(1, 5), (6, 10), (11, 14)];
    play(async || {
        let world = World::new();
        done(&world.processor(), &[world.record(&acme(), 1, &commands)]).await;
        assert_eq!(world.faults.overlap(Op::JournalAppend), 1);
        assert_eq!(world.published(&acme()), parts);
        for commit in world.commits(&acme()).await {
            let payload = envelope::open(1, &commit.body).expect("a commit");
            assert!(payload.len() <= COMMIT_BYTES_MAX.get(), "{} bytes", payload.len());
        }
        world.audit(&acme()).await;
    });
    // The parts before a failed one stay, are published, and are not decided again.
    play(async || {
        let world = World::new();
        let processor = world.processor();
        world.faults.fail(Op::JournalAppend, " 6-10", .., Broken::Before);
        let batch = [world.record(&acme(), 1, &commands)];
        assert_eq!(unfinished(&processor, &batch).await, 0);
        assert_eq!(world.published(&acme()), parts[..1]);
        let tried = world.faults.calls(Op::JournalAppend);
        assert!(!tried.iter().any(|call| call.contains(" 11-14")), "{tried:?}");
        world.faults.heal();
        done(&processor, &batch).await;
        assert_eq!(world.tail(&acme()).await.0, 14);
        assert_eq!(world.published(&acme()).last(), Some(&parts[2]));
        world.audit(&acme()).await;
    });
}

/// A processor that cannot read does not decide: it appends nothing, and the batch is retried.
#[test]
fn nothing_is_decided_after_a_failed_read() {
    play(async || {
        for op in [Op::StateGet, Op::JournalRead] {
            for call in 1..=3 {
                let world = World::new();
                let processor = world.processor();
                done(&world.elsewhere(), &[world.acme(1..=300)]).await;
                world.faults.fail(op, "", call..=call, Broken::Before);
                let batch = [world.acme(301..=302), world.record(&acme(), 303, &[add(303)])];
                if processor.process(&batch, NEVER).await.unfinished.is_some() {
                    assert_eq!(world.faults.counts([Op::JournalAppend]), [0], "{op:?} {call}");
                    done(&processor, &batch).await;
                }
                assert_eq!(world.tail(&acme()).await.0, 303, "{op:?} {call}");
                world.audit(&acme()).await;
            }
        }
    });
}

/// A journal that denies access is an outage: one attempt, and the batch is retried.
#[test]
fn an_append_that_the_journal_denies_is_tried_once() {
    play(async || {
        let world = World::new();
        world.faults.fail(Op::JournalAppend, "", .., Broken::Refused);
        let processor = world.processor();
        assert_eq!(unfinished(&processor, &[world.acme(1..=3)]).await, 0);
        assert_eq!(world.faults.counts([Op::JournalAppend, Op::Park]), [1, 0]);
        world.faults.heal();
        done(&processor, &[world.acme(1..=3)]).await;
        world.assert_run(3).await;
    });
}
