//! F5: a stream batch is not acknowledged before every commit it caused has been published, or is
//! parked because the topic refuses it.

use std::collections::BTreeSet;

use bytes::Bytes;
use fanfold::LogId;
use fanfold::body::notification;
use fanfold::canary::Canary;
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::process::{Processor, ReceivedRecord};
use fanfold_pipeline::testing::{Broken, Op};
use serde_json::json;

use crate::check::play;
use crate::world::{NEVER, World, acme, add, applied, command, done, log, run, unfinished};

/// A processor that could not publish what it has stored.
async fn unheard(world: &World) -> Processor {
    let processor = world.processor();
    world.faults.fail(Op::Publish, "", .., Broken::Before);
    assert_eq!(unfinished(&processor, &[world.acme(1..=3)]).await, 0);
    assert_eq!(world.published(&acme()), []);
    world.faults.heal();
    world.assert_run(3).await;
    processor
}

/// "A done command's commit is published again unless … this process knows that it was published":
/// the process that stored it, when the batch comes again.
#[test]
fn an_unpublished_commit_is_published_when_the_batch_comes_again() {
    play(async || {
        let world = World::new();
        let processor = unheard(&world).await;
        // Any of its commands is enough.
        done(&processor, &[world.acme(2..=2)]).await;
        assert_eq!(world.published(&acme()), [(1, 3)]);
        // Now it is known.
        done(&processor, &[world.acme(1..=3)]).await;
        assert_eq!(world.published(&acme()), [(1, 3)]);
    });
}

/// The same, when another environment gets the batch: it cannot know.
#[test]
fn what_another_process_may_not_have_published_is_published_again() {
    play(async || {
        let world = World::new();
        unheard(&world).await;
        let cold = world.processor();
        done(&cold, &[world.acme(1..=3)]).await;
        assert_eq!(world.published(&acme()), [(1, 3)]);
        done(&cold, &[world.acme(1..=3)]).await;
        assert_eq!(world.published(&acme()), [(1, 3)]);
    });
}

/// Publishing that took effect without an answer is made again: at least once.
#[test]
fn an_unanswered_message_is_sent_again() {
    play(async || {
        let world = World::new();
        world.faults.fail(Op::Publish, "", 1..=2, Broken::After);
        done(&world.processor(), &[world.acme(1..=3)]).await;
        assert_eq!(world.published(&acme()), [(1, 3); 3]);
    });
}

/// "published again unless it is at or below the head".
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
        // But the two above it are, when a nudge makes the process forget what it knew.
        let after = world.published(&acme());
        assert!(after[before.len()..].iter().all(|commit| *commit == (301, 302)), "{after:?}");
    });
}

/// "a log that failed reports its first unfinished record, and finished logs lose nothing": also
/// when only some of the messages were published.
#[test]
fn only_the_logs_of_failed_messages_come_again() {
    play(async || {
        let world = World::new();
        let logs = ["a", "b", "c"].map(|org| log(&format!("tally/org:{org}")));
        let large = |id| {
            command("ann", id, "add", json!({"counter": "a", "by": 1, "pad": "p".repeat(50_000)}))
        };
        let batch = logs.each_ref().map(|log| world.record(log, 1, &[large(1)]));
        // Each log's commit fills a message; that of the second is never taken.
        world.faults.leave_out(Op::Publish, "org:b", ..);
        let processor = world.processor();
        assert_eq!(unfinished(&processor, &batch).await, 1);
        assert_eq!(logs.each_ref().map(|log| world.published(log).len()), [1, 0, 1]);
        let [_, again @ ..] = &world.faults.calls(Op::Publish)[..] else { panic!("no message") };
        assert_eq!(again, ["tally/org:b 1-1"; 4], "only what failed is sent again");
        world.faults.heal();
        done(&processor, &batch[1..]).await;
        assert_eq!(logs.each_ref().map(|log| world.published(log).len()), [1, 1, 1]);
    });
}

/// A message packs the commits of one invocation, of many logs, so that a thousand quiet tenants do
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

