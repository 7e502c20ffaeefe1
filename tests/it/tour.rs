//! The tour of the ledger: every answer of the API once, in the exact form that clients rely on.

use serde_json::json;

use crate::answer::Answer;
use crate::world::World;

#[test]
fn every_answer_has_its_exact_form() {
    let world = World::new();
    let org = world.name("acme");
    // The answer as it would be for the org `acme`.
    let text = |answer: &Answer| answer.text.replace(&org, "acme");
    let send = |command, id, data| world.send("ledger", command, id, &org, data).expect(202);
    let entry = |seq: u64| world.reach(&format!("/logs/ledger/org:{org}/{seq}"));
    let timeless = |answer: &Answer| {
        text(answer).replace(&format!("\"at\":{}", answer.json["at"]), "\"at\":0")
    };

    // Open two accounts, deposit money: the receipt, the location of its entry, and the entry.
    let opened = send("open", 1, json!({"account": "cash"}));
    assert_eq!(text(&opened), r#"{"log":"ledger/org:acme","seq":1}"#);
    assert_eq!(opened.header("location"), format!("logs/ledger/org:{org}/1"));
    assert_eq!(opened.header("content-type"), "application/json");
    send("open", 2, json!({"account": "savings"}));
    send("deposit", 17, json!({"account": "cash", "amount": 100}));
    let deposited = entry(3);
    assert_eq!(
        timeless(&deposited),
        r#"{"log":"ledger/org:acme","seq":3,"status":"accepted","user":"ann","id":17,"at":0,"command":"deposit","digest":"2dbcd70c03015900","events":[{"type":"deposited","document":"cash","data":{"amount":100,"balance":100}}]}"#
    );

    // Withdraw too much: the entry says why it was refused.
    send("withdraw", 18, json!({"account": "cash", "amount": 101}));
    let rejected = entry(4);
    assert_eq!(
        timeless(&rejected),
        r#"{"log":"ledger/org:acme","seq":4,"status":"rejected","user":"ann","id":18,"at":0,"command":"withdraw","digest":"dce383f0bf5ba0d8","code":"overdrawn","message":"the account holds 100, less than 101"}"#
    );

    // Two accounts, one decision.
    let transfer = json!({"from": "cash", "to": "savings", "amount": 30});
    let seq = send("transfer", 19, transfer).seq();
    assert_eq!(seq, 5);

    // Read this write from each view.
    let balances = world.reach(&format!("/views/balances/ledger/org:{org}?seq={seq}"));
    assert_eq!(
        text(&balances),
        r#"{"view":"balances","version":1,"log":"ledger/org:acme","seq":5,"parked":null,"rows":[{"key":"cash","seq":5,"row":{"balance":70,"movements":2}},{"key":"savings","seq":5,"row":{"balance":30,"movements":1}}],"next":null}"#
    );
    let cash = world.reach(&format!("/views/balances/ledger/org:{org}/cash?seq={seq}"));
    assert_eq!(
        text(&cash),
        r#"{"view":"balances","version":1,"log":"ledger/org:acme","seq":5,"parked":null,"key":"cash","rowSeq":5,"row":{"balance":70,"movements":2}}"#
    );
    let total = world.reach(&format!("/views/totals/ledger/org:{org}/total?seq={seq}"));
    assert_eq!(
        total.json["row"],
        json!({"accounts": 2, "balance": 100, "movements": 3, "rejected": 1})
    );
    let newest_first =
        format!("/views/statement/ledger/org:{org}?prefix=cash/&order=desc&limit=1&seq={seq}");
    let statement = world.reach(&newest_first);
    let newest = &statement.json["rows"][0];
    assert_eq!(newest["key"], "cash/00000000000000000005");
    assert_eq!(newest["row"]["kind"], "sent");
    assert_eq!(newest["row"]["balance"], 70);
    assert_eq!(statement.json["next"], newest["key"]);
    let before = world.get(&format!("{newest_first}&after=cash/00000000000000000005")).expect(200);
    assert_eq!(before.json["rows"][0]["row"]["kind"], "deposited");
    assert_eq!(before.json["next"], json!(null));

    // A key's slash, encoded and not.
    for key in ["cash%2F00000000000000000003", "cash/00000000000000000003"] {
        let line = world.get(&format!("/views/statement/ledger/org:{org}/{key}")).expect(200);
        assert_eq!(line.json["row"]["amount"], 100, "{key}");
    }
    let encoded = world.get(&format!("/views/balances/ledger/org%3A{org}/cash")).expect(200);
    assert_eq!(encoded.json["seq"], 5);

    // The log, page by page.
    let page = world.get(&format!("/logs/ledger/org:{org}?limit=3")).expect(200);
    assert!(
        text(&page).starts_with(r#"{"log":"ledger/org:acme","accepted":5,"tail":5,"entries":[{"#)
    );
    assert!(page.text.ends_with(r#"],"next":4}"#), "{}", page.text);
    assert_eq!(page.json["entries"][2], deposited.json);
    let page = world.get(&format!("/logs/ledger/org:{org}?from=4")).expect(200);
    assert_eq!(page.json["entries"][0], rejected.json);
    assert_eq!(page.json["entries"].as_array().map(Vec::len), Some(2));
    assert_eq!(page.json["next"], json!(null));
    let beyond = world.get(&format!("/logs/ledger/org:{org}?from=1000")).expect(200);
    assert_eq!(beyond.json["entries"], json!([]));
}

#[test]
fn a_batch_is_answered_in_order_around_a_bad_line() {
    let world = World::new();
    let (acme, umbrella) = (world.name("acme"), world.name("umbrella"));
    let receipt = |org: &str, seq| json!({"log": format!("ledger/org:{org}"), "seq": seq});
    let good = |id: u64, org: &str| {
        let data = json!({"account": "cash"});
        world.request("ledger", "open", id, org, data).to_string()
    };
    let (first, second) = (good(1, &acme), good(2, &acme));
    let elsewhere = good(1, &umbrella);
    let lines = format!("{first}\n\n  \n{{\"type\":\"ledger\"\r\n{elsewhere}\r\n{second}");
    let array = format!("[{first},\n {{\"type\": \"ledger\"}}, {elsewhere}, {second}]");

    let answers = world.post("/commands", lines.as_bytes()).expect(202).json;
    let results = answers["results"].as_array().expect("an array");
    assert_eq!(results[0], receipt(&acme, 1));
    assert_eq!(results[1]["problem"]["type"], "urn:fanfold:problem:not-json");
    assert_eq!(results[2], receipt(&umbrella, 1));
    assert_eq!(results[3], receipt(&acme, 2));
    assert_eq!(results.len(), 4);

    let answers = world.post("/commands", array.as_bytes()).expect(202).json;
    let results = answers["results"].as_array().expect("an array");
    assert_eq!(results[0], receipt(&acme, 3));
    assert_eq!(results[1]["problem"]["detail"], "`command`: is required");
    assert_eq!(results[2], receipt(&umbrella, 2));
    assert_eq!(results[3], receipt(&acme, 4));
}

#[test]
fn the_host_reports_its_health() {
    let world = World::new();
    assert_eq!(world.get("/healthz").expect(200).json, json!({"status": "ok"}));
    assert_eq!(world.get("/readyz").expect(200).json, json!({"status": "ready"}));
}

#[test]
fn the_host_counts_requests_and_commands() {
    let world = World::local();
    world.send("ledger", "open", 1, "acme", json!({"account": "cash"})).expect(202);
    world.get("/logs/lodger/org:nobody").expect(404);
    let metrics = world.get("/metrics").expect(200);
    for line in [
        r#"fanfold_http_requests_total{method="POST",route="/command",status="202"} 1"#,
        r#"fanfold_http_requests_total{method="GET",route="/logs/{service}/{partition}",status="404"} 1"#,
        r#"fanfold_http_commands_total{answer="receipt"} 1"#,
    ] {
        assert!(metrics.text.lines().any(|l| l == line), "no {line} in\n{}", metrics.text);
    }
}
