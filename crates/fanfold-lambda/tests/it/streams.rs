//! The relay and the processor behind their event sources.

use fanfold_lambda::metrics::{RECORDS, UNFINISHED, UNREADABLE};
use serde_json::{Value, json};

use crate::world::{World, failures, schedule, sequence_number};

/// Sends four commands, for a, b, a and c.
async fn commands(world: &World) {
    for (id, org) in [(1, "a"), (2, "b"), (3, "a"), (4, "c")] {
        world.command(id, org, "open", json!({ "account": format!("account-{id}") })).await;
    }
}

#[tokio::test]
async fn the_first_record_that_failed_is_reported() {
    let world = World::new();
    commands(&world).await;
    world.trouble("b");
    let changes = world.changes();
    let reply = world.call(&world.relay, &changes).await.unwrap();
    let answer: Value = serde_json::from_str(&reply.answer).unwrap();
    assert_eq!(answer, failures(&[sequence_number(1)]), "b's change; those of a and c are put");
    assert_eq!(reply.metrics.get(RECORDS), Some(4.0));
    assert_eq!(reply.metrics.get(UNFINISHED), Some(3.0));
    let records = world.records();
    assert_eq!(records["Records"].as_array().unwrap().len(), 2, "one of a, one of c");

    // Lambda delivers again from there. The relay remembers the changes that it has put, and puts
    // only b's.
    world.faults.heal();
    let again = json!({ "Records": changes["Records"].as_array().unwrap()[1..] });
    assert_eq!(world.answer(&world.relay, &again).await, failures(&[]));
    let b = world.records()["Records"].as_array().unwrap().clone();
    assert_eq!(b.len(), 1);
    assert_eq!(b[0]["kinesis"]["partitionKey"], "ledger/org:b");
}

#[tokio::test]
async fn the_first_log_that_failed_is_reported() {
    let world = World::new();
    commands(&world).await;
    assert_eq!(world.answer(&world.relay, &world.changes()).await, failures(&[]));
    world.trouble("b");
    let records = world.records();
    let keys = records["Records"].as_array().unwrap().iter();
    let keys: Vec<&Value> = keys.map(|record| &record["kinesis"]["partitionKey"]).collect();
    let b = keys.iter().position(|key| **key == "ledger/org:b").unwrap();
    let reply = world.call(&world.processor, &records).await.unwrap();
    let answer: Value = serde_json::from_str(&reply.answer).unwrap();
    assert_eq!(answer, failures(&[sequence_number(b)]));
    assert_eq!(reply.metrics.get(UNFINISHED), Some((keys.len() - b) as f64));
    assert_eq!(world.messages().len(), 1, "a's and c's are published");

    world.faults.heal();
    assert_eq!(world.answer(&world.processor, &records).await, failures(&[]));
    let published = world.messages();
    assert!(published.len() == 1 && published[0].contains("ledger/org:b"), "{published:?}");
}

/// Nothing is lost: the answer makes Lambda deliver all records again.
#[tokio::test]
async fn without_time_all_records_are_reported_as_unfinished() {
    let world = World::new();
    commands(&world).await;
    let changes = world.changes();
    let late = world.call_late(&world.relay, &changes).await.unwrap();
    assert_eq!(late.answer, failures(&[sequence_number(0)]).to_string());
    assert_eq!(world.answer(&world.relay, &changes).await, failures(&[]));
    let records = world.records();
    let late = world.call_late(&world.processor, &records).await.unwrap();
    assert_eq!(late.answer, failures(&[sequence_number(0)]).to_string());
    assert_eq!(world.messages(), Vec::<String>::new());
    assert_eq!(world.answer(&world.processor, &records).await, failures(&[]));
    assert_eq!(world.messages().len(), 1);
}

/// A record that Fanfold has not written must not stop the shard.
#[tokio::test]
async fn an_unreadable_record_is_counted_and_stops_no_other() {
    let world = World::new();
    world.command(1, "a", "open", json!({ "account": "cash" })).await;
    for (handler, mut event, strange) in [
        (
            &world.relay as &dyn fanfold_lambda::Handler,
            world.changes(),
            json!({ "eventName": "INSERT", "dynamodb": { "NewImage": { "pk": { "S": "?" } } } }),
        ),
        (
            &world.processor,
            world.records(),
            json!({ "kinesis": { "partitionKey": "?", "sequenceNumber": "1", "data": "" } }),
        ),
    ] {
        event["Records"].as_array_mut().unwrap().insert(0, strange);
        let reply = world.call(handler, &event).await.unwrap();
        assert_eq!(reply.answer, failures(&[]).to_string());
        assert_eq!(reply.metrics.get(UNREADABLE), Some(1.0));
    }
}

#[tokio::test]
async fn an_event_of_another_kind_is_an_error() {
    let world = World::new();
    for event in [schedule(), json!([]), json!({ "Records": 1 }), json!(null)] {
        let error = world.call(&world.relay, &event).await.unwrap_err().to_string();
        assert!(error.starts_with("expected records of the commands table's stream"), "{error}");
        let error = world.call(&world.processor, &event).await.unwrap_err().to_string();
        assert!(error.starts_with("expected records of the command stream"), "{error}");
    }
}
