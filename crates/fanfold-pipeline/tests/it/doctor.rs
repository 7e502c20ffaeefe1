//! The doctor: whatever is planted is found, and nothing else.

use std::sync::Arc;

use bytes::Bytes;
use fanfold::{RowKey, Seq, StateKey};
use fanfold_pipeline::doctor::{Ailment, Depth, Doctor, Examined};
use fanfold_pipeline::ports::{
    Append, Commands, CommitItem, Env, Journal, Nonce, ParkedView, RowRange, StateItem, StoredRow,
    Token, ViewTable,
};
use fanfold_pipeline::testing::{Broken, Op};

use crate::check::play;
use crate::world::{World, acme, applied, log, run, services, views};

const HOUR_MS: u64 = 3_600_000;

fn doctor(world: &World) -> Doctor {
    Doctor::new(world.operated(), services(), views())
}

/// A log of six entries in three commits, which all views have applied.
async fn healthy() -> Arc<World> {
    let world = World::new();
    world.accept(&acme(), 6).await;
    let mut messages = Vec::new();
    for seqs in [1..=2, 3..=3, 4..=6] {
        messages.push(world.commit(&acme(), &run(seqs)).await);
    }
    for view in ["sums", "resets"] {
        applied(&world.projector(view), &messages).await;
    }
    world.env.pass(HOUR_MS);
    world
}

async fn examined(world: &World, depth: Depth) -> Examined {
    doctor(world).examine(&acme(), depth).await.expect("memory")
}

/// What is found, each with its view.
async fn found(world: &World) -> Vec<(Ailment, Option<String>)> {
    let [all, sample] = [examined(world, Depth::All).await, examined(world, Depth::Sample).await];
    assert_eq!(all, sample, "a short log is read whole");
    all.findings.into_iter().map(|finding| (finding.what, finding.view)).collect()
}

#[test]
fn nothing_is_found_in_a_healthy_log() {
    play(async || {
        let world = healthy().await;
        let Examined { accepted, tail, entries, rows, findings, .. } =
            examined(&world, Depth::All).await;
        assert_eq!((accepted, tail, entries, findings), (Seq(6), Seq(6), 6, vec![]));
        assert!(rows > 0, "rows were compared");
        // Of every log of the catalogue, in pages.
        for name in ["a", "b", "c"] {
            let log = log(&format!("tally/org:{name}"));
            world.accept(&log, 1).await;
            world.commit(&log, &run(1..=1)).await;
        }
        let (doctor, mut after, mut logs) = (doctor(&world), None, Vec::new());
        loop {
            let page = doctor.page(after, 2, Depth::Sample).await.expect("memory");
            assert!(page.logs.len() <= 2);
            logs.extend(page.logs.into_iter().map(|examined| {
                assert_eq!(examined.findings, vec![], "{}", examined.log);
                examined.log
            }));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(logs.len(), 4, "{logs:?}");
    });
}

/// While stages write, what is found is what was wrong before.
#[test]
fn nothing_is_found_while_stages_write() {
    play(async || {
        for op in [Op::JournalTail, Op::JournalRead, Op::StateGet, Op::SlotGet] {
            let world = healthy().await;
            let writer = world.clone();
            world.faults.before_every(op, move || {
                let world = writer.clone();
                async move {
                    let next = world.tail(&acme()).await.0 + 1;
                    if next > 12 {
                        return;
                    }
                    world.memory.commands.append(&acme(), one(&world, next)).await.expect("memory");
                    let message = world.commit(&acme(), &run(next..=next)).await;
                    applied(&world.projector("sums"), [&message]).await;
                }
            });
            let examined = examined(&world, Depth::All).await;
            assert_eq!(examined.findings, vec![], "{op:?}");
        }
    });
}

fn one(world: &World, seq: u64) -> Append {
    let (at, body) = (world.env.now(), Bytes::from_static(b"[]"));
    Append { n: 1, body, at, token: Token(seq.into()) }
}

#[test]
fn a_slot_that_does_not_fit_its_log_is_found() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 1).await;
        world.commit(&acme(), &run(1..=3)).await;
        world.env.pass(1);
        assert_eq!(found(&world).await[0], (Ailment::SlotBehind, None));

        let world = healthy().await;
        world.accept(&acme(), 2).await;
        assert_eq!(found(&world).await, [], "they may be on their way");
        world.env.pass(HOUR_MS);
        assert_eq!(found(&world).await, [(Ailment::SlotAhead, None)]);
    });
}

