//! The entry of a command, case by case.

use std::error::Error;
use std::sync::Arc;

use fanfold::entry::Outcome;
use fanfold::host::body::envelope;
use fanfold::host::limits::{
    CODE_BYTES_MAX, COMMIT_BYTES_MAX, DOCUMENT_BYTES_MAX, MESSAGE_BYTES_MAX, WINDOW_IDS_MAX,
};
use fanfold::host::log::{FoldError, Place, Prepared, Sealed, Sent, Want};
use fanfold::{CommandId, Entry, Log, Origin, Seq, StateKey, Time};
use serde_json::{Value, json};

use crate::samples::{
    command, entries_of_all_kinds, entry, entry_json, event, reactor, user, valid,
};
use crate::world::{Process, World, service};

fn log() -> Log {
    Log::new(valid("counters/org:acme"), service::<1>(), None, Seq::ZERO)
}

/// Decides on commands of ann's, one after another. Returns the results of their entries as they are stored.
#[track_caller]
fn check(cases: &[(&str, Value, Value)]) -> World {
    let (mut world, mut process) = (World::new(), Process::new(service::<1>()));
    for (id, (name, data, expected)) in (1..).zip(cases) {
        let entry = world.send(&mut process, ("ann", id), name, data);
        assert_eq!(entry_json(&entry)["r"], *expected, "`{name}` with {data}");
    }
    world
}

fn happened(kind: &str, document: &str, data: &Value) -> Value {
    let version = if kind == "touched" { 2 } else { 1 };
    json!({"k": kind, "v": version, "d": document, "x": data})
}

fn added(document: &str, by: u64, total: u64) -> Value {
    happened("added", document, &json!({"by": by, "total": total, "note": ""}))
}

fn rejected(code: &str, message: &str) -> Value {
    json!({"r": {"code": code, "message": message}})
}

#[test]
fn commands_become_entries() {
    let add = |counter, by| json!({"counter": counter, "by": by});
    let taken = happened("taken", "a", &json!({"by": 3, "total": 2}));
    check(&[
        ("add", add("a", 5), json!({"a": [added("a", 5, 5)]})),
        ("add", add("b", 1), json!({"a": [added("b", 1, 1)]})),
        // A command changes both documents, or, if it is refused, none.
        ("move", json!({"from": "a", "to": "b", "by": 3}), json!({"a": [taken, added("b", 3, 4)]})),
        (
            "move",
            json!({"from": "a", "to": "b", "by": 3}),
            rejected("too_few", "the counter has only 2"),
        ),
        ("add", add("a", 998), json!({"a": [added("a", 998, 1_000)]})),
        ("add", add("a", 1), rejected("full", "the counter is full")),
        ("nothing", json!({}), json!({"a": []})),
        ("touch", json!({"counter": "a"}), json!({"a": [happened("touched", "a", &json!({}))]})),
        (
            "no-such",
            json!({}),
            rejected(
                "unknown_command",
                "`command`: the service `counters` has no command `no-such`",
            ),
        ),
        ("add", json!({"counter": "a"}), rejected("invalid_data", "`data`: missing field `by`")),
        (
            "add",
            json!({"counter": "a#b", "by": 1}),
            rejected(
                "invalid_data",
                "`data.counter`: \"a#b\" contains '#' (U+0023), allowed are printable characters \
                 without `/ ? # % \\`",
            ),
        ),
    ]);
}

/// An event of an older version is shown in the current one, any other as it is stored.
#[test]
fn an_event_is_brought_to_its_current_version() {
    let service = service::<1>();
    let old = event("touched", 1, "a", &json!({"old": true}));
    let up_to_date = |stored: &fanfold::entry::Event| {
        let mut event = stored.clone();
        service.bring_up_to_date(&mut event).expect("it is upcast, or stays");
        event
    };
    let current = up_to_date(&old);
    assert_eq!(
        (current.version, current.data.get(), &current.document),
        (2, "null", &old.document)
    );
    for other in [("touched", 2), ("touched", 3), ("added", 1), ("unknown", 1)] {
        let event = event(other.0, other.1, "a", &json!({"old": true}));
        assert_eq!(up_to_date(&event), event);
    }
}

