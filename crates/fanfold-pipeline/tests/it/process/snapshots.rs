//! Snapshots: a fuzzy checkpoint of documents and windows, written after publishing.
//!
//! `docs/design.md#snapshots`.

use fanfold::host::body::envelope;
use fanfold::host::body::head::Head;
use fanfold::host::limits::{HEAD_WINDOWS_BYTES_MAX, SNAPSHOT_ENTRIES_MIN};
use fanfold::{Command, Origin, Seq, StateKey};
use fanfold_pipeline::testing::{Broken, Op, yield_once};
use serde_json::json;

use crate::check::play;
use crate::world::{World, acme, command, done, padded, unfinished};

/// Enough small entries for a snapshot: above 4 KiB, and above 20 times the size of three counters.
const DUE: u64 = 300;

/// A command that touches a counter of its own.
fn touch(id: u64) -> Command {
    command("ann", id, "add", json!({"counter": format!("c{id}"), "by": 1}))
}

/// A snapshot is due when the journal since the head exceeds max(4 KiB, 20 x the bytes to write),
/// or 1,024 entries and 20 x the write units.
#[test]
fn a_snapshot_is_written_when_it_is_due() {
    let grow =
        |id, bytes: usize| command("ann", id, "grow", json!({"counter": "big", "bytes": bytes}));
    // Size of the first document, number and bytes of the entries behind it, whether a snapshot is
    // due.
    let table = [
        (None, 15, 100, false),
        (None, 8, 600, true),
        (None, 1, 3_000, false),
        (None, 2, 3_000, true),
        // The document takes 15,000 bytes, so a snapshot is due after 300,000 bytes.
        (Some(20_000), 70, 3_500, false),
        (Some(20_000), 120, 3_500, true),
        // Many small entries, which a cold load would have to fold.
        (Some(50_000), SNAPSHOT_ENTRIES_MIN.get() as u64 - 2, 1, false),
        (Some(50_000), SNAPSHOT_ENTRIES_MIN.get() as u64 - 1, 1, true),
    ];
    play(async || {
        for (large, entries, bytes, is_due) in table {
            let world = World::new();
            let processor = world.processor();
            let first = match large {
                Some(large) => grow(1, large),
                None => padded(1, 0),
            };
            done(&processor, &[world.record(&acme(), 1, &[first])]).await;
            let commands: Vec<Command> = (2..2 + entries).map(|id| padded(id, bytes)).collect();
            done(&processor, &[world.record(&acme(), 2, &commands)]).await;
            let head = world.head(&acme()).await.0;
            let what = format!("{large:?}, then {entries} of {bytes} bytes");
            assert_eq!(head, if is_due { entries + 1 } else { 0 }, "{what}");
            world.audit(&acme()).await;
        }
    });
}

#[test]
fn snapshots_cost_a_twentieth_of_the_journal() {
    play(async || {
        let world = World::new();
        let processor = world.processor();
        let mut written = 0;
        for batch in 0..60 {
            let ids = 1 + batch * 20..1 + (batch + 1) * 20;
            let pad = |id: u64| "p".repeat((id * 7_919 % 400) as usize);
            let data =
                |id: u64| json!({"counter": format!("c{}", id % 9), "by": 1, "pad": pad(id)});
            let commands: Vec<Command> =
                ids.clone().map(|id| command("ann", id, "add", data(id))).collect();
            world.faults.forget();
            done(&processor, &[world.record(&acme(), ids.start, &commands)]).await;
            for put in world.faults.calls(Op::StatePut) {
                let key = put.split(' ').nth(1).expect("a key");
                written += stored_bytes(&world, key).await;
            }
            let commits = world.commits(&acme()).await;
            let journal: usize =
                commits.iter().map(|c| envelope::open(1, &c.body).expect("a commit").len()).sum();
            assert!(written * 20 <= journal, "{written} bytes of {journal} after {batch}");
        }
        assert!(written > 0 && world.head(&acme()).await > Seq::ZERO);
        world.audit(&acme()).await;
    });
}

