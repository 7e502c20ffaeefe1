//! The sweep on its schedule.

use fanfold::host::body::parked::Reason;
use fanfold_lambda::Handler;
use fanfold_lambda::metrics::{
    ATTEMPTED, CANARY_AGE_MS_MAX, FAILED, LOGS, NUDGED, RESENT, SCHEDULES_DROPPED,
    STANDSTILL_MS_MAX, WAITING, waiting_for,
};
use fanfold_pipeline::ports::{CataloguePosition, Commands, Env};
use serde_json::json;

use crate::world::{World, by_topic, failures, schedule, schedule_at};

#[tokio::test]
async fn a_log_whose_change_was_lost_is_resent_and_processed() {
    let world = World::new();
    world.command(1, "acme", "open", json!({ "account": "cash" })).await;
    // The change is lost, but the slot still holds its batch.
    world.changes();
    let reply = world.call(&world.sweep, &schedule()).await.unwrap();
    assert_eq!(reply.metrics.get(NUDGED), Some(0.0), "the change may still be on its way");
    assert_eq!(reply.metrics.get(CANARY_AGE_MS_MAX), Some(0.0), "it counts from the first run");
    world.until_published().await;

    world.clock.sleep(11_000).await;
    let reply = world.call(&world.sweep, &schedule()).await.unwrap();
    assert_eq!(reply.metrics.get(LOGS), Some(2.0), "the ledger's and the canary's");
    assert_eq!([NUDGED, RESENT].map(|n| reply.metrics.get(n)), [Some(1.0); 2]);
    for reason in Reason::ALL {
        assert_eq!(reply.metrics.get(waiting_for(reason)), Some(0.0));
    }
    assert_eq!([WAITING, ATTEMPTED, FAILED].map(|n| reply.metrics.get(n)), [Some(0.0); 3]);
    assert!(reply.metrics.get(STANDSTILL_MS_MAX) >= Some(11_000.0));
    assert!(reply.metrics.get(CANARY_AGE_MS_MAX) >= Some(11_000.0));
    let records = world.records();
    assert_eq!(records["Records"][0]["kinesis"]["partitionKey"], "ledger/org:acme");
    assert_eq!(world.answer(&world.processor, &records).await, failures(&[]));
    let reply = world.call(&world.sweep, &schedule()).await.unwrap();
    let put = [NUDGED, RESENT].map(|name| reply.metrics.get(name));
    assert_eq!(put, [Some(0.0); 2], "the log has gone on");
}

#[tokio::test]
async fn a_run_continues_at_the_stored_position() {
    let world = World::new();
    world.command(1, "acme", "open", json!({ "account": "cash" })).await;
    let all = world.memory.commands.catalogue(None, 10).await.unwrap().logs;
    assert_eq!(all.len(), 1);
    let end = CataloguePosition { bucket: 63, log: Some("z/user:zzz".parse().unwrap()) };
    *world.sweep_position.0.lock().unwrap() = Some(end);
    for logs in [0.0, 2.0] {
        let reply = world.call(&world.sweep, &schedule()).await.unwrap();
        assert_eq!(reply.metrics.get(LOGS), Some(logs));
    }
}

/// After a throttle, Lambda delivers all scheduled events that it has kept at the same time.
#[tokio::test]
async fn an_outdated_scheduled_event_is_dropped() {
    // The clock of the tests begins at 02:41:00.
    for (time, age_ms, is_dropped) in [
        ("2026-11-23T02:40:30Z", 0, false),
        ("2026-11-23T02:40:00Z", 0, true),
        ("2026-11-22T20:41:00Z", 0, true),
        ("2026-11-23T02:41:00Z", 30_000, false),
        ("2026-11-23T02:41:00Z", 60_000, true),
        ("2026-11-23T02:50:00Z", 0, false),
        ("what is this", 0, false),
    ] {
        let world = World::new();
        world.clock.sleep(age_ms).await;
        for handler in [&world.sweep as &dyn Handler, &world.balances] {
            let reply = world.call(handler, &schedule_at(time)).await.unwrap();
            let dropped = reply.metrics.get(SCHEDULES_DROPPED);
            assert_eq!(dropped, is_dropped.then_some(1.0), "{time} and {age_ms} ms");
            assert_eq!(reply.answer == r#"{"dropped":true}"#, is_dropped);
        }
        let sent = !world.changes()["Records"].as_array().unwrap().is_empty();
        assert_eq!(sent, !is_dropped, "a sweep sends canaries");
    }
}

#[tokio::test]
async fn an_event_of_another_kind_is_an_error() {
    let world = World::new();
    for event in [json!({}), by_topic("[]"), json!("x")] {
        let error = world.call(&world.sweep, &event).await.unwrap_err().to_string();
        assert!(error.starts_with("expected "), "{error}");
    }
}