/// Topics are a list; a log always uses the same one, by hash: and one that fails stops only
/// its own logs.
#[test]
fn a_log_always_uses_the_same_topic() {
    play(async || {
        let world = World::with_topics(3);
        let logs: Vec<_> = (0..20).map(|n| log(&format!("tally/org:o{n}"))).collect();
        let processor = world.processor();
        let batch = |seq| -> Vec<_> {
            logs.iter().map(|log| world.record(log, seq, &run([seq]))).collect()
        };
        // Of three messages the second is not taken, however often it is sent.
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

/// F5, with a deadline: what was stored is published even if there is no time for more.
#[test]
fn what_was_stored_before_the_deadline_is_published() {
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
        // Another has closed the gap, but there is no time to read the journal again.
        let processor = world.processor();
        let outcome = processor.process(&[world.acme(1..=3), world.acme(5..=5)], deadline).await;
        assert_eq!(outcome.unfinished, Some(1));
        world.assert_run(4).await;
        assert_eq!(world.published(&acme()), [(4, 4), (1, 3)]);
        done(&processor, &[world.acme(5..=5)]).await;
        world.assert_run(5).await;
    });
}

/// Three logs whose commits share a message, all with entries 1 and 2 to be decided.
async fn accepted(world: &World) -> ([LogId; 3], Vec<ReceivedRecord>) {
    let logs = ["a", "b", "c"].map(|org| log(&format!("tally/org:{org}")));
    for log in &logs {
        world.accept(log, 2).await;
    }
    assert_eq!(world.relay().relay(&world.changes(), NEVER).await.unfinished, None);
    (logs, world.records())
}

/// A topic that refuses a message for good says so of this message only (F7): its commits are sent
/// one by one, and the one that is to blame without its entries.
#[test]
fn a_commit_that_is_refused_for_its_content_is_published_by_reference() {
    play(async || {
        let world = World::new();
        world.faults.refuse_messages(|m| m.contains("org:b 1-2") && !m.contains("in the journal"));
        let (logs, records) = accepted(&world).await;
        let start = world.env.now();
        done(&world.processor(), &records).await;
        assert_eq!(world.env.now(), start, "a smaller step needs no pause");
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

/// What is refused even so is parked and reported, and stops no other commit; its views find it in
/// the journal. A nudge publishes it again, with the `prev` of its time, and removes it once it is
/// through.
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

        // As long as it is refused it stays there, wherever it comes again.
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
fn a_view_finds_in_the_journal_what_was_refused() {
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

/// "The head … means published up to here": or parked. Otherwise what a log has to keep in memory
/// would grow for as long as the topic refuses something of it.
#[test]
fn a_snapshot_passes_what_is_parked_as_refused() {
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

/// A missing right is no fault of a message: nothing is parked for it, and nothing is tried again
/// at once. The batch comes again, and is published when an operator has given the right back.
#[test]
fn a_missing_right_is_an_outage() {
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

/// What is neither published nor parked is not acknowledged.
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

/// Subscribers can do nothing with a canary's commits: they count as published, unless the host has
/// a view of them.
#[test]
fn canaries_are_not_published_by_default() {
    play(async || {
        for are_told in [false, true] {
            let world = World::new();
            let processor = world.processor();
            let processor = if are_told { processor.with_canaries_published() } else { processor };
            let canary = Canary::log(0).expect("a canary");
            let sings = |ids: std::ops::RangeInclusive<u64>| -> Vec<_> {
                ids.map(|id| command("canary-0", id, "sing", json!({}))).collect()
            };
            let batch = [world.record(&canary, 1, &sings(1..=300)), world.acme(1..=1)];
            done(&processor, &batch).await;
            assert_eq!(world.published(&canary).len(), usize::from(are_told));
            assert_eq!(world.published(&acme()), [(1, 1)]);
            assert_eq!(world.tail(&canary).await.0, 300);
            assert!(world.head(&canary).await.0 > 0, "they count as published");
        }
    });
}
