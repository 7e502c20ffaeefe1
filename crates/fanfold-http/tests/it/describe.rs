//! The descriptions: what they say is what the API answers.

use fanfold::entry::{Event, Outcome, Raw};
use fanfold::{DocumentId, Seq};
use fanfold_http::describe::openapi;
use serde_json::{Value, json};

use crate::{Edge, name};

fn event(kind: &str, data: &str) -> Event {
    let document = DocumentId::new("cash").expect("it is a name");
    let data = Raw(serde_json::value::RawValue::from_string(data.to_owned()).expect("it is JSON"));
    Event { kind: name(kind), version: 1, document, data }
}

async fn document(edge: &Edge, path: &str) -> Value {
    let answer = edge.get(path).await.expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    serde_json::from_str(&answer.text).expect("it is JSON")
}

/// Checks that the answer is as the operation of the path says.
#[track_caller]
fn check(document: &Value, method: &str, path: &str, status: u16, body: &str) {
    let responses = &document["paths"][path][method]["responses"];
    let range = format!("{}XX", status / 100);
    let response = responses.get(status.to_string()).or_else(|| responses.get(range));
    let response =
        response.unwrap_or_else(|| panic!("{method} {path} does not answer {status}: {responses}"));
    let kind = if status < 400 { "application/json" } else { "application/problem+json" };
    let mut schema = json!({ "components": document["components"] });
    schema["allOf"] = json!([response["content"][kind]["schema"]]);
    assert!(schema["allOf"][0].is_object(), "{method} {path} {status}: {response}");
    let body: Value = serde_json::from_str(body).expect("it is JSON");
    let schema = jsonschema::validator_for(&schema).expect("it is a schema");
    if let Some(error) = schema.iter_errors(&body).next() {
        panic!("{method} {path} {status}: {error} at {} of {body:#}", error.instance_path());
    }
}

