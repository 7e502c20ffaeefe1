//! Every body that is stored or sent, byte for byte. Later builds must read the bodies of all earlier ones, so a file
//! here changes only together with the version in its name.
//!
//! `UPDATE_GOLDEN=1 cargo test -p fanfold golden` writes the files again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use expect_test::expect;
use fanfold::entry::Outcome;
use fanfold::host::body::action::{Action, ActionState};
use fanfold::host::body::announced::{Announced, Announcement};
use fanfold::host::body::head::{
    Head, decode_document, decode_window, encode_document, encode_window,
};
use fanfold::host::body::lease::{Lease, ProcessorLease, Step};
use fanfold::host::body::notification::{self, Commit, ReceivedCommit};
use fanfold::host::body::parked::{Content, Parked, Reason};
use fanfold::host::body::record::{Part, Record};
use fanfold::host::body::{commit, envelope, slot};
use fanfold::host::window::Window;
use fanfold::{Command, Entry, Seq, Time, TraceParent};
use serde_json::json;

use crate::samples::{
    as_subscribers_see, command, commit, commit_body, entries_of_all_kinds, entry, event, id,
    reactor, user, valid,
};

/// Above [`fanfold::host::limits::NOTIFICATION_BYTES_MAX`].
const TOO_LARGE_TO_INLINE: usize = 250 * 1024;

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

fn golden(file: &str) -> Vec<u8> {
    let shown = fs::read_to_string(path(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    bytes(file, &shown)
}

/// Bytes as text: those that are not printable ASCII become `\xNN`, a backslash is doubled, and JSON stays as it is. A
/// line break is not one of the bytes: it separates objects.
fn shown(file: &str, bytes: &[u8]) -> String {
    let escaped = |byte: &u8| match byte {
        b'\\' => "\\\\".to_owned(),
        b' '..=b'~' => char::from(*byte).to_string(),
        byte => format!("\\x{byte:02x}"),
    };
    let text = match file.ends_with(".json") {
        true => String::from_utf8(bytes.to_vec()).expect("JSON is UTF-8"),
        false => bytes.iter().map(escaped).collect(),
    };
    text.replace("},{", "},\n{") + "\n"
}

/// The inverse of [`shown`].
fn bytes(file: &str, shown: &str) -> Vec<u8> {
    let text = shown.replace('\n', "");
    if file.ends_with(".json") {
        return text.into_bytes();
    }
    let mut text = text.as_bytes();
    let mut bytes = Vec::new();
    while let Some((byte, rest)) = text.split_first() {
        (bytes, text) = match (byte, rest) {
            (b'\\', [b'x', high, low, rest @ ..]) => {
                let digits = [*high, *low].map(char::from).iter().collect::<String>();
                bytes.push(u8::from_str_radix(&digits, 16).expect("two digits follow `\\x`"));
                (bytes, rest)
            }
            (b'\\', [b'\\', rest @ ..]) | (_, rest) => {
                bytes.push(*byte);
                (bytes, rest)
            }
        };
    }
    bytes
}

/// Checks that this build writes the bytes of the golden file, and reads them.
fn check(file: &str, written: &[u8], read: impl FnOnce(&[u8])) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path(file), shown(file, written)).expect("golden files can be written");
    }
    let golden = golden(file);
    assert_eq!(shown(file, written), shown(file, &golden), "{file}");
    assert_eq!(written, golden, "{file}");
    read(&golden);
}

fn commands() -> Vec<Command> {
    let mut first = command(user("ann"), 17, "deposit", &json!({"account": "cash", "amount": 100}));
    first.timestamp = Some(11_178);
    vec![first, command(reactor(), 6_400, "close", &json!({"why": "ü \\ \"\n"}))]
}

fn slot_body(commands: &[Command]) -> Vec<u8> {
    let commands: Vec<_> = commands.iter().collect();
    let mut bodies = slot::encode(&commands).expect("commands can be written");
    assert_eq!(bodies.len(), 1);
    bodies.remove(0).1
}

