//! A breach of an invariant in production parks only its log, and the reason names the invariant.
//!
//! `docs/design.md#invariants`.

use fanfold::host::body::parked::Parked;
use fanfold::{DocumentId, LogId, Seq, StateKey, Time};
use fanfold_pipeline::ports::{CommitItem, Guarded, Journal, Nonce, ParkedTable, State, StateItem};
use serde_json::json;

use crate::check::play;
use crate::world::{NEVER, World, acme, add, applied, commit_of, done, log, run};
use fanfold_pipeline::testing::{Broken, Op};

fn other() -> LogId {
    log("tally/org:other")
}

/// The details with which the commands of [`acme`] are parked.
async fn details(world: &World) -> Vec<String> {
    let items =
        world.memory.parked.list(&acme(), (Seq::ZERO, ""), usize::MAX).await.expect("memory");
    items.iter().map(|item| Parked::decode(&item.body).expect("parked").detail).collect()
}

/// Appends a commit of one entry whose item says that it has `n`.
async fn append(world: &World, first: u64, n: u64, id: u64) {
    let body = commit_of(id, "added", 1, &json!({"by": 1, "total": 2})).into();
    let item = CommitItem { first: Seq(first), n, at: Time(0), nonce: Nonce(1), body };
    world.memory.journal.append(&acme(), &item).await.expect("memory");
}

async fn store_ahead(world: &World) {
    let document: DocumentId = "a".parse().expect("a document");
    let key = StateKey::document(1, &document);
    let body = world.state(&other(), key.clone()).await.map(|item| item.body).expect("a document");
    let item = StateItem { seq: Seq(9), body };
    assert_eq!(world.memory.state.put(&acme(), &key, &item).await, Ok(Guarded::Stored));
}

#[test]
fn only_the_log_that_breaks_an_invariant_is_parked() {
    let cases = [
        ("F3", "expected a commit from 4, found one from 5"),
        ("F3", "the commit from 4 has 1 entries, not 2"),
        ("F4", "entry 4 uses the id 2 of ann again"),
        ("Head", "the state table is at 9, the journal ends at 3"),
    ];
    play(async || {
        for (at, (invariant, what)) in cases.into_iter().enumerate() {
            let world = World::new();
            done(&world.elsewhere(), &[world.acme(1..=3)]).await;
            match at {
                0 => append(&world, 5, 1, 5).await,
                1 => append(&world, 4, 2, 4).await,
                2 => append(&world, 4, 1, 2).await,
                _ => {
                    done(&world.elsewhere(), &[world.record(&other(), 1, &run(1..=300))]).await;
                    store_ahead(&world).await;
                }
            }
            let processor = world.processor();
            let next = world.tail(&other()).await.next().0;
            let batch = [
                world.record(&acme(), 6, &[add(6)]),
                world.record(&acme(), 4, &[add(4)]),
                world.record(&other(), next, &[add(next)]),
            ];
            done(&processor, &batch).await;
            let expected = format!("invariant {invariant} does not hold: {what}");
            let details = details(&world).await;
            assert!(
                !details.is_empty() && details.iter().all(|detail| *detail == expected),
                "{details:?}"
            );
            assert_eq!(world.tail(&other()).await, Seq(next), "the other log goes on");
        }
    });
}

#[test]
fn a_cursor_that_goes_back_parks_the_view_for_its_log() {
    play(async || {
        let world = World::new();
        let messages = {
            let mut messages = Vec::new();
            for seq in 1..=12 {
                messages.push(world.commit(&acme(), &run([seq])).await);
            }
            messages
        };
        let elsewhere = world.commit(&other(), &run([1])).await;
        let projector = world.projector("sums");
        applied(&projector, &messages[..3]).await;
        // The table returns a cursor at 9 once.
        world.faults.fail(Op::CursorAhead, acme().as_str(), 1..=1, Broken::Damaged);
        let batch = [messages[11].clone(), elsewhere];
        assert_eq!(projector.project(&batch, NEVER).await, [0; 0]);
        let cursor = world.cursor("sums", &acme()).await;
        let parked = cursor.parked.expect("it is parked");
        assert_eq!((cursor.seq, parked.seq), (Seq(3), Seq(4)));
        assert_eq!(parked.reason, "invariant F6 does not hold: the cursor went back from 9 to 3");
        assert_eq!(world.cursor("sums", &other()).await.seq, Seq(1), "the other log goes on");
    });
}