#[tokio::test]
async fn answers_are_as_openapi_describes_them() {
    let edge = Edge::new();
    let document = document(&edge, "/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let (log, entry) = ("/logs/ledger/{partition}", "/logs/ledger/{partition}/{seq}");
    let (rows, row) =
        ("/views/balances/ledger/{partition}", "/views/balances/ledger/{partition}/{row}");

    let sent = edge.open(1).await.expect(202);
    check(&document, "post", "/command", 202, &sent.text);
    let refused = edge.call("POST", "/command", "{}").await.expect(400);
    check(&document, "post", "/command", 400, &refused.text);
    let batch = r#"[{"type":"ledger","command":"close","id":2,"user":"ann","org":"acme","data":{"account":"cash"}},{}]"#;
    let results = edge.call("POST", "/commands", batch).await.expect(202);
    check(&document, "post", "/commands", 202, &results.text);
    let pending = edge.get("/logs/ledger/org:acme/1").await.expect(202);
    check(&document, "get", entry, 202, &pending.text);
    check(&document, "get", "/views", 200, &edge.get("/views").await.expect(200).text);

    let movement = r#"{"amount":5,"balance":5}"#;
    let rejected = |of| Outcome::Rejected { code: "no".to_owned(), message: "no".to_owned(), of };
    let outcomes = vec![
        Outcome::Accepted(vec![event("opened", "{}"), event("deposited", movement)]),
        rejected(None),
        rejected(Some(Seq(1))),
        Outcome::Duplicate { of: Seq(1) },
        Outcome::Stale,
        Outcome::Faulted { message: "it panicked".to_owned(), data: Raw::empty(), timestamp: None },
        Outcome::Lost { reason: "gone".to_owned() },
    ];
    for id in 3..8 {
        edge.open(id).await.expect(202);
    }
    edge.commit(1, outcomes).await;
    edge.put_row("cash", 7, r#"{"balance":5,"movements":1}"#).await;
    for (path, of, status) in [
        ("/logs/ledger/org:acme", log, 200),
        ("/logs", "/logs", 200),
        ("/logs?limit=0", "/logs", 400),
        ("/logs/ledger/org:acme?raw&limit=2", log, 200),
        ("/logs/ledger/org:none", log, 200),
        ("/logs/ledger/org:acme?limit=0", log, 400),
        ("/logs/ledger/org:acme/1", entry, 200),
        ("/logs/ledger/org:acme/1?raw", entry, 200),
        ("/logs/ledger/org:acme/7", entry, 200),
        ("/logs/ledger/org:acme/99", entry, 404),
        ("/views/balances/ledger/org:acme", rows, 200),
        ("/views/balances/ledger/org:acme?seq=99", rows, 404),
        ("/views/balances/ledger/org:acme/cash", row, 200),
        ("/views/balances/ledger/org:acme/none", row, 404),
    ] {
        let answer = edge.get(path).await.expect(status);
        check(&document, "get", of, status, &answer.text);
    }
}

#[tokio::test]
async fn requests_are_valid_if_openapi_says_so() {
    let edge = Edge::new();
    let document = document(&edge, "/openapi.json").await;
    let mut schema = document["paths"]["/command"]["post"]["requestBody"]["content"]["application/json"]["schema"].clone();
    schema["components"] = document["components"].clone();
    let schema = jsonschema::validator_for(&schema).expect("it is a schema");
    let good = json!({ "type": "ledger", "command": "deposit", "id": 1, "user": "ann", "org": "acme", "data": { "account": "cash", "amount": 5 } });
    let with = |field: &str, value: Value| {
        let mut changed = good.clone();
        changed[field] = value;
        changed
    };
    let without = |field: &str| {
        let mut changed = good.clone();
        changed.as_object_mut().expect("it is an object").remove(field);
        changed
    };
    for (id, (mut request, is_valid)) in (1u64..).zip([
        (good.clone(), true),
        (without("org"), true),
        (with("org", Value::Null), true),
        (with("client", json!("c")), true),
        (with("timestamp", json!(7)), true),
        (with("timestamp", Value::Null), true),
        (with("command", json!("withdraw")), true),
        (with("command", json!("steal")), false),
        (with("type", json!("other")), false),
        (with("user", json!("reactor:x")), false),
        (with("user", json!("a/b")), false),
        (with("user", json!("")), false),
        (with("data", json!({ "account": "cash" })), false),
        (with("data", json!({ "account": "cash", "amount": "5" })), false),
        (with("data", json!({ "account": "cash", "amount": 5, "more": 1 })), false),
        (with("data", json!([])), false),
        (with("x", json!(1)), false),
        (without("data"), false),
        (without("user"), false),
        (without("id"), false),
        (with("id", json!("1")), false),
    ]) {
        if request["id"] == 1 {
            request["id"] = json!(id);
        }
        assert_eq!(schema.is_valid(&request), is_valid, "{request}");
        let status = edge.call("POST", "/command", request.to_string()).await.status;
        assert_eq!(status == 202, is_valid, "{request} is answered {status}");
    }
}

#[test]
fn data_is_required_where_a_command_needs_some() {
    let all =
        json!({ "type": "object", "required": ["a"], "properties": { "a": { "type": "string" } } });
    let some = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
    let commands = json!({
        "all": { "data": { "$ref": "#/$defs/All" } },
        "some": { "data": { "$ref": "#/$defs/Some" } },
        "maybe": { "data": { "anyOf": [{ "$ref": "#/$defs/All" }, { "type": "null" }] } },
        "none": {},
        "text": { "data": { "type": "string" } },
        "unit": { "data": { "type": "null" } },
    });
    let described = serde_json::from_value(json!({
        "app": "a", "views": {}, "services": { "s": { "commands": commands, "events": {} } },
        "$defs": { "All": all, "Some": some, "Unused": true },
    }));
    let document = openapi(&described.expect("it is a description"), 0);
    let schemas = document["components"]["schemas"].as_object().expect("it has schemas");
    assert!(schemas.contains_key("Type.All") && !schemas.contains_key("Type.Unused"));
    for (command, expected) in [
        ("all", true),
        ("some", false),
        ("maybe", false),
        ("none", false),
        ("text", true),
        ("unit", false),
    ] {
        let required = schemas[&format!("Request.s.{command}")]["required"].as_array();
        let required = required.expect("a request has required members");
        assert_eq!(required.contains(&json!("data")), expected, "{command}");
    }
}

#[tokio::test]
async fn every_described_path_is_there() {
    let edge = Edge::new();
    let document = document(&edge, "/openapi.json").await;
    let paths = document["paths"].as_object().expect("it has paths");
    assert!(paths.len() >= 10, "{paths:?}");
    for path in
        paths.keys().filter(|path| !path.contains("/totals/") && !path.contains("/statement/"))
    {
        let path =
            path.replace("{partition}", "org:acme").replace("{seq}", "1").replace("{row}", "cash");
        let answer = edge.call("DELETE", &path, "").await;
        assert_eq!(answer.status, 405, "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn asyncapi_has_the_data_of_every_event() {
    let edge = Edge::new();
    let document = document(&edge, "/asyncapi.json").await;
    assert_eq!(document["asyncapi"], "3.0.0");
    let schemas = document["components"]["schemas"].as_object().expect("it has schemas");
    let mut message = json!({ "$ref": "#/components/schemas/notification" });
    message["components"] = document["components"].clone();
    let schema = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft7)
        .build(&json!({ "allOf": [{ "$ref": "#/components/schemas/notification" }], "components": document["components"] }))
        .expect("it is a schema");
    let common = json!({ "specversion": "1.0", "source": "fanfold/ledger", "time": "2026-11-23T09:01:00.000Z", "datacontenttype": "application/json", "log": "ledger/org:acme", "seq": "1" });
    let of = |more: Value| {
        let mut event = common.clone();
        event
            .as_object_mut()
            .expect("it is an object")
            .extend(more.as_object().expect("it is, too").clone());
        event
    };
    let commit = of(
        json!({ "type": "fanfold.commit.v1", "id": "ledger/org:acme@1-1", "data": { "first": 1, "last": 1, "prev": {}, "body": "inline" } }),
    );
    let deposited = |data: Value| {
        of(
            json!({ "type": "ledger.deposited.v1", "id": "ledger/org:acme@1.0", "subject": "cash", "origin": "ann", "commandid": "1", "data": data }),
        )
    };
    let is_valid = |batch: Value| schema.is_valid(&batch);
    assert!(is_valid(json!([commit, deposited(json!({ "amount": 5, "balance": 5 }))])));
    assert!(!is_valid(json!([commit, deposited(json!({ "amount": "5" }))])));
    assert!(!is_valid(json!([deposited(json!({ "amount": 5, "balance": 5 })), commit])));
    assert!(schemas.contains_key("ledger.opened.v1"), "{:?}", schemas.keys());
}
