//! Damaged and foreign bytes. Every decoder returns an error or a usable value, and never panics.

use std::borrow::Cow;

use fanfold::host::body::action::Action;
use fanfold::host::body::announced::{Announced, Announcement};
use fanfold::host::body::head::{
    Head, decode_document, decode_window, encode_document, encode_window,
};
use fanfold::host::body::lease::{Lease, ProcessorLease, Step};
use fanfold::host::body::parked::{Content, Parked, Reason};
use fanfold::host::body::record::{Part, Record};
use fanfold::host::body::{DecodeError, commit, notification, slot};
use fanfold::host::limits::{COMMAND_ID_END, SEQ_END};
use fanfold::host::window::Window;
use fanfold::{Seq, Time};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use crate::golden::notification;
use crate::samples::{command, commit_body, entries_of_all_kinds, id, user, valid};

/// Reads a body, and uses the value.
type Decoder = fn(&[u8]) -> Result<(), DecodeError>;

const DECODERS: [(&str, Decoder); 11] = [
    ("slot", |bytes| slot::decode(bytes).map(drop)),
    ("record", |bytes| {
        let record = Record::decode(bytes)?;
        for part in &record.parts {
            assert!(Seq::ZERO < part.first() && part.first() <= part.last && part.n > 0);
            let _ = part.last.next();
        }
        Ok(())
    }),
    ("commit", |bytes| commit::decode(Seq(17), bytes).map(drop)),
    ("head", |bytes| {
        for window in Head::decode(bytes)?.windows.unwrap_or_default().into_values() {
            use_window(window);
        }
        Ok(())
    }),
    ("window", |bytes| decode_window(bytes).map(use_window)),
    ("document", |bytes| decode_document(bytes).map(drop)),
    ("parked", |bytes| Parked::decode(bytes).map(|parked| drop(parked.identity()))),
    ("attempt", |bytes| ProcessorLease::decode(bytes).map(drop)),
    ("announced", |bytes| {
        Announced::decode(bytes).map(|announced| drop(announced.last().cloned()))
    }),
    ("action", |bytes| Action::decode(bytes).map(drop)),
    ("notification", |bytes| {
        for commit in notification::decode(&String::from_utf8_lossy(bytes))? {
            let mut seqs: Vec<Seq> = vec![commit.first];
            seqs.extend(commit.entries.iter().flat_map(|e| e.iter()).map(|entry| entry.seq));
            seqs.extend([commit.last, commit.last.next()]);
            assert!(seqs.is_sorted() && commit.first > Seq::ZERO);
        }
        Ok(())
    }),
];

fn use_window(mut window: Window) {
    for number in [1, 17, 2_048, 5_000, COMMAND_ID_END - 1] {
        let _ = window.sight(id(number), Time(number));
        window.insert(id(number), Seq(SEQ_END - 1), Time(number));
    }
}

fn decoder(name: &str) -> Decoder {
    DECODERS.into_iter().find(|(n, _)| *n == name).expect("there is such a decoder").1
}

