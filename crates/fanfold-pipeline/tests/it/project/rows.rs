//! How a view writes rows. It loads the touched rows, folds all entries above each row's seq, and
//! writes with the guard `seq = loaded`. On a conflict it reloads the row. Deleted rows stay as
//! tombstones with a TTL of a day. Then it advances the cursor with `seq < :new`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use fanfold::{RowKey, Seq};
use fanfold_pipeline::ports::{Env, ViewTable};
use fanfold_pipeline::project::Projector;
use fanfold_pipeline::testing::{Broken, Op, yield_once};

use super::{reset, singles};
use crate::check::play;
use crate::world::{NEVER, World, acme, add, applied, command, run};

/// The cursor moves after the rows, so a row that is not written holds it back.
#[test]
fn the_cursor_moves_after_the_rows() {
    play(async || {
        for broken in [Broken::Before, Broken::Late] {
            let world = World::new();
            let message = world.commit(&acme(), &run(1..=6)).await;
            world.faults.fail(Op::PutRow, " b ", 1..=1, broken);
            let projector = world.projector("sums");
            assert_eq!(projector.project(std::slice::from_ref(&message), NEVER).await, [0]);
            assert_eq!(world.cursor("sums", &acme()).await.seq, Seq::ZERO);
            world.audit_view("sums", &acme()).await;
            applied(&projector, [&message]).await;
            world.faults.land().await;
            world.audit_view("sums", &acme()).await;
        }
    });
}

/// A row that was written before a failure does not fold an entry twice.
#[test]
fn a_row_takes_every_entry_once() {
    play(async || {
        for op in [Op::PutRow, Op::MoveCursor] {
            for call in 1..=3 {
                for broken in [Broken::Before, Broken::After, Broken::Late] {
                    let world = World::new();
                    let mut messages = vec![world.commit(&acme(), &run(1..=6)).await];
                    messages.push(world.commit(&acme(), &run(7..=9)).await);
                    world.faults.fail(op, "", call..=call, broken);
                    let projector = world.projector("sums");
                    projector.project(&messages[..1], NEVER).await;
                    projector.project(&messages, NEVER).await;
                    applied(&projector, &messages).await;
                    world.faults.land().await;
                    let total = |row: &str| row.contains("\"total\":3");
                    assert!(world.rows("sums").await.iter().all(|row| total(row)), "{op:?} {call}");
                    world.audit_view("sums", &acme()).await;
                }
            }
        }
    });
}

/// Lets another worker apply these messages just before a row is written.
fn meanwhile(world: &Arc<World>, row: &str, other: Arc<Projector>, messages: Vec<Bytes>) {
    world.faults.before(Op::PutRow, row, move || {
        let (other, messages) = (other.clone(), messages.clone());
        async move { applied(&other, &messages).await }
    });
}

/// A row that another worker wrote after this one loaded it is reloaded.
#[test]
fn a_row_that_another_worker_has_written_is_loaded_again() {
    play(async || {
        // The messages of this worker, and those that the other one applies meanwhile.
        for (mine, others) in [(0..1, 0..3), (0..3, 0..6), (0..6, 0..3), (3..6, 3..6), (0..4, 0..2)]
        {
            let world = World::new();
            let mut messages = Vec::new();
            for seq in 1..=6 {
                // All entries touch one row.
                messages.push(world.commit(&acme(), &[add(seq)]).await);
            }
            let projector = world.projector("sums");
            applied(&projector, &messages[..mine.start]).await;
            meanwhile(&world, " a ", world.projector("sums"), messages[others.clone()].to_vec());
            applied(&projector, &messages[mine.clone()]).await;
            let seq = mine.end.max(others.end);
            assert_eq!(world.cursor("sums", &acme()).await.seq.0, seq as u64);
            let row = format!("a@{seq} {{\"total\":{seq},\"said\":\"\"}}");
            assert_eq!(world.rows("sums").await, [row]);
        }
    });
}

/// Rows are loaded together with the cursor, and may be older than it. The view neither writes such
/// rows, nor parks for a fault that they cause.
#[test]
fn rows_that_are_older_than_the_cursor_do_no_harm() {
    let grow = |id: u64, bytes: usize| {
        command("ann", id, "grow", serde_json::json!({"counter": "a", "bytes": bytes}))
    };
    play(async || {
        // Without the second entry, the third makes the row wrong, or too large.
        for third in [grow(3, 5), grow(3, 100_000)] {
            let world = World::new();
            let first = world.commit(&acme(), &[grow(1, 250_000)]).await;
            let second = world.commit(&acme(), &[reset(2)]).await;
            let third = world.commit(&acme(), &[third]).await;
            let projector = world.projector("sums");
            applied(&projector, [&first]).await;
            world.faults.forget();
            let (other, faults) = (world.projector("sums"), world.faults.clone());
            world.faults.before(Op::Cursor, "", move || {
                let (other, second, faults) = (other.clone(), second.clone(), faults.clone());
                async move {
                    // The row changes after it is read, and before the cursor is read.
                    while faults.counts([Op::Rows]) == [0] {
                        yield_once().await;
                    }
                    yield_once().await;
                    applied(&other, &[second]).await;
                }
            });
            applied(&projector, [&third]).await;
            let cursor = world.cursor("sums", &acme()).await;
            assert_eq!((cursor.seq, cursor.parked), (Seq(3), None));
            world.audit_view("sums", &acme()).await;
        }
    });
}