/// A decision asks for documents by what is in those it has, in four rounds at most. It makes no
/// difference whether they are in memory.
#[test]
fn a_decision_asks_for_more_documents() {
    let carry = |counter, text| ("carry", json!({"counter": counter, "text": text}));
    let chase = |counter| ("chase", json!({"counter": counter}));
    let touched = |counter| json!({"a": [happened("touched", counter, &json!({}))]});
    let too_many = json!({"f": {
        "message": "`more` asks for new documents more than 4 times", "data": {"counter": "a"},
    }});
    let chain = [carry("a", "b"), carry("b", "c"), carry("c", "d"), carry("d", "e")];
    for is_cold in [false, true] {
        let (mut world, mut process) = (World::new(), Process::new(service::<1>()));
        let mut send = |(name, data): (&str, Value)| {
            if is_cold {
                process = Process::new(service::<1>());
            }
            let id = world.tail().0 + 1;
            entry_json(&world.send(&mut process, ("ann", id), name, &data))["r"].clone()
        };
        // So many bytes that a snapshot stores the documents.
        let snapshot = || ("add", json!({"counter": "other", "by": 1, "note": 8_000}));
        for carried in chain.clone() {
            send(carried);
        }
        send(snapshot());
        assert_eq!(send(chase("a")), touched("e"));
        assert_eq!(send(chase("d")), touched("e"));
        send(carry("e", "f"));
        send(snapshot());
        assert_eq!(send(chase("a")), too_many);
        assert_eq!(send(chase("b")), touched("f"));
        send(carry("b", "off"));
        send(snapshot());
        let message = send(chase("a"))["f"]["message"].to_string();
        assert!(message.contains("`more` panicked: "), "{message}");
        assert!(message.contains("the chain is off"), "{message}");
        assert_eq!(world.snapshots, 3);
    }
}

/// Commands of one batch change the documents that later ones ask for. The log decides as many as it
/// can, and asks in advance from then on.
#[test]
fn a_batch_stops_at_a_decision_that_asks_for_a_document_outside_memory() {
    let (mut world, mut process) = (World::new(), Process::new(service::<1>()));
    for id in 1..=20 {
        let next = format!("n{id}");
        world.accept("ann", 2 * id, "carry", &json!({"counter": "a", "text": next}));
        world.accept("ann", 2 * id + 1, "chase", &json!({"counter": "a"}));
    }
    let all: Vec<Seq> = (1..=40).map(Seq).collect();
    world.process(&mut process, &all).expect("the process does not crash");
    let touched = world.entries.iter().filter_map(|entry| match &entry.outcome {
        Outcome::Accepted(events) if events[0].kind.as_str() == "touched" => {
            Some(events[0].document.as_str().to_owned())
        }
        _ => None,
    });
    assert!(touched.eq((1..=20).map(|id| format!("n{id}"))));
}

#[test]
fn a_service_that_breaks_a_rule_makes_a_faulted_entry() {
    for (how, message) in [
        ("panic_in_documents", "`documents` panicked: no list"),
        ("panic_in_decide", "`decide` panicked: no idea"),
        ("panic_in_evolve", "`evolve` panicked: no hands"),
        ("panic_writing_an_event", "`Event` panicked: no ink"),
        ("panic_reading_an_event", "`Event` panicked: no glasses"),
        (
            "read_undeclared",
            "`decide` panicked: neither `documents` nor `more` named the document `a`",
        ),
        (
            "change_undeclared",
            "`decide` changes the document `a`, which neither `documents` nor `more` named",
        ),
        ("unlisted_event", "`EVENTS` does not list `unlisted`"),
        ("unwritable_event", "an event cannot be written: no paper"),
        (
            "unreadable_event",
            "the event `failed` version 1 cannot be read: `data.how`: unknown variant `illegible`, \
             expected one of `panic_in_documents`, `panic_in_decide`, `panic_in_evolve`, \
             `panic_writing_an_event`, `panic_reading_an_event`, `read_undeclared`, \
             `change_undeclared`, `unlisted_event`, `unwritable_event`, `unreadable_event`",
        ),
    ] {
        let data = json!({"counter": "a", "how": how});
        let fault = json!({"f": {"message": message, "data": data}});
        let add = json!({"counter": "a", "by": 1});
        // The failed command changes no document, although its first event was folded before the
        // second failed.
        let world = check(&[
            ("add", add.clone(), json!({"a": [added("a", 1, 1)]})),
            ("fail", data, fault),
            ("add", add, json!({"a": [added("a", 1, 2)]})),
        ]);
        assert_eq!(world.fold_to(Seq(3)).prev["fanfold.faulted"], Seq(2), "{how}");
    }
}

