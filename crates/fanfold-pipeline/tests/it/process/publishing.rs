//! F5: a stream batch is not acknowledged before every commit it caused has been published, or is
//! parked because the topic refuses it.

use std::collections::BTreeSet;

use bytes::Bytes;
use fanfold::host::body::notification;
use fanfold::host::canary::Canary;
use fanfold::{LogId, Seq};
use fanfold_pipeline::ports::{Env, ParkedTable};
use fanfold_pipeline::process::{Processor, ReceivedRecord};
use fanfold_pipeline::testing::{Broken, Op};
use serde_json::json;

use super::gaps::with_conflicts;
use crate::check::play;
use crate::world::{NEVER, World, acme, add, applied, command, done, log, padded, run, unfinished};

/// A processor that stored commits but could not publish them.
async fn with_unpublished_commit(world: &World) -> Processor {
    let processor = world.processor();
    world.faults.fail(Op::Publish, "", .., Broken::Before);
    assert_eq!(unfinished(&processor, &[world.acme(1..=3)]).await, 0);
    assert_eq!(world.published(&acme()), []);
    world.faults.heal();
    world.assert_run(3).await;
    processor
}

/// When the batch is retried, the processor that stored the commit publishes it, unless it knows
/// that the commit is published.
#[test]
fn an_unpublished_commit_is_published_when_the_batch_comes_again() {
    play(async || {
        let world = World::new();
        let processor = with_unpublished_commit(&world).await;
        // Any command of the commit is enough.
        done(&processor, &[world.acme(2..=2)]).await;
        assert_eq!(world.published(&acme()), [(1, 3)]);
        // Now the processor remembers that the commit is published.
        done(&processor, &[world.acme(1..=3)]).await;
        assert_eq!(world.published(&acme()), [(1, 3)]);
    });
}

/// Another environment gets the batch, and cannot tell whether the commit is published.
#[test]
fn a_commit_that_another_process_may_not_have_published_is_published_again() {
    play(async || {
        let world = World::new();
        with_unpublished_commit(&world).await;
        let cold = world.processor();
        done(&cold, &[world.acme(1..=3)]).await;
        assert_eq!(world.published(&acme()), [(1, 3)]);
        done(&cold, &[world.acme(1..=3)]).await;
        assert_eq!(world.published(&acme()), [(1, 3)]);
    });
}

/// A message that was published without an answer is published again: delivery is at least once.
#[test]
fn an_unanswered_message_is_sent_again() {
    play(async || {
        let world = World::new();
        world.faults.fail(Op::Publish, "", 1..=2, Broken::After);
        done(&world.processor(), &[world.acme(1..=3)]).await;
        assert_eq!(world.published(&acme()), [(1, 3); 3]);
    });
}

#[test]
fn nothing_at_or_below_the_head_is_published_again() {
    play(async || {
        let world = World::new();
        let processor = world.processor();
        done(&processor, &[world.acme(1..=300)]).await;
        assert_eq!(world.head(&acme()).await.0, 300);
        done(&processor, &[world.acme(301..=302)]).await;
        let before = world.published(&acme());
        for processor in [processor, world.processor()] {
            done(&processor, &[world.acme(1..=300)]).await;
            done(&processor, &[world.nudge(&acme())]).await;
        }
        // Only 301 and 302, above the head, are published again, after a nudge makes the processor
        // load the log anew.
        let after = world.published(&acme());
        assert!(after[before.len()..].iter().all(|commit| *commit == (301, 302)), "{after:?}");
    });
}

/// When only some messages were published, only the logs of the failed ones are retried.
#[test]
fn only_the_logs_of_failed_messages_come_again() {
    play(async || {
        let world = World::new();
        let logs = ["a", "b", "c"].map(|org| log(&format!("tally/org:{org}")));
        let batch = logs.each_ref().map(|log| world.record(log, 1, &[padded(1, 50_000)]));
        // Each log's commit fills a message. The second log's message always fails.
        world.faults.leave_out(Op::Publish, "org:b", ..);
        let processor = world.processor();
        assert_eq!(unfinished(&processor, &batch).await, 1);
        assert_eq!(logs.each_ref().map(|log| world.published(log).len()), [1, 0, 1]);
        let [_, again @ ..] = &world.faults.calls(Op::Publish)[..] else { panic!("no message") };
        assert_eq!(again, ["tally/org:b 1-1"; 4], "only the failed message is sent again");
        world.faults.heal();
        done(&processor, &batch[1..]).await;
        assert_eq!(logs.each_ref().map(|log| world.published(log).len()), [1, 1, 1]);
    });
}

