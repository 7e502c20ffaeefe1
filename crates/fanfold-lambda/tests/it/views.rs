//! A view with its three event sources: topic, queue and schedule.

use std::sync::{Arc, Mutex};

use aws_smithy_http_client::test_util::infallible_client_fn;
use bytes::Bytes;
use fanfold::Seq;
use fanfold::host::body::announced::{Announced, Announcement};
use fanfold_aws::{Aws, SqsQueue, of_emulator};
use fanfold_embedded::testing::StoredViewRegistry;
use fanfold_lambda::metrics::{
    VIEW_BEHIND, VIEW_DELIVERED, VIEW_FAILED, VIEW_LOGS, VIEW_PARKED, VIEW_WALKS,
};
use fanfold_lambda::{Announcer, InvocationError, Reply};
use fanfold_pipeline::ports::{Env, Unavailable, ViewRegistry, ViewTable};
use serde_json::{Value, json};

use crate::world::{World, by_queue, by_topic, failures, letter, log, schedule};

/// Sends a command to each of three logs; returns their messages.
async fn messages(world: &World) -> Vec<String> {
    let mut messages = Vec::new();
    for org in ["a", "b", "c"] {
        world.command(1, org, "open", json!({ "account": "cash" })).await;
        messages.extend(world.until_published().await);
    }
    assert_eq!(messages.len(), 3);
    messages
}

async fn cursor(world: &World, org: &str) -> Option<Seq> {
    let cursor = world.memory.views["balances"].cursor(&log(org)).await.unwrap();
    cursor.map(|cursor| cursor.seq)
}

#[tokio::test]
async fn the_answer_to_a_queue_names_all_failed_messages() {
    let world = World::new();
    let messages = messages(&world).await;
    ["a", "c"].iter().for_each(|org| world.trouble(org));
    let answer = world.answer(&world.balances, &by_queue(&messages, 1, true)).await;
    assert_eq!(answer, failures(&["0".to_owned(), "2".to_owned()]));
    assert_eq!(cursor(&world, "b").await, Some(Seq(1)));
    assert_eq!(world.attempts(), 0, "nothing is suspect");

    // A message that is received again may have ended its process, so it is suspect.
    world.faults.heal();
    let answer = world.answer(&world.balances, &by_queue(&messages, 2, true)).await;
    assert_eq!(answer, failures(&[]));
    assert_eq!(world.attempts(), 2, "a and c were applied behind a lease; b was done");
    for org in ["a", "b", "c"] {
        assert_eq!(cursor(&world, org).await, Some(Seq(1)), "{org}");
    }
}

/// A queue whose calls are answered with this status, and the bodies of the calls.
fn queue(status: u16) -> (SqsQueue, Arc<Mutex<Vec<Value>>>) {
    let asked = Arc::<Mutex<Vec<Value>>>::default();
    let asking = asked.clone();
    let client = infallible_client_fn(move |request| {
        let body = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        asking.lock().unwrap().push(body);
        axum::http::Response::builder().status(status).body("{}").unwrap()
    });
    let aws = Aws::new(&of_emulator("https://sqs").into_builder().http_client(client).build());
    (SqsQueue::new(&aws, "https://sqs/balances"), asked)
}

#[tokio::test]
async fn failed_messages_become_visible_before_the_visibility_timeout() {
    for status in [200, 500, 403] {
        let mut world = World::new();
        let messages = messages(&world).await;
        ["a", "c"].iter().for_each(|org| world.trouble(org));
        let (queue, asked) = queue(status);
        world.balances = world.balances.with_queue(Some(queue));
        let both = failures(&["0".to_owned(), "2".to_owned()]);
        for (receives, seconds) in [(1, 10), (4, 80)] {
            let event = by_queue(&messages, receives, true);
            let answer = world.answer(&world.balances, &event).await;
            assert_eq!(answer, both, "whatever the queue answers: {status}");
            let change = asked.lock().unwrap().pop().unwrap();
            let of = |at: usize| {
                let entry = &change["Entries"][at];
                (entry["ReceiptHandle"].clone(), entry["VisibilityTimeout"].clone())
            };
            assert_eq!(change["Entries"].as_array().unwrap().len(), 2);
            assert_eq!(
                [of(0), of(1)],
                [("h-0", seconds), ("h-2", seconds)].map(|(h, s)| (json!(h), json!(s)))
            );
        }
        world.faults.heal();
        asked.lock().unwrap().clear();
        assert_eq!(
            world.answer(&world.balances, &by_queue(&messages, 2, true)).await,
            failures(&[])
        );
        assert!(asked.lock().unwrap().is_empty(), "nothing failed");
    }
}

