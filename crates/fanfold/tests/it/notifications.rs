//! Packing of commits into messages: in order, within the limits of SNS, and complete.

use std::collections::BTreeSet;

use fanfold::entry::{Outcome, kinds};
use fanfold::host::body::notification::{
    Attributes, Commit, Packed, ReceivedCommit, decode, entry_kinds, pack, topic_of,
};
use fanfold::host::limits::{NOTIFICATION_BYTES_MAX, NOTIFICATION_BYTES_SOFT};
use fanfold::{LogId, Seq};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::arbitrary;
use crate::samples::{as_subscribers_see, commit, entries_of_all_kinds, entry, event, valid};

/// The attributes as the design defines them.
fn attributes_of(commits: &[Commit]) -> Attributes {
    let mut attributes = Attributes::default();
    for Commit { log, entries, .. } in commits {
        attributes.services.insert(log.service().to_owned());
        attributes.partitions.insert(log.partition().to_owned());
        for entry in entries.iter() {
            let common = match &entry.outcome {
                Outcome::Accepted(events) => {
                    let kinds = events.iter().map(|e| format!("{}.{}", log.service(), e.kind));
                    attributes.kinds.extend(kinds);
                    continue;
                }
                Outcome::Rejected { .. } => kinds::REJECTED,
                Outcome::Faulted { .. } => kinds::FAULTED,
                Outcome::Lost { .. } => kinds::LOST,
                Outcome::Duplicate { .. } | Outcome::Stale => continue,
            };
            attributes.kinds.insert(common.to_owned());
        }
    }
    attributes
}

/// The bytes that SNS counts for attributes: names, types, and values as JSON lists, as AWS documents it.
fn bytes_of(attributes: &Attributes) -> usize {
    let one = |name: &str, values: &BTreeSet<String>| {
        name.len() + "String.Array".len() + json!(values).to_string().len()
    };
    one("services", &attributes.services)
        + one("kinds", &attributes.kinds)
        + one("partitions", &attributes.partitions)
}

/// `Char` of XML 1.0, which SNS and SQS refer to.
fn is_of_xml(c: char) -> bool {
    let ranges = ['\u{20}'..='\u{D7FF}', '\u{E000}'..='\u{FFFD}', '\u{10000}'..='\u{10FFFF}'];
    matches!(c, '\t' | '\n' | '\r') || ranges.iter().any(|range| range.contains(&c))
}

/// Checks everything that must hold for packed commits, and returns them as subscribers receive them.
fn check(commits: &[Commit]) -> (Vec<Packed>, Vec<ReceivedCommit>) {
    let packed = pack(commits).unwrap();
    let mut received = Vec::new();
    let mut rest = commits;
    for Packed { message, commits } in &packed {
        let (inside, after) = rest.split_at(*commits);
        let bytes = message.body.len() + bytes_of(&message.attributes);
        assert!(message.bytes() >= bytes, "attributes are counted");
        assert!(message.bytes() <= NOTIFICATION_BYTES_MAX.get());
        assert!(message.bytes() <= NOTIFICATION_BYTES_SOFT.get() || *commits == 1);
        assert!(message.body.chars().all(is_of_xml), "SNS takes no other characters");
        assert_eq!(message.attributes, attributes_of(inside));
        let events: Vec<Value> = serde_json::from_str(&message.body).unwrap();
        let ids: BTreeSet<&str> = events.iter().filter_map(|event| event["id"].as_str()).collect();
        assert_eq!(ids.len(), events.len(), "ids are unique");
        received.extend(decode(&message.body).unwrap());
        rest = after;
    }
    assert!(rest.is_empty(), "every commit is in one message");
    assert_eq!(received.len(), commits.len());
    for (received, commit) in received.iter().zip(commits) {
        let expected = ReceivedCommit {
            log: commit.log.clone(),
            first: commit.first(),
            last: commit.last(),
            prev: commit.prev.clone(),
            entries: received.entries.is_some().then(|| as_subscribers_see(&commit.entries).into()),
        };
        assert_eq!(*received, expected);
        // A small commit is always inline: the rest of an event is at most some hundred bytes.
        let events = commit.entries.iter().map(|entry| match &entry.outcome {
            Outcome::Accepted(events) => events.iter().map(|e| e.data.get().len() + 1_000).sum(),
            _ => 2_000,
        });
        let bytes: usize = events.sum::<usize>() + 10_000;
        assert!(received.entries.is_some() || bytes > NOTIFICATION_BYTES_MAX.get());
    }
    (packed, received)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn commits_are_packed_into_full_messages(commits in vec(arbitrary::commit(), 0..24)) {
        let (packed, _) = check(&commits);
        // No message is closed before it is full.
        let mut rest = &commits[..];
        for Packed { commits: n, .. } in packed {
            if rest.len() > n {
                prop_assert_eq!(pack(&rest[..=n]).unwrap().len(), 2);
            }
            rest = &rest[n..];
        }
    }
}