#[test]
fn a_chain_that_is_broken_is_found() {
    play(async || {
        for (first, n, body) in [(8, 1, b"{}".as_slice()), (7, 1, b"illegible")] {
            let world = healthy().await;
            world.accept(&acme(), 2).await;
            let (first, nonce, at) = (Seq(first), Nonce(1), world.env.now());
            let commit = CommitItem { first, n, at, nonce, body: Bytes::copy_from_slice(body) };
            world.memory.journal.append(&acme(), &commit).await.expect("memory");
            let found = found(&world).await;
            assert_eq!(found, [(Ailment::Chain, None)], "{first}");
        }
        let world = healthy().await;
        world.faults.fail(Op::JournalRead, "org:acme", .., Broken::Damaged);
        assert_eq!(found(&world).await, [(Ailment::Damaged, None)]);
    });
}

/// A deployment was rolled back: what the newer build has written is not damaged.
#[test]
fn what_a_newer_build_has_written_is_told_apart_from_damage() {
    play(async || {
        let world = healthy().await;
        let formats = examined(&world, Depth::All).await.formats;
        assert_eq!(formats["commit v1"], 3, "{formats:?}");
        world.accept(&acme(), 2).await;
        let (first, nonce, at) = (Seq(7), Nonce(1), world.env.now());
        let body = Bytes::from_static(&[2, 0, b'[', b']']);
        let commit = CommitItem { first, n: 1, at, nonce, body };
        world.memory.journal.append(&acme(), &commit).await.expect("memory");
        let examined = examined(&world, Depth::All).await;
        let [finding] = &examined.findings[..] else { panic!("{examined:?}") };
        assert_eq!(finding.what, Ailment::NewerFormat);
        let detail = "the commit from 7 has format 2, and this build reads up to 1: deploy the build that wrote it";
        assert_eq!(finding.detail, detail);
        assert_eq!(examined.formats["commit v2"], 1);

        let world = healthy().await;
        let version = services().get("tally").expect("a service").document_version();
        let item = StateItem { seq: Seq(6), body: Bytes::from_static(&[2, 0, b'{', b'}']) };
        let state = world.wiring().state;
        state.put(&acme(), &StateKey::head(version), &item).await.expect("memory");
        let found_there = found(&world).await;
        assert!(found_there.contains(&(Ailment::NewerFormat, None)), "{found_there:?}");
    });
}

#[test]
fn a_head_or_a_document_that_does_not_fit_is_found() {
    play(async || {
        let world = healthy().await;
        let state = world.wiring().state;
        let version = services().get("tally").expect("a service").document_version();
        let put = async |key: &StateKey, seq: u64, body: &[u8]| {
            let item = StateItem { seq: Seq(seq), body: Bytes::copy_from_slice(body) };
            state.put(&acme(), key, &item).await.expect("memory");
        };
        put(&StateKey::head(version), 9, b"x").await;
        let found_there = found(&world).await;
        assert!(found_there.contains(&(Ailment::HeadAhead, None)), "{found_there:?}");

        let world = healthy().await;
        let state = world.wiring().state;
        let entries = world.entries(&acme()).await;
        let fanfold::entry::Outcome::Accepted(events) = &entries[0].outcome else { panic!() };
        let key = StateKey::document(version, &events[0].document);
        let body = fanfold::host::body::head::encode_document(b"{\"total\":77}").into();
        let item = StateItem { seq: Seq(6), body };
        state.put(&acme(), &key, &item).await.expect("memory");
        assert_eq!(found(&world).await, [(Ailment::DocumentWrong, None)]);
    });
}