#[tokio::test]
async fn a_failed_message_of_a_topic_is_an_error_of_the_invocation() {
    let world = World::new();
    let messages = messages(&world).await;
    world.trouble("a");
    let failed = world.call(&world.balances, &by_topic(&messages[0])).await;
    assert!(matches!(failed, Err(InvocationError::NotApplied { failed: 1, messages: 1 })));
    assert!(world.call(&world.balances, &by_topic(&messages[1])).await.is_ok());
    // A message that cannot be read never will be, so it must not be delivered again.
    assert!(world.call(&world.balances, &by_topic("this is no notification")).await.is_ok());
}

#[tokio::test]
async fn without_time_all_messages_are_reported_as_failed() {
    let world = World::new();
    let messages = messages(&world).await;
    let late = world.call_late(&world.balances, &by_queue(&messages, 1, true)).await.unwrap();
    let all = failures(&["0", "1", "2"].map(str::to_owned));
    assert_eq!(late.answer, all.to_string());
    let late = world.call_late(&world.balances, &by_topic(&messages[0])).await;
    assert!(matches!(late, Err(InvocationError::NotApplied { .. })));
    assert_eq!(cursor(&world, "a").await, None);
}

#[tokio::test]
async fn the_sweep_applies_undelivered_commits_and_dead_letters() {
    let world = World::new();
    let messages = messages(&world).await;
    world.memory.dead_letters.push("balances", letter(&messages[0]));
    // b's message is lost, but its commit is in the journal, and old enough for the sweep by now. So is
    // the commit of a's dead letter. c's rows cannot be written.
    world.trouble("c");
    world.clock.sleep(11_000).await;
    let numbers = |reply: &Reply| {
        [VIEW_DELIVERED, VIEW_BEHIND, VIEW_FAILED, VIEW_PARKED].map(|n| reply.metrics.get(n))
    };
    let reply = world.call(&world.balances, &schedule()).await.unwrap();
    assert_eq!(numbers(&reply), [Some(1.0), Some(2.0), Some(1.0), Some(0.0)]);
    assert_eq!(cursor(&world, "a").await, Some(Seq(1)));
    assert_eq!(cursor(&world, "b").await, Some(Seq(1)));
    let answer = json!({ "logs": 3, "behind": 2, "failed": 1, "under_way": 0, "parked": 0, "delivered": 1, "undelivered": 0 });
    assert_eq!(reply.answer, answer.to_string());
    let walked = [VIEW_LOGS, VIEW_WALKS].map(|n| reply.metrics.get(n));
    assert_eq!(walked, [Some(3.0), Some(1.0)], "the walk has ended");
    assert_eq!(*world.view_sweep_position.0.lock().unwrap(), None, "the walk begins again");
}

#[tokio::test]
async fn an_event_of_another_kind_is_an_error() {
    let world = World::new();
    for event in [json!({}), json!(1), json!({ "Records": [{ "eventSource": "aws:s3" }] })] {
        let error = world.call(&world.balances, &event).await.unwrap_err().to_string();
        assert!(error.starts_with("expected messages of SNS or SQS, or a scheduled"), "{error}");
    }
}

fn announcer(world: &World, version: u32, events: &[&str]) -> Announcer {
    let announcement = Announcement {
        version,
        services: vec!["ledger".to_owned()],
        events: events.iter().map(|kind| (*kind).to_owned()).collect(),
        table: format!("stack-view-balances-v{version}"),
        since: world.clock.now(),
    };
    let registry = world.memory.view_registry.clone();
    Announcer::new("balances", announcement, registry, world.clock.clone())
}

async fn announced(world: &World) -> Option<u32> {
    let stored = world.memory.view_registry.get("balances").await.unwrap();
    Some(Announced::decode(&stored?).unwrap().last()?.version)
}

#[tokio::test]
async fn a_run_of_the_sweep_announces_the_view() {
    let mut world = World::new();
    let messages = messages(&world).await;
    let announcer = announcer(&world, 3, &["opened"]);
    world.balances = world.balances.with_announcer(announcer);
    world.answer(&world.balances, &by_topic(&messages[0])).await;
    assert_eq!(announced(&world).await, Some(3), "it was not announced at the start");
    // Another environment has announced an older version since: the run makes up for it.
    let older = self::announcer(&world, 2, &["opened"]);
    older.announce().await.expect("no conflict");
    world.answer(&world.balances, &by_topic(&messages[0])).await;
    assert_eq!(announced(&world).await, Some(2), "messages do not announce it again");
    world.answer(&world.balances, &schedule()).await;
    assert_eq!(announced(&world).await, Some(3));
}