/// A commit at this seq with one event that has so many bytes of text.
fn sized(log: &str, seq: u64, bytes: usize) -> Commit {
    let noted = event("noted", 1, "cash", &json!({ "text": "a".repeat(bytes) }));
    commit(log, vec![entry(seq, Outcome::Accepted(vec![noted]))], &[])
}

/// The bytes of text with which a single commit fills a message of so many bytes.
fn text_for(log: &str, message_bytes: usize) -> usize {
    message_bytes - pack(&[sized(log, 1, 0)]).unwrap()[0].message.bytes()
}

#[test]
fn messages_are_filled_to_the_byte() {
    let log = "ledger/org:acme";
    let (soft, hard) =
        (text_for(log, NOTIFICATION_BYTES_SOFT.get()), text_for(log, NOTIFICATION_BYTES_MAX.get()));
    // Two commits share the attributes and the brackets, and need a comma.
    let alone = pack(&[sized(log, 1, 0)]).unwrap().remove(0).message;
    let half = (soft - (alone.body.len() - 2) - 1) / 2;
    for (sizes, messages, inline) in [
        (vec![], vec![], vec![]),
        (vec![0], vec![1], vec![true]),
        (vec![soft], vec![1], vec![true]),
        (vec![half, half], vec![2], vec![true, true]),
        (vec![half, half + 2], vec![1, 1], vec![true, true]),
        (vec![soft, 0], vec![1, 1], vec![true, true]),
        (vec![soft + 1], vec![1], vec![true]),
        (vec![0, soft + 1, 0, 0], vec![1, 1, 2], vec![true; 4]),
        (vec![hard], vec![1], vec![true]),
        (vec![hard + 1], vec![1], vec![false]),
        // A commit that is too large to be inline is small without its entries, so it shares a message.
        (vec![0, hard + 1, 0], vec![3], vec![true, false, true]),
        (vec![hard, hard + 1, hard], vec![1, 1, 1], vec![true, false, true]),
    ] {
        let numbered = (1..).zip(&sizes);
        let commits: Vec<Commit> = numbered.map(|(seq, bytes)| sized(log, seq, *bytes)).collect();
        let (packed, received) = check(&commits);
        let numbers: Vec<usize> = packed.iter().map(|packed| packed.commits).collect();
        assert_eq!(numbers, messages, "{sizes:?}");
        let inlined: Vec<bool> = received.iter().map(|commit| commit.entries.is_some()).collect();
        assert_eq!(inlined, inline, "{sizes:?}");
    }
}

#[test]
fn attributes_count_towards_the_limit() {
    // A thousand tenants with small commits: their partitions take almost as many bytes as their commits.
    let tenant = |n| sized(&format!("ledger/org:{}{n:03}", "t".repeat(100)), 1, 0);
    let commits: Vec<Commit> = (0..1_000).map(tenant).collect();
    let (packed, _) = check(&commits);
    assert!(packed.len() < 20, "{} messages", packed.len());
}

