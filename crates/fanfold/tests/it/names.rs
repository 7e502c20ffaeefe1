//! Which names are valid, and how positions are written.

use std::fmt::Debug;
use std::str::FromStr;

use fanfold::host::limits::{COMMAND_ID_END, NAME_BYTES_MAX, ROW_KEY_BYTES_MAX, SEQ_END};
use fanfold::{
    CommandId, DocumentId, LogId, Name, NameError, Origin, Partition, RowKey, Seq, ServiceName,
    StateKey,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::samples::{AWKWARD_NAMES, reactor, user, valid};

const NAMES: &str = "printable characters without `/ ? # % \\`";
const SERVICES: &str = "[a-z][a-z0-9-]*";
const ROW_KEYS: &str = "printable characters without `? # % \\`";

/// Checks that the text is a valid `T`, also as JSON, and is shown unchanged.
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

/// Checks that the text is no valid `T`, also as JSON, for this reason.
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
fn names_and_documents_are_validated() {
    let longest = "a".repeat(NAME_BYTES_MAX);
    good::<Name>(&["a", "-", "Ann_B", "a.b:c@d=e+f-9", &longest]);
    good::<Name>(&AWKWARD_NAMES);
    // Characters of several code points, and blanks of other scripts inside the name.
    good::<Name>(&["👩‍👩‍👧", "❤️", "می‌خواهم", "a\u{a0}b", "...", ".a", "a.", "..a"]);
    good::<DocumentId>(&["cash", "2026-07", &longest]);
    good::<DocumentId>(&AWKWARD_NAMES);
    bad::<Name>("", NameError::Empty);
    bad::<Name>(&"a".repeat(129), too_long(129, 128));
    // The limit is in bytes, not characters, and is checked first.
    bad::<Name>(&"ü".repeat(65), too_long(130, 128));
    bad::<Name>(&"?".repeat(129), too_long(129, 128));
    let refused = "/?#%\\\n\0\u{7f}\u{85}\u{ad}\u{200b}\u{200e}\u{202e}\u{2028}\u{2029}\u{2066}\u{feff}\
                   \u{e000}\u{fffe}\u{10ffff}\u{378}\u{e0067}";
    for c in refused.chars() {
        bad::<Name>(&format!("a{c}b"), character(c, NAMES));
        bad::<DocumentId>(&c.to_string(), character(c, NAMES));
    }
    for c in [' ', '\u{a0}', '\u{2003}', '\u{3000}', '\u{200c}', '\u{200d}'] {
        for text in [format!("{c}a"), format!("a{c}"), c.to_string()] {
            bad::<Name>(&text, NameError::BadEdge { character: c });
        }
        good::<Name>(&[&format!("a{c}b")]);
    }
    for text in [".", ".."] {
        bad::<Name>(text, NameError::DotSegment);
    }
    // `é` of two code points, the Angstrom sign, a Hangul syllable of its parts.
    for text in ["Zoe\u{308}", "\u{212b}", "\u{1100}\u{1161}"] {
        bad::<Name>(text, NameError::NotNfc);
    }
}

#[test]
fn service_names_are_validated() {
    good::<ServiceName>(&["a", "ledger", "ledger-2", &"a".repeat(32)]);
    bad::<ServiceName>("", NameError::Empty);
    bad::<ServiceName>(&"a".repeat(33), too_long(33, 32));
    for (text, c) in [("Ledger", 'L'), ("2ledger", '2'), ("-a", '-'), ("a.b", '.'), ("aB", 'B')] {
        bad::<ServiceName>(text, character(c, SERVICES));
    }
}

#[test]
fn partitions_and_logs_are_validated() {
    let longest = "a".repeat(NAME_BYTES_MAX);
    good::<Partition>(&["org:acme", "user:ann", "org:org:x", &format!("user:{longest}")]);
    bad::<Partition>("acme", NameError::NotAPartition);
    bad::<Partition>("", NameError::NotAPartition);
    bad::<Partition>("Org:acme", NameError::NotAPartition);
    bad::<Partition>("org:", NameError::Empty);
    bad::<Partition>("org:a/b", character('/', NAMES));
    bad::<Partition>(&format!("org:{longest}a"), too_long(129, 128));
    bad::<Partition>("org:..", NameError::DotSegment);
    bad::<Partition>("org: a", NameError::BadEdge { character: ' ' });
    good::<Partition>(&["org:山田 太郎", "user:auth0|64b7"]);

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
fn row_keys_are_validated() {
    let longest = "a".repeat(ROW_KEY_BYTES_MAX);
    good::<RowKey>(&["total", "cash/17", "/", &longest]);
    bad::<RowKey>("", NameError::Empty);
    bad::<RowKey>(&format!("{longest}a"), too_long(513, 512));
    good::<RowKey>(&AWKWARD_NAMES);
    good::<RowKey>(&["山田 太郎/17", "a//b", "a/", ".../..a"]);
    bad::<RowKey>("a?b", character('?', ROW_KEYS));
    bad::<RowKey>(" a/b", NameError::BadEdge { character: ' ' });
    bad::<RowKey>("Zoe\u{308}/1", NameError::NotNfc);
    for text in [".", "..", "a/.", "../a", "a/../b", "./"] {
        bad::<RowKey>(text, NameError::DotSegment);
    }
    for prefix in ["a", "cash/", "Zoë ", ".", "a/.", &longest] {
        assert_eq!(RowKey::check_prefix(prefix), Ok(()));
    }
    assert_eq!(RowKey::check_prefix("a#"), Err(character('#', ROW_KEYS)));
    assert_eq!(RowKey::check_prefix("Zoe\u{308}"), Err(NameError::NotNfc));

    let key = RowKey::from(&valid::<DocumentId>("cash")).join(17);
    assert_eq!((key.as_str(), key.check()), ("cash/17", Ok(())));
    assert_eq!(key.join("a%b").check(), Err(character('%', ROW_KEYS)));
    assert_eq!(key.join(&longest).check(), Err(too_long(520, 512)));
}

#[test]
fn origins_refuse_reserved_users_and_name_user_and_client() {
    for reserved in ["resend", "reactor:interest", "reactor:"] {
        assert_eq!(Origin::user(&valid(reserved)), Err(NameError::Reserved));
    }
    for free in ["ann", "reactor", "resend2", "Resend", "Reactor:x"] {
        assert_eq!(user(free).as_str(), free);
        assert!(!user(free).is_reactor());
    }
    let client = |user: &str, client: &str| Origin::client(&valid(user), &valid(client));
    assert_eq!(client("resend", "x"), Err(NameError::Reserved));
    let till = client("Zoë", "till 7").unwrap();
    assert_eq!(till.as_str(), "Zoë/till 7");
    assert_eq!((till.user_name(), till.client_name()), ("Zoë", Some("till 7")));
    assert_eq!((user("Zoë").user_name(), user("Zoë").client_name()), ("Zoë", None));
    assert_eq!((reactor().user_name(), reactor().client_name()), (reactor().as_str(), None));
    assert_eq!(reactor().as_str(), "reactor:interest@ledger/org:bank");
    assert!(reactor().is_reactor() && !Origin::resend().is_reactor());
    assert!(Origin::nobody().is_nobody() && !user("ann").is_nobody());
}

#[test]
fn errors_name_the_broken_rule() {
    for (error, message) in [
        (NameError::Empty, "must not be empty"),
        (too_long(129, 128), "is 129 bytes long, at most 128 are allowed"),
        (
            character('/', NAMES),
            "contains '/' (U+002F), allowed are printable characters without `/ ? # % \\`",
        ),
        (
            character('\u{200b}', ROW_KEYS),
            "contains U+200B, allowed are printable characters without `? # % \\`",
        ),
        (
            NameError::BadEdge { character: ' ' },
            "begins or ends with U+0020: send it without blanks and joiners around it",
        ),
        (
            NameError::DotSegment,
            "must not be `.` or `..`, nor have one of these between slashes: no URL can name it",
        ),
        (
            NameError::NotNfc,
            "is not in Unicode normalization form C (NFC): normalize it before it is sent",
        ),
        (
            NameError::Reserved,
            "is reserved: a user must not be called `resend` or begin with `reactor:`",
        ),
        (NameError::NotAPartition, "must begin with `org:` or `user:`"),
        (
            NameError::NotALog,
            "must have the form `<service>/org:<name>` or `<service>/user:<name>`, as `orders/org:acme`",
        ),
    ] {
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn state_keys_begin_with_the_document_version() {
    for (key, text) in [
        (StateKey::head(1), "v1#head"),
        (StateKey::document(2, &valid("cash")), "v2#doc#cash"),
        (StateKey::window(12, &user("ann")), "v12#win#ann"),
        (
            StateKey::window(1, &Origin::client(&valid("ann"), &valid("a 1")).unwrap()),
            "v1#win#ann/a 1",
        ),
        (StateKey::window(1, &reactor()), "v1#win#reactor:interest@ledger/org:bank"),
    ] {
        assert_eq!(key.as_str(), text);
    }
}

#[test]
fn command_ids_and_seqs_are_bounded() {
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
    // The ids of a reactor's commands must be valid ids.
    assert!(CommandId::new((SEQ_END - 1) * 64 + 63).is_some());
}
