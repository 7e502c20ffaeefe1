//! A panic, an undecodable event, a known event type of an unknown version, or a row above 256 KiB
//! parks the view for the log at its cursor (condition `seq = :loaded`). The log's further messages
//! are acknowledged and skipped. An unknown event type is skipped.

use fanfold::host::limits::ROW_BYTES_MAX;
use fanfold::view::View;
use fanfold::{Command, Recorded, RowKey, Seq, Services, Views};
use fanfold_pipeline::ports::Journal;
use fanfold_pipeline::testing::{Broken, Op};
use serde_json::json;

use super::say;
use crate::check::play;
use crate::tally::{Event, Sum, Sums, Tally};
use crate::world::{NEVER, World, acme, add, applied, command, commit_of, done, log};

fn grow(id: u64, bytes: usize) -> Command {
    command("ann", id, "grow", json!({"counter": "a", "bytes": bytes}))
}

/// A failing entry parks the view at the entry before it. The view finds it in a message, or in the
/// journal when a message was lost.
#[test]
fn an_entry_that_cannot_be_applied_parks_the_view_for_its_log() {
    let table: &[(&str, Vec<Command>, u64, &str)] = &[
        ("a panic", vec![add(3), say(4, "boo"), add(5)], 4, "`apply` panicked: a test of views"),
        ("at once", vec![say(3, "boo"), add(4)], 3, "`apply` panicked"),
        ("twice", vec![add(3), say(4, "boo"), say(5, "boo")], 4, "`apply` panicked"),
        (
            "too large",
            vec![grow(3, 200_000), grow(4, 62_200), grow(5, 1), add(6)],
            4,
            "the row `a` would be",
        ),
        (
            "behind another row",
            vec![grow(3, 250_000), say(4, "boo"), grow(5, 250_000)],
            4,
            "`apply` panicked",
        ),
        (
            "before another row",
            vec![grow(3, 250_000), grow(4, 250_000), say(5, "boo")],
            4,
            "the row `a`",
        ),
    ];
    play(async || {
        for (what, commands, bad, reason) in table {
            for by_journal in [false, true] {
                let world = World::new();
                let first = world.commit(&acme(), &[add(1), add(2)]).await;
                let second = world.commit(&acme(), commands).await;
                let other = world.commit(&log("tally/org:other"), &[add(1)]).await;
                let projector = world.projector("sums");
                let batch =
                    if by_journal { vec![second, other] } else { vec![first, second, other] };
                applied(&projector, &batch).await;
                let cursor = world.cursor("sums", &acme()).await;
                let parked = cursor.parked.expect("it is parked");
                let what = format!("{what}, by the journal: {by_journal}");
                assert_eq!((cursor.seq, parked.seq), (Seq(bad - 1), Seq(*bad)), "{what}");
                assert!(parked.reason.starts_with(reason), "{what}: {}", parked.reason);
                world.audit_view("sums", &acme()).await;
                let other = world.cursor("sums", &log("tally/org:other")).await;
                assert_eq!(other.seq, Seq(1), "the other log goes on");

                // Later messages are acknowledged and skipped.
                world.faults.forget();
                let next = world.tail(&acme()).await.next().0;
                let next = world.commit(&acme(), &[add(next)]).await;
                applied(&projector, [&batch[0], &next]).await;
                let touched = [Op::PutRow, Op::MoveCursor, Op::JournalRead, Op::Sleep];
                assert_eq!(world.faults.counts(touched), [0; 4], "{what}");
                assert_eq!(world.cursor("sums", &acme()).await.seq, Seq(bad - 1));
            }
        }
    });
}