#[test]
fn the_attribute_kinds_lists_the_kinds_of_the_entries() {
    let entries = entries_of_all_kinds(1);
    let kinds = entries.iter().map(|entry| entry_kinds("ledger", entry).collect::<Vec<_>>());
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        [
            vec!["ledger.sent", "ledger.received"],
            vec![],
            vec!["fanfold.rejected"],
            vec![],
            vec![],
            vec!["fanfold.faulted"],
            vec!["fanfold.lost"],
        ]
    );
}

#[test]
fn a_commit_follows_a_cursor_that_missed_none_of_its_kinds() {
    let commit = commit(
        "ledger/org:acme",
        vec![entry(20, Outcome::Stale)],
        &[("ledger.sent", 12), ("ledger.received", 17)],
    );
    let packed = pack(&[commit]).unwrap();
    let commit = decode(&packed[0].message.body).unwrap().remove(0);
    for (cursor, kinds, follows) in [
        (0, &[][..], true),
        (0, &["ledger.opened"], true),
        (11, &["ledger.sent"], false),
        (12, &["ledger.sent"], true),
        (12, &["ledger.sent", "ledger.received"], false),
        (16, &["ledger.received", "ledger.sent"], false),
        (17, &["ledger.sent", "ledger.received", "ledger.opened"], true),
    ] {
        let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        assert_eq!(commit.follows(Seq(cursor), &kinds), follows, "{cursor} {kinds:?}");
    }
}

proptest! {
    #[test]
    fn a_log_always_uses_the_same_topic(log in arbitrary::log(), topics in 0usize..9) {
        let topic = topic_of(&log, topics);
        prop_assert!(topic < topics.max(1));
        prop_assert_eq!(topic_of(&log, topics), topic);
    }
}

#[test]
fn the_topic_of_a_log_never_changes() {
    let logs = ["ledger/org:acme", "ledger/org:bank", "ledger/user:ann", "doors/user:ann"];
    let topics = logs.map(|log| topic_of(&valid::<LogId>(log), 4));
    assert_eq!(topics, [3, 3, 3, 1]);
}

/// A newer build may publish unknown events. Only their commit is then read from the journal.
#[test]
fn an_unknown_event_affects_only_its_own_commit() {
    let [newer, other] = ["counters/org:newer", "counters/org:other"].map(|log| {
        let rejected = Outcome::rejected("no", "never");
        commit(log, vec![entry(1, rejected.clone()), entry(2, rejected)], &[])
    });
    let body = pack([&newer, &other]).expect("JSON")[0].message.body.clone();
    for unknown in ["fanfold.rejected.v2", "fanfold.pondered.v1"] {
        let changed = body.replacen("fanfold.rejected.v1", unknown, 1);
        let [first, second] = &decode(&changed).expect("it can be read")[..] else {
            panic!("two commits are in {changed}")
        };
        assert_eq!((first.first, first.last, &first.entries), (Seq(1), Seq(2), &None));
        assert_eq!(second.entries.as_deref(), Some(&as_subscribers_see(&other.entries)[..]));
    }
}

#[test]
fn characters_that_xml_lacks_are_escaped() {
    let data = json!({ "x": "a\\\u{FFFF}\u{FFFE}\u{FFFD}\u{7F}\u{0}" });
    let outcome = Outcome::Accepted(vec![event("happened", 1, "cash", &data)]);
    let (packed, received) = check(&[commit("ledger/org:acme", vec![entry(1, outcome)], &[])]);
    let body = &packed[0].message.body;
    assert!(body.contains(r#"a\\\uffff\ufffe"#), "{body}");
    let entries = received[0].entries.as_deref().unwrap_or_default();
    let Outcome::Accepted(events) = &entries[0].outcome else { panic!("{entries:?}") };
    assert_eq!(serde_json::from_str::<Value>(events[0].data.get()).unwrap(), data);
}