/// A message has the commits of many logs of one invocation, so that a thousand quiet tenants do
/// not cost a thousand messages.
#[test]
fn the_commits_of_a_batch_share_messages() {
    play(async || {
        let world = World::new();
        let logs: Vec<_> = (0..40).map(|n| log(&format!("tally/org:o{n}"))).collect();
        let records: Vec<_> = logs.iter().map(|log| world.record(log, 1, &[add(1)])).collect();
        done(&world.processor(), &records).await;
        assert_eq!(world.messages().len(), 1);
        for log in &logs {
            assert_eq!(world.published(log), [(1, 1)], "{log}");
        }
    });
}

/// A log always uses the same topic, by hash. A failing topic stops only its own logs.
#[test]
fn a_log_always_uses_the_same_topic() {
    play(async || {
        let world = World::with_topics(3);
        let logs: Vec<_> = (0..20).map(|n| log(&format!("tally/org:o{n}"))).collect();
        let processor = world.processor();
        let batch = |seq| -> Vec<_> {
            logs.iter().map(|log| world.record(log, seq, &run([seq]))).collect()
        };
        // The second of three messages always fails.
        world.faults.fail(Op::Publish, "", 2..=6, Broken::Before);
        for seq in 1..=3 {
            let records = batch(seq);
            if let Some(from) = processor.process(&records, NEVER).await.unfinished {
                done(&processor, &records[from..]).await;
            }
        }
        let messages = world.topics.all();
        for log in &logs {
            let commits = world.published(log);
            assert_eq!(commits, [(1, 1), (2, 2), (3, 3)], "{log}");
            let name = format!("\"{log}\"");
            let of_log =
                messages.iter().filter(|(_, m)| m.body.contains(&name)).map(|(topic, _)| *topic);
            let topics: BTreeSet<usize> = of_log.collect();
            assert_eq!(topics.len(), 1, "{log}");
        }
        let used: BTreeSet<usize> = messages.iter().map(|(topic, _)| *topic).collect();
        assert_eq!(used.len(), 3);
    });
}

/// F5: a commit stored before the deadline is published, although no time is left for more.
#[test]
fn a_commit_stored_before_the_deadline_is_published() {
    play(async || {
        let world = World::new();
        let other = world.clone();
        world.faults.after(Op::JournalAppend, "1-3", move || {
            let world = other.clone();
            async move {
                done(&world.elsewhere(), &[world.acme(4..=4)]).await;
                world.env.pass(10_000);
            }
        });
        let deadline = world.env.now().plus_ms(5_000);
        // Another environment has closed the gap, but no time is left to read the journal again.
        let processor = world.processor();
        let outcome = processor.process(&[world.acme(1..=3), world.acme(5..=5)], deadline).await;
        assert_eq!(outcome.unfinished, Some(1));
        world.assert_run(4).await;
        assert_eq!(world.published(&acme()), [(4, 4), (1, 3)]);
        done(&processor, &[world.acme(5..=5)]).await;
        world.assert_run(5).await;
    });
}

/// Three logs whose commits share a message, and records of the commands 1 and 2 of each.
async fn accepted(world: &World) -> ([LogId; 3], Vec<ReceivedRecord>) {
    let logs = ["a", "b", "c"].map(|org| log(&format!("tally/org:{org}")));
    for log in &logs {
        world.accept(log, 2).await;
    }
    assert_eq!(world.relay().relay(&world.changes(), NEVER).await.unfinished, None);
    (logs, world.records())
}

