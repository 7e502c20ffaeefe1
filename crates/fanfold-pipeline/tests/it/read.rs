//! Reads of callers. F6: readers never go backwards. The cursor is read before the rows, and the
//! seq that is reported for a log never decreases.
//!
//! `docs/design.md#http`.

use fanfold::entry::Outcome;
use fanfold::{LogId, RowKey, Seq, Services};
use fanfold_pipeline::ports::{Env, RowRange};
use fanfold_pipeline::read::{Awaited, EntryError, Reads, UnknownSeq, ViewError, ViewPage};
use fanfold_pipeline::testing::{Op, yield_once};
use futures::future::join;
use serde_json::json;

use crate::check::{play, seeds};
use crate::tally::Tally;
use crate::world::{
    World, acme, add, applied, command, commit_of, done, log, padded, run, services, views,
};

const EVERYTHING: RowRange =
    RowRange { prefix: String::new(), after: None, descending: false, limit: 100 };

async fn page(reads: &Reads, view: &str, seq: Option<u64>) -> Result<Awaited<ViewPage>, ViewError> {
    reads.rows(view, &acme(), &EVERYTHING, seq.map(Seq), 0).await
}

fn ready<T, E: std::fmt::Display>(awaited: Result<Awaited<T>, E>) -> T {
    match awaited {
        Ok(Awaited::Ready(there)) => there,
        Ok(Awaited::Pending { seq, .. }) => panic!("pending at {seq}"),
        Err(error) => panic!("{error}"),
    }
}

/// The pages together are the log, wherever commits begin and end.
#[test]
fn entries_come_in_pages() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 31).await;
        for (first, last) in [(1, 1), (2, 9), (10, 10), (11, 30)] {
            world.commit(&acme(), &run(first..=last)).await;
        }
        let (reads, all) = (world.reads(), world.entries(&acme()).await);
        for from in 0..=32 {
            for limit in [1, 2, 5, 9, 100] {
                let (mut entries, mut next) = (Vec::new(), Some(Seq(from)));
                while let Some(from) = next {
                    let page = reads.entries(&acme(), from, limit).await.expect("memory");
                    assert_eq!((page.accepted, page.tail), (Seq(31), Seq(30)));
                    assert!(page.entries.len() <= limit);
                    assert!(page.next.is_none() || page.entries.len() == limit);
                    entries.extend(page.entries);
                    next = page.next;
                }
                let expected = &all[(from.max(1) as usize - 1).min(30)..];
                assert_eq!(entries, expected, "from {from}, {limit} per page");
            }
        }
    });
}

/// Callers get events in the current versions of their types.
#[test]
fn events_are_brought_to_their_current_versions() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 1).await;
        done(&world.processor(), &[world.acme(1..=1)]).await;
        let newer = Services::new().with::<Tally<1, 2>>();
        for (services, expected) in [(newer, 2), (services(), 1), (Services::new(), 1)] {
            let reads = world.wiring().reads(&views(), services);
            let mut entry = world.entries(&acme()).await.remove(0);
            reads.bring_up_to_date(&acme(), &mut entry);
            let Outcome::Accepted(events) = entry.outcome else { panic!("it was accepted") };
            assert_eq!(events[0].version, expected);
        }
    });
}

/// An organisation that has never sent anything has an empty log and no rows.
#[test]
fn a_log_without_commands_is_empty() {
    play(async || {
        let world = World::new();
        let reads = world.reads();
        let log = reads.entries(&acme(), Seq(1), 10).await.expect("memory");
        assert_eq!(
            (log.accepted, log.tail, log.entries.len(), log.next),
            (Seq(0), Seq(0), 0, None)
        );
        let rows = ready(page(&reads, "sums", None).await);
        assert_eq!((rows.seq, rows.rows.len(), rows.next), (Seq(0), 0, None));
        let awaited = page(&reads, "sums", Some(1)).await;
        assert!(matches!(awaited, Err(ViewError::UnknownSeq(_))));
        let entry = reads.entry(&acme(), Seq(1), 0).await.expect_err("there is none");
        let said = "`tally/org:acme` has no seq 1: no command was accepted for it yet";
        assert_eq!(entry.to_string(), said);
    });
}

