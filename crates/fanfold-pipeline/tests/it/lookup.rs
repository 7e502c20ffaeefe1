//! Lookups: a caller that has lost an answer asks for a command's entry by its id.

use fanfold::host::limits::{WINDOW_IDLE_MS_MAX, WINDOW_IDS_MAX};
use fanfold::{Command, CommandId, Origin, Seq};
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::read::{Awaited, LookupError};
use fanfold_pipeline::testing::{Op, yield_once};
use futures::future::join;
use serde_json::json;

use crate::check::play;
use crate::world::{World, acme, add, command, commit_of, done, log, run};

/// Enough small entries to make a snapshot due.
const DUE: u64 = 300;

fn origin(text: &str) -> Origin {
    let name = |text: &str| text.parse().expect("a name");
    let origin = match text.split_once('/') {
        Some((user, client)) => Origin::client(&name(user), &name(client)),
        None => Origin::user(&name(text)),
    };
    origin.expect("it is not reserved")
}

fn by(origin_text: &str, command: Command) -> Command {
    Command { origin: origin(origin_text), ..command }
}

/// `2 accepted`, `pending at 2`, `never`, `below`.
async fn asked(world: &World, by: &str, id: u64, wait_ms: u64) -> String {
    let id = CommandId::new(id).expect("an id");
    match world.reads().lookup(&acme(), &origin(by), id, wait_ms).await {
        Ok(Awaited::Ready(entry)) => {
            assert_eq!((entry.origin, entry.id), (origin(by), id));
            format!("{} {}", entry.seq, entry.outcome.status())
        }
        Ok(Awaited::Pending { seq, .. }) => format!("pending at {seq}"),
        Err(LookupError::UnknownId { .. }) => "never".to_owned(),
        Err(LookupError::BelowWindow { .. }) => "below".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_id_is_found_or_pending_or_was_never_sent() {
    play(async || {
        let world = World::new();
        assert_eq!(asked(&world, "ann", 1, 0).await, "never");
        world.accept(&acme(), 3).await;
        // Any command without an entry may have this id.
        for id in [1, 9] {
            assert_eq!(asked(&world, "ann", id, 0).await, "pending at 0");
        }
        world.commit(&acme(), &run(1..=2)).await;
        assert_eq!(asked(&world, "ann", 2, 0).await, "2 accepted");
        assert_eq!(asked(&world, "ann", 9, 0).await, "pending at 2");
        world.commit(&acme(), &[add(2)]).await;
        // Repeats of the command do not count.
        assert_eq!(asked(&world, "ann", 2, 0).await, "2 accepted");
        assert_eq!(asked(&world, "ann", 9, 60_000).await, "never");
        for other in ["bob", "ann/till"] {
            assert_eq!(asked(&world, other, 2, 0).await, "never");
        }
        let (reads, elsewhere, ann) = (world.reads(), log("fly/org:acme"), origin("ann"));
        let error = reads.lookup(&elsewhere, &ann, CommandId::NONE, 0).await;
        let error = error.expect_err("no such service").to_string();
        assert!(error.starts_with("there is no service"), "{error}");
    });
}

/// The journal is that behind the head. The window is in the head or in an item of its own.
#[test]
fn a_lookup_finds_an_id_in_the_journal_the_head_and_a_window() {
    let refused = |id| command("ann", id, "add", json!({"counter": "a", "by": 0}));
    play(async || {
        // Enough ids of ann to make a snapshot due, also with the windows of many users.
        for (users, ids) in [(1, 3), (1, DUE), (60, 6 * DUE)] {
            let is_below_head = ids > 3;
            let world = World::new();
            let first = [add(1), refused(2), by("ann/till 1", refused(1)), add(1), refused(1)];
            let user = |n: u64| format!("{n:04}{}", "@".repeat(100));
            let others = (0..users).map(|n| by(&user(n), add(n + 1)));
            let many = (3..ids).map(add);
            let commands: Vec<Command> = first.into_iter().chain(others).chain(many).collect();
            world.accept(&acme(), commands.len() as u64).await;
            done(&world.processor(), &[world.record(&acme(), 1, &commands)]).await;
            assert_eq!(world.head(&acme()).await > Seq(0), is_below_head);
            world.faults.forget();
            for (origin, id, expected) in [
                ("ann", 1, "1 accepted"),
                ("ann", 2, "2 rejected"),
                ("ann/till 1", 1, "3 rejected"),
                (&user(0), 1, "6 accepted"),
                ("ann/till 1", 2, "never"),
                ("ann", 9_999, "never"),
            ] {
                let what = format!("{origin} {id}, {users} users, below {is_below_head}");
                assert_eq!(asked(&world, origin, id, 0).await, expected, "{what}");
            }
            let reads = world.faults.calls(Op::JournalRead).len();
            assert!(reads <= 6, "{reads} reads of the journal");
        }
    });
}

#[test]
fn an_id_below_the_window_is_reported_as_below() {
    play(async || {
        for more in [0, DUE] {
            let world = World::new();
            let last = 10 + WINDOW_IDS_MAX.get() as u64 + 2 + more;
            let commands: Vec<Command> = (11..=last).map(add).collect();
            world.accept(&acme(), commands.len() as u64).await;
            done(&world.processor(), &[world.record(&acme(), 1, &commands)]).await;
            for id in [1, 10, 12 + more] {
                assert_eq!(asked(&world, "ann", id, 0).await, "below", "{id} of {last}");
            }
            let seq = 3 + more;
            assert_eq!(asked(&world, "ann", 13 + more, 0).await, format!("{seq} accepted"));
        }
    });
}

/// A command with such an id would be stale.
#[test]
fn an_unused_id_of_an_idle_window_is_below_it() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 2).await;
        world.commit(&acme(), &[add(1), add(3)]).await;
        assert_eq!(asked(&world, "ann", 2, 0).await, "never");
        world.env.sleep(WINDOW_IDLE_MS_MAX.as_u64() + 1).await;
        assert_eq!(asked(&world, "ann", 2, 0).await, "below");
        assert_eq!(asked(&world, "ann", 3, 0).await, "2 accepted");
        assert_eq!(asked(&world, "ann", 4, 0).await, "never");
    });
}

#[test]
fn a_lookup_waits_for_accepted_commands() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 3).await;
        world.faults.before_every(Op::Sleep, || async {
            for _ in 0..1_000 {
                yield_once().await;
            }
        });
        let coming = async {
            for seq in 1..=3 {
                yield_once().await;
                world.commit(&acme(), &run(seq..=seq)).await;
            }
        };
        let ((found, never), ()) =
            join(join(asked(&world, "ann", 2, 60_000), asked(&world, "ann", 9, 60_000)), coming)
                .await;
        assert_eq!((found.as_str(), never.as_str()), ("2 accepted", "never"));
    });
}

/// The missing entry may be the one asked for.
#[test]
fn a_lookup_stays_pending_at_a_hole() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 4).await;
        world.commit(&acme(), &run(1..=2)).await;
        world.strange_commit(4, commit_of(4, "added", 1, &json!({"by": 1}))).await;
        assert_eq!(asked(&world, "ann", 9, 1_000).await, "pending at 2");
        assert_eq!(asked(&world, "ann", 2, 0).await, "2 accepted");
    });
}
