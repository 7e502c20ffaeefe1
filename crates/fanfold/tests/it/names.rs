//! What may be called what, and how positions are written.

use std::fmt::Debug;
use std::str::FromStr;

use fanfold::limits::{COMMAND_ID_END, NAME_BYTES_MAX, ROW_KEY_BYTES_MAX, SEQ_END};
use fanfold::{
    CommandId, DocumentId, LogId, Name, NameError, Origin, Partition, RowKey, Seq, ServiceName,
    StateKey,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::samples::{reactor, user, valid};

const NAMES: &str = "[A-Za-z0-9._:@=+-]";
const SERVICES: &str = "[a-z][a-z0-9-]*";
const ROW_KEYS: &str = "[A-Za-z0-9._:@=+/-]";

/// The text is a `T`, also as JSON, and shown as it was given.
fn good<T>(texts: &[&str])
where
    T: FromStr<Err = NameError> + ToString + AsRef<str> + Serialize + DeserializeOwned + Debug,
{
    for text in texts {
        let name: T = valid(text);
        assert_eq!((name.as_ref(), name.to_string().as_str()), (*text, *text));
        let json = serde_json::to_value(&name).unwrap();
        assert_eq!(json, json!(text));
        assert_eq!(serde_json::from_value::<T>(json).unwrap().as_ref(), *text);
    }
}

/// The text is no `T`, also as JSON, because of this.
#[track_caller]
fn bad<T>(text: &str, error: NameError)
where
    T: FromStr<Err = NameError> + DeserializeOwned + Debug,
{
    assert_eq!(text.parse::<T>().unwrap_err(), error, "{text:?}");
    let message = serde_json::from_value::<T>(json!(text)).unwrap_err().to_string();
    assert_eq!(message, format!("{text:?} {error}"));
}

fn character(character: char, allowed: &'static str) -> NameError {
    NameError::BadCharacter { character, allowed }
}

fn too_long(bytes: usize, max: usize) -> NameError {
    NameError::TooLong { bytes, max }
}

#[test]
fn names() {
    let longest = "a".repeat(NAME_BYTES_MAX);
    good::<Name>(&["a", "-", "Ann_B", "a.b:c@d=e+f-9", &longest]);
    good::<DocumentId>(&["cash", "2026-07", &longest]);
    bad::<Name>("", NameError::Empty);
    bad::<Name>(&"a".repeat(129), too_long(129, 128));
    // Bytes count, not characters; and a text is measured before it is read.
    bad::<Name>(&"ü".repeat(65), too_long(130, 128));
    for c in ['/', ' ', '#', '%', '\n', '\0', 'ü', '"', '\u{feff}'] {
        bad::<Name>(&format!("a{c}b"), character(c, NAMES));
        bad::<DocumentId>(&c.to_string(), character(c, NAMES));
    }
}

#[test]
fn services() {
    good::<ServiceName>(&["a", "ledger", "ledger-2", &"a".repeat(32)]);
    bad::<ServiceName>("", NameError::Empty);
    bad::<ServiceName>(&"a".repeat(33), too_long(33, 32));
    for (text, c) in [("Ledger", 'L'), ("2ledger", '2'), ("-a", '-'), ("a.b", '.'), ("aB", 'B')] {
        bad::<ServiceName>(text, character(c, SERVICES));
    }
}

#[test]
fn partitions_and_logs() {
    let longest = "a".repeat(NAME_BYTES_MAX);
    good::<Partition>(&["org:acme", "user:ann", "org:org:x", &format!("user:{longest}")]);
    bad::<Partition>("acme", NameError::NotAPartition);
    bad::<Partition>("", NameError::NotAPartition);
    bad::<Partition>("Org:acme", NameError::NotAPartition);
    bad::<Partition>("org:", NameError::Empty);
    bad::<Partition>("org:a/b", character('/', NAMES));
    bad::<Partition>(&format!("org:{longest}a"), too_long(129, 128));

    good::<LogId>(&["ledger/org:acme", "ledger/user:ann"]);
    bad::<LogId>("ledger", NameError::NotALog);
    bad::<LogId>("/org:acme", NameError::Empty);
    bad::<LogId>("ledger/", NameError::NotAPartition);
    bad::<LogId>("ledger/org:a/b", character('/', NAMES));
    bad::<LogId>("Ledger/org:acme", character('L', SERVICES));

    let log = LogId::new(&valid("ledger"), &Partition::org(&valid("acme")));
    assert_eq!((log.service(), log.partition()), ("ledger", "org:acme"));
    assert_eq!(Partition::user(&valid("ann")).as_str(), "user:ann");
}

#[test]
fn row_keys() {
    let longest = "a".repeat(ROW_KEY_BYTES_MAX);
    good::<RowKey>(&["total", "cash/17", "/", &longest]);
    bad::<RowKey>("", NameError::Empty);
    bad::<RowKey>(&format!("{longest}a"), too_long(513, 512));
    bad::<RowKey>("a b", character(' ', ROW_KEYS));

    let key = RowKey::from(&valid::<DocumentId>("cash")).join(17);
    assert_eq!((key.as_str(), key.check()), ("cash/17", Ok(())));
    assert_eq!(key.join("a b").check(), Err(character(' ', ROW_KEYS)));
    assert_eq!(key.join(&longest).check(), Err(too_long(520, 512)));
}

#[test]
fn origins() {
    for reserved in ["resend", "reactor:interest", "reactor:"] {
        assert_eq!(Origin::user(&valid(reserved)), Err(NameError::Reserved));
    }
    for free in ["ann", "reactor", "resend2", "Resend", "Reactor:x"] {
        assert_eq!(user(free).as_str(), free);
        assert!(!user(free).is_reactor());
    }
    assert_eq!(reactor().as_str(), "reactor:interest@ledger/org:bank");
    assert!(reactor().is_reactor() && !Origin::resend().is_reactor());
    assert!(Origin::nobody().is_nobody() && !user("ann").is_nobody());
}

#[test]
fn messages_say_what_is_wrong() {
    for (error, message) in [
        (NameError::Empty, "must not be empty"),
        (too_long(129, 128), "is 129 bytes long, at most 128 are allowed"),
        (character('/', NAMES), "contains '/', allowed are [A-Za-z0-9._:@=+-]"),
        (
            NameError::Reserved,
            "is reserved: a user must not be called `resend` or begin with `reactor:`",
        ),
        (NameError::NotAPartition, "must begin with `org:` or `user:`"),
        (NameError::NotALog, "must have the form `<service>/<partition>`, as `ledger/org:acme`"),
    ] {
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn keys_of_the_state_table() {
    for (key, text) in [
        (StateKey::head(1), "v1#head"),
        (StateKey::document(2, &valid("cash")), "v2#doc#cash"),
        (StateKey::window(12, &user("ann")), "v12#win#ann"),
        (StateKey::window(1, &reactor()), "v1#win#reactor:interest@ledger/org:bank"),
    ] {
        assert_eq!(key.as_str(), text);
    }
}

#[test]
fn numbers() {
    for (id, is_id) in [
        (0, false),
        (1, true),
        (COMMAND_ID_END - 1, true),
        (COMMAND_ID_END, false),
        (u64::MAX, false),
    ] {
        assert_eq!(CommandId::new(id).is_some(), is_id, "{id}");
        assert_eq!(serde_json::from_value::<CommandId>(json!(id)).is_ok(), is_id, "{id}");
    }
    for (seq, is_seq) in [(0, true), (SEQ_END - 1, true), (SEQ_END, false), (u64::MAX, false)] {
        assert_eq!(serde_json::from_value::<Seq>(json!(seq)).is_ok(), is_seq, "{seq}");
    }
    assert_eq!(Seq(7).next(), Seq(8));
    assert_eq!(Seq(7).plus(3), Seq(10));
    assert_eq!((Seq(7).before(), Seq::ZERO.before()), (Seq(6), Seq::ZERO));
    // A reactor's ids must stay ids.
    assert!(CommandId::new((SEQ_END - 1) * 64 + 63).is_some());
}