async fn stored_bytes(world: &World, key: &str) -> usize {
    let counter = |key: &str| key.strip_prefix("v1#doc#").map(str::parse);
    let key = match counter(key) {
        Some(id) => StateKey::document(1, &id.expect("a document")),
        None => StateKey::head(1),
    };
    world.state(&acme(), key).await.expect("it is stored").body.len()
}

/// The head S is written last, after every document is stored, and not while a put is under way.
#[test]
fn the_head_is_written_last() {
    play(async || {
        let world = World::new();
        let seen = world.clone();
        world.faults.after(Op::StatePut, "#doc#b", move || {
            let world = seen.clone();
            async move {
                for _ in 0..50 {
                    yield_once().await;
                }
                let puts = world.faults.calls(Op::StatePut);
                assert!(!puts.iter().any(|put| put.contains("#head")), "{puts:?}");
            }
        });
        done(&world.processor(), &[world.acme(1..=DUE)]).await;
        assert_eq!(world.head(&acme()).await.0, DUE);
    });
}

#[test]
fn no_head_is_written_unless_every_document_is_stored() {
    play(async || {
        for (key, broken) in
            [("#doc#b", Broken::Before), ("#doc#a", Broken::After), ("#doc#c", Broken::Late)]
        {
            let world = World::new();
            let processor = world.processor();
            world.faults.fail(Op::StatePut, key, 1..=1, broken);
            // The batch is done without the snapshot.
            done(&processor, &[world.acme(1..=DUE)]).await;
            assert_eq!(world.head(&acme()).await, Seq::ZERO, "without {key}");
            world.audit(&acme()).await;
            // The next batch writes the head, in any process.
            let next = if broken == Broken::Late { world.processor() } else { processor };
            done(&next, &[world.acme(DUE + 1..=DUE + 1)]).await;
            assert_eq!(world.head(&acme()).await.0, DUE + 1);
            world.faults.land().await;
            world.audit(&acme()).await;
        }
    });
}

/// The put of the head takes no effect, takes effect without an answer, or takes effect late.
#[test]
fn a_head_stored_without_an_answer_does_no_harm() {
    play(async || {
        for broken in [Broken::Before, Broken::After, Broken::Late] {
            let world = World::new();
            let processor = world.processor();
            world.faults.fail(Op::StatePut, "#head", 1..=1, broken);
            done(&processor, &[world.acme(1..=DUE)]).await;
            done(&processor, &[world.acme(1..=3), world.acme(DUE + 1..=DUE + 2)]).await;
            assert_eq!(world.head(&acme()).await.0, DUE + 2);
            world.faults.land().await;
            assert_eq!(world.head(&acme()).await.0, DUE + 2, "an older head does not replace it");
            world.assert_run(DUE + 2).await;
            world.audit(&acme()).await;
        }
    });
}

/// Every put is guarded by `attribute_not_exists(pk) OR seq < :seq`, so the snapshot of an
/// overtaken process replaces nothing newer.
#[test]
fn an_older_snapshot_replaces_nothing_newer() {
    play(async || {
        let world = World::new();
        let other = world.clone();
        world.faults.before(Op::StatePut, "#doc#", move || {
            let world = other.clone();
            async move { done(&world.elsewhere(), &[world.acme(DUE + 1..=3 * DUE)]).await }
        });
        done(&world.processor(), &[world.acme(1..=DUE)]).await;
        assert_eq!(world.head(&acme()).await.0, 3 * DUE);
        world.audit(&acme()).await;
        done(&world.processor(), &[world.acme(3 * DUE + 1..=3 * DUE + 3)]).await;
        world.assert_run(3 * DUE + 3).await;
        world.audit(&acme()).await;
    });
}

