//! F6 under random faults: messages are lost, repeated and reordered, two workers get them at the
//! same time, and calls fail in every way.

use bytes::Bytes;
use fanfold::host::body::notification::{ReceivedCommit, decode};
use fanfold::{Command, Seq};
use fanfold_pipeline::ports::{Env, ViewTable};
use fanfold_pipeline::testing::{Broken, Op, yield_once};
use futures::future::join;
use serde_json::json;

use super::{reset, say};
use crate::check::{play, seeds};
use crate::world::{NEVER, World, acme, applied, command, services, views};

#[test]
fn views_are_exact_under_loss_disorder_and_repetition() {
    play(async || {
        seeds(40, async |seed| {
            for view in ["sums", "resets"] {
                storm(seed, view).await;
            }
        })
        .await;
    });
}

async fn storm(seed: u64, view: &str) {
    let world = World::seeded(seed);
    let pick = |n: u64| world.env.random() % n;
    let messages = history(&world).await;
    let kinds = views().get(view).expect("a view").kinds();
    // A filter policy holds back messages without the view's kinds.
    let is_filtered = views().get(view).expect("a view").is_filtered(&services());
    let is_sent = |body: &Bytes| {
        let text = String::from_utf8_lossy(body);
        !is_filtered || kinds.iter().any(|kind| text.contains(&format!("\"type\":\"{kind}.v")))
    };
    let sent: Vec<Bytes> = messages.iter().filter(|body| is_sent(body)).cloned().collect();
    let workers = [world.projector(view), world.projector(view)];
    // Most messages arrive nearly in order, some late, some twice, and one in five never.
    for near in 0..sent.len() as u64 {
        let mut batches = [vec![], vec![]];
        for _ in 0..=pick(3) {
            let at = (near + pick(4)).saturating_sub(pick(5)) as usize;
            if pick(5) > 0
                && let Some(body) = sent.get(at)
            {
                batches[pick(2) as usize].push(body.clone());
                if pick(3) == 0 {
                    batches[0].push(body.clone());
                    batches[1].push(body.clone());
                }
            }
        }
        if pick(4) == 0 {
            let op = [Op::Cursor, Op::Rows, Op::PutRow, Op::MoveCursor, Op::JournalRead]
                [pick(5) as usize];
            let broken = [Broken::Before, Broken::After, Broken::Late][pick(3) as usize];
            let first = 1 + pick(3) as usize;
            world.faults.fail(op, "", first..=first + pick(3) as usize, broken);
        }
        // Random pauses interleave the workers' calls.
        for op in [Op::Cursor, Op::Rows, Op::PutRow] {
            let env = world.env.clone();
            world.faults.before_every(op, move || {
                let turns = env.random() % 4;
                async move {
                    for _ in 0..turns {
                        yield_once().await;
                    }
                }
            });
        }
        let [one, other] = &workers;
        // One worker decodes messages, the other gets decoded commits.
        let commits = handed_over(&world, &batches[1]).await;
        join(one.project(&batches[0], NEVER), other.project_commits(&commits, NEVER)).await;
        if pick(5) == 0 {
            world.faults.land().await;
        }
        world.faults.heal();
        world.audit_view(view, &acme()).await;
    }
    world.faults.land().await;
    world.audit_view(view, &acme()).await;
    // Only the newest message of the view's kinds must arrive.
    if let Some(newest) = sent.last() {
        let before = world.cursor(view, &acme()).await.seq;
        applied(&workers[0], [newest]).await;
        let cursor = world.cursor(view, &acme()).await;
        assert!(cursor.seq >= before);
        assert!(is_filtered || cursor.seq == world.tail(&acme()).await, "{cursor:?}");
        world.audit_view(view, &acme()).await;
        assert_all_applied(&world, view).await;
    }
}

/// The commits of these messages as a topic in the same process hands them over: with the entries
/// from the journal.
async fn handed_over(world: &World, messages: &[Bytes]) -> Vec<Vec<ReceivedCommit>> {
    let entries = world.entries(&acme()).await;
    let commit = |received: ReceivedCommit| {
        let inside = entries.iter().filter(|e| (received.first..=received.last).contains(&e.seq));
        ReceivedCommit { entries: Some(inside.cloned().collect()), ..received }
    };
    let commits = messages.iter().map(|body| {
        let received = decode(&String::from_utf8_lossy(body)).expect("a message");
        received.into_iter().map(commit).collect()
    });
    commits.collect()
}

/// Commits of one to four commands on a few counters.
async fn history(world: &World) -> Vec<Bytes> {
    let pick = |n: u64| world.env.random() % n;
    let (mut id, mut messages) = (0, Vec::new());
    for _ in 0..10 + pick(30) {
        let commands: Vec<Command> = (0..=pick(4))
            .map(|_| {
                id += 1;
                let counter = ["a", "b", "c"][pick(3) as usize];
                match pick(9) {
                    0 => reset(id),
                    1 => say(id, "so "),
                    2 => command("ann", id, "add", json!({"counter": counter, "by": 0})),
                    3 => command("ann", (id / 2).max(1), "reset", json!({"counter": counter})),
                    4 => command("ann", id, "share", json!({"one": "a", "other": counter})),
                    5 => command("ann", id, "reset", json!({"counter": counter})),
                    _ => command("ann", id, "add", json!({"counter": counter, "by": id})),
                }
            })
            .collect();
        messages.push(world.commit(&acme(), &commands).await);
    }
    messages
}

/// Every row is at the last entry that touches it.
async fn assert_all_applied(world: &World, view: &str) {
    let views = views();
    let (hosted, table) = (views.get(view).expect("a view"), world.table(view));
    for entry in world.entries(&acme()).await {
        let Ok(Some(recorded)) = hosted.read(&acme(), &entry) else { continue };
        for key in hosted.rows(&recorded).expect("rows") {
            let rows = table.rows(&acme(), std::slice::from_ref(&key)).await;
            let row = rows.expect("memory").remove(0);
            let seq = row.map_or(Seq::ZERO, |row| row.seq);
            assert!(seq >= entry.seq, "{view}: `{key}` is at {seq}, {} touches it", entry.seq);
        }
    }
}