/// A window with a run of two ids, a run of one, and a floor.
fn window() -> Window {
    let mut window = Window::default();
    for n in 1..=2_049 {
        window.insert(id(n), Seq(n), Time(1_795_401_660_000));
    }
    for (seq, number) in [(2_060, 4_000), (2_061, 4_001), (2_062, 9_000_000_000_000_000)] {
        window.insert(id(number), Seq(seq), Time(1_795_401_660_000 + seq));
    }
    window
}

#[test]
fn a_slot_has_its_golden_bytes() {
    let commands = commands();
    check("slot.v1.txt", &slot_body(&commands), |golden| {
        assert_eq!(slot::decode(golden).unwrap(), commands);
    });
}

/// A trace is a field more, and without one no byte changes.
#[test]
fn bodies_with_a_trace_have_their_golden_bytes() {
    let trace: TraceParent =
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().expect("a trace");
    let command = Command { trace: Some(trace), ..commands().remove(0) };
    check("slot.v1.traced.txt", &slot_body(std::slice::from_ref(&command)), |golden| {
        assert_eq!(slot::decode(golden).unwrap()[0].trace, Some(trace));
    });
    let moved = Outcome::Accepted(vec![event("moved", 1, "cash", &json!({}))]);
    let entries = vec![Entry { trace: Some(trace), ..entry(17, moved) }];
    check("commit.v1.traced.txt", &commit_body(&entries), |golden| {
        assert_eq!(commit::decode(Seq(17), golden).unwrap().0, entries);
    });
    let commit = commit("ledger/org:acme", entries, &[]);
    let message = notification::pack([&commit]).unwrap().remove(0).message;
    check("notification.v1.traced.json", message.body.as_bytes(), |golden| {
        let read = notification::decode(std::str::from_utf8(golden).unwrap()).unwrap();
        assert_eq!(read[0].entries.as_ref().unwrap()[0].trace, Some(trace));
    });
}