#[test]
fn a_snapshot_has_only_acknowledged_commits() {
    play(async || {
        for broken in [Broken::Before, Broken::Late] {
            let world = World::new();
            let processor = world.processor();
            world.faults.fail(Op::JournalAppend, "", 1..=3, broken);
            assert_eq!(unfinished(&processor, &[world.acme(1..=DUE)]).await, 0);
            assert_eq!(world.faults.counts([Op::StatePut]), [0]);
            done(&processor, &[world.acme(1..=DUE)]).await;
            assert_eq!(world.head(&acme()).await.0, DUE);
            world.assert_run(DUE).await;
        }
    });
}

/// Before the head S is written, every commit in (old head, S] is published: the processor's own
/// that it could not publish, and those of another process that crashed.
#[test]
fn the_head_passes_only_published_commits() {
    play(async || {
        let world = World::new();
        let processor = world.processor();
        world.faults.fail(Op::Publish, "", .., Broken::Before);
        assert_eq!(unfinished(&processor, &[world.acme(1..=DUE)]).await, 0);
        assert_eq!(world.head(&acme()).await, Seq::ZERO);
        world.faults.heal();
        // Another processor gets the batch, or only the commands behind it.
        done(&world.processor(), &[world.acme(DUE + 1..=DUE + 1)]).await;
        assert_eq!(world.head(&acme()).await.0, DUE + 1);
        assert_eq!(world.published(&acme()), [(1, DUE), (DUE + 1, DUE + 1)]);
        world.audit(&acme()).await;
    });
}

/// A snapshot stores every document that was touched in (old head, S], also those that only
/// replayed commits have touched.
#[test]
fn documents_that_were_only_replayed_are_stored_too() {
    play(async || {
        let world = World::new();
        done(&world.elsewhere(), &[world.record(&acme(), 1, &[touch(1), touch(2)])]).await;
        done(&world.processor(), &[world.acme(3..=DUE)]).await;
        assert_eq!(world.head(&acme()).await.0, DUE);
        world.audit(&acme()).await;
        let again = [command("ann", DUE + 1, "add", json!({"counter": "c1", "by": 1}))];
        done(&world.processor(), &[world.record(&acme(), DUE + 1, &again)]).await;
        world.audit(&acme()).await;
    });
}

/// Dirty documents are never evicted. Clean ones are, and are loaded again when needed.
#[test]
fn dirty_documents_stay_and_clean_ones_are_loaded_again() {
    const MANY: u64 = 1_500;
    play(async || {
        let world = World::new();
        let processor = world.processor();
        // Together the documents are larger than a log's cache.
        let grow = |id: u64| {
            command("ann", id, "grow", json!({"counter": format!("c{id}"), "bytes": 4_000}))
        };
        // The journal also exceeds the 8 MiB that a cold load should read at most.
        let pad = |id: u64| {
            command("ann", id, "add", json!({"counter": "c1", "by": 1, "pad": "p".repeat(6_000)}))
        };
        let grown = (1..=MANY).map(grow);
        let commands: Vec<Command> = grown.chain((MANY + 1..=2 * MANY).map(pad)).collect();
        world.faults.fail(Op::StatePut, "", 1..=1, Broken::Before);
        done(&processor, &[world.record(&acme(), 1, &commands)]).await;
        assert_eq!(world.head(&acme()).await, Seq::ZERO, "nothing is stored yet");
        // The second snapshot succeeds, and then the documents can be evicted.
        let mut next = 2 * MANY;
        for (reads, head) in [(0, next + 1), (1, next + 1)] {
            next += 1;
            let again = [command("ann", next, "add", json!({"counter": "c700", "by": 1}))];
            world.faults.forget();
            done(&processor, &[world.record(&acme(), next, &again)]).await;
            assert_eq!(world.faults.counts([Op::StateGet, Op::JournalRead]), [reads, 0]);
            assert_eq!(world.head(&acme()).await.0, head);
            world.audit(&acme()).await;
        }
    });
}