/// A page of large entries is shorter, and the next page continues behind it.
#[test]
fn large_entries_make_short_pages() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 1).await;
        let commands: Vec<_> = (1..=200).map(|id| padded(id, 60_000)).collect();
        world.commit(&acme(), &commands).await;
        let (reads, mut from, mut pages) = (world.reads(), Some(Seq(1)), Vec::new());
        while let Some(next) = from {
            let page = reads.entries(&acme(), next, 1_000).await.expect("memory");
            assert_eq!(page.entries[0].seq, next);
            pages.push(page.entries.len());
            from = page.next;
        }
        assert_eq!(pages.iter().sum::<usize>(), 200);
        assert!(pages.iter().all(|entries| entries * 60_000 < 5 << 20), "{pages:?}");
    });
}

/// A read during accepting and processing shows no entry beyond the accepted seq.
#[test]
fn no_more_entries_are_seen_than_were_accepted() {
    play(async || {
        for op in [Op::SlotGet, Op::JournalTail, Op::JournalRead] {
            for is_before in [true, false] {
                let world = World::new();
                world.accept(&acme(), 1).await;
                world.commit(&acme(), &run(1..=1)).await;
                let busy = world.clone();
                let hook = move || {
                    let world = busy.clone();
                    async move {
                        world.accept(&acme(), 2).await;
                        world.commit(&acme(), &run(2..=3)).await;
                    }
                };
                if is_before {
                    world.faults.before(op, "", hook);
                } else {
                    world.faults.after(op, "", hook);
                }
                let page = world.reads().entries(&acme(), Seq(1), 10).await.expect("memory");
                let seen = page.entries.last().map_or(Seq::ZERO, |entry| entry.seq);
                assert!(page.tail <= page.accepted, "{op:?}: {} of {}", page.tail, page.accepted);
                assert!(seen <= page.accepted && seen >= Seq(1), "{op:?}");
            }
        }
    });
}

#[test]
fn an_entry_is_there_or_pending_or_unknown() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 3).await;
        world.commit(&acme(), &run(1..=2)).await;
        let reads = world.reads();
        for seq in 1..=2 {
            assert_eq!(ready(reads.entry(&acme(), Seq(seq), 0).await).seq, Seq(seq));
        }
        let start = world.env.now();
        let pending = Awaited::Pending { seq: Seq(2), parked: None };
        assert_eq!(reads.entry(&acme(), Seq(3), 5_000).await.expect("memory"), pending);
        assert_eq!(world.env.now().since_ms(start), 5_000);
        for seq in [0, 4] {
            let error = reads.entry(&acme(), Seq(seq), 5_000).await.expect_err("no such seq");
            assert!(
                matches!(error, EntryError::UnknownSeq(UnknownSeq { accepted: Seq(3), .. })),
                "{error}"
            );
        }
        let fly = log("fly/org:acme");
        let error = reads.entry(&fly, Seq(1), 5_000).await.expect_err("no such service");
        assert_eq!(error.to_string(), "there is no service `fly` here");
        let error = reads.entries(&fly, Seq(1), 1).await.expect_err("no such service");
        assert_eq!(error.to_string(), "there is no service `fly` here");
        assert_eq!(
            world.env.now().since_ms(start),
            5_000,
            "a read of an unknown seq or service does not wait"
        );
    });
}

#[test]
fn a_wait_ends_when_the_entry_arrives() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 3).await;
        let (reads, start) = (world.reads(), world.env.now());
        let coming = async {
            for seq in 1..=3 {
                yield_once().await;
                let message = world.commit(&log("tally/org:acme"), &run(seq..=seq)).await;
                applied(&world.projector("sums"), [&message]).await;
            }
        };
        // Each sleep yields to the writer first, so the waits end before their time is over.
        world.faults.before_every(Op::Sleep, || async {
            for _ in 0..1_000 {
                yield_once().await;
            }
        });
        let (acme, everything) = (acme(), EVERYTHING);
        let waiting = join(
            reads.entry(&acme, Seq(3), 60_000),
            reads.rows("sums", &acme, &everything, Some(Seq(3)), 60_000),
        );
        let ((entry, rows), ()) = join(waiting, coming).await;
        assert_eq!(ready(entry).seq, Seq(3));
        assert_eq!(ready(rows).seq, Seq(3));
        assert!(world.env.now().since_ms(start) < 120_000);
    });
}

