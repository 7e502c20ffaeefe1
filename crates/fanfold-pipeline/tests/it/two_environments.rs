//! Lambda has no affinity: two environments, each with its own cache, may get one log's batches in
//! turn, get the same batch at the same time, or crash during one.

use fanfold::Seq;
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::process::Processor;
use fanfold_pipeline::testing::{Broken, Op};
use futures::future::join;
use serde_json::json;

use crate::check::{play, seeds};
use crate::world::{NEVER, World, acme, add, command, done, log, run};

/// Another environment may have gone on, so the processor first reads the journal from the cached
/// tail. It parks nothing, and decides nothing twice.
#[test]
fn environments_take_turns_on_one_log() {
    play(async || {
        seeds(20, async |seed| {
            let world = World::seeded(seed);
            let environments = [world.processor(), world.processor(), world.processor()];
            let mut tail = 0;
            for _ in 0..40 {
                let next = tail + 1 + world.env.random() % 4;
                let environment = &environments[world.env.random() as usize % 3];
                done(environment, &[world.acme(tail + 1..=next)]).await;
                tail = next;
            }
            world.assert_run(tail).await;
            world.audit(&acme()).await;
            assert_eq!(world.faults.counts([Op::Park]), [0]);
            let mut published = world.published(&acme());
            published.sort_unstable();
            let count = published.len();
            published.dedup();
            assert_eq!(published.len(), 40, "each commit is published");
            // The processor that stored a commit publishes it. The one that takes a snapshot
            // publishes it again.
            assert!(count <= 2 * 40, "published {count} times for 40 commits");
        })
        .await;
    });
}

/// A processor that adopts another's head must not count windows in that head as stored. Afterwards
/// a cold load finds the ids of all commands.
#[test]
fn environments_take_turns_while_windows_leave_the_head() {
    play(async || {
        seeds(6, async |seed| {
            let world = World::seeded(seed);
            let environments = [world.processor(), world.processor(), world.processor()];
            let mut ids = vec![0; 300];
            let mut sent = Vec::new();
            for _ in 0..60 {
                let first = sent.len() as u64 + 1;
                let batch = (0..1 + world.env.random() % 100).map(|_| {
                    let user = world.env.random() as usize % (10 + sent.len()).min(ids.len());
                    ids[user] += 1;
                    let data = json!({"counter": "a", "by": 1, "pad": "p".repeat(400)});
                    command(&format!("u{user:030}"), ids[user], "add", data)
                });
                let batch: Vec<_> = batch.collect();
                let environment = &environments[world.env.random() as usize % 3];
                done(environment, &[world.record(&acme(), first, &batch)]).await;
                sent.extend(batch);
            }
            world.audit(&acme()).await;
            let n = sent.len();
            assert!(world.head(&acme()).await > Seq::ZERO);
            done(&world.processor(), &[world.record(&acme(), n as u64 + 1, &sent)]).await;
            let outcomes = world.outcomes(&acme()).await;
            let (first, again) = outcomes.split_at(n);
            assert!(first.iter().all(|outcome| outcome.ends_with("accepted")));
            assert!(again.iter().all(|outcome| outcome.ends_with("duplicate")));
            assert_eq!(again.len(), n);
        })
        .await;
    });
}

/// The record behind the gap is a minute old.
#[test]
fn a_stale_cache_parks_nothing() {
    play(async || {
        let world = World::new();
        let [one, other] = [world.processor(), world.processor()];
        done(&one, &[world.acme(1..=3)]).await;
        done(&other, &[world.acme(4..=6)]).await;
        let record = world.acme(7..=9);
        world.env.pass(60_000);
        done(&one, &[record]).await;
        world.assert_run(9).await;
        assert_eq!(world.faults.counts([Op::Park]), [0]);
    });
}