#[test]
fn an_entry_of_another_build_parks_the_view_too() {
    let table = [
        (
            "a newer version",
            commit_of(3, "added", 2, &json!({"by": 1, "total": 3})),
            "versions up to 1",
        ),
        (
            "data that does not fit",
            commit_of(3, "added", 1, &json!({"by": "one"})),
            "cannot be read",
        ),
        ("no commit", b"garbage".to_vec(), "the commit cannot be read"),
        ("another format", b"\x09\x00[]".to_vec(), "the commit cannot be read"),
    ];
    play(async || {
        for (what, body, reason) in &table {
            let world = World::new();
            world.commit(&acme(), &[add(1), add(2)]).await;
            world.strange_commit(3, body.clone()).await;
            // The message of the entry is lost, and the next message shows that.
            let source = World::new();
            source.commit(&acme(), &[add(1), add(2), add(3)]).await;
            let next = source.commit(&acme(), &[add(4)]).await;
            let commit = source.commits(&acme()).await.remove(1);
            world.memory.journal.append(&acme(), &commit).await.expect("memory");
            applied(&world.projector("sums"), [&next]).await;
            let cursor = world.cursor("sums", &acme()).await;
            let parked = cursor.parked.expect("it is parked");
            assert_eq!((cursor.seq, parked.seq), (Seq(2), Seq(3)), "{what}");
            assert!(parked.reason.contains(reason), "{what}: {}", parked.reason);
            assert_eq!(world.rows("sums").await, ["a@2 {\"total\":2,\"said\":\"\"}"]);
        }
    });
}

#[test]
fn an_unknown_event_type_is_skipped() {
    play(async || {
        let world = World::new();
        let known = world.commit(&acme(), &[add(1), add(2)]).await;
        world.strange_commit(3, commit_of(3, "melted", 7, &json!("?"))).await;
        let source = World::new();
        source.commit(&acme(), &[add(1), add(2), add(3)]).await;
        let next = source.commit(&acme(), &[add(4)]).await;
        let commit = source.commits(&acme()).await.remove(1);
        world.memory.journal.append(&acme(), &commit).await.expect("memory");
        let projector = world.projector("sums");
        applied(&projector, [&known]).await;
        applied(&projector, [&next]).await;
        let cursor = world.cursor("sums", &acme()).await;
        assert_eq!((cursor.seq, cursor.parked), (Seq(4), None));
    });
}

/// The view is parked at exactly the entry that makes a row larger than 256 KiB, also when many
/// entries behind it are folded at once.
#[test]
fn the_entry_that_makes_a_row_too_large_is_found() {
    play(async || {
        let world = World::new();
        let mut id = 0;
        let mut next = |what: fn(u64) -> Command| {
            id += 1;
            what(id)
        };
        // 1 to 26 have 10,000 bytes each, 27 makes the row too large, and 4,000 entries follow.
        let first: Vec<Command> = (0..26).map(|_| next(|id| grow(id, 10_000))).collect();
        world.commit(&acme(), &first).await;
        for _ in 0..40 {
            let more: Vec<Command> = (0..100).map(|_| next(|id| grow(id, 3_000))).collect();
            world.commit(&acme(), &more).await;
        }
        let last = world.messages().pop().expect("many");
        applied(&world.projector("sums"), [&last]).await;
        let cursor = world.cursor("sums", &acme()).await;
        assert_eq!((cursor.seq, cursor.parked.map(|p| p.seq)), (Seq(26), Some(Seq(27))));
        let [loads] = world.faults.counts([Op::Rows]);
        assert!(loads <= 4, "{loads} reads: the search for the entry runs in memory");
        assert!(world.rows("sums").await[0].len() <= ROW_BYTES_MAX.get() + 10);
        world.audit_view("sums", &acme()).await;
    });
}

