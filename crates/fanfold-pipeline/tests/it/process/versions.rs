//! A new `DOCUMENT_VERSION` of a service uses new keys, so old and new code never share documents.
//! The long first load writes heads as it goes. It publishes nothing at or below the old version's
//! head.
//!
//! `docs/design.md#snapshots`.

use fanfold::{DocumentId, Seq, Services, StateKey};
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::testing::{Broken, Op};

use crate::check::play;
use crate::tally::Tally;
use crate::world::{World, acme, done, padded, run, unfinished};

/// Appends 350 commits, of which each hundred make a head due.
async fn write_padded(world: &World) {
    let writer = world.elsewhere();
    for seq in 1..=350 {
        done(&writer, &[world.record(&acme(), seq, &[padded(seq, 400)])]).await;
    }
}

fn version_two() -> Services {
    Services::new().with::<Tally<2>>()
}

/// A log whose first version has a head at 300 and one more commit.
async fn old(world: &World) {
    done(&world.elsewhere(), &[world.acme(1..=300)]).await;
    done(&world.elsewhere(), &[world.acme(301..=302)]).await;
    assert_eq!(world.head(&acme()).await.0, 300);
}

#[test]
fn versions_share_no_documents() {
    play(async || {
        let world = World::new();
        old(&world).await;
        let new = world.processor_of(version_two());
        world.faults.forget();
        done(&new, &[world.acme(303..=304)]).await;
        let puts = world.faults.calls(Op::StatePut);
        assert!(!puts.is_empty() && puts.iter().all(|put| put.contains(" v2#")), "{puts:?}");
        let reads = world.faults.calls(Op::StateGet);
        assert!(!reads.iter().any(|keys| keys.contains("v1#doc")), "{reads:?}");
        // Old and new code run side by side without conflict.
        let old = world.processor();
        for seq in 305..=310 {
            done(if seq % 2 == 0 { &old } else { &new }, &[world.acme(seq..=seq)]).await;
        }
        world.assert_run(310).await;
        world.audit(&acme()).await;
        let a: DocumentId = "a".parse().expect("a document");
        let two = world.state(&acme(), StateKey::document(2, &a)).await.expect("it was stored");
        assert!(two.seq >= Seq(300));
    });
}

#[test]
fn a_new_version_publishes_only_commits_above_the_old_head() {
    play(async || {
        for nudged in [false, true] {
            let world = World::new();
            old(&world).await;
            let before = world.published(&acme()).len();
            let new = world.processor_of(version_two());
            let batch = if nudged {
                vec![world.nudge(&acme())]
            } else {
                vec![world.acme(1..=302), world.acme(303..=303)]
            };
            done(&new, &batch).await;
            let after = world.published(&acme());
            let published = &after[before..];
            assert!(published.contains(&(301, 302)), "{published:?}");
            assert!(published.iter().all(|(first, _)| *first > 300), "{published:?}");
        }
    });
}

/// The long first load writes heads as it goes, so that a later load can continue from the last
/// one.
#[test]
fn a_long_first_load_writes_heads_as_it_goes() {
    play(async || {
        let world = World::new();
        write_padded(&world).await;
        let head = async || {
            let item = world.state(&acme(), StateKey::head(2)).await;
            item.map_or(0, |item| item.seq.0)
        };
        let batch = [world.record(&acme(), 351, &run([351]))];
        for (read, expected) in [(1, 0), (2, 100), (2, 200), (3, 351)] {
            if expected < 351 {
                world.faults.fail(Op::JournalRead, "", read..=read, Broken::Before);
                assert_eq!(unfinished(&world.processor_of(version_two()), &batch).await, 0);
            } else {
                done(&world.processor_of(version_two()), &batch).await;
            }
            world.faults.heal();
            assert_eq!(head().await, expected);
        }
        assert_eq!(world.tail(&acme()).await.0, 351);
        let old = world.head(&acme()).await.0;
        assert!(old > 300);
        let below = world.published(&acme()).into_iter().filter(|(_, last)| *last <= old).count();
        assert_eq!(below as u64, old, "only the old version has published them");
    });
}

/// A load that the deadline cuts off continues from its last head.
#[test]
fn a_load_that_is_cut_off_goes_on_from_its_last_head() {
    play(async || {
        let world = World::new();
        write_padded(&world).await;
        // Each read of the journal takes a second, and the call has two and a half.
        let clock = world.env.clone();
        world.faults.after_every(Op::JournalRead, move || {
            clock.pass(1_000);
            std::future::ready(())
        });
        let batch = [world.record(&acme(), 351, &run([351]))];
        for (head, unfinished) in [(300, Some(0)), (351, None)] {
            let deadline = world.env.now().plus_ms(2_500);
            let outcome = world.processor_of(version_two()).process(&batch, deadline).await;
            assert_eq!(outcome.unfinished, unfinished);
            let stored = world.state(&acme(), StateKey::head(2)).await.map(|item| item.seq.0);
            assert_eq!(stored, Some(head));
        }
        assert_eq!(world.tail(&acme()).await.0, 351);
    });
}