/// Windows are in the head item until it exceeds 8 KiB. Then each has an item of its own, loaded on
/// demand.
#[test]
fn many_windows_leave_the_head() {
    let by = |user: u64, id: u64| {
        command(&format!("u{user}"), id, "add", json!({"counter": "a", "by": 1}))
    };
    play(async || {
        for (users, commands, is_split) in [(100, 1_200, false), (240, 6_000, true)] {
            let world = World::new();
            // Ids in order, so that each window is one run.
            let ids = commands / users;
            let first: Vec<Command> = (0..users * ids).map(|n| by(n / ids, 1 + n % ids)).collect();
            done(&world.processor(), &[world.record(&acme(), 1, &first)]).await;
            let item = world.state(&acme(), StateKey::head(1)).await.expect("a head");
            let windows = Head::decode(&item.body).expect("a head").windows;
            assert_eq!(windows.is_none(), is_split, "{users} users");
            assert!(item.body.len() <= HEAD_WINDOWS_BYTES_MAX.get() + 1_024, "{}", item.body.len());
            world.audit(&acme()).await;

            // Repeats of known users, and one new user: only these windows are read.
            world.faults.forget();
            let last = users * ids;
            let again = [by(7, 1), by(8, 3), by(7, 77), by(users, 1)];
            let processor = world.processor();
            done(&processor, &[world.record(&acme(), last + 1, &again)]).await;
            let outcomes = world.outcomes(&acme()).await;
            let expected = ["duplicate", "duplicate", "accepted", "accepted"];
            for (outcome, expected) in outcomes[last as usize..].iter().zip(expected) {
                assert!(outcome.ends_with(expected), "{outcome}");
            }
            let reads = world.faults.calls(Op::StateGet).join(" ");
            assert_eq!(reads.matches("#win#").count(), if is_split { 3 } else { 0 }, "{reads}");
            // The next snapshot stores the new user's window.
            let more: Vec<Command> = (0..1_100).map(|n| by(users, 2 + n)).collect();
            done(&processor, &[world.record(&acme(), last + 5, &more)]).await;
            assert_eq!(world.head(&acme()).await.0, last + 1_104);
            world.audit(&acme()).await;
            let origin: Origin = more[0].origin.clone();
            let own = world.state(&acme(), StateKey::window(1, &origin)).await;
            assert_eq!(own.is_some(), is_split);
            let repeat = [by(users, 250)];
            done(&world.processor(), &[world.record(&acme(), last + 1_105, &repeat)]).await;
            assert!(world.outcomes(&acme()).await[last as usize + 1_104].ends_with("duplicate"));
        }
    });
}

/// Windows that were not touched since the last snapshot are stored, too, since the new head does
/// not have them.
#[test]
fn windows_are_stored_when_they_leave_the_head() {
    let block = |users: std::ops::Range<u64>, ids: u64| -> Vec<Command> {
        let by = |n: u64| {
            let user = format!("u{}", users.start + n / ids);
            command(&user, 1 + n % ids, "add", json!({"counter": "a", "by": 1}))
        };
        (0..(users.end - users.start) * ids).map(by).collect()
    };
    play(async || {
        let world = World::new();
        done(&world.processor(), &[world.record(&acme(), 1, &block(0..100, 12))]).await;
        assert_eq!(world.head(&acme()).await.0, 1_200);
        done(&world.processor(), &[world.record(&acme(), 1_201, &block(100..250, 40))]).await;
        assert_eq!(world.head(&acme()).await.0, 7_200);
        let item = world.state(&acme(), StateKey::head(1)).await.expect("a head");
        assert!(Head::decode(&item.body).expect("a head").windows.is_none());
        world.audit(&acme()).await;
        // The first user's window was last touched long before the windows left the head.
        let again = [command("u0", 3, "add", json!({"counter": "a", "by": 1}))];
        done(&world.processor(), &[world.record(&acme(), 7_201, &again)]).await;
        assert_eq!(world.outcomes(&acme()).await[7_200], "7201 u0#3 duplicate");
    });
}
