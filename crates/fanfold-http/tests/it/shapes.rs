//! The exact bytes of the answers, on which clients rely.

use std::time::Duration;

use fanfold::entry::{Event, Outcome, Raw};
use fanfold::{DocumentId, Seq, Time};
use fanfold_pipeline::ports::{ParkedView, ViewTable};
use serde_json::value::RawValue;

use crate::{Edge, acme, name};

fn raw(json: &str) -> Raw {
    Raw(RawValue::from_string(json.to_owned()).expect("it is JSON"))
}

fn opened(version: u32) -> Event {
    let document = DocumentId::new("cash").expect("it is a name");
    Event { kind: name("opened"), version, document, data: raw("null") }
}

#[tokio::test]
async fn numbers_are_shown_as_they_were_written() {
    let edge = Edge::new();
    edge.open(1).await.expect(202);
    let data =
        r#"[340282366920938463463374607431768211455,1e400,-0.0,0.100000000000000000000000000001]"#;
    let event = Event { data: raw(data), ..opened(1) };
    edge.commit(1, vec![Outcome::Accepted(vec![event])]).await;
    edge.put_row("cash", 1, data).await;
    let row = r#""row":"#;
    for (path, name) in [
        ("/logs/ledger/org:acme/1", r#""data":"#),
        ("/logs/ledger/org:acme?from=1", r#""data":"#),
        ("/views/balances/ledger/org:acme", row),
        ("/views/balances/ledger/org:acme/cash", row),
    ] {
        let text = edge.get(path).await.expect(200).text;
        assert!(text.contains(&format!("{name}{data}")), "{path}: {text}");
    }
}

#[tokio::test]
async fn entries_of_every_status_have_their_shape() {
    let edge = Edge::new();
    for id in 1..=8 {
        let receipt = edge.open(id).await.expect(202);
        assert_eq!(receipt.text, format!(r#"{{"log":"ledger/org:acme","seq":{id}}}"#));
        assert_eq!(receipt.header("location"), format!("logs/ledger/org:acme/{id}"));
    }
    let text = |text: &str| text.to_owned();
    let outcomes = vec![
        Outcome::Accepted(vec![opened(1), opened(2)]),
        Outcome::Accepted(vec![]),
        Outcome::rejected("already_open", "\"cash\" is open"),
        Outcome::Duplicate { of: Seq(1) },
        Outcome::Stale,
        Outcome::Faulted {
            message: text("it panicked"),
            data: raw("{\"secret\":1}"),
            timestamp: None,
        },
        Outcome::Lost { reason: text("by hand") },
    ];
    edge.commit(1, outcomes).await;
    let expected = [
        r#"{"log":"ledger/org:acme","seq":1,"status":"accepted","user":"ann","id":1,"at":1001,"command":"open","digest":"278d7f3b99f742e2","events":[{"type":"opened","document":"cash","data":null},{"type":"opened","document":"cash","data":null,"version":2}]}"#,
        r#"{"log":"ledger/org:acme","seq":2,"status":"accepted","user":"ann","id":2,"at":1002,"command":"open","digest":"278d7f3b99f742e2","events":[]}"#,
        r#"{"log":"ledger/org:acme","seq":3,"status":"rejected","user":"ann","id":3,"at":1003,"command":"open","digest":"278d7f3b99f742e2","code":"already_open","message":"\"cash\" is open"}"#,
        r#"{"log":"ledger/org:acme","seq":4,"status":"duplicate","user":"ann","id":4,"at":1004,"command":"open","of":1}"#,
        r#"{"log":"ledger/org:acme","seq":5,"status":"stale","user":"ann","id":5,"at":1005,"command":"open"}"#,
        r#"{"log":"ledger/org:acme","seq":6,"status":"faulted","user":"ann","id":6,"at":1006,"command":"open","digest":"278d7f3b99f742e2","message":"it panicked"}"#,
        r#"{"log":"ledger/org:acme","seq":7,"status":"lost","at":1007,"reason":"by hand"}"#,
    ];
    for (seq, expected) in (1..).zip(expected) {
        assert_eq!(
            edge.get(&format!("/logs/ledger/org:acme/{seq}")).await.expect(200).text,
            expected
        );
    }

    let pending = edge.get("/logs/ledger/org:acme/8").await.expect(202);
    assert_eq!(pending.text, r#"{"status":"pending","seq":7}"#);
    let page = edge.get("/logs/ledger/org:acme?from=4&limit=2").await.expect(200);
    assert_eq!(
        page.text,
        format!(
            r#"{{"log":"ledger/org:acme","accepted":8,"tail":7,"entries":[{},{}],"next":6}}"#,
            expected[3], expected[4]
        )
    );
    let page = edge.get("/logs/ledger/org:acme?from=8").await.expect(200);
    assert_eq!(
        page.text,
        r#"{"log":"ledger/org:acme","accepted":8,"tail":7,"entries":[],"next":null}"#
    );
}

#[tokio::test]
async fn a_wait_ends_as_soon_as_the_entry_or_row_exists() {
    let edge = Edge::new();
    edge.open(1).await.expect(202);
    let waiting = edge.get("/logs/ledger/org:acme/1?wait=25000");
    let (entry, ()) = tokio::join!(waiting, async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        edge.commit(1, vec![Outcome::Stale]).await;
    });
    entry.expect(200);

    let over = edge.get("/views/balances/ledger/org:acme?seq=1&wait=20").await.expect(202);
    assert_eq!(over.text, r#"{"status":"pending","seq":0}"#);
    let waiting = edge.get("/views/balances/ledger/org:acme/cash?seq=1&wait=25000");
    let (row, ()) = tokio::join!(waiting, async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        edge.put_row("cash", 1, r#"{"balance":0}"#).await;
    });
    row.expect(200);
}

#[tokio::test]
async fn rows_have_their_shape() {
    let edge = Edge::new();
    edge.open(1).await.expect(202);
    edge.open(2).await.expect(202);
    edge.put_row("a/1", 1, r#"{"balance": 1}"#).await;
    edge.put_row("b", 2, "null").await;
    let path = "/views/balances/ledger/org:acme";
    for (query, expected) in [
        (
            "",
            r#"{"view":"balances","version":1,"log":"ledger/org:acme","seq":2,"parked":null,"rows":[{"key":"a/1","seq":1,"row":{"balance": 1}},{"key":"b","seq":2,"row":null}],"next":null}"#,
        ),
        (
            "?limit=1&order=desc&seq=2",
            r#"{"view":"balances","version":1,"log":"ledger/org:acme","seq":2,"parked":null,"rows":[{"key":"b","seq":2,"row":null}],"next":"b"}"#,
        ),
        (
            "?after=a/1&prefix=a",
            r#"{"view":"balances","version":1,"log":"ledger/org:acme","seq":2,"parked":null,"rows":[],"next":null}"#,
        ),
        (
            "/a%2F1?seq=1",
            r#"{"view":"balances","version":1,"log":"ledger/org:acme","seq":2,"parked":null,"key":"a/1","rowSeq":1,"row":{"balance": 1}}"#,
        ),
        (
            "/a/1",
            r#"{"view":"balances","version":1,"log":"ledger/org:acme","seq":2,"parked":null,"key":"a/1","rowSeq":1,"row":{"balance": 1}}"#,
        ),
    ] {
        assert_eq!(edge.get(&format!("{path}{query}")).await.expect(200).text, expected, "{query}");
    }
}

#[tokio::test]
async fn a_parked_view_shows_why() {
    let edge = Edge::new();
    edge.open(1).await.expect(202);
    let parked = ParkedView {
        seq: Seq(1),
        reason: "no".to_owned(),
        at: Time(7),
        build: None,
        rebuild: None,
    };
    let table = &edge.memory.views["balances"];
    table.park(&acme(), Seq::ZERO, &parked).await.expect("it is in memory");
    let path = "/views/balances/ledger/org:acme";
    let page = edge.get(path).await.expect(200);
    assert_eq!(
        page.text,
        r#"{"view":"balances","version":1,"log":"ledger/org:acme","seq":0,"parked":{"seq":1,"reason":"no","at":7},"rows":[],"next":null}"#
    );
    let pending = edge.get(&format!("{path}?seq=1&wait=25000")).await.expect(202);
    assert_eq!(
        pending.text,
        r#"{"status":"pending","seq":0,"parked":{"seq":1,"reason":"no","at":7}}"#
    );
}

#[tokio::test]
async fn the_views_are_listed() {
    let edge = Edge::new();
    let events = r#"["closed","deposited","opened","received","sent","withdrawn"]"#;
    let expected = format!(
        r#"{{"views":[{{"view":"balances","version":1,"services":["ledger"],"events":{events},"awaitable":true,"since":null,"table":null}}]}}"#
    );
    assert_eq!(edge.get("/views").await.expect(200).text, expected);
    let refused = edge.get("/views?limit=1").await.expect(400).text;
    assert!(refused.contains("`limit`: unknown parameter, none is known here"), "{refused}");
}