/// When a topic refuses a message permanently, its commits are published one by one, and the
/// refused commit without its entries (F7).
#[test]
fn a_commit_that_is_refused_for_its_content_is_published_by_reference() {
    play(async || {
        let world = World::new();
        world.faults.refuse_messages(|m| m.contains("org:b 1-2") && !m.contains("in the journal"));
        let (logs, records) = accepted(&world).await;
        let start = world.env.now();
        done(&world.processor(), &records).await;
        assert_eq!(world.env.now(), start, "smaller messages are sent without a pause");
        for log in &logs {
            assert_eq!(world.published(log), [(1, 2)], "{log}");
            assert_eq!(world.parked(log).await, [] as [String; 0], "{log}");
        }
        let [a, b, c] = logs.each_ref().map(|log| format!("{log} 1-2"));
        let expected =
            [format!("{a} {b} {c}"), format!("{a}, {b}, {c}"), format!("{b} in the journal")];
        assert_eq!(world.faults.calls(Op::Publish), expected);
    });
}

/// A commit that is refused even without its entries is parked and reported, and stops no other
/// commit. Views find it in the journal. A nudge publishes it again, with its original `prev`, and
/// removes the parked item once the topic takes it.
#[test]
fn a_commit_that_is_always_refused_is_parked() {
    play(async || {
        let world = World::new();
        world.faults.refuse_messages(|m| m.contains("org:b 3-4"));
        let (logs, records) = accepted(&world).await;
        let b = &logs[1];
        let processor = world.processor();
        done(&processor, &records).await;
        let more = logs.each_ref().map(|log| world.record(log, 3, &run(3..=4)));
        done(&processor, &more).await;
        done(&processor, &[world.record(b, 5, &run([5]))]).await;
        assert_eq!(logs.each_ref().map(|log| world.published(log).len()), [2, 2, 2]);
        let parked = ["3 unpublished Unpublished"];
        assert_eq!(world.parked(b).await, parked);
        let report = world.sweep().sweep(None, 100, NEVER).await.expect("memory");
        assert_eq!((report.nudged, report.waiting), (vec![], 1));

        // It stays parked while the topic refuses it, in any environment.
        done(&processor, &more).await;
        done(&world.processor(), &more).await;
        done(&world.processor(), &[world.nudge(b)]).await;
        assert_eq!(world.parked(b).await, parked);
        assert!(!world.published(b).contains(&(3, 4)));

        world.faults.heal();
        done(&world.processor(), &[world.nudge(b)]).await;
        assert_eq!(world.parked(b).await, [] as [String; 0]);
        assert!(world.published(b).contains(&(3, 4)));
        let prev = |body: &Bytes| {
            let commits = notification::decode(std::str::from_utf8(body).expect("text"));
            let commits = commits.expect("a batch").into_iter();
            commits.filter(|c| c.log == *b && c.first.0 == 3).map(|c| c.prev).next()
        };
        let prev = world.messages().iter().rev().find_map(prev).expect("it was published");
        assert_eq!(prev["tally.added"].0, 2);
    });
}

#[test]
fn a_view_finds_a_refused_commit_in_the_journal() {
    play(async || {
        let world = World::new();
        world.faults.refuse_messages(|m| m.contains("org:b"));
        let (logs, records) = accepted(&world).await;
        done(&world.processor(), &records).await;
        applied(&world.projector("sums"), &world.messages()).await;
        assert_eq!(world.cursor("sums", &logs[0]).await.seq.0, 2);
        assert_eq!(world.cursor("sums", &logs[1]).await.seq.0, 0);
        world.env.pass(60_000);
        world.view_sweep("sums").sweep(None, 100, NEVER).await.expect("memory");
        assert_eq!(world.cursor("sums", &logs[1]).await.seq.0, 2);
    });
}

/// A head may pass a commit that is parked as refused. Otherwise the log's memory would grow for as
/// long as the topic refuses the commit.
#[test]
fn a_head_passes_a_commit_that_is_parked_as_refused() {
    play(async || {
        let world = World::new();
        world.faults.refuse_messages(|_| true);
        done(&world.processor(), &[world.acme(1..=300)]).await;
        assert_eq!(world.head(&acme()).await.0, 300);
        assert_eq!(world.parked(&acme()).await, ["1 unpublished Unpublished"]);
        world.faults.heal();
        done(&world.processor(), &[world.nudge(&acme())]).await;
        assert_eq!(world.published(&acme()), [(1, 300)]);
        world.assert_run(300).await;
        world.audit(&acme()).await;
    });
}

