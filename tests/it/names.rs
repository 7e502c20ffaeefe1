//! Names of people and identity providers, through every route.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::world::World;

const NAMES: [&str; 11] = [
    "auth0|64b7",
    "google-oauth2|1",
    "Zoë Müller",
    "山田 太郎",
    "a+b@x.io",
    "user{1}",
    "\"q\"",
    "<b>",
    "&",
    "🦀👩‍🚀",
    "a;b=~'c'",
];

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[test]
fn unusual_names_work_in_every_route() {
    let world = World::new();
    for name in NAMES {
        let org = world.name(name);
        let log = format!("ledger/org:{org}");
        let mut request = world.request("ledger", "open", 1, &org, json!({"account": name}));
        request["user"] = json!(name);
        let receipt = world.post("/command", request.to_string().as_bytes()).expect(202);
        assert_eq!(receipt.json, json!({"log": log, "seq": 1}));
        let data = json!({"account": name, "amount": 1});
        world.send("ledger", "deposit", 1, &org, data).expect(202);

        // The location in the answer, and the path of a client that encodes everything.
        let location = format!("/{}", receipt.header("location"));
        let path = format!("/logs/ledger/{}/1", encoded(&format!("org:{org}")));
        for path in [&location, &path] {
            let entry = world.reach(path).json;
            assert_eq!((&entry["log"], &entry["user"]), (&json!(log), &json!(name)), "{path}");
            assert_eq!(entry["events"][0]["document"], name);
        }

        let rows = format!("/views/balances/ledger/{}", encoded(&format!("org:{org}")));
        let row = world.reach(&format!("{rows}/{}?seq=2", encoded(name))).json;
        assert_eq!((&row["log"], &row["key"]), (&json!(log), &json!(name)));
        let keys = |query: String| {
            let page = world.get(&format!("{rows}?{query}")).expect(200).json;
            let rows = page["rows"].as_array().expect("an array");
            rows.iter().map(|row| row["key"].clone()).collect::<Vec<Value>>()
        };
        let first = name.chars().next().expect("a name is not empty").to_string();
        assert_eq!(keys(format!("prefix={}", encoded(&first))), [name]);
        assert_eq!(keys(format!("prefix={}", encoded(name))), [name]);
        assert_eq!(keys(format!("after={}", encoded(name))), [] as [&str; 0]);
        let lines = format!("prefix={}", encoded(&format!("{name}/")));
        let statement = rows.replace("/balances/", "/statement/");
        let line = &world.reach(&format!("{statement}?seq=2&{lines}")).json["rows"][0]["key"];
        assert!(line.as_str().is_some_and(|key| key.starts_with(&format!("{name}/"))), "{line}");
    }
}
