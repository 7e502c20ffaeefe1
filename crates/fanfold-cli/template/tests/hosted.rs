//! The whole path of a command, in this process: the engine of `up`, in memory.

use fanfold::Seq;
use fanfold_embedded::{Awaited, Config, Engine, RowRange};
use serde_json::{Value, json};

#[tokio::test]
async fn a_booking_reaches_the_agenda() {
    let app = my_app::app().expect("the app is right");
    let engine = Engine::start(Config::of(&app)).expect("the engine starts");

    let add = json!({ "room": "blue", "seats": 8 });
    let book = json!({
        "booking": "kickoff", "room": "blue", "seats": 4,
        "from": "2099-06-01T09:00:00+01:00", "to": "2099-06-01T11:00:00+01:00",
    });
    for (id, command, data) in [(1, "add_room", add), (2, "book", book)] {
        let request = json!({
            "type": "booking", "command": command, "id": id, "user": "ann", "org": "acme",
            "data": data,
        });
        let receipts = engine
            .ingest()
            .ingest(&[request.to_string().as_bytes()])
            .await;
        for receipt in receipts {
            assert_eq!(receipt.expect("it is accepted").seq, Seq(id));
        }
    }

    let log = "booking/org:acme".parse().expect("it is a log");
    let range = RowRange {
        prefix: "blue/2099-06-01".to_owned(),
        after: None,
        descending: false,
        limit: 10,
    };
    let page = engine
        .reads()
        .rows("agenda", &log, &range, Some(Seq(2)), 5_000)
        .await;
    let Awaited::Ready(page) = page.expect("the view can be read") else {
        panic!("the view has not shown the booking in time");
    };
    let rows = page.rows.iter().map(|row| {
        let body: Value = serde_json::from_slice(&row.body).expect("a row is JSON");
        (row.key.as_str(), body)
    });
    let booked = json!({ "booking": "kickoff", "to": "2099-06-01T10:00:00.000Z", "seats": 4 });
    assert_eq!(
        rows.collect::<Vec<_>>(),
        [("blue/2099-06-01T08:00:00.000Z", booked)]
    );
    assert!(engine.shutdown().await, "every command is processed");
}
