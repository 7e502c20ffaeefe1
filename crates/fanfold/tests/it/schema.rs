//! `crates/fanfold/schema/notification.v1.json`, by which independent view services read notifications. It accepts
//! every message that Fanfold sends, and refuses events that would mislead such a service.

use fanfold::host::body::notification::{SCHEMA, pack};
use jsonschema::Validator;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::arbitrary;
use crate::golden::notification;

fn schema() -> Validator {
    let schema: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    jsonschema::meta::validate(&schema).expect("the schema is a schema");
    jsonschema::validator_for(&schema).expect("the schema can be used")
}

fn golden() -> Value {
    serde_json::from_slice(&notification()).expect("it is JSON")
}

#[track_caller]
fn check(schema: &Validator, message: &Value) {
    if let Some(error) = schema.iter_errors(message).next() {
        panic!("{error} at {} of {message:#}", error.instance_path());
    }
}

#[test]
fn the_schema_accepts_the_golden_messages() {
    check(&schema(), &golden());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_schema_accepts_every_packed_message(commits in vec(arbitrary::commit(), 1..6)) {
        let schema = schema();
        for packed in pack(&commits).unwrap() {
            check(&schema, &serde_json::from_str(&packed.message.body).unwrap());
        }
    }
}

#[test]
fn the_schema_accepts_unknown_attributes() {
    let mut message = golden();
    message[1]["traceparent"] = json!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    message[1]["region"] = json!("eu");
    message[0]["data"]["more"] = json!(true);
    check(&schema(), &message);
}

#[test]
fn the_schema_refuses_misleading_events() {
    let schema = schema();
    // Of the golden message: 0 is a commit, 1 a domain event, 3 rejected, 4 faulted, 5 lost.
    for (pointer, value) in [
        ("", json!([])),
        ("", json!({})),
        ("/0", json!("a commit")),
        ("/0/specversion", json!("0.3")),
        ("/0/id", json!("ledger/org:acme@17")),
        ("/0/source", json!("ledger")),
        ("/0/log", json!("org:acme")),
        ("/0/seq", json!(23)),
        ("/0/seq", json!("0")),
        ("/0/time", json!(1_795_401_660_000u64)),
        ("/0/time", json!("2026-11-23 02:41:00")),
        ("/0/datacontenttype", json!("text/plain")),
        ("/0/data/first", json!(0)),
        ("/0/data/last", json!("23")),
        ("/0/data/last", json!(1u64 << 47)),
        ("/0/data/prev", Value::Null),
        ("/0/data/prev", json!({"deposited": 3})),
        ("/0/data/prev", json!({"ledger.deposited": 0})),
        ("/0/data/body", json!("elsewhere")),
        ("/0/data", Value::Null),
        // The first event is a commit.
        ("/0/type", json!("ledger.sent.v1")),
        ("/1/type", json!("ledger.sent")),
        ("/1/type", json!("fanfold.sent.v1")),
        ("/1/type", json!("fanfold.rejected.v1")),
        ("/1/subject", json!("a/b")),
        ("/1/subject", json!("a\u{7f}b")),
        ("/1/origin", Value::Null),
        ("/1/commandid", json!(170)),
        ("/1/id", json!("ledger/org:acme@17-23")),
        ("/3/data/code", Value::Null),
        ("/4/data", json!({"reason": "none"})),
        ("/5/data", json!({})),
    ] {
        let mut message = golden();
        *message.pointer_mut(pointer).expect(pointer) = value.clone();
        assert!(!schema.is_valid(&message), "{pointer} = {value}");
    }
    for (event, attribute) in [
        (0, "specversion"),
        (0, "id"),
        (0, "source"),
        (0, "type"),
        (0, "time"),
        (0, "log"),
        (0, "seq"),
        (0, "data"),
        (1, "subject"),
        (1, "data"),
        (1, "origin"),
        (1, "commandid"),
        (3, "data"),
        (4, "data"),
        (5, "data"),
    ] {
        let mut message = golden();
        let removed = message[event].as_object_mut().expect("an event").remove(attribute);
        assert!(removed.is_some() && !schema.is_valid(&message), "{event} without {attribute}");
    }
    for (event, attribute) in
        [(0, "subject"), (3, "subject"), (5, "origin"), (5, "commandid"), (1, "Region")]
    {
        let mut message = golden();
        message[event][attribute] = json!("1");
        assert!(!schema.is_valid(&message), "{event} with {attribute}");
    }
}