/// A nudge finds a refused commit behind what waits for an operator, until it has listed 10,000 items.
/// After that the commit waits for the operator, too, and the sweep reports the log.
#[test]
fn a_refused_commit_behind_too_many_items_waits_for_the_operator() {
    play(async || {
        for (conflicts, is_found) in [(9_000, true), (12_000, false)] {
            let world = World::new();
            world.accept(&acme(), 300).await;
            done(&world.processor(), &[world.acme(1..=1)]).await;
            with_conflicts(&world, conflicts).await;
            world.faults.refuse_messages(|_| true);
            done(&world.processor(), &[world.acme(2..=300)]).await;
            assert!(world.head(&acme()).await.0 > 2, "no cold load publishes the commit again");
            world.faults.heal();
            done(&world.processor(), &[world.nudge(&acme())]).await;
            let is_published = || world.published(&acme()).contains(&(2, 300));
            assert_eq!(is_published(), is_found);

            let report = world.sweep().sweep(None, 100, NEVER).await.expect("memory");
            assert_eq!(report.waiting, 1);
            let parked = &world.memory.parked;
            for item in parked.list(&acme(), (Seq(1), ""), usize::MAX).await.expect("memory") {
                if item.seq == Seq(1) {
                    parked.remove(&acme(), item.seq, &item.identity).await.expect("memory");
                }
            }
            done(&world.processor(), &[world.nudge(&acme())]).await;
            assert!(is_published());
            assert_eq!(world.parked(&acme()).await, [] as [String; 0]);
        }
    });
}

/// A missing permission is an outage, and not the fault of a message, so the processor does not
/// retry at once. The batch is retried, and published once an operator has restored the permission.
#[test]
fn a_missing_permission_parks_nothing() {
    play(async || {
        let world = World::new();
        world.faults.fail(Op::Publish, "", .., Broken::Refused);
        let processor = world.processor();
        assert_eq!(unfinished(&processor, &[world.acme(1..=3)]).await, 0);
        assert_eq!(world.faults.counts([Op::Publish, Op::Park]), [1, 0]);
        world.faults.heal();
        done(&processor, &[world.acme(1..=3)]).await;
        assert_eq!(world.published(&acme()), [(1, 3)]);
    });
}

/// A commit that is neither published nor parked is not acknowledged.
#[test]
fn a_refused_commit_that_cannot_be_parked_comes_again() {
    play(async || {
        for broken in [Broken::Before, Broken::After, Broken::Refused] {
            let world = World::new();
            world.faults.refuse_messages(|m| m.contains("acme"));
            world.faults.fail(Op::Park, "", 1..=1, broken);
            let other = log("tally/org:b");
            let batch = [world.record(&other, 1, &run([1])), world.acme(1..=3)];
            let processor = world.processor();
            assert_eq!(unfinished(&processor, &batch).await, 1);
            done(&processor, &batch[1..]).await;
            assert_eq!(world.parked(&acme()).await, ["1 unpublished Unpublished"]);
        }
    });
}

/// A canary's commits count as published without being sent, unless the host has a view of them.
#[test]
fn canaries_are_not_published_by_default() {
    play(async || {
        for is_published in [false, true] {
            let world = World::new();
            let processor = world.processor();
            let processor =
                if is_published { processor.with_canaries_published() } else { processor };
            let canary = Canary::log(0).expect("a canary");
            let sings = |ids: std::ops::RangeInclusive<u64>| -> Vec<_> {
                ids.map(|id| command("canary-0", id, "sing", json!({}))).collect()
            };
            let batch = [world.record(&canary, 1, &sings(1..=300)), world.acme(1..=1)];
            done(&processor, &batch).await;
            assert_eq!(world.published(&canary).len(), usize::from(is_published));
            assert_eq!(world.published(&acme()), [(1, 1)]);
            assert_eq!(world.tail(&canary).await.0, 300);
            assert!(world.head(&canary).await.0 > 0, "the commits count as published");
        }
    });
}
