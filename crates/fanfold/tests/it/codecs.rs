//! Every body decodes to the value that was encoded.

use std::collections::BTreeMap;

use fanfold::host::body::head::{Head, decode_window, encode_window};
use fanfold::host::body::lease::ProcessorLease;
use fanfold::host::body::parked::{Content, Parked};
use fanfold::host::body::record::{Part, Record};
use fanfold::host::body::{commit, envelope, slot};
use fanfold::host::limits::SLOT_BODY_BYTES_MAX;
use fanfold::host::window::Window;
use fanfold::{Command, Seq, Time};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::json;

use crate::arbitrary;
use crate::samples::{command, commit_body, id, user};

/// A window with these runs of ids, whose entries follow each other in the log.
fn window(runs: Vec<(u64, u64)>) -> Window {
    let mut window = Window::default();
    let ids = runs.into_iter().flat_map(|(first, len)| first..first + len);
    for (seq, number) in (1..).zip(ids) {
        window.insert(id(number), Seq(seq), Time(seq));
    }
    window
}

fn windows() -> impl Strategy<Value = Window> {
    vec((1u64..100_000, 1u64..900), 0..6).prop_map(window)
}

/// The payload's bytes.
fn payload_len(body: &[u8]) -> usize {
    envelope::open(1, body).expect("a body just written").len()
}

/// Checks that the bodies hold the commands in order, and that each is full except the last.
fn check_slot(commands: &[Command]) {
    let bodies = slot::encode(&commands.iter().collect::<Vec<_>>()).unwrap();
    let mut read = Vec::new();
    for (n, body) in &bodies {
        let commands = slot::decode(body).unwrap();
        assert_eq!(commands.len(), *n);
        assert!(*n == 1 || payload_len(body) <= SLOT_BODY_BYTES_MAX.get());
        read.extend(commands);
    }
    assert_eq!(read, commands);
    for pair in bodies.windows(2) {
        let [(_, first), (_, second)] = pair else { continue };
        let next = slot::decode(second).unwrap();
        let next = serde_json::to_vec(&next[0]).unwrap().len();
        // One byte for the comma before it.
        assert!(payload_len(first) + 1 + next > SLOT_BODY_BYTES_MAX.get(), "split too early");
    }
}

#[test]
fn a_slot_is_split_at_its_limit() {
    let sized = |bytes: usize| {
        let empty = command(user("ann"), 1, "note", &json!({ "text": "" }));
        let text = "a".repeat(bytes - serde_json::to_vec(&empty).unwrap().len());
        command(user("ann"), 1, "note", &json!({ "text": text }))
    };
    // Three bytes for the brackets around both and the comma between.
    let half = (SLOT_BODY_BYTES_MAX.get() - 3) / 2;
    let rest = SLOT_BODY_BYTES_MAX.get() - 3 - half;
    for (sizes, expected) in [
        (vec![], vec![]),
        (vec![100], vec![1]),
        (vec![half, rest], vec![2]),
        (vec![half, rest + 1], vec![1, 1]),
        (vec![half, rest, 100], vec![2, 1]),
        (vec![60_000], vec![1]),
        (vec![100, 60_000, 100, 100], vec![1, 1, 2]),
        (vec![60_000, 60_000], vec![1, 1]),
    ] {
        let commands: Vec<Command> = sizes.iter().map(|bytes| sized(*bytes)).collect();
        check_slot(&commands);
        let bodies = slot::encode(&commands.iter().collect::<Vec<_>>()).unwrap();
        let numbers: Vec<usize> = bodies.iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, expected, "{sizes:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn slot_bodies_decode_to_their_commands(commands in vec(arbitrary::command(), 0..40)) {
        check_slot(&commands);
    }

    #[test]
    fn records_decode_unchanged(
        log in arbitrary::log(),
        parts in vec((1u64..1 << 40, 1u64..500, arbitrary::time(), vec(any::<u8>(), 0..300)), 0..9)
    ) {
        let parts: Vec<Part<'_>> = parts
            .iter()
            .map(|(before, n, at, body)| Part { last: Seq(before + n), n: *n, at: *at, body })
            .collect();
        let record = Record { log, parts };
        let bytes = record.encode().unwrap();
        prop_assert_eq!(&Record::decode(&bytes).unwrap(), &record);
        for part in &record.parts {
            prop_assert_eq!(part.first().plus(part.n), part.last.next());
        }
        // The relay packs by weight, so the weight must not be less than the bytes written.
        let promised: usize = record.parts.iter().map(Part::weight).sum();
        let nudge = Record::nudge(record.log.clone()).encode().unwrap();
        prop_assert!(bytes.len() <= promised + nudge.len());
    }

    #[test]
    fn commits_decode_unchanged(entries in arbitrary::entries()) {
        let body = commit_body(&entries);
        let (read, bytes) = commit::decode(entries[0].seq, &body).unwrap();
        prop_assert_eq!(read, entries);
        prop_assert_eq!(bytes, payload_len(&body));
    }

    #[test]
    fn heads_decode_unchanged(
        time in arbitrary::time(),
        prev in btree_map("[a-z]{1,8}\\.[a-z]{1,8}", arbitrary::seq(), 0..9),
        windows in proptest::option::of(btree_map(arbitrary::origin(), windows(), 0..4))
    ) {
        let head = Head { time, prev: prev.into_iter().collect(), windows };
        prop_assert_eq!(Head::decode(&head.encode().unwrap()).unwrap(), head);
    }

    #[test]
    fn separate_windows_decode_unchanged(window in windows()) {
        let read = decode_window(&encode_window(&window).unwrap()).unwrap();
        prop_assert_eq!(read, window);
    }

    #[test]
    fn parked_items_decode_unchanged(parked in arbitrary::parked()) {
        let read = Parked::decode(&parked.encode().unwrap()).unwrap();
        prop_assert_eq!(read.identity(), parked.identity());
        prop_assert_eq!(read, parked);
    }

    #[test]
    fn attempts_decode_unchanged(attempt in arbitrary::attempt()) {
        prop_assert_eq!(ProcessorLease::decode(&attempt.encode().unwrap()).unwrap(), attempt);
    }

    #[test]
    fn an_attempt_sorts_before_the_items_parked_at_its_seq(parked in arbitrary::parked()) {
        prop_assert_ne!(parked.identity(), ProcessorLease::IDENTITY);
        if let Content::Bytes(_) = parked.content {
            prop_assert!(ProcessorLease::IDENTITY < parked.identity().as_str());
        }
    }

    #[test]
    fn parked_items_of_one_seq_have_different_identities(
        parked in btree_map(any::<u16>(), arbitrary::parked(), 2..6)
    ) {
        let contents: Vec<Parked> = parked.into_values().collect();
        let by_identity: BTreeMap<String, &Parked> =
            contents.iter().map(|parked| (parked.identity(), parked)).collect();
        for parked in &contents {
            prop_assert_eq!(
                format!("{:?}", by_identity[&parked.identity()].content),
                format!("{:?}", parked.content)
            );
        }
    }
}
