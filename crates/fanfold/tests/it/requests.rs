//! Valid requests, and the errors of invalid ones.

use fanfold::host::limits::COMMAND_BYTES_MAX;
use fanfold::{Request, Services};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use crate::arbitrary;
use crate::counters::Counters;

fn services() -> Services {
    Services::new().with::<Counters<1>>()
}

fn good() -> Value {
    json!({
        "type": "counters", "command": "add", "id": 17, "timestamp": 11_178, "user": "ann",
        "org": "acme", "data": {"counter": "a", "by": 1},
    })
}

/// The error for these bytes.
fn message(json: &[u8]) -> String {
    match Request::parse(json, &services()) {
        Ok(request) => format!("accepted for {}", request.log),
        Err(error) => error.to_string(),
    }
}

/// A valid request with one field changed or removed.
#[track_caller]
fn check(field: &str, value: impl Into<Option<Value>>, expected: &str) {
    let mut request = good();
    let fields = request.as_object_mut().expect("an object");
    match value.into() {
        Some(value) => fields.insert(field.to_owned(), value),
        None => fields.remove(field),
    };
    assert_eq!(message(request.to_string().as_bytes()), expected, "{request}");
}

/// A valid request with the JSON of one field's value replaced by any text.
#[track_caller]
fn check_text(field: &str, value: &str, expected: &str) {
    let mut request = good();
    request[field] = json!("@@");
    let text = request.to_string().replace("\"@@\"", value);
    assert_eq!(message(text.as_bytes()), expected, "{field}");
}

#[test]
fn a_valid_request_is_read() {
    let request = Request::parse(good().to_string().as_bytes(), &services()).unwrap();
    let command = request.command;
    assert_eq!(request.log.as_str(), "counters/org:acme");
    assert_eq!(
        (command.origin.as_str(), command.id.get(), command.name.as_str()),
        ("ann", 17, "add")
    );
    assert_eq!(command.timestamp, Some(11_178));
    let mut request = good();
    request["client"] = json!("till 7");
    let request = Request::parse(request.to_string().as_bytes(), &services()).unwrap();
    assert_eq!(request.command.origin.as_str(), "ann/till 7");
    assert_eq!(serde_json::from_str::<Value>(command.data.get()).unwrap(), good()["data"]);
}

#[test]
fn optional_fields_may_be_absent() {
    check("org", None, "accepted for counters/user:ann");
    check("timestamp", None, "accepted for counters/org:acme");
    check("client", None, "accepted for counters/org:acme");
    // `null` counts as absent.
    check("org", json!(null), "accepted for counters/user:ann");
    for field in ["timestamp", "client"] {
        check(field, json!(null), "accepted for counters/org:acme");
    }
    let null = r#"{"user":"ann","id":1,"type":"counters","command":"nothing","data":null}"#;
    let request = Request::parse(null.as_bytes(), &services()).unwrap();
    assert_eq!(request.command.data.get(), "{}");
    let short = r#"{"user":"ann","id":1,"type":"counters","command":"nothing"}"#;
    let request = Request::parse(short.as_bytes(), &services()).unwrap();
    assert_eq!((request.command.timestamp, request.command.data.get()), (None, "{}"));
}