/// F3: the condition on `first` lets one of two concurrent appends succeed. The other processor
/// decides nothing again.
#[test]
fn two_environments_process_one_batch_at_the_same_time() {
    play(async || {
        for (ones, others) in [(4..=6, 4..=6), (4..=6, 4..=8), (4..=9, 4..=5), (1..=6, 2..=7)] {
            for is_warm in [true, false] {
                let world = World::new();
                let [one, other] = [world.processor(), world.processor()];
                done(&one, &[world.acme(1..=3)]).await;
                if is_warm {
                    done(&other, &[world.acme(1..=3)]).await;
                }
                let (mine, theirs) = ([world.acme(ones.clone())], [world.acme(others.clone())]);
                let both = join(one.process(&mine, NEVER), other.process(&theirs, NEVER)).await;
                assert_eq!(both, (BatchOutcome::DONE, BatchOutcome::DONE));
                world.assert_run(*ones.end().max(others.end())).await;
                world.audit(&acme()).await;
                let published = world.published(&acme());
                let commits = world.commits(&acme()).await;
                let is_published = |first, last| published.contains(&(first, last));
                assert!(
                    commits.iter().all(|c| is_published(c.first.0, c.last().0)),
                    "{published:?}"
                );
            }
        }
    });
}

/// The head S is written after every document that was touched in (old head, S] is stored, also
/// those of another processor's commits.
#[test]
fn a_head_hides_no_document_of_another_environment() {
    let touch =
        |id: u64, counter: &str| command("ann", id, "add", json!({"counter": counter, "by": 1}));
    play(async || {
        for is_caught_up in [false, true] {
            let world = World::new();
            let [one, other] = [world.processor(), world.processor()];
            if is_caught_up {
                done(&other, &[world.record(&acme(), 1, &[touch(1, "x")])]).await;
            } else {
                done(&one, &[world.record(&acme(), 1, &[touch(1, "x")])]).await;
            }
            // Only the first processor has decided on `y` and `z`.
            done(&one, &[world.record(&acme(), 2, &[touch(2, "y"), touch(3, "z")])]).await;
            done(&other, &[world.record(&acme(), 4, &run(4..=400))]).await;
            assert_eq!(world.head(&acme()).await.0, 400);
            world.audit(&acme()).await;
            let again = [touch(401, "x"), touch(402, "y"), touch(403, "z")];
            done(&world.processor(), &[world.record(&acme(), 401, &again)]).await;
            world.audit(&acme()).await;
        }
    });
}

/// A put of an abandoned environment takes effect while another goes on.
#[test]
fn a_late_append_comes_between_those_of_another_environment() {
    play(async || {
        for (late, landing) in [("4-6", "4-4"), ("4-6", "4-9"), ("4-4", "5-5")] {
            let world = World::new();
            let [one, other] = [world.processor(), world.processor()];
            done(&one, &[world.acme(1..=3)]).await;
            done(&other, &[world.acme(1..=3)]).await;
            world.faults.fail(Op::JournalAppend, late, 1..=3, Broken::Late);
            let to = |range: &str| -> u64 { range[2..].parse().expect("a seq") };
            let outcome = one.process(&[world.acme(4..=to(late))], NEVER).await;
            assert_eq!(outcome.unfinished, Some(0));
            let faults = world.faults.clone();
            world.faults.before(Op::JournalAppend, landing, move || {
                let faults = faults.clone();
                async move { faults.land().await }
            });
            for seq in 4..=to(landing) {
                done(&other, &[world.acme(4..=seq)]).await;
            }
            world.faults.land().await;
            done(&one, &[world.acme(4..=9)]).await;
            done(&other, &[world.acme(4..=9)]).await;
            world.assert_run(9).await;
            world.audit(&acme()).await;
        }
    });
}

/// Random faults: three environments and two logs; batches that overlap, repeat, and arrive early
/// or at the same time; calls that fail in every way; environments that are replaced. The
/// invariants hold after each step, and at the end no command is missing.
#[test]
fn a_log_is_complete_after_random_faults() {
    play(async || seeds(30, stormy).await);
}

