//! Filtered views. `prev` has, for every kind, the seq of the last entry of this kind before the
//! commit. A view of the kinds T with cursor c skips a commit with last <= c. If the maximum of
//! `prev` over T (absent: 0) is above c, it reads the journal over (c, first). Then it applies the
//! entries of T above c, and sets the cursor to last. This is exact under loss, reordering and
//! repetition. Only the loss of the newest message stays unseen until the next one.
//!
//! `docs/design.md#notification`.

use bytes::Bytes;
use fanfold::host::body::notification::{self, ReceivedCommit};
use fanfold::{Command, Seq};
use fanfold_pipeline::testing::Op;
use serde_json::json;

use super::reset;
use crate::check::play;
use crate::world::{World, acme, add, applied, command, done};

/// Commits one entry per letter, and returns the messages: `r` is a reset, `x` a rejection, `.` an
/// entry that the view `resets` does not read.
async fn commits(world: &World, letters: &str) -> Vec<Bytes> {
    let mut messages = Vec::new();
    for (id, letter) in (1..).zip(letters.chars()) {
        let command: Command = match letter {
            'r' => reset(id),
            'x' => command("ann", id, "add", json!({"counter": "a", "by": 0})),
            _ => add(id),
        };
        messages.push(world.commit(&acme(), &[command]).await);
    }
    messages
}

async fn deliver(world: &World, messages: &[Bytes], which: &[usize]) {
    let projector = world.projector("resets");
    for at in which {
        let batch = [messages[*at - 1].clone()];
        applied(&projector, &batch).await;
        world.audit_view("resets", &acme()).await;
    }
}

/// A view that misses no entry of its kinds does not read the journal, with or without a filter
/// policy that holds back other kinds.
#[test]
fn a_filtered_view_reads_no_journal_while_it_misses_nothing() {
    play(async || {
        for which in [
            vec![1, 2, 3, 4, 5, 6, 7, 8, 9],
            vec![3, 4, 8],
            vec![3, 4, 5, 8, 9],
            vec![2, 3, 4, 7, 8],
        ] {
            let world = World::new();
            let messages = commits(&world, "..rr...x.").await;
            deliver(&world, &messages, &which).await;
            assert_eq!(world.faults.counts([Op::JournalRead, Op::Sleep]), [0, 0], "{which:?}");
            let expected = ["a@4 2", "refused@8 1"];
            assert_eq!(world.rows("resets").await, expected, "{which:?}");
            let last = *which.last().expect("some");
            assert_eq!(world.cursor("resets", &acme()).await.seq, Seq(last as u64));
        }
    });
}

/// A view whose `prev` is above its cursor reads the journal over (cursor, first).
#[test]
fn a_filtered_view_reads_what_it_misses() {
    play(async || {
        // The delivered messages, and whether one of the view's kinds was lost before them.
        for (which, is_lost) in [
            (vec![5], true),
            (vec![9], true),
            (vec![3, 8], true),
            (vec![4, 3, 8], true),
            (vec![8, 4, 3], true),
            (vec![3, 4, 8, 8, 3], false),
        ] {
            let world = World::new();
            let messages = commits(&world, "..rr...x.").await;
            deliver(&world, &messages, &which).await;
            let reads = world.faults.calls(Op::JournalRead).len();
            assert_eq!(reads > 0, is_lost, "{which:?}");
            // A catch-up reads the whole journal.
            assert_eq!(world.rows("resets").await, ["a@4 2", "refused@8 1"], "{which:?}");
        }
    });
}

/// A lost newest message is found with the next message, or by the view's sweep.
#[test]
fn a_lost_newest_message_shows_with_the_next() {
    play(async || {
        let world = World::new();
        let messages = commits(&world, "r.r.").await;
        deliver(&world, &messages, &[1, 2]).await;
        assert_eq!(world.rows("resets").await, ["a@1 1"]);
        deliver(&world, &messages, &[4]).await;
        assert_eq!(world.rows("resets").await, ["a@3 2"]);
    });
}

/// The head has `prev`, and the replay behind the head continues it.
#[test]
fn prev_survives_a_restart() {
    play(async || {
        let world = World::new();
        let warm = world.processor();
        let first = [reset(1), add(2), reset(3)];
        done(&warm, &[world.record(&acme(), 1, &first)]).await;
        let filler: Vec<Command> = (4..=400).map(add).collect();
        done(&warm, &[world.record(&acme(), 4, &filler)]).await;
        assert_eq!(world.head(&acme()).await, Seq(400));
        done(&warm, &[world.record(&acme(), 401, &[reset(401)])]).await;
        let messages = world.messages();
        // Each by a cold processor: from the head, then with one commit behind it.
        for seq in 402..=404 {
            let commands = [if seq == 403 { reset(seq) } else { add(seq) }];
            let record = world.record(&acme(), seq, &commands);
            done(&world.processor(), &[record]).await;
        }
        let projector = world.projector("resets");
        applied(&projector, &messages[..1]).await;
        // 401 is lost, and `prev` of 402 shows that. 403 follows 402.
        for message in &world.messages()[messages.len()..] {
            applied(&projector, [message]).await;
            world.audit_view("resets", &acme()).await;
        }
        assert_eq!(world.rows("resets").await, ["a@403 4"]);
        // Each of the four processors has read the journal once, and so has the view.
        assert_eq!(world.faults.counts([Op::JournalRead]), [5]);
    });
}

/// F9: the processor that stored a commit and one that read it from the journal publish the same
/// message, including `prev`.
#[test]
fn a_commits_message_is_the_same_from_every_process() {
    play(async || {
        let world = World::new();
        commits(&world, "..rr.x.rx").await;
        done(&world.processor(), &[world.nudge(&acme())]).await;
        let messages = world.messages();
        let read = |body: &Bytes| notification::decode(std::str::from_utf8(body).expect("text"));
        let received: Vec<ReceivedCommit> =
            messages.iter().flat_map(|m| read(m).expect("a batch")).collect();
        let (first, again) = received.split_at(9);
        assert_eq!(first, again);
    });
}