#[test]
fn a_document_that_cannot_be_copied_or_written_makes_a_faulted_entry() {
    let carry = |text| json!({"counter": "a", "text": text});
    let fault = |part: &str, data: &Value| {
        let panicked = format!(
            "`Document` panicked: assertion `left != right` failed\n  left: {part}\n right: {part}"
        );
        json!({"f": {"message": panicked, "data": data}})
    };
    let carried = happened("carried", "a", &json!({"text": "uncopied"}));
    check(&[
        ("carry", carry("unwritten"), fault(r#""unwritten""#, &carry("unwritten"))),
        ("carry", carry("uncopied"), json!({"a": [carried]})),
        ("carry", carry("x"), fault(r#""uncopied""#, &carry("x"))),
    ]);
}

#[test]
fn long_messages_and_codes_are_cut() {
    let long = "ü".repeat(MESSAGE_BYTES_MAX);
    let cut = "ü".repeat(MESSAGE_BYTES_MAX / 2);
    check(&[
        ("refuse", json!({"message": long}), rejected("refused", &cut)),
        (
            "refuse",
            json!({"message": format!("x{long}")}),
            rejected("refused", &format!("x{}", &cut[2..])),
        ),
    ]);
    assert!(CODE_BYTES_MAX >= "unknown_command".len());
}

/// An entry may be as large as a commit, and a document as large as its own limit. With one byte more, the command is
/// refused.
#[test]
fn a_command_whose_result_is_too_large_is_refused() {
    let (mut world, mut process) = (World::new(), Process::new(service::<1>()));
    let mut send = |name: &str, bytes: usize, key: &str| {
        let data = json!({"counter": "a", "by": 1, key: bytes});
        let id = world.stream.len() as u64 + 10;
        entry_json(&world.send(&mut process, ("ann", id), name, &data))
    };
    let too_large = |what: &str, bytes: usize, max: usize| {
        let message = format!("{what} would be {bytes} bytes long, at most {max} are allowed");
        rejected("too_large", &message)
    };

    let overhead = send("add", 0, "note").to_string().len();
    // Two bytes for the brackets, and one for a comma.
    let most = COMMIT_BYTES_MAX.get() - 3;
    let fits = send("add", most - overhead, "note");
    assert_eq!(fits.to_string().len(), most);
    assert!(fits["r"]["a"].is_array());
    let refused = send("add", most - overhead + 1, "note");
    assert_eq!(refused["r"], too_large("the entry", most + 1, COMMIT_BYTES_MAX.get()));
    // The document has no event of the refused command.
    assert_eq!(send("add", 0, "note")["r"], json!({"a": [added("a", 1, 3)]}));

    let overhead = r#"{"version":1,"total":0,"touched":0,"text":""}"#.len();
    let most = DOCUMENT_BYTES_MAX.get() - overhead;
    assert!(send("grow", most, "bytes")["r"]["a"].is_array());
    let refused = send("grow", most + 1, "bytes");
    let what = "the document `a`";
    assert_eq!(
        refused["r"],
        too_large(what, DOCUMENT_BYTES_MAX.get() + 1, DOCUMENT_BYTES_MAX.get())
    );
    // The document is unchanged, so a touch does not make it longer.
    assert!(send("touch", 0, "none")["r"]["a"].is_array());
    assert_eq!(send("add", 0, "note")["r"], json!({"a": [added("a", 1, 4)]}));
}

#[test]
fn commits_are_split_below_their_limit() {
    let (mut log, now) = (log(), Time(5));
    for seq in 1..=40 {
        let note = (seq as usize * 7_919) % 60_000;
        let data = json!({"counter": "a", "by": 1, "note": note});
        decide(&mut log, seq, now, now, "add", &data);
    }
    let sealed = log.seal();
    let payload = |sealed: &Sealed| envelope::open(1, &sealed.body).unwrap().len();
    assert!(sealed.len() > 2);
    for pair in sealed.windows(2) {
        let [one, next] = pair else { continue };
        assert_eq!(next.commit.first(), one.commit.last().next());
        let first = entry_json(&next.commit.entries[0]).to_string().len();
        assert!(payload(one) + 1 + first + 1 > COMMIT_BYTES_MAX.get(), "split too early");
        // `prev` also names commits of the same batch.
        assert_eq!(next.commit.prev["counters.added"], one.commit.last());
    }
    assert!(sealed.iter().all(|sealed| payload(sealed) <= COMMIT_BYTES_MAX.get()));
    assert!(log.seal().is_empty());
    assert_eq!((log.tail(), log.is_settled()), (Seq(40), false));
    sealed.into_iter().for_each(|sealed| log.acknowledge(sealed).unwrap());
    assert!(log.is_settled());
}

/// Decides on a command of ann's, whose id is its seq.
fn decide(log: &mut Log, seq: u64, at: Time, now: Time, name: &str, data: &Value) {
    let command = Arc::new(command(user("ann"), seq, name, data));
    let work = log.prepare(Seq(seq), at, command);
    for want in log.wants([&work]) {
        log.provide(want, None).expect("nothing is stored");
    }
    assert!(log.decide(work, now).is_ok());
}

#[test]
fn entries_have_the_time_of_their_acceptance_within_bounds() {
    let (mut log, mut times) = (log(), Vec::new());
    for (seq, (at, now)) in (1..).zip([
        (1_000, 2_000),
        // Accepted before the previous entry's time.
        (900, 2_000),
        (1_500, 2_000),
        // Accepted by a clock that is ahead.
        (9_000, 2_000),
        (9_000, 3_000),
        // Decided by a clock that is behind.
        (2_500, 500),
    ]) {
        decide(&mut log, seq, Time(at), Time(now), "nothing", &json!({}));
        times.extend(log.seal().into_iter().map(|sealed| sealed.at.0));
    }
    assert_eq!(times, [1_000, 1_000, 1_500, 2_000, 3_000, 3_000]);
}

#[test]
fn a_repeated_id_is_answered_with_the_first_entry() {
    let (mut world, mut process) = (World::new(), Process::new(service::<1>()));
    let add = json!({"counter": "a", "by": 1});
    let fail = json!({"counter": "a", "how": "panic_in_decide"});
    for (origin, id, name, data, of) in [
        (user("ann"), 5, "add", &add, None),
        (user("ann"), 5, "add", &add, Some(1)),
        (user("ann"), 5, "nothing", &add, Some(1)),
        // Other users have ids of their own.
        (user("bob"), 5, "add", &add, None),
        (reactor(), 5, "add", &add, None),
        // A lower id is accepted, too.
        (user("ann"), 3, "nothing", &add, None),
        // Refused and faulted commands use up their ids.
        (user("ann"), 6, "unknown", &add, None),
        (user("ann"), 6, "nothing", &add, Some(7)),
        (user("ann"), 7, "fail", &fail, None),
        (user("ann"), 7, "nothing", &add, Some(9)),
        (reactor(), 5, "nothing", &add, Some(5)),
    ] {
        let seq = world.accept_from(origin, id, name, data);
        world.process(&mut process, &[seq]).expect("the process does not crash");
        let outcome = &world.entries[seq.0 as usize - 1].outcome;
        let found = match outcome {
            Outcome::Duplicate { of } | Outcome::Rejected { of: Some(of), .. } => Some(of.0),
            _ => None,
        };
        assert_eq!(found, of, "{seq}: {outcome:?}");
    }
}

#[test]
fn ids_below_the_window_are_stale() {
    let (mut world, mut process) = (World::new(), Process::new(service::<1>()));
    let window = WINDOW_IDS_MAX.get() as u64;
    let ids = (1..=window + 2).chain([1, 2, 3, window + 2]);
    let seqs: Vec<Seq> = ids.map(|id| world.accept("ann", id, "nothing", &json!({}))).collect();
    world.process(&mut process, &seqs).expect("the process does not crash");
    let last: Vec<&str> = world.entries.iter().rev().take(5).map(|e| e.outcome.status()).collect();
    assert_eq!(last, ["duplicate", "duplicate", "stale", "stale", "accepted"]);
    assert_eq!(world.entries[window as usize + 4].outcome, Outcome::Duplicate { of: Seq(3) });
    // Duplicate and stale entries have no kind, so subscribers do not receive them.
    assert!(world.fold_to(world.tail()).prev.is_empty());
}

#[test]
fn prev_names_the_last_entry_of_every_kind_before_the_commit() {
    let (mut world, mut process) = (World::new(), Process::new(service::<1>()));
    let add = json!({"counter": "a", "by": 1});
    let both = json!({"from": "a", "to": "b", "by": 1});
    for (id, name, data, prev) in [
        (1, "add", &add, json!({})),
        (2, "nothing", &json!({}), json!({"counters.added": 1})),
        (2, "nothing", &json!({}), json!({"counters.added": 1})),
        (3, "move", &both, json!({"counters.added": 1})),
        (4, "unknown", &add, json!({"counters.added": 4, "counters.taken": 4})),
        (5, "add", &add, json!({"counters.added": 4, "counters.taken": 4, "fanfold.rejected": 5})),
    ] {
        let entry = world.send(&mut process, ("ann", id), name, data);
        assert_eq!(json!(*world.published[&entry.seq].prev), prev, "{}", entry.seq);
    }
}

#[test]
fn seqs_are_done_next_or_beyond() {
    let (mut log, now) = (log(), Time(5));
    for tail in 0..3 {
        for seq in 0..6 {
            let place = match seq {
                _ if seq <= tail => Place::Done,
                _ if seq == tail + 1 => Place::Next,
                _ => Place::Beyond,
            };
            assert_eq!(log.place(Seq(seq)), place, "{seq} after {tail}");
            if place != Place::Next {
                let command = Arc::new(command(user("ann"), 9, "nothing", &json!({})));
                let work = log.prepare(Seq(seq), now, command);
                let back = log.decide(work, now).expect_err("only the next can be decided");
                assert!(back.seq == Seq(seq) && matches!(back.prepared, Prepared::Ready { .. }));
            }
        }
        decide(&mut log, tail + 1, now, now, "nothing", &json!({}));
    }
    let entries: usize = log.seal().iter().map(|sealed| sealed.commit.entries.len()).sum();
    assert_eq!((entries, log.tail()), (3, Seq(3)));
}

#[test]
fn lost_entries_use_no_id_and_have_a_kind() {
    let (mut log, now) = (log(), Time(5));
    let lost = entries_of_all_kinds(1).pop().expect("the last is lost");
    let lost = Entry { seq: Seq(1), ..lost };
    assert!(log.wants_to_fold(std::slice::from_ref(&lost)).is_empty());
    log.fold(vec![lost], 100).unwrap();
    let nothing =
        Sent { origin: Origin::nobody(), id: CommandId::NONE, command: None, digest: None };
    assert_eq!(log.command_at(Seq(1)), Some(&nothing));
    decide(&mut log, 2, now, now, "nothing", &json!({}));
    let commit = log.seal().remove(0).commit;
    assert_eq!(json!(*commit.prev), json!({"fanfold.lost": 1}));
    // The time of the lost entry is far ahead of this command's.
    assert!(commit.entries[0].time > now);
}

/// An error with its source.
fn shown(error: &FoldError) -> String {
    let below = error.source().map(|source| format!(": {source}"));
    format!("{error}{}", below.unwrap_or_default())
}

fn touched(version: u32, kind: &str) -> Outcome {
    Outcome::Accepted(vec![event(kind, version, "a", &json!({"times": 1}))])
}

#[test]
fn a_commit_that_cannot_be_folded_is_an_error() {
    let unreadable = "the entry or document at seq 2 cannot be folded: the event";
    let fail = Outcome::Accepted(vec![event("failed", 1, "a", &json!({"how": "panic_in_evolve"}))]);
    for (entries, error) in [
        (vec![], "invariant F3 does not hold: expected a commit from 2, found one from 0"),
        (
            vec![entry(1, Outcome::Stale)],
            "invariant F3 does not hold: expected a commit from 2, found one from 1",
        ),
        (
            vec![entry(3, Outcome::Stale)],
            "invariant F3 does not hold: expected a commit from 2, found one from 3",
        ),
        (
            vec![Entry { id: CommandId::new(10).unwrap(), ..entry(2, touched(1, "touched")) }],
            "invariant F4 does not hold: entry 2 uses the id 10 of ann again",
        ),
        (
            vec![entry(2, touched(3, "touched"))],
            &format!(
                "{unreadable} `touched` version 3 cannot be read: this build knows versions up to 2"
            ),
        ),
        (
            vec![entry(2, touched(1, "broken"))],
            "the entry or document at seq 2 cannot be folded: `EVENTS` does not list `broken`",
        ),
        (
            vec![entry(2, touched(1, "added"))],
            &format!("{unreadable} `added` version 1 cannot be read: `data`: missing field `by`"),
        ),
        (
            vec![entry(2, touched(1, "unlisted"))],
            "the entry or document at seq 2 cannot be folded: `EVENTS` does not list `unlisted`",
        ),
        (
            vec![entry(2, fail)],
            "the entry or document at seq 2 cannot be folded: `evolve` panicked: no hands",
        ),
    ] {
        let mut log = log();
        // `upcast` brings an event of an older version to the current one.
        log.fold(vec![entry(1, touched(1, "touched"))], 100).unwrap();
        assert_eq!(shown(&log.fold(entries, 100).unwrap_err()), error);
    }
}

#[test]
fn a_stored_item_that_cannot_be_read_is_an_error() {
    let document = Want::Document(valid("a"));
    let window = Want::Window(user("ann"));
    for (want, body, error) in [
        (
            &document,
            &b"\x02\x00{}"[..],
            "a stored body cannot be read: the body has format 2, this build reads 1",
        ),
        (
            &document,
            b"\x01\x00{}",
            "the entry or document at seq 7 cannot be folded: a stored document cannot be \
             read: missing field `version` at line 1 column 2",
        ),
        (&window, b"\x01", "a stored body cannot be read: the body ends too early"),
        (&window, b"\x01\x00{}", "a stored body cannot be read: the payload cannot be read"),
    ] {
        let error_found = log().provide(want.clone(), Some((Seq(7), body))).unwrap_err();
        assert_eq!(shown(&error_found), error);
    }
}

/// An item of the state table may be ahead of the log. The journal then has more commits.
#[test]
fn an_item_ahead_of_the_tail_shows_that_the_log_is_behind() {
    let mut log = log();
    let body = b"\x01\x00{\"version\":1,\"total\":7,\"touched\":0}";
    log.provide(Want::Document(valid("a")), Some((Seq(2), body))).unwrap();
    assert!(log.is_behind());
    let totals = |by: u64, total: u64| {
        Outcome::Accepted(vec![event(
            "added",
            1,
            "a",
            &json!({"by": by, "total": total, "note": ""}),
        )])
    };
    // The document already includes the first two entries, so only the third is folded into it.
    let entries: Vec<Entry> = vec![entry(1, totals(3, 3)), entry(2, totals(4, 7))];
    log.fold(entries, 100).unwrap();
    assert!(!log.is_behind());
    log.fold(vec![entry(3, totals(1, 8))], 100).unwrap();
    let command = log.command_at(Seq(3)).expect("above the head");
    assert_eq!((command.origin.as_str(), command.id.get()), ("ann", 30));
    let key = log.state_key(&Want::Window(reactor()));
    assert_eq!(key, Some(StateKey::window(1, &reactor())));
    assert_eq!(log.state_key(&Want::Entry(Seq(1))), None);
}
