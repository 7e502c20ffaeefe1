//! The API, and a command on its way through all stages.

use fanfold_pipeline::ports::Env;
use serde_json::{Value, json};

use crate::world::{World, by_queue, by_topic, http};

async fn get(world: &World, path: &str, query: &str) -> (u64, Value) {
    let answer = world.answer(&world.api, &http("GET", path, query, None)).await;
    let body = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    (answer["statusCode"].as_u64().unwrap(), body)
}

#[tokio::test]
async fn a_command_passes_all_stages_and_can_be_read() {
    let world = World::new();
    world.command(1, "acme", "open", json!({ "account": "cash" })).await;
    world.command(2, "acme", "deposit", json!({ "account": "cash", "amount": 100 })).await;
    assert_eq!(get(&world, "/logs/ledger/org:acme/2", "wait=0").await.0, 202, "not yet");

    let messages = world.until_published().await;
    assert_eq!(messages.len(), 1, "both in one");
    let none = json!({ "batchItemFailures": [] });
    assert_eq!(world.answer(&world.balances, &by_topic(&messages[0])).await, none);
    for is_raw in [true, false] {
        let event = by_queue(&messages, 1, is_raw);
        assert_eq!(world.answer(&world.statement, &event).await, none);
    }

    let (status, entry) = get(&world, "/logs/ledger/org:acme/2", "wait=0").await;
    assert_eq!((status, &entry["status"]), (200, &json!("accepted")));
    let (status, row) = get(&world, "/views/balances/ledger/org:acme/cash", "seq=2&wait=0").await;
    assert_eq!((status, &row["row"]["balance"]), (200, &json!(100)));
    // A key with a slash: decoded, as an HTTP API passes it on, and encoded, as it was sent.
    let (_, rows) = get(&world, "/views/statement/ledger/org:acme", "").await;
    let key = rows["rows"][0]["key"].as_str().unwrap();
    assert!(key.contains('/'), "{key}");
    for path in [key.to_owned(), key.replace('/', "%2F")] {
        let path = format!("/views/statement/ledger/org:acme/{path}");
        let (status, row) = get(&world, &path, "").await;
        assert_eq!((status, &row["key"]), (200, &json!(key)), "{path}");
    }
}

#[tokio::test]
async fn an_answer_has_the_format_of_api_gateway() {
    let world = World::new();
    let body = json!({ "type": "ledger", "command": "open", "id": 1, "user": "ann", "org": "acme",
        "data": { "account": "cash" } });
    let answer = world.answer(&world.api, &http("POST", "/command", "", Some(&body))).await;
    let expected = json!({
        "statusCode": 202,
        "headers": {
            "content-type": "application/json",
            "content-length": "33",
            "location": "logs/ledger/org:acme/1",
        },
        "multiValueHeaders": {},
        "cookies": [],
        "body": "{\"log\":\"ledger/org:acme\",\"seq\":1}",
        "isBase64Encoded": false,
    });
    assert_eq!(answer, expected);
    // A body as text, as with `content-type: application/json`.
    let mut many = http("POST", "/commands", "", None);
    many["body"] = json!(json!([body, { "type": "nope" }]).to_string());
    let answer = world.answer(&world.api, &many).await;
    let results: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(results["results"][0], json!({ "log": "ledger/org:acme", "seq": 2 }));
    assert!(results["results"][1]["problem"].is_object(), "{results}");
}

#[tokio::test]
async fn a_wrong_request_is_a_problem_and_a_wrong_event_an_error() {
    let world = World::new();
    for (method, path, query, expected) in [
        ("GET", "/", "", 404),
        ("GET", "/nothing is here/ü", "", 404),
        ("GET", "/logs/nope/org:acme", "", 404),
        ("GET", "/logs/ledger/org:acme/1", "wait=5001", 400),
        ("GET", "/views/balances/ledger/org:acme", "seq=1&wait=5001", 400),
        ("GET", "/metrics", "", 404),
        ("POST", "/metrics", "", 404),
        ("GET", "/command", "", 405),
        ("BREW", "/command", "", 405),
        ("GET", "/healthz", "", 200),
        ("GET", "/readyz", "", 200),
        ("GET", "", "", 404),
    ] {
        let event = http(method, path, query, None);
        let answer = world.answer(&world.api, &event).await;
        assert_eq!(answer["statusCode"], expected, "{method} {path}: {answer}");
    }
    let detail = async |path, query| get(&world, path, query).await.1["detail"].clone();
    let wait = detail("/logs/ledger/org:acme/1", "wait=5001").await;
    assert_eq!(wait, "`wait`: must be an integer from 0 to 5000");
    let metrics = detail("/metrics", "").await;
    assert!(metrics.as_str().unwrap().contains("CloudWatch"), "{metrics}");
    let mut event = http("GET", "/healthz", "", None);
    event["headers"] = json!({ "accept": "*/*", "x": "ä" });
    assert_eq!(world.answer(&world.api, &event).await["statusCode"], 200);

    // Events that API Gateway never sends.
    let (mut header, mut method) = (event.clone(), event.clone());
    header["headers"] = json!({ "not a name": "x" });
    method["requestContext"]["http"]["method"] = json!("BREW ME");
    for event in [json!({ "Records": [] }), header, method] {
        let error = world.call(&world.api, &event).await.unwrap_err().to_string();
        assert!(error.contains("expected a request of an HTTP API"), "{error}");
    }
    // A byte-order mark in a text body, and a compressed body.
    let mut marked = http("POST", "/commands", "", None);
    marked["body"] = json!("\u{feff}[{}]");
    assert_eq!(world.answer(&world.api, &marked).await["statusCode"], 202);
    marked["headers"] = json!({ "content-encoding": "gzip" });
    assert_eq!(world.answer(&world.api, &marked).await["statusCode"], 415);

    let mut event = http("POST", "/command", "", Some(&json!({})));
    event["body"] = json!("this is no base64");
    assert!(world.call(&world.api, &event).await.is_err());
}

/// API Gateway passes an answer on only when it is whole, so one of events ends behind the first.
#[tokio::test]
async fn an_answer_of_events_is_finite() {
    let world = World::new();
    world.command(1, "acme", "open", json!({ "account": "cash" })).await;
    world.until_published().await;
    let mut event = http("GET", "/logs/ledger/org:acme", "", None);
    event["headers"]["accept"] = json!("text/event-stream");
    let answer = world.answer(&world.api, &event).await;
    assert_eq!(answer["headers"]["content-type"], "text/event-stream");
    let body = answer["body"].as_str().unwrap();
    assert!(body.starts_with("retry: 1000\n\nid: 1\nevent: entry\ndata: {"), "{body}");
    event["headers"]["last-event-id"] = json!("1");
    let before = world.clock.now();
    let answer = world.answer(&world.api, &event).await;
    assert_eq!(answer["body"], "retry: 1000\n\n");
    assert_eq!(world.clock.now().since_ms(before), 5_000, "the longest wait");
    let (status, logs) = get(&world, "/logs", "prefix=ledger/").await;
    assert_eq!(
        (status, logs),
        (200, json!({ "logs": [{ "log": "ledger/org:acme" }], "next": null }))
    );
}
