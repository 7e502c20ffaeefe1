//! Strategies for everything that is stored and sent.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use fanfold::entry::{Event, Outcome, Raw};
use fanfold::host::body::lease::{Lease, ProcessorLease, Step};
use fanfold::host::body::notification::Commit;
use fanfold::host::body::parked::{Content, Parked, Reason};
use fanfold::host::limits::{COMMAND_ID_END, SEQ_END};
use fanfold::{Command, CommandId, Digest, Entry, LogId, Name, Origin, Seq, Time, TraceParent};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::samples::{AWKWARD_NAMES, id, raw, reactor, user, valid};

pub(crate) fn name() -> impl Strategy<Value = Name> {
    name_text().prop_map(|text| valid(&text))
}

fn name_text() -> impl Strategy<Value = String> {
    let plain = "[A-Za-z0-9._:@=+-]{1,20}".prop_filter("a dot segment", |t| t != "." && t != "..");
    prop_oneof![
        3 => plain,
        1 => proptest::sample::select(&AWKWARD_NAMES[..]).prop_map(str::to_owned),
    ]
}

pub(crate) fn log() -> impl Strategy<Value = LogId> {
    ("[a-z][a-z0-9-]{0,8}/(org|user):", name_text())
        .prop_map(|(begin, name)| valid(&format!("{begin}{name}")))
}

pub(crate) fn origin() -> impl Strategy<Value = Origin> {
    let names = "[a-z][a-z0-9@.=+-]{0,12}".prop_filter("reserved", |name| name != "resend");
    prop_oneof![
        4 => names.prop_map(|name| user(&name)),
        2 => (name(), name()).prop_filter_map("reserved", |(u, c)| Origin::client(&u, &c).ok()),
        1 => Just(reactor()),
        1 => Just(Origin::resend()),
    ]
}

pub(crate) fn command_id() -> impl Strategy<Value = CommandId> {
    prop_oneof![1u64..100, 1u64..COMMAND_ID_END].prop_map(id)
}

pub(crate) fn seq() -> impl Strategy<Value = Seq> {
    prop_oneof![1u64..100, 1u64..SEQ_END - 1_000].prop_map(Seq)
}

pub(crate) fn time() -> impl Strategy<Value = Time> {
    // Up to the end of the year 9999: later years need more than four digits.
    (0u64..253_402_300_800_000).prop_map(Time)
}

/// JSON of any depth that a request may have.
pub(crate) fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        ".{0,8}[\u{0}-\u{1f}\"\\\\\u{2028}\u{fffd}-\u{ffff}]{1,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(any::<String>(), inner, 0..4).prop_map(|object| json!(object)),
        ]
    })
}

/// JSON objects, most of them small.
pub(crate) fn data() -> impl Strategy<Value = Raw> {
    let large = |sizes: Range<usize>| {
        (sizes, any::<char>()).prop_map(|(len, c)| json!(c.to_string().repeat(len)))
    };
    let content = prop_oneof![20 => json(), 2 => large(1_000..9_000), 1 => large(9_000..20_000)];
    (content, "[ \n]{0,2}")
        .prop_map(|(content, space)| Raw(raw(format!("{{{space}\"x\":{content}{space}}}"))))
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    (origin(), command_id(), name(), any::<Option<u64>>(), data(), trace()).prop_map(
        |(origin, id, name, timestamp, data, trace)| Command {
            origin,
            id,
            name,
            timestamp,
            data: data.0,
            trace,
        },
    )
}

fn trace() -> impl Strategy<Value = Option<TraceParent>> {
    any::<([u8; 16], [u8; 8], bool)>()
        .prop_map(|(trace, span, is_sampled)| TraceParent::new(trace, span, is_sampled))
        .prop_flat_map(|trace| prop_oneof![Just(None), Just(trace)])
}

fn event() -> impl Strategy<Value = Event> {
    (name(), 1u32..9, name_text(), data()).prop_map(|(kind, version, document, data)| Event {
        kind,
        version,
        document: valid(&document),
        data,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => vec(event(), 0..4).prop_map(Outcome::Accepted),
        1 => ("[a-z_]{1,20}", any::<String>(), option::of(seq()))
            .prop_map(|(code, message, of)| Outcome::Rejected { code, message, of }),
        1 => seq().prop_map(|of| Outcome::Duplicate { of }),
        1 => Just(Outcome::Stale),
        1 => (any::<String>(), data())
            .prop_map(|(message, data)| Outcome::Faulted { message, data, timestamp: None }),
        1 => any::<String>().prop_map(|reason| Outcome::Lost { reason }),
    ]
}

/// Consecutive entries, at least one.
pub(crate) fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (time(), origin(), command_id(), name(), trace(), outcome());
    (seq(), vec(entry, 1..8)).prop_map(|(first, entries)| {
        let entries = (first.0..).zip(entries);
        let entries = entries.map(|(seq, (time, origin, id, command, trace, outcome))| {
            let seq = Seq(seq);
            if let Outcome::Lost { .. } = outcome {
                let (origin, id) = (Origin::nobody(), CommandId::NONE);
                return Entry {
                    seq,
                    time,
                    origin,
                    id,
                    command: None,
                    digest: None,
                    trace,
                    outcome,
                };
            }
            let digest = (id.get() % 2 == 0).then(|| Digest::of_json(&id.to_string()));
            Entry { seq, time, origin, id, command: Some(command), digest, trace, outcome }
        });
        entries.collect()
    })
}

pub(crate) fn commit() -> impl Strategy<Value = Commit> {
    let prev = btree_map("[a-z]{1,8}\\.[a-z]{1,8}", seq(), 0..5);
    (log(), entries(), prev).prop_map(|(log, entries, prev): (_, _, BTreeMap<_, _>)| Commit {
        log,
        entries: entries.into(),
        prev: Arc::new(prev.into_iter().collect()),
    })
}

pub(crate) fn attempt() -> impl Strategy<Value = ProcessorLease> {
    let step = prop_oneof![Just(Step::Whole), Just(Step::Loading), seq().prop_map(Step::Deciding)];
    (any::<u32>(), time(), time(), any::<u64>(), step).prop_map(
        |(attempts, at, until, owner, step)| ProcessorLease {
            lease: Lease { attempts, at, until, owner },
            step,
        },
    )
}

pub(crate) fn parked() -> impl Strategy<Value = Parked> {
    let reasons = [
        Reason::Gap,
        Reason::NoService,
        Reason::CannotFold,
        Reason::Conflict,
        Reason::Undecodable,
        Reason::Suspect,
        Reason::Unpublished,
    ];
    // Only one commit begins at a seq.
    let prev = [("ledger.opened", Seq(3))].into_iter().collect();
    let content = prop_oneof![
        command().prop_map(Content::Command),
        Just(Content::Commit { last: Seq(17), prev }),
        vec(any::<u8>(), 0..2_000).prop_map(Content::Bytes),
    ];
    (proptest::sample::select(reasons.to_vec()), time(), any::<String>(), content)
        .prop_map(|(reason, at, detail, content)| Parked { reason, at, detail, content })
}