#[test]
fn a_wait_at_a_hole_in_the_journal_reads_with_pauses() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 4).await;
        world.commit(&acme(), &run(1..=2)).await;
        world.strange_commit(4, commit_of(4, "added", 1, &json!({"by": 1}))).await;
        world.faults.forget();
        let waited = world.reads().entry(&acme(), Seq(3), 20_000).await.expect("memory");
        assert!(matches!(waited, Awaited::Pending { .. }), "{waited:?}");
        let looks = world.faults.calls(Op::JournalRead).len();
        assert!(looks <= 30, "{looks} reads in 20 s");
    });
}

/// The entry is stored while the read ends.
#[test]
fn a_pending_answer_has_a_seq_below_the_one_asked_for() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 2).await;
        let busy = world.clone();
        world.faults.before(Op::JournalTail, "", move || {
            let world = busy.clone();
            async move {
                world.commit(&acme(), &run(1..=2)).await;
            }
        });
        let pending = world.reads().entry(&acme(), Seq(1), 0).await.expect("memory");
        assert_eq!(pending, Awaited::Pending { seq: Seq::ZERO, parked: None });
    });
}

/// The cursor is read before the rows, so the rows may be newer than the seq in the answer, but
/// never older. With a receipt's seq callers read their own writes.
#[test]
fn the_cursor_is_read_before_the_rows() {
    play(async || {
        for op in [Op::Cursor, Op::Scan] {
            let world = World::new();
            world.accept(&acme(), 4).await;
            let mut messages = Vec::new();
            for seq in 1..=4 {
                messages.push(world.commit(&acme(), &[add(seq)]).await);
            }
            let projector = world.projector("sums");
            applied(&projector, &messages[..2]).await;
            world.faults.forget();
            let rest = messages[2..].to_vec();
            world.faults.after(op, "", move || {
                let (projector, rest) = (projector.clone(), rest.clone());
                async move { applied(&projector, &rest).await }
            });
            let page = ready(page(&world.reads(), "sums", Some(2)).await);
            assert_eq!((page.seq, page.version), (Seq(2), 1));
            let expected = if op == Op::Cursor { Seq(4) } else { Seq(2) };
            assert_eq!(page.rows[0].seq, expected, "{op:?}");
            let row: RowKey = "a".parse().expect("a key");
            let one = ready(world.reads().row("sums", &acme(), &row, Some(Seq(4)), 0).await);
            assert_eq!((one.seq, one.rows[0].seq), (Seq(4), Seq(4)));
        }
    });
}

/// F6: readers never go backwards, and the rows are never older than the seq in the answer.
#[test]
fn readers_never_go_backwards() {
    play(async || {
        seeds(10, async |seed| {
            let world = World::seeded(seed);
            world.accept(&acme(), 40).await;
            let writing = async {
                for seq in 1..=40 {
                    let message = world.commit(&acme(), &[add(seq)]).await;
                    if world.env.random() % 4 != 1 {
                        applied(&world.projector("sums"), [&message]).await;
                    }
                }
            };
            let reading = async {
                let (reads, mut last) = (world.reads(), Seq::ZERO);
                while last < Seq(37) {
                    let asked = last.0 + world.env.random() % 3;
                    let page =
                        reads.rows("sums", &acme(), &EVERYTHING, Some(Seq(asked.min(40))), 7).await;
                    let page = match page.expect("memory") {
                        Awaited::Ready(page) => page,
                        Awaited::Pending { seq, .. } => {
                            assert!(seq >= last && seq.0 < asked);
                            continue;
                        }
                    };
                    assert!(page.seq >= last && page.seq.0 >= asked);
                    if let Some(row) = page.rows.first() {
                        let total = format!("{{\"total\":{},\"said\":\"\"}}", row.seq);
                        assert_eq!(row.body, total);
                        assert!(row.seq >= page.seq);
                    }
                    last = page.seq;
                    yield_once().await;
                }
            };
            join(writing, reading).await;
        })
        .await;
    });
}

/// A filtered view's cursor may rightly lag, so a wait for it is refused.
#[test]
fn a_filtered_view_cannot_be_waited_for() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 1).await;
        let message = world.commit(&acme(), &run(1..=1)).await;
        applied(&world.projector("resets"), [&message]).await;
        let reads = world.reads();
        let error = page(&reads, "resets", Some(1)).await.expect_err("it is filtered");
        assert!(matches!(&error, ViewError::Filtered(view) if view == "resets"), "{error}");
        // Without a seq it is read like any other view.
        assert_eq!(ready(page(&reads, "resets", None).await).seq, Seq(1));
    });
}