#[test]
fn a_cursor_that_does_not_fit_is_found() {
    play(async || {
        let sums = Some("sums".to_owned());
        let world = healthy().await;
        world.table("sums").move_cursor(&acme(), Seq(9)).await.expect("memory");
        assert_eq!(found(&world).await, [(Ailment::CursorAhead, sums.clone())]);

        let world = healthy().await;
        world.accept(&acme(), 1).await;
        world.commit(&acme(), &run(7..=7)).await;
        assert_eq!(found(&world).await, [], "it may be on its way");
        world.env.pass(HOUR_MS);
        // `resets` does not take all event types, so its cursor need not follow.
        assert_eq!(found(&world).await, [(Ailment::CursorBehind, sums)]);
        for view in ["sums", "resets"] {
            let (reason, at) = ("a test".to_owned(), world.env.now());
            let parked = ParkedView { seq: Seq(7), reason, at, build: None, rebuild: None };
            world.table(view).park(&acme(), Seq(6), &parked).await.expect("memory");
        }
        let found_there = found(&world).await;
        assert!(found_there.iter().all(|(what, _)| *what == Ailment::Parked), "{found_there:?}");
        assert_eq!(found_there.len(), 2);
    });
}

/// Rows that are missing below a cursor are wrong for ever, and nothing else tells.
#[test]
fn a_row_that_is_not_the_fold_of_its_entries_is_found() {
    play(async || {
        let sums = Some("sums".to_owned());
        let first = async |world: &World| {
            let range = RowRange { limit: 1, ..RowRange::default() };
            world.table("sums").scan(&acme(), &range).await.expect("memory").rows.remove(0)
        };
        let put = async |world: &World, key: &RowKey, row: StoredRow, loaded: Option<Seq>| {
            world.table("sums").put_row(&acme(), key, &row, loaded).await.expect("memory");
        };
        // Another value.
        let world = healthy().await;
        let row = first(&world).await;
        let body = Some(Bytes::from_static(b"{\"sum\":77}"));
        let wrong = StoredRow { seq: row.seq, body: body.clone(), expires: None };
        put(&world, &row.key, wrong, Some(row.seq)).await;
        assert_eq!(found(&world).await, [(Ailment::RowWrong, sums.clone())]);
        // Removed.
        let world = healthy().await;
        let row = first(&world).await;
        let expires = Some(world.env.now().plus_ms(HOUR_MS));
        put(&world, &row.key, StoredRow { seq: row.seq, body: None, expires }, Some(row.seq)).await;
        assert_eq!(found(&world).await, [(Ailment::RowMissing, sums.clone())]);
        // Of no entry.
        let world = healthy().await;
        let key: RowKey = "foreign".parse().expect("a key");
        put(&world, &key, StoredRow { seq: Seq(3), body, expires: None }, None).await;
        assert_eq!(found(&world).await, [(Ailment::RowUnknown, sums)]);
    });
}

/// What a view is parked at, it has not applied, and may never: the author's code is not run on it.
#[test]
fn entries_from_a_parked_one_on_are_left_out() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 6).await;
        let messages = [world.commit(&acme(), &run(1..=3)).await];
        world.commit(&acme(), &run(4..=6)).await;
        for view in ["sums", "resets"] {
            applied(&world.projector(view), &messages).await;
            let (reason, at) = ("a test".to_owned(), world.env.now());
            let parked = ParkedView { seq: Seq(4), reason, at, build: None, rebuild: None };
            world.table(view).park(&acme(), Seq(3), &parked).await.expect("memory");
        }
        world.env.pass(HOUR_MS);
        let found = found(&world).await;
        assert!(found.iter().all(|(what, _)| *what == Ailment::Parked), "{found:?}");
        assert_eq!(found.len(), 2);
    });
}

/// A page ends when its time is over, and the next one begins behind what it has examined.
#[test]
fn a_page_ends_in_time() {
    play(async || {
        let world = World::new();
        for name in ["a", "b", "c", "d"] {
            let log = log(&format!("tally/org:{name}"));
            world.accept(&log, 1).await;
            world.commit(&log, &run(1..=1)).await;
        }
        // Each log takes ten seconds.
        let clock = world.env.clone();
        world.faults.before_every(Op::SlotGet, move || {
            clock.pass(10_000);
            std::future::ready(())
        });
        let (doctor, mut after, mut pages) = (doctor(&world), None, Vec::new());
        loop {
            let page = doctor.page(after, 10, Depth::All).await.expect("memory");
            pages.push(page.logs.len());
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(pages, [2, 2]);
    });
}

/// A table that does not answer is no finding: nothing is known.
#[test]
fn a_table_that_does_not_answer_ends_the_check() {
    play(async || {
        let world = healthy().await;
        world.faults.fail(Op::JournalTail, "org:acme", .., Broken::Before);
        let error = doctor(&world).examine(&acme(), Depth::All).await;
        assert!(error.is_err());
    });
}