#[test]
fn data_is_kept_as_it_was_sent() {
    for (command, data) in [
        ("nothing", "{}"),
        ("nothing", "{ \n }"),
        ("add", r#"{ "counter" : "\u0061", "by":1, "x": 1.0e2 }"#),
    ] {
        // Escapes in strings of other fields are decoded.
        let (service, user) = (r"\u0063ounters", r"\u0061nn");
        let text = format!(
            r#" {{"type":"{service}","command":"{command}","id":1,"user":"{user}","data":{data}}} "#
        );
        let request = Request::parse(text.as_bytes(), &services()).unwrap();
        assert_eq!(request.command.data.get(), data);
        assert_eq!(request.log.as_str(), "counters/user:ann");
    }
}

#[test]
fn a_missing_required_field_is_an_error() {
    for field in ["type", "command", "id", "user"] {
        check(field, None, &format!("`{field}`: is required"));
    }
}

#[test]
fn names_must_be_valid() {
    for field in ["type", "command", "user", "client", "org"] {
        let said = |error: &str| format!("`{field}`: {error}");
        let (max, allowed) = match field {
            "type" => (32, "[a-z][a-z0-9-]*"),
            _ => (128, "printable characters without `/ ? # % \\`"),
        };
        check(field, json!(""), &said("must not be empty"));
        check(
            field,
            json!("a".repeat(max + 1)),
            &said(&format!("is {} bytes long, at most {max} are allowed", max + 1)),
        );
        for (text, character) in [
            ("a/b", "'/' (U+002F)"),
            ("a%b", "'%' (U+0025)"),
            ("a\nb", "U+000A"),
            ("a\0", "U+0000"),
        ] {
            check(
                field,
                json!(text),
                &said(&format!("contains {character}, allowed are {allowed}")),
            );
        }
        for value in [json!(7), json!(true), json!(["ann"]), json!({"a": 1})] {
            check(field, value, &said("must be a string"));
        }
    }
    for reserved in ["resend", "reactor:interest"] {
        check(
            "user",
            json!(reserved),
            "`user`: is reserved: a user must not be called `resend` or begin with `reactor:`",
        );
    }
    check("client", json!("resend"), "accepted for counters/org:acme");
    for field in ["type", "command", "user"] {
        check(field, json!(null), &format!("`{field}`: must be a string"));
    }
    // Only the names of users are reserved.
    check("org", json!("resend"), "accepted for counters/org:resend");
}

#[test]
fn ids_and_timestamps_must_be_integers() {
    let range = "`id`: must be an integer from 1 to 9007199254740991 (2^53 - 1)";
    for id in ["0", "-1", "-0", "1.5", "1.0", "1e3", "9007199254740992", "18446744073709551616"] {
        check_text("id", id, range);
    }
    for id in ["null", "\"17\"", "true", "[17]", "{}"] {
        check_text("id", id, "`id`: must be an integer");
    }
    check_text("id", "9007199254740991", "accepted for counters/org:acme");
    for timestamp in ["-1", "1.5", "\"11178\"", "[]", "18446744073709551616"] {
        check_text(
            "timestamp",
            timestamp,
            "`timestamp`: must be an integer from 0 on: milliseconds",
        );
    }
    check_text("timestamp", "0", "accepted for counters/org:acme");
}

#[test]
fn data_must_fit_its_command() {
    for data in [json!([]), json!("{}"), json!(7)] {
        check("data", data, "`data`: must be a JSON object");
    }
    for (data, said) in [
        (json!({}), "`data`: missing field `counter`"),
        (json!({"counter": "a"}), "`data`: missing field `by`"),
        (json!({"counter": "a", "by": "1"}), "`data.by`: invalid type: string \"1\", expected u64"),
        (json!({"counter": "a", "by": -1}), "`data.by`: invalid value: integer `-1`, expected u64"),
        (json!({"counter": "", "by": 1}), "`data.counter`: \"\" must not be empty"),
    ] {
        check("data", data, said);
    }
    check("data", None, "`data`: missing field `counter`");
    check("command", json!("Add"), "`command`: the service `counters` has no command `Add`");
    check("type", json!("ledger"), "`type`: there is no service `ledger` here");
    // The service's author decides on unknown fields of the data.
    check("data", json!({"counter": "a", "by": 1, "more": [{}]}), "accepted for counters/org:acme");
}

#[test]
fn unknown_and_repeated_fields_are_named() {
    let unknown = |field: &str| {
        format!(
            "`{field}`: unknown field, expected one of `type`, `command`, `id`, `timestamp`, \
             `user`, `client`, `org`, `data`"
        )
    };
    check("tenant", json!("acme"), &unknown("tenant"));
    check("Type", json!("counters"), &unknown("Type"));
    check("", json!(1), &unknown(""));
    check(&"x".repeat(1_000), json!(1), &unknown(&"x".repeat(64)));
    for field in ["type", "command", "id", "timestamp", "user", "org", "data"] {
        let twice = good().to_string().replacen('{', &format!("{{\"{field}\":1,"), 1);
        assert_eq!(message(twice.as_bytes()), format!("`{field}`: is given twice"));
    }
}

#[test]
fn bytes_that_are_not_a_request_have_their_own_errors() {
    let object =
        r#"the request must be a JSON object, as {"type":"<service>","command":"<command>",…}"#;
    let not_json = |why: &str| format!("the request is not JSON: {why}");
    let text = good().to_string();
    for (json, said) in [
        ("", not_json("EOF while parsing a value at line 1 column 0")),
        ("{", not_json("EOF while parsing an object at line 1 column 1")),
        ("deposit", not_json("expected value at line 1 column 1")),
        (
            &text[..text.len() - 1],
            not_json(&format!("EOF while parsing an object at line 1 column {}", text.len() - 1)),
        ),
        (
            &format!("{text}{text}"),
            not_json(&format!("trailing characters at line 1 column {}", text.len() + 1)),
        ),
        (r#"{"type":'counters'}"#, not_json("expected value at line 1 column 9")),
        (r#"{"id":017}"#, not_json("invalid number at line 1 column 8")),
        ("[]", object.to_owned()),
        ("null", object.to_owned()),
        ("\"{}\"", object.to_owned()),
        ("17", object.to_owned()),
        ("{}", "`type`: is required".to_owned()),
    ] {
        assert_eq!(message(json.as_bytes()), said, "{json}");
    }
    let latin1 = [b"{\"user\":\"", &[0xe4][..], b"\"}"].concat();
    assert_eq!(message(&latin1), "the request is not valid UTF-8 from byte 9 on");
}

#[test]
fn large_requests_are_refused() {
    let sized = |bytes: usize| {
        let mut request = good();
        request["data"]["note"] = json!(0);
        request["data"]["text"] = json!("");
        let text = "a".repeat(bytes - request.to_string().len());
        request["data"]["text"] = json!(text);
        message(request.to_string().as_bytes())
    };
    assert_eq!(sized(COMMAND_BYTES_MAX), "accepted for counters/org:acme");
    let said = "the command is 65537 bytes long, at most 65536 are allowed";
    assert_eq!(sized(COMMAND_BYTES_MAX + 1), said);
}

#[test]
fn deep_nesting_is_refused() {
    // The data itself counts as one level.
    let nested = |levels: usize| {
        format!(r#"{{"counter":"a","by":1,"x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
    };
    check_text("data", &nested(63), "accepted for counters/org:acme");
    check_text("data", &nested(64), "`data`: is nested more than 64 levels deep");
    // Brackets in strings do not count.
    let text = format!(r#"{{"counter":"a","by":1,"x":"\"{}"}}"#, "[{".repeat(100));
    check_text("data", &text, "accepted for counters/org:acme");

    let brackets = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (field, said) in [
        ("type", "`type`: must be a string"),
        ("command", "`command`: must be a string"),
        ("id", "`id`: must be an integer"),
        ("timestamp", "`timestamp`: must be an integer from 0 on: milliseconds"),
        ("user", "`user`: must be a string"),
        ("org", "`org`: must be a string"),
        ("data", "`data`: must be a JSON object"),
    ] {
        check_text(field, &brackets, said);
    }
    check_text("data", &nested(10_000), "`data`: is nested more than 64 levels deep");
    let objects = format!("{}1{}", r#"{"x":"#.repeat(10_000), "}".repeat(10_000));
    check_text("data", &objects, "`data`: is nested more than 64 levels deep");
    let unknown = good().to_string().replacen('{', &format!("{{\"x\":{brackets},"), 1);
    assert!(message(unknown.as_bytes()).starts_with("`x`: unknown field"));
    assert!(message(brackets.as_bytes()).starts_with("the request must be a JSON object"));
    for open in ["[".repeat(10_000), r#"{"x":"#.repeat(10_000)] {
        assert!(message(open.as_bytes()).starts_with("the request is not JSON: EOF"));
    }
}

/// Requests that are almost valid: some have odd values, or additional fields.
fn almost() -> impl Strategy<Value = Value> {
    let fields = ["type", "command", "id", "timestamp", "user", "client", "org", "data", "x"];
    let values = prop_oneof![
        arbitrary::json(),
        select(vec![
            json!("counters"),
            json!("add"),
            json!("move"),
            json!(1),
            json!({"counter": "a", "by": 1})
        ]),
    ];
    btree_map(select(fields.to_vec()), values, 0..9).prop_map(|odd| {
        let mut request = good();
        let fields = request.as_object_mut().expect("an object");
        fields.extend(odd.into_iter().map(|(field, value)| (field.to_owned(), value)));
        request
    })
}

proptest! {
    #[test]
    fn parsing_any_bytes_does_not_panic(bytes in vec(any::<u8>(), 0..100)) {
        message(&bytes);
    }

    #[test]
    fn parsing_any_json_does_not_panic(json in arbitrary::json()) {
        message(json.to_string().as_bytes());
    }

    #[test]
    fn a_parsed_request_equals_its_json(request in almost()) {
        let text = request.to_string();
        if let Ok(parsed) = Request::parse(text.as_bytes(), &services()) {
            let origin = &parsed.command.origin;
            prop_assert_eq!(origin.user_name(), request["user"].as_str().unwrap());
            prop_assert_eq!(origin.client_name(), request["client"].as_str());
            prop_assert_eq!(parsed.command.id.get(), request["id"].as_u64().unwrap());
            prop_assert!(!parsed.command.origin.is_reactor());
            // A slot stores the command unchanged.
            let bodies = fanfold::host::body::slot::encode(&[&parsed.command]).unwrap();
            let read = fanfold::host::body::slot::decode(&bodies[0].1).unwrap();
            prop_assert_eq!(read, vec![parsed.command]);
        }
    }

    #[test]
    fn parsing_a_cut_or_changed_request_does_not_panic(at in any::<Index>(), byte in any::<u8>()) {
        let mut text = good().to_string().into_bytes();
        let at = at.index(text.len());
        prop_assert!(message(&text[..at]).starts_with("the request is not JSON"));
        text[at] = byte;
        message(&text);
    }
}