/// When others write a row all the time, the message is retried after some attempts, and the row is
/// correct throughout.
#[test]
fn a_message_with_a_contended_row_comes_again() {
    play(async || {
        let world = World::new();
        let mut messages = Vec::new();
        for seq in 1..=20 {
            messages.push(world.commit(&acme(), &[add(seq)]).await);
        }
        // Before each write of this worker, another worker writes the row's next entry.
        let (other, rest) = (world.projector("sums"), messages.clone());
        let (next, is_busy) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
        world.faults.before_every(Op::PutRow, move || {
            let is_others = is_busy.swap(true, Ordering::Relaxed);
            let at = if is_others { rest.len() } else { next.fetch_add(1, Ordering::Relaxed) };
            let (message, other) = (rest.get(at).cloned(), other.clone());
            let is_busy = is_busy.clone();
            async move {
                applied(&other, &message).await;
                is_busy.store(is_others, Ordering::Relaxed);
            }
        });
        let projector = world.projector("sums");
        assert_eq!(projector.project(&messages[19..], NEVER).await, [0]);
        world.audit_view("sums", &acme()).await;
        applied(&projector, &messages[19..]).await;
        assert_eq!(world.rows("sums").await, ["a@20 {\"total\":20,\"said\":\"\"}"]);
    });
}

/// A deleted row stays as a tombstone for a day, so a late writer does not write the old row again.
#[test]
fn a_deleted_row_stays_as_a_tombstone() {
    play(async || {
        let world = World::new();
        let mut messages = vec![world.commit(&acme(), &[add(1), add(2)]).await];
        messages.push(world.commit(&acme(), &[reset(3)]).await);
        let table = world.table("sums");
        // The row is deleted just before this worker writes it.
        meanwhile(&world, " a ", world.projector("sums"), messages.clone());
        let projector = world.projector("sums");
        applied(&projector, &messages[..1]).await;
        assert_eq!(world.rows("sums").await, [] as [String; 0]);
        let key: RowKey = "a".parse().expect("a key");
        let row = table.rows(&acme(), std::slice::from_ref(&key)).await.expect("memory").remove(0);
        let row = row.expect("the tombstone stays");
        assert_eq!((row.seq, row.body), (Seq(3), None));
        assert_eq!(row.expires, Some(world.env.now().plus_ms(24 * 60 * 60 * 1_000)));
        // A later entry may create the row again.
        messages.push(world.commit(&acme(), &[add(4)]).await);
        applied(&projector, &messages).await;
        assert_eq!(world.rows("sums").await, ["a@4 {\"total\":1,\"said\":\"\"}"]);
        world.audit_view("sums", &acme()).await;
    });
}

/// The rows of one call are written concurrently, within a bound.
#[test]
fn rows_are_written_concurrently_within_bounds() {
    play(async || {
        let world = World::new();
        let touch = |id: u64| {
            let data = serde_json::json!({"counter": format!("c{id}"), "by": 1});
            command("ann", id, "add", data)
        };
        let commands: Vec<_> = (1..=100).map(touch).collect();
        let message = world.commit(&acme(), &commands).await;
        applied(&world.projector("sums"), [&message]).await;
        let overlap = world.faults.overlap(Op::PutRow);
        assert!((2..=16).contains(&overlap), "{overlap}");
        assert_eq!(world.faults.counts([Op::Rows, Op::PutRow, Op::MoveCursor]), [1, 100, 1]);
    });
}

/// The cursor only moves forwards, also when a worker was overtaken.
#[test]
fn an_overtaken_worker_moves_no_cursor_back() {
    play(async || {
        let world = World::new();
        let messages = singles(&world, 6).await;
        let (other, rest) = (world.projector("sums"), messages.clone());
        world.faults.before(Op::MoveCursor, "", move || {
            let (other, rest) = (other.clone(), rest.clone());
            async move { applied(&other, &rest).await }
        });
        applied(&world.projector("sums"), &messages[..2]).await;
        assert_eq!(world.cursor("sums", &acme()).await.seq, Seq(6));
        world.audit_view("sums", &acme()).await;
    });
}