/// A later build may write it in another way. No trace may stop a command.
#[test]
fn a_trace_that_cannot_be_read_counts_as_absent() {
    for trace in [r#""01""#, "17", "null", r#"{"a":[1]}"#] {
        let entry =
            format!(r#"[{{"t":1,"o":"ann","i":1,"c":"close","p":{trace},"r":{{"a":[]}}}}]"#);
        let (entries, _) = commit::decode(Seq(1), &commit::seal(entry.as_bytes())).unwrap();
        assert_eq!(entries[0].trace, None, "{trace}");
        let slot = format!(r#"[{{"o":"ann","i":1,"c":"close","d":{{}},"p":{trace}}}]"#);
        let body = [&b"\x01\x00"[..], slot.as_bytes()].concat();
        assert_eq!(slot::decode(&body).unwrap()[0].trace, None, "{trace}");
    }
}

#[test]
fn a_record_has_its_golden_bytes() {
    let commands = commands();
    let (first, second) = (slot_body(&commands), slot_body(&commands[1..]));
    let record = Record {
        log: valid("ledger/org:acme"),
        parts: vec![
            Part { last: Seq(18), n: 2, at: Time(1_795_401_660_123), body: &first },
            Part { last: Seq(19), n: 1, at: Time(1_795_401_660_124), body: &second },
        ],
    };
    check("record.v1.txt", &record.encode().unwrap(), |golden| {
        assert_eq!(Record::decode(golden).unwrap(), record);
    });
}

#[test]
fn a_nudge_has_its_golden_bytes() {
    let nudge = Record::nudge(valid("ledger/org:acme"));
    check("record.v1.nudge.txt", &nudge.encode().unwrap(), |golden| {
        assert_eq!(Record::decode(golden).unwrap(), nudge);
    });
}

#[test]
fn a_plain_commit_has_its_golden_bytes() {
    let entries = entries_of_all_kinds(17);
    check("commit.v1.txt", &commit_body(&entries[..4]), |golden| {
        assert_eq!(commit::decode(Seq(17), golden).unwrap().0, entries[..4]);
    });
    check("commit.v1.rest.txt", &commit_body(&entries[4..]), |golden| {
        assert_eq!(commit::decode(Seq(21), golden).unwrap().0, entries[4..]);
    });
}

/// Older builds wrote `null` for events without content. Absent content is read, too.
#[test]
fn events_without_content_are_read() {
    for (data, read) in [(r#","x":null"#, "null"), ("", "{}"), (r#","x":{}"#, "{}")] {
        let event = format!(r#"{{"k":"closed","v":1,"d":"cash"{data}}}"#);
        let entry = format!(r#"[{{"t":1,"o":"ann","i":1,"c":"close","r":{{"a":[{event}]}}}}]"#);
        let (entries, _) = commit::decode(Seq(1), &commit::seal(entry.as_bytes())).unwrap();
        let Outcome::Accepted(events) = &entries[0].outcome else { panic!("accepted") };
        assert_eq!(events[0].data.get(), read);
    }
}

/// Other versions of zstd may write other bytes, so this only checks that the bytes are read.
#[test]
fn a_compressed_commit_is_read() {
    let file = "commit.v1.zstd.txt";
    let text = "a".repeat(5_000);
    let outcome = Outcome::Accepted(vec![event("noted", 1, "cash", &json!({ "text": text }))]);
    let entries = vec![entry(1, outcome)];
    let written = commit_body(&entries);
    assert_eq!(written[..2], [1, 1], "format 1, codec zstd");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path(file), shown(file, &written)).expect("golden files can be written");
    }
    let (read, payload_bytes) = commit::decode(Seq(1), &golden(file)).unwrap();
    assert_eq!(read, entries);
    assert_eq!(payload_bytes, envelope::open(1, &written).unwrap().len());
}

#[test]
fn a_head_has_its_golden_bytes() {
    let inline = Head {
        time: Time(1_795_401_660_123),
        prev: [("fanfold.rejected", Seq(39)), ("ledger.deposited", Seq(40))].into_iter().collect(),
        windows: Some(BTreeMap::from([(user("ann"), window()), (reactor(), Window::default())])),
    };
    let split = Head { windows: None, ..inline.clone() };
    for (file, head) in [("head.v1.inline.txt", inline), ("head.v1.split.txt", split)] {
        check(file, &head.encode().unwrap(), |golden| {
            assert_eq!(Head::decode(golden).unwrap(), head, "{file}");
        });
    }
}

#[test]
fn a_separate_window_has_its_golden_bytes() {
    check("window.v1.txt", &encode_window(&window()).unwrap(), |golden| {
        assert_eq!(decode_window(golden).unwrap(), window());
    });
}

#[test]
fn a_document_has_its_golden_bytes() {
    let json = br#"{"balance":100,"owner":"ann"}"#;
    check("document.v1.txt", &encode_document(json), |golden| {
        assert_eq!(*decode_document(golden).unwrap(), *json);
    });
}

#[test]
fn parked_items_have_their_golden_bytes() {
    let commands = commands();
    let cases = [
        ("command", Reason::Gap, Content::Command(commands[0].clone())),
        ("commit", Reason::Unpublished, {
            let prev = [("ledger.opened", Seq(3)), ("fanfold.rejected", Seq(11))];
            Content::Commit { last: Seq(17), prev: prev.into_iter().collect() }
        }),
        ("bytes", Reason::Undecodable, Content::Bytes(b"\x01\x00[nonsense\xff".to_vec())),
    ];
    for (name, reason, content) in cases {
        let detail = "the log ends at 12".to_owned();
        let parked = Parked { reason, at: Time(1_795_401_660_123), detail, content };
        check(&format!("parked.v1.{name}.txt"), &parked.encode().unwrap(), |golden| {
            assert_eq!(Parked::decode(golden).unwrap(), parked);
        });
    }
    for (reason, stored) in [
        (Reason::Gap, "gap"),
        (Reason::NoService, "no_service"),
        (Reason::CannotFold, "cannot_fold"),
        (Reason::Conflict, "conflict"),
        (Reason::Undecodable, "undecodable"),
        (Reason::Suspect, "suspect"),
        (Reason::Unpublished, "unpublished"),
    ] {
        assert_eq!(json!(reason), json!(stored));
    }
}

#[test]
fn attempts_have_their_golden_bytes() {
    let deciding = Step::Deciding(Seq(17));
    for (name, step) in [("whole", Step::Whole), ("loading", Step::Loading), ("deciding", deciding)]
    {
        let at = Time(1_795_401_660_123);
        let lease = Lease { attempts: 3, at, until: at.plus_ms(60_000), owner: u64::MAX };
        let attempt = ProcessorLease { lease, step };
        check(&format!("attempt.v1.{name}.txt"), &attempt.encode().unwrap(), |golden| {
            assert_eq!(ProcessorLease::decode(golden).unwrap(), attempt);
        });
    }
}

#[test]
fn announcements_have_their_golden_bytes() {
    let of = |version: u32| Announcement {
        version,
        services: vec!["ledger".to_owned()],
        events: vec!["closed".to_owned(), "opened".to_owned()],
        table: format!("shop-view-totals-v{version}"),
        since: Time(1_795_401_660_123),
    };
    let first = Announced::default().with("totals", of(1)).unwrap().unwrap();
    let announced = first.with("totals", of(2)).unwrap().unwrap();
    check("announced.v1.txt", &announced.encode().unwrap(), |golden| {
        assert_eq!(Announced::decode(golden).unwrap(), announced);
    });
}

#[test]
fn an_operators_action() {
    let action = Action {
        at: Time(1_795_401_660_123),
        by: Some("ann".to_owned()),
        is_claimed: true,
        action: "skip".to_owned(),
        log: Some("ledger/org:acme".to_owned()),
        seq: Some(7),
        reason: Some("sent in error".to_owned()),
        state: ActionState::Done,
        result: Some("begun".to_owned()),
        ..Action::default()
    };
    check("action.v1.txt", &action.encode().unwrap(), |golden| {
        assert_eq!(Action::decode(golden).unwrap(), action);
    });
}

/// Commits of several logs, with entries of all kinds. One of them is too large to be inline.
pub(crate) fn commits() -> Vec<Commit> {
    let closed = Outcome::Accepted(vec![event("closed", 1, "cash", &json!({}))]);
    let large = event("noted", 1, "cash", &json!({ "text": "a".repeat(TOO_LARGE_TO_INLINE) }));
    let prev = [("fanfold.rejected", 3), ("ledger.received", 9), ("ledger.sent", 16)];
    vec![
        commit("ledger/org:acme", entries_of_all_kinds(17), &prev),
        commit("doors/user:ann", vec![entry(1, Outcome::Stale)], &[]),
        commit("ledger/org:acme", vec![entry(24, closed)], &prev),
        commit("ledger/org:bank", vec![entry(5, Outcome::Accepted(vec![large]))], &prev[..1]),
    ]
}

/// The commits of [`commits`] in one message.
pub(crate) fn notification() -> Vec<u8> {
    golden("notification.v1.json")
}

#[test]
fn a_notification_has_its_golden_bytes() {
    let commits = commits();
    let mut packed = notification::pack(&commits).unwrap();
    assert_eq!(packed.len(), 1);
    let message = packed.remove(0).message;
    check("notification.v1.json", message.body.as_bytes(), |golden| {
        let read = notification::decode(std::str::from_utf8(golden).unwrap()).unwrap();
        let expected: Vec<ReceivedCommit> = commits
            .iter()
            .map(|commit| ReceivedCommit {
                log: commit.log.clone(),
                first: commit.first(),
                last: commit.last(),
                prev: commit.prev.clone(),
                entries: (commit.log.as_str() != "ledger/org:bank")
                    .then(|| as_subscribers_see(&commit.entries).into()),
            })
            .collect();
        assert_eq!(read, expected);
    });
    expect![[r#"
        Attributes {
            services: {
                "doors",
                "ledger",
            },
            kinds: {
                "fanfold.faulted",
                "fanfold.lost",
                "fanfold.rejected",
                "ledger.closed",
                "ledger.noted",
                "ledger.received",
                "ledger.sent",
            },
            partitions: {
                "org:acme",
                "org:bank",
                "user:ann",
            },
        }
    "#]]
    .assert_debug_eq(&message.attributes);
}