#[test]
fn each_unknown_view_log_seq_or_row_has_its_error() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 3).await;
        let said = command("ann", 2, "say", json!({"counter": "b", "text": "boo"}));
        let message = world.commit(&acme(), &[add(1), said]).await;
        applied(&world.projector("sums"), [&message]).await;
        let (reads, start) = (world.reads(), world.env.now());
        // The view is parked before 2, so a wait for 2 returns at once.
        for seq in [2, 3] {
            let awaited = reads.rows("sums", &acme(), &EVERYTHING, Some(Seq(seq)), 9_000).await;
            let Ok(Awaited::Pending { seq: Seq(1), parked: Some(parked) }) = awaited else {
                panic!("{awaited:?}");
            };
            assert_eq!(parked.seq, Seq(2));
        }
        assert_eq!(world.env.now(), start);
        let there = ready(page(&reads, "sums", None).await);
        assert_eq!((there.seq, there.parked.map(|p| p.seq)), (Seq(1), Some(Seq(2))));

        let key = |key: &str| -> RowKey { key.parse().expect("a key") };
        let rows = async |view: &str, log: &LogId, seq: u64| {
            let awaited = reads.rows(view, log, &EVERYTHING, Some(Seq(seq)), 0).await;
            awaited.expect_err("there is no such thing").to_string()
        };
        let ledger = log("ledger/org:acme");
        assert_eq!(rows("fly", &acme(), 1).await, "there is no view `fly` here");
        assert_eq!(
            rows("sums", &ledger, 1).await,
            "the view `sums` does not read the service `ledger`"
        );
        assert!(rows("sums", &acme(), 9).await.contains("has no seq 9"));
        assert!(rows("sums", &log("tally/org:x"), 1).await.contains("has no seq 1"));
        let error = reads.row("sums", &acme(), &key("b"), None, 0).await.expect_err("no such row");
        assert!(matches!(error, ViewError::UnknownRow { .. }), "{error}");
    });
}

#[test]
fn rows_come_in_pages_without_deleted_ones() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 1).await;
        let on = |id: u64, name: &str, counter: &str| {
            let by = if name == "add" {
                json!({"counter": counter, "by": 1})
            } else {
                json!({"counter": counter})
            };
            command("ann", id, name, by)
        };
        let commands =
            [on(1, "add", "a"), on(2, "add", "b"), on(3, "add", "c"), on(4, "reset", "b")];
        let message = world.commit(&acme(), &commands).await;
        applied(&world.projector("sums"), [&message]).await;
        let reads = world.reads();
        let mut range = RowRange { limit: 1, ..EVERYTHING };
        let mut seen = Vec::new();
        loop {
            let page = ready(reads.rows("sums", &acme(), &range, None, 0).await);
            seen.extend(page.rows.iter().map(|row| row.key.to_string()));
            match page.next {
                Some(next) => range.after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, ["a", "c"]);
        let deleted: RowKey = "b".parse().expect("a key");
        let error = reads.row("sums", &acme(), &deleted, None, 0).await.expect_err("no such row");
        assert!(matches!(error, ViewError::UnknownRow { .. }), "{error}");
    });
}

/// A page of large rows is shorter, and the next page continues behind it.
#[test]
fn large_rows_make_short_pages() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 1).await;
        let grow = |id: u64| {
            let data = json!({"counter": format!("c{}", 100 + id), "bytes": 250_000});
            command("ann", id, "grow", data)
        };
        let commands: Vec<_> = (1..=30).map(grow).collect();
        let message = world.commit(&acme(), &commands).await;
        applied(&world.projector("sums"), [&message]).await;
        let reads = world.reads();
        let (mut range, mut pages) = (EVERYTHING, Vec::new());
        loop {
            let page = ready(reads.rows("sums", &acme(), &range, None, 0).await);
            pages.push(page.rows.len());
            match page.next {
                Some(next) => range.after = Some(next),
                None => break,
            }
        }
        assert_eq!(pages.iter().sum::<usize>(), 30);
        assert!(pages.iter().all(|rows| rows * 250_000 < 5 << 20), "{pages:?}");
    });
}
