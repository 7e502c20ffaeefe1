//! Values that several tests share, and helpers to write them.

use std::fmt::Debug;
use std::str::FromStr;
use std::sync::Arc;

use fanfold::entry::{Event, Outcome, Raw};
use fanfold::host::body::commit;
use fanfold::host::body::notification::Commit;
use fanfold::{Command, CommandId, Digest, Entry, LogId, Name, Origin, Seq, ServiceName, Time};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Names as people and identity providers have them.
pub(crate) const AWKWARD_NAMES: [&str; 12] = [
    "auth0|64b7",
    "google-oauth2|1",
    "Zoë Müller",
    "山田 太郎",
    "山田\u{3000}太郎",
    "a+b@x.io",
    "user{1}",
    "\"q\"",
    "<b>",
    "&",
    "🦀👩‍🚀",
    "a;b=~'c'",
];

/// A name, a log, a document, or another value that is read from a text.
#[track_caller]
pub(crate) fn valid<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap_or_else(|e| panic!("{text:?}: {e:?}"))
}

pub(crate) fn id(id: u64) -> CommandId {
    CommandId::new(id).expect("ids in tests are in range")
}

pub(crate) fn user(name: &str) -> Origin {
    Origin::user(&valid::<Name>(name)).expect("users in tests are not reserved")
}

pub(crate) fn reactor() -> Origin {
    Origin::reactor(&valid::<ServiceName>("interest"), &valid("ledger/org:bank"))
}

pub(crate) fn raw(json: impl Into<String>) -> Box<RawValue> {
    RawValue::from_string(json.into()).expect("JSON in tests is valid")
}

pub(crate) fn command(origin: Origin, number: u64, name: &str, data: &Value) -> Command {
    let data = raw(data.to_string());
    Command { origin, id: id(number), name: valid(name), timestamp: None, data, trace: None }
}

pub(crate) fn event(kind: &str, version: u32, document: &str, data: &Value) -> Event {
    let data = Raw(raw(data.to_string()));
    Event { kind: valid(kind), version, document: valid(document), data }
}

/// An entry of ann's, whose id is ten times its seq.
pub(crate) fn entry(seq: u64, outcome: Outcome) -> Entry {
    Entry {
        seq: Seq(seq),
        time: Time(1_795_401_660_000 + seq),
        origin: user("ann"),
        id: id(seq * 10),
        command: Some(valid("deposit")),
        digest: outcome.uses_id().then(|| Digest::of_json("{}")),
        trace: None,
        outcome,
    }
}

/// An entry of every kind, from `first` on: the first with two events, the second without any.
pub(crate) fn entries_of_all_kinds(first: u64) -> Vec<Entry> {
    let moved = |kind, document| event(kind, 1, document, &json!({"amount": 5, "note": "ü \"\n"}));
    let code = "overdrawn";
    let outcomes = [
        Outcome::Accepted(vec![moved("sent", "cash"), event("received", 2, "bank", &json!({}))]),
        Outcome::Accepted(vec![]),
        Outcome::rejected(code, "`cash` holds 5"),
        Outcome::Duplicate { of: Seq(first) },
        Outcome::Stale,
        Outcome::Faulted {
            message: "`decide` panicked: out of paper".to_owned(),
            data: Raw(raw(r#"{"amount": 1.50}"#)),
            timestamp: Some(11178),
        },
        Outcome::Lost { reason: "the slot was restored".to_owned() },
    ];
    let mut entries: Vec<Entry> =
        (first..).zip(outcomes).map(|(seq, outcome)| entry(seq, outcome)).collect();
    entries[2].origin = reactor();
    if let Some(lost) = entries.last_mut() {
        (lost.origin, lost.id, lost.command) = (Origin::nobody(), CommandId::NONE, None);
    }
    entries
}

pub(crate) fn commit(log: &str, entries: Vec<Entry>, prev: &[(&str, u64)]) -> Commit {
    let prev = prev.iter().map(|(kind, seq)| ((*kind).to_owned(), Seq(*seq))).collect();
    Commit { log: valid::<LogId>(log), entries: entries.into(), prev: Arc::new(prev) }
}

/// The body of a commit.
pub(crate) fn commit_body(entries: &[Entry]) -> Vec<u8> {
    let mut payload = Vec::new();
    for entry in entries {
        payload.push(if payload.is_empty() { b'[' } else { b',' });
        commit::write_entry(entry, &mut payload).expect("entries can be written");
    }
    payload.push(b']');
    commit::seal(&payload)
}

/// An entry as its commit stores it.
pub(crate) fn entry_json(entry: &Entry) -> Value {
    let mut json = Vec::new();
    commit::write_entry(entry, &mut json).expect("entries can be written");
    serde_json::from_slice(&json).expect("they are JSON")
}

/// The entries that subscribers receive, with the fields that they receive.
pub(crate) fn as_subscribers_see(entries: &[Entry]) -> Vec<Entry> {
    let shown = entries.iter().filter(|entry| match &entry.outcome {
        Outcome::Accepted(events) => !events.is_empty(),
        Outcome::Duplicate { .. } | Outcome::Stale => false,
        Outcome::Rejected { .. } | Outcome::Faulted { .. } | Outcome::Lost { .. } => true,
    });
    let shown = shown.cloned().map(|mut entry| {
        (entry.command, entry.digest) = (None, None);
        if let Outcome::Accepted(events) = &mut entry.outcome {
            for event in events {
                let data = event.data.get();
                let data = data.replace('\u{FFFE}', "\\ufffe").replace('\u{FFFF}', "\\uffff");
                event.data = Raw(raw(data));
            }
        }
        if let Outcome::Faulted { data, timestamp, .. } = &mut entry.outcome {
            *data = Raw(raw("null"));
            *timestamp = None;
        }
        entry
    });
    shown.collect()
}