#[tokio::test]
async fn a_view_that_contradicts_what_it_announced_applies_nothing() {
    let mut world = World::new();
    let messages = messages(&world).await;
    announcer(&world, 1, &["opened"]).announce().await.expect("it is the first");
    let changed = announcer(&world, 1, &["closed", "opened"]);
    changed.announce().await.expect_err("as when the environment starts");
    world.balances = world.balances.with_announcer(changed);
    // The schedule's next event makes up for this one, so it is no error of the invocation.
    let reply = world.call(&world.balances, &schedule()).await.expect("a report");
    assert!(reply.answer.contains("raise its `VERSION`"), "{}", reply.answer);
    assert_eq!(reply.metrics.get(VIEW_FAILED), Some(1.0));
    for event in [by_topic(&messages[0]), by_queue(&messages, 1, true)] {
        let error = world.call(&world.balances, &event).await.expect_err("a conflict");
        let InvocationError::Announcement(conflict) = error else { panic!("{error}") };
        assert!(conflict.to_string().contains("raise its `VERSION`"), "{conflict}");
    }
    assert_eq!(cursor(&world, "a").await, None, "nothing is applied");
    // A deployment with a higher version goes on.
    world.balances = {
        let next = announcer(&world, 2, &["closed", "opened"]);
        world.balances.with_announcer(next)
    };
    world.answer(&world.balances, &schedule()).await;
    world.answer(&world.balances, &by_topic(&messages[0])).await;
    assert_eq!(cursor(&world, "a").await, Some(Seq(1)));
}

/// A registry that fails from now on, or not.
struct Flaky {
    registry: Arc<StoredViewRegistry>,
    fails: Mutex<Option<Unavailable>>,
}

#[async_trait::async_trait]
impl ViewRegistry for Flaky {
    async fn get(&self, view: &str) -> Result<Option<Bytes>, Unavailable> {
        let fails = self.fails.lock().unwrap().clone();
        fails.map_or(Ok(()), Err)?;
        self.registry.get(view).await
    }

    async fn replace(
        &self,
        view: &str,
        before: Option<&Bytes>,
        body: &Bytes,
    ) -> Result<bool, Unavailable> {
        self.registry.replace(view, before, body).await
    }

    async fn list(&self, limit: usize) -> Result<Vec<(String, Bytes)>, Unavailable> {
        self.registry.list(limit).await
    }
}

#[tokio::test]
async fn a_registry_that_fails_neither_stops_a_view_nor_lifts_a_refusal() {
    let timed_out = Unavailable::TimedOut { hop: "registry of views" };
    let no_table = Unavailable::Refused { hop: "registry of views", message: String::new() };
    for error in [timed_out, no_table] {
        let mut world = World::new();
        let messages = messages(&world).await;
        let fails = Mutex::new(Some(error.clone()));
        let flaky = Arc::new(Flaky { registry: world.memory.view_registry.clone(), fails });
        let right = announcer(&world, 1, &["opened"]);
        right.announce().await.expect("it is the first");

        // At the start nothing is known: the view is applied.
        let of = |events: &[&str], now| Announcement {
            version: 1,
            services: vec!["ledger".to_owned()],
            events: events.iter().map(|kind| (*kind).to_owned()).collect(),
            table: "stack-view-balances-v1".to_owned(),
            since: now,
        };
        let wrong = of(&["closed"], world.clock.now());
        let wrong = Announcer::new("balances", wrong, flaky.clone(), world.clock.clone());
        wrong.announce().await.expect("no answer");
        world.balances = world.balances.with_announcer(wrong);
        world.answer(&world.balances, &by_topic(&messages[0])).await;
        assert_eq!(cursor(&world, "a").await, Some(Seq(1)));

        // Once there is an answer, it is not, and stays so when there is none again.
        *flaky.fails.lock().unwrap() = None;
        world.answer(&world.balances, &schedule()).await;
        for fails in [None, Some(error)] {
            *flaky.fails.lock().unwrap() = fails;
            let failed = world.call(&world.balances, &by_topic(&messages[1])).await;
            assert!(matches!(failed, Err(InvocationError::Announcement(_))), "{failed:?}");
        }
        assert_eq!(cursor(&world, "b").await, None);
    }
}