/// A body for each decoder, in the decoders' order.
fn bodies() -> [Vec<u8>; 11] {
    let commands = [1, 2].map(|n| command(user("ann"), n, "deposit", &json!({ "amount": n })));
    let slot = slot::encode(&[&commands[0], &commands[1]]).unwrap().remove(0).1;
    let part = Part { last: Seq(18), n: 2, at: Time(5), body: &slot };
    let record = Record { log: valid("ledger/org:acme"), parts: vec![part, part] };
    let mut window = Window::default();
    for n in [1, 2, 3, 17, 18, 5_000] {
        window.insert(id(n), Seq(n), Time(n));
    }
    let windows = [(user("ann"), window.clone())].into();
    let prev = [("ledger.sent", Seq(3))].into_iter().collect();
    let head = Head { time: Time(5), prev, windows: Some(windows) };
    let [content, _] = commands;
    let lease = Lease { attempts: 3, at: Time(5), until: Time(65), owner: 7 };
    let content = Content::Command(content);
    let announcement = Announcement {
        version: 1,
        services: vec!["ledger".to_owned()],
        events: vec!["opened".to_owned()],
        table: "view-totals-v1".to_owned(),
        since: Time(5),
    };
    let announced = Announced::default().with("totals", announcement).unwrap().unwrap();
    let parked = Parked { reason: Reason::Gap, at: Time(5), detail: "gap".to_owned(), content };
    let record = record.encode().unwrap();
    [
        slot,
        record,
        commit_body(&entries_of_all_kinds(17)),
        head.encode().unwrap(),
        encode_window(&window).unwrap(),
        encode_document(br#"{"balance":100}"#),
        parked.encode().unwrap(),
        ProcessorLease { lease, step: Step::Deciding(Seq(17)) }.encode().unwrap(),
        announced.encode().unwrap(),
        Action::default().encode().unwrap(),
        notification(),
    ]
}

#[derive(Debug, Clone)]
enum Mutation {
    Replace(Index, u8),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Repeat(Index, usize),
}

impl Mutation {
    fn apply(self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let to = |at: usize, len: usize| (at + len).min(bytes.len());
        match self {
            Self::Replace(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            Self::Remove(at, len) => {
                let at = at.index(bytes.len());
                bytes.drain(at..to(at, len));
            }
            Self::Insert(at, inserted) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, inserted);
            }
            Self::Repeat(at, len) => {
                let at = at.index(bytes.len());
                let part = bytes[at..to(at, len)].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
}

/// Bytes, most of them with a meaning in JSON.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        2 => proptest::sample::select(b"0123456789-.e\"\\,:[]{}ntf\0\x01".to_vec()),
        1 => any::<u8>(),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), byte()).prop_map(|(at, byte)| Mutation::Replace(at, byte)),
        1 => (at(), 1usize..40).prop_map(|(at, len)| Mutation::Remove(at, len)),
        1 => (at(), vec(byte(), 1..20)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        1 => (at(), 1usize..80).prop_map(|(at, len)| Mutation::Repeat(at, len)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn decoding_any_bytes_does_not_panic(envelope in 0u8..3, bytes in vec(byte(), 0..200)) {
        for (_, decode) in DECODERS {
            let _ = decode(&bytes);
            let _ = decode(&[&[1, envelope], &bytes[..]].concat());
        }
    }

    #[test]
    fn decoding_a_mutated_body_does_not_panic(mutations in vec(mutation(), 1..6)) {
        for ((name, decode), mut body) in DECODERS.into_iter().zip(bodies()) {
            decode(&body).unwrap_or_else(|e| panic!("{name}: {e}"));
            mutations.iter().for_each(|mutation| mutation.clone().apply(&mut body));
            let _ = decode(&body);
        }
    }
}

#[test]
fn a_body_that_is_cut_off_is_refused() {
    for ((name, decode), body) in DECODERS.into_iter().zip(bodies()) {
        // Only the service reads a document's JSON.
        let shortest = if name == "document" { 2 } else { body.len() };
        for len in 0..shortest {
            assert!(decode(&body[..len]).is_err(), "{name}, cut to {len} bytes");
        }
    }
}

fn enveloped(json: &str) -> Vec<u8> {
    [&[1, 0], json.as_bytes()].concat()
}

fn record(header: &str, bodies: &str) -> Vec<u8> {
    let len = (header.len() as u32).to_be_bytes();
    [&[1, 0][..], &len, header.as_bytes(), bodies.as_bytes()].concat()
}

/// `error` is its text, or the text of its source.
#[track_caller]
fn check(name: &str, body: &[u8], error: &str) {
    let found = decoder(name)(body).expect_err(error);
    let source = std::error::Error::source(&found).map(|e| e.to_string()).unwrap_or_default();
    assert!(format!("{found}: {source}").contains(error), "{found}: {source}");
}

#[test]
fn numbers_beyond_their_limits_are_refused() {
    let part = |last: u64, n: u64, len: u64| {
        let parts = format!(r#"[{{"last":{last},"n":{n},"at":1,"len":{len}}}]"#);
        record(&format!(r#"{{"log":"ledger/org:acme","parts":{parts}}}"#), "body")
    };
    check("record", &part(2, 3, 4), "a part's number of commands");
    check("record", &part(2, 0, 4), "a part's number of commands");
    check("record", &part(2, 1, 5), "ends too early");
    check("record", &part(2, 1, u64::MAX), "ends too early");
    check("record", &part(u64::MAX, u64::MAX, 4), "not below 2^47");
    check("record", &part(SEQ_END, 1, 4), "not below 2^47");
    assert!(decoder("record")(&part(SEQ_END - 1, 1, 4)).is_ok());

    check("slot", &enveloped(r#"[{"o":"ann","i":0,"c":"x","d":{}}]"#), "not from 1 to 2^53 - 1");
    check("slot", &enveloped(r#"[{"o":"ann","i":1,"c":"a#b","d":{}}]"#), "contains '#'");
    let duplicate = format!(r#"[{{"t":1,"o":"ann","i":1,"c":"x","r":{{"d":{SEQ_END}}}}}]"#);
    check("commit", &enveloped(&duplicate), "not below 2^47");
}

#[test]
fn windows_that_break_their_rules_are_refused() {
    let number = "another number of ids";
    let order = "not ascending, or out of range";
    for (window, error) in [
        (r#"{"f":0,"r":[[1,1,0]],"n":0}"#, order),
        (r#"{"f":0,"r":[[0,1,2]],"n":2}"#, order),
        (r#"{"f":7,"r":[[7,1,2]],"n":2}"#, order),
        (r#"{"f":0,"r":[[5,1,2],[6,9,1]],"n":3}"#, order),
        (r#"{"f":0,"r":[[5,1,2],[3,9,1]],"n":3}"#, order),
        (r#"{"f":0,"r":[[9007199254740991,1,2]],"n":2}"#, order),
        (r#"{"f":0,"r":[[1,140737488355327,2]],"n":2}"#, order),
        (r#"{"f":0,"r":[[18446744073709551615,1,18446744073709551615]],"n":1}"#, order),
        (r#"{"f":0,"r":[],"n":9999999}"#, number),
        (r#"{"f":0,"r":[[1,1,5]],"n":4}"#, number),
        (r#"{"f":0,"r":[[1,1,2049]],"n":2049}"#, number),
    ] {
        check("window", &enveloped(&window.replace('}', r#","t":5}"#)), error);
    }
    assert!(decode_window(&enveloped(r#"{"f":3,"r":[[5,1,2],[7,9,1]],"n":3,"t":5}"#)).is_ok());
}

#[test]
fn notifications_that_contradict_themselves_are_refused() {
    let message = String::from_utf8(notification()).expect("JSON is UTF-8");
    let changed = |from: &str, to: &str| {
        assert!(message.contains(from), "{from}");
        Cow::<str>::Owned(message.replace(from, to))
    };
    let without_commit = format!("[{}", &message[message.find("},{").expect("events") + 2..]);
    for (body, error) in [
        (changed(r#""first":17"#, r#""first":0"#), "a commit's first and last"),
        (changed(r#""first":17"#, r#""first":24"#), "a commit's first and last"),
        (changed(r#""last":23"#, r#""last":18446744073709551615"#), "not below 2^47"),
        (changed(r#""seq":"22""#, r#""seq":"24""#), "an event outside of its commit"),
        (changed(r#""seq":"22""#, r#""seq":"16""#), "an event outside of its commit"),
        (changed(r#""seq":"22""#, r#""seq":"x""#), "a seq"),
        (changed(r#""seq":"22""#, r#""seq":"18""#), "the order of a commit's events"),
        (changed(r#""seq":"22""#, r#""seq":"19""#), "the order of a commit's events"),
        (changed(r#""body":"journal""#, r#""body":"elsewhere""#), "unknown variant"),
        (changed(r#""body":"inline""#, r#""body":"journal""#), "an event outside of its commit"),
        (changed("ledger.sent.v1", "ledger.sent.v"), "an event's version"),
        (changed("ledger.sent.v1", "ledgersent"), "an event's type"),
        (changed("ledger.sent.v1", "ledger.s#nt.v1"), "an event's type"),
        (changed(r#""subject":"cash","#, ""), "an event without a subject"),
        (changed(r#""subject":"cash""#, r#""subject":"""#), "an event's subject"),
        (changed("2026-11-", "2026-13-"), "a time"),
        (changed(r#""log":"doors/user:ann""#, r#""log":"doors""#), "a commit's log"),
        (without_commit.into(), "an event outside of its commit"),
        ("{}".into(), "invalid type: map"),
    ] {
        check("notification", body.as_bytes(), error);
    }
}