/// A row of exactly 256 KiB is allowed. One byte more parks the view.
#[test]
fn a_row_at_its_limit_parks_nothing() {
    play(async || {
        let world = World::new();
        let empty = "{\"total\":0,\"said\":\"\"}".len();
        let projector = world.projector("sums");
        let half = (ROW_BYTES_MAX.get() - empty) / 2;
        let rest = ROW_BYTES_MAX.get() - empty - half;
        let message = world.commit(&acme(), &[grow(1, half), grow(2, rest)]).await;
        applied(&projector, [&message]).await;
        let cursor = world.cursor("sums", &acme()).await;
        assert_eq!((cursor.seq, cursor.parked), (Seq(2), None));
        let message = world.commit(&acme(), &[grow(3, 1)]).await;
        applied(&projector, [&message]).await;
        assert_eq!(world.cursor("sums", &acme()).await.parked.map(|p| p.seq), Some(Seq(3)));
    });
}

/// `sums` of a newer build, which has a newer version of an event.
struct NewerSums;

impl View for NewerSums {
    const NAME: &'static str = Sums::NAME;
    const VERSION: u32 = Sums::VERSION;
    const SERVICES: &'static [&'static str] = Sums::SERVICES;
    const EVENTS: &'static [(&'static str, u32)] = <Tally<1, 2> as fanfold::Service>::EVENTS;
    type Event = Event;
    type Row = Sum;

    fn rows(entry: &Recorded<Event>) -> Vec<RowKey> {
        Sums::rows(entry)
    }

    fn apply(row: Option<Sum>, key: &RowKey, entry: &Recorded<Event>) -> Option<Sum> {
        Sums::apply(row, key, entry)
    }
}

/// During a rollout the old build does not park the view at an entry that the new build has
/// applied.
#[test]
fn an_older_build_does_not_park_at_an_entry_that_a_newer_has_applied() {
    play(async || {
        let ops = [Op::Rows, Op::PutRow, Op::MoveCursor, Op::ParkView];
        // The entries that the newer build has applied when the older one fails.
        for (op, passed) in ops.into_iter().flat_map(|op| [(op, 2), (op, 3)]) {
            let world = World::new();
            let newer = world.processor_of(Services::new().with::<Tally<1, 2>>());
            // The older build can apply the first and the last.
            let batches = [vec![say(1, "hello")], vec![add(2)], vec![say(3, "again")]];
            for (first, commands) in (1..).zip(&batches) {
                done(&newer, &[world.record(&acme(), first, commands)]).await;
            }
            let messages = world.messages();
            let views = Views::new().with::<NewerSums>();
            let (other, ahead) = (world.projector_of("sums", &views), messages[..passed].to_vec());
            world.faults.before(op, "", move || {
                let (other, ahead) = (other.clone(), ahead.clone());
                async move { applied(&other, &ahead).await }
            });
            // The message is retried, and the older build applies the rest.
            let older = world.projector("sums");
            let again = older.project(&messages, NEVER).await;
            applied(&older, again.into_iter().map(|at| &messages[at])).await;
            let cursor = world.cursor("sums", &acme()).await;
            assert_eq!((cursor.seq, cursor.parked), (Seq(3), None), "{op:?} {passed}");
            assert_eq!(world.rows("sums").await, ["a@3 {\"total\":1,\"said\":\"helloagain\"}"]);
        }
    });
}

#[test]
fn a_damaged_commit_parks_the_view_too() {
    play(async || {
        let world = World::new();
        world.commit(&acme(), &[add(1)]).await;
        let second = world.commit(&acme(), &[add(2)]).await;
        let other = world.commit(&log("tally/org:other"), &[add(1)]).await;
        world.faults.fail(Op::JournalRead, acme().as_str(), .., Broken::Damaged);
        applied(&world.projector("sums"), &[second, other]).await;
        let cursor = world.cursor("sums", &acme()).await;
        let parked = cursor.parked.expect("it is parked");
        assert_eq!((cursor.seq, parked.seq), (Seq(0), Seq(1)));
        assert!(parked.reason.contains("cannot be read: a part is missing"), "{}", parked.reason);
        assert_eq!(world.cursor("sums", &log("tally/org:other")).await.seq, Seq(1));
    });
}