async fn stormy(seed: u64) {
    let world = World::seeded(seed);
    let pick = |n: u64| world.env.random() % n;
    let logs = [acme(), log("tally/org:beta")];
    let mut environments = [world.processor(), world.processor(), world.processor()];
    let accepted = 40 + pick(300);
    let mut rest = [1, 1];
    for _ in 0..40 {
        for _ in 0..pick(3) {
            break_something(&world);
        }
        let mut batches = [vec![], vec![]];
        for batch in &mut batches {
            for _ in 0..=pick(2) {
                let at = pick(2) as usize;
                let first = (rest[at] + pick(6)).saturating_sub(pick(12)).max(1);
                let last = (first + pick(60)).min(accepted);
                if first <= last {
                    batch.push(world.record(&logs[at], first, &commands(first, last)));
                }
            }
        }
        let [one, other] = [pick(3) as usize, pick(3) as usize];
        world.env.pass(pick(8_000));
        // The outcome does not matter, since the end retries every batch.
        let (one, other) = (&environments[one], &environments[other]);
        join(one.process(&batches[0], NEVER), other.process(&batches[1], NEVER)).await;
        if pick(6) == 0 {
            world.faults.land().await;
        }
        if pick(9) == 0 {
            environments[pick(3) as usize] = world.processor();
        }
        world.faults.heal();
        for (log, rest) in logs.iter().zip(&mut rest) {
            world.audit(log).await;
            *rest = world.tail(log).await.0 + 1;
        }
    }
    world.faults.land().await;
    finish(&world, &logs, accepted, &environments[0]).await;
}

/// Delivers every record again, without faults.
async fn finish(world: &World, logs: &[fanfold::LogId], accepted: u64, processor: &Processor) {
    for log in logs {
        done(processor, &[world.record(log, 1, &commands(1, accepted))]).await;
        done(processor, &[world.nudge(log)]).await;
        world.audit(log).await;
        let entries = world.entries(log).await;
        assert_eq!(entries.len() as u64, accepted, "{log}");
        for (entry, command) in entries.iter().zip(commands(1, accepted)) {
            assert_eq!((&entry.origin, entry.id), (&command.origin, command.id));
        }
        assert_eq!(world.parked(log).await, [] as [String; 0]);
        let published = world.published(log);
        for commit in world.commits(log).await {
            assert!(
                published.contains(&(commit.first.0, commit.last().0)),
                "{} of {log}",
                commit.first
            );
        }
    }
}

/// The commands of the storm: some are repeats, some are rejected.
fn commands(first: u64, last: u64) -> Vec<fanfold::Command> {
    let one = |seq: u64| match seq % 7 {
        0 => add(seq - 3),
        1 => command("ann", seq, "add", json!({"counter": "a", "by": 0})),
        2 => command("bob", seq, "share", json!({"one": "a", "other": format!("c{}", seq % 5)})),
        _ => command("ann", seq, "add", json!({"counter": format!("c{}", seq % 11), "by": 1})),
    };
    (first..=last).map(one).collect()
}

fn break_something(world: &World) {
    const OPS: [Op; 8] = [
        Op::JournalAppend,
        Op::JournalRead,
        Op::StateGet,
        Op::StatePut,
        Op::Park,
        Op::ParkedList,
        Op::ParkedRemove,
        Op::Publish,
    ];
    let pick = |n: u64| world.env.random() as usize % n as usize;
    let broken = [Broken::Before, Broken::After, Broken::Late][pick(3)];
    let (op, first) = (OPS[pick(8)], 1 + pick(4));
    match op {
        // Every attempt, since publishing has more retries than other calls.
        Op::Publish => world.faults.fail(op, "", .., broken),
        op => world.faults.fail(op, "", first..=first + pick(6), broken),
    }
}
