//! Subscriptions: filter, order, concurrency, retries, dead letters, dropped messages.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::TransitConfig;
use crate::ports::Ports;
use crate::stop::Stopper;
use crate::subscription::{Deliveries, Messages, Subscription, SubscriptionConfig};
use crate::tables::StoredDeadLetters;
use crate::tasks::{Tasks, TokioSpawner};
use crate::transit::{MemoryTopic, Notification};
use fanfold::entry::Outcome;
use fanfold::host::body::notification::{self, Commit};
use fanfold::{CommandId, Entry, Origin, Seq, Time};
use fanfold_pipeline::ports::{DeadLetter, DeadLetters, Env, PublishError, Topic};
use tokio::time::sleep;

use super::paused_env::PausedEnv;

const VIEW: &str = "balances";

fn letters() -> Arc<StoredDeadLetters> {
    let config = TransitConfig::default();
    Ports::in_memory(&config, [], PausedEnv::new()).expect("ports").dead_letters
}

/// Publishes a commit of each of these services for one organisation.
pub(crate) async fn publish(
    topic: &MemoryTopic,
    services: &[&str],
    org: &str,
) -> Vec<Result<(), PublishError>> {
    let commit = |service: &&str| {
        let entry = Entry {
            seq: Seq(1),
            time: Time(0),
            origin: Origin::nobody(),
            id: CommandId::NONE,
            command: None,
            digest: None,
            trace: None,
            outcome: Outcome::Stale,
        };
        let log = format!("{service}/org:{org}").parse().expect("a log");
        Commit { log, entries: [entry].into(), prev: Arc::default() }
    };
    let commits: Vec<Commit> = services.iter().map(commit).collect();
    topic.publish(&commits.iter().collect::<Vec<_>>(), Time(u64::MAX)).await
}

/// The organisation of a notification.
fn org(notification: &Notification) -> String {
    notification.commits[0].log.partition().strip_prefix("org:").expect("an org").to_owned()
}

/// A topic with one subscriber.
struct Bench {
    env: Arc<PausedEnv>,
    topic: Arc<MemoryTopic>,
    letters: Arc<StoredDeadLetters>,
    deliveries: Arc<Deliveries>,
    tasks: Tasks,
    stopper: Stopper,
}

impl Bench {
    fn new<F: Future<Output = bool> + Send + 'static>(
        concurrency: usize,
        bytes_max: usize,
        deliver: impl Fn(Arc<PausedEnv>, String, Time) -> F + Send + Sync + 'static,
    ) -> Self {
        let env = PausedEnv::new();
        let topic = Arc::new(MemoryTopic::new(bytes_max));
        let letters = letters();
        let (stopper, stop) = Stopper::new();
        let tasks = Tasks::new(Arc::new(TokioSpawner::current()));
        let config = SubscriptionConfig {
            concurrency,
            batch: 1,
            ..SubscriptionConfig::new(VIEW, &["ledger", "shop"])
        };
        let timer = env.clone();
        let subscription = Subscription::new(
            topic.clone(),
            letters.clone(),
            config,
            env.clone(),
            stop,
            move |messages: Messages, deadline| {
                let delivered = deliver(timer.clone(), org(&messages[0]), deadline);
                async move { if delivered.await { vec![] } else { vec![0] } }
            },
        );
        let deliveries = subscription.deliveries().clone();
        tasks.spawn(subscription.run());
        Self { env, topic, letters, deliveries, tasks, stopper }
    }

    async fn publish(&self, services: &[&str], body: &str) {
        let results = publish(&self.topic, services, body).await;
        assert_eq!(results, vec![Ok(()); services.len()]);
    }

    async fn dead(&self) -> Vec<String> {
        let letters = self.letters.list(VIEW, None, 1_000).await.unwrap();
        letters.iter().map(org_of_letter).collect()
    }
}

/// The deliveries, in the order in which they started.
type Started = Arc<Mutex<Vec<String>>>;

fn note(started: &Started, org: &str) {
    started.lock().unwrap().push(org.to_owned());
}

fn org_of_letter(letter: &DeadLetter) -> String {
    let body = std::str::from_utf8(&letter.body).expect("text");
    org(&Notification { commits: notification::decode(body).expect("a batch") })
}

#[tokio::test(start_paused = true)]
async fn messages_about_other_services_are_skipped() {
    let started = Started::default();
    let noted = started.clone();
    let bench = Bench::new(4, 1 << 20, move |_, body, _| {
        note(&noted, &body);
        async { true }
    });
    for (services, body) in [
        (&["ledger"][..], "1"),
        (&["billing"], "2"),
        (&["billing", "shop"], "3"),
        (&[], "4"),
        (&["ledger", "shop"], "5"),
    ] {
        bench.publish(services, body).await;
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(*started.lock().unwrap(), ["1", "3", "5"]);
    assert_eq!((bench.deliveries.delivered(), bench.deliveries.under_way()), (3, 0));
    assert!(bench.topic.log().is_empty(), "all were passed");
}

#[tokio::test(start_paused = true)]
async fn a_failing_message_is_tried_three_times_then_dead_lettered() {
    #[derive(Clone, Copy)]
    enum How {
        Refuses,
        Panics,
        Hangs,
    }
    for (failures, how, attempts, dead) in [
        (0, How::Refuses, 1, 0),
        (1, How::Refuses, 2, 0),
        (2, How::Refuses, 3, 0),
        (3, How::Refuses, 3, 1),
        (9, How::Refuses, 3, 1),
        (1, How::Panics, 2, 0),
        (3, How::Panics, 3, 1),
        (1, How::Hangs, 2, 0),
        (3, How::Hangs, 3, 1),
    ] {
        let started = Started::default();
        let noted = started.clone();
        let bench = Bench::new(4, 1 << 20, move |env, body, deadline| {
            note(&noted, &body);
            let fails = noted.lock().unwrap().iter().filter(|b| **b == "bad").count() <= failures;
            async move {
                assert_eq!(deadline, env.now().plus_ms(60_000), "a delivery has a minute");
                match how {
                    _ if !fails || body != "bad" => true,
                    How::Refuses => false,
                    How::Panics => panic!("planted"),
                    How::Hangs => std::future::pending().await,
                }
            }
        });
        bench.publish(&["ledger"], "bad").await;
        bench.publish(&["ledger"], "good").await;
        sleep(Duration::from_millis(10)).await;
        assert!(
            started.lock().unwrap().contains(&"good".to_owned()),
            "a failing message must not stop others"
        );
        sleep(Duration::from_secs(300)).await;
        let tried = started.lock().unwrap().iter().filter(|body| **body == "bad").count();
        assert_eq!(tried, attempts, "after {failures} failures");
        assert_eq!(bench.dead().await, vec!["bad"; dead], "after {failures} failures");
        let counts = &bench.deliveries;
        let expected = (2 - dead as u64, attempts as u64 - 1, dead as u64, 0);
        let found = (counts.delivered(), counts.retried(), counts.dead(), counts.under_way());
        assert_eq!(found, expected, "after {failures} failures");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_wait_for_their_pauses() {
    let times: Arc<Mutex<Vec<Time>>> = Arc::default();
    let noted = times.clone();
    let bench = Bench::new(1, 1 << 20, move |env, _, _| {
        noted.lock().unwrap().push(env.now());
        async { false }
    });
    bench.publish(&["ledger"], "bad").await;
    sleep(Duration::from_secs(60)).await;
    let start = times.lock().unwrap()[0];
    let since: Vec<u64> = times.lock().unwrap().iter().map(|at| at.since_ms(start)).collect();
    assert_eq!(since.iter().map(|ms| ms / 100).collect::<Vec<_>>(), [0, 10, 30], "{since:?}");
}

#[tokio::test(start_paused = true)]
async fn deliveries_start_in_order_and_run_concurrently_up_to_a_bound() {
    for (concurrency, ms) in [(1, 3_000), (3, 1_000), (100, 100)] {
        let started = Started::default();
        let (noted, running) = (started.clone(), Arc::new(AtomicUsize::new(0)));
        let most = Arc::new(AtomicUsize::new(0));
        let seen = most.clone();
        let bench = Bench::new(concurrency, 1 << 20, move |env, body, _| {
            let (noted, running, seen) = (noted.clone(), running.clone(), seen.clone());
            async move {
                note(&noted, &body);
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                seen.fetch_max(now, Ordering::SeqCst);
                env.sleep(100).await;
                running.fetch_sub(1, Ordering::SeqCst);
                true
            }
        });
        let bodies: Vec<String> = (0..30).map(|i| i.to_string()).collect();
        for body in &bodies {
            bench.publish(&["ledger"], body).await;
        }
        let start = bench.env.now();
        while bench.deliveries.delivered() < 30 {
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(*started.lock().unwrap(), bodies, "in the order of publishing");
        assert_eq!(most.load(Ordering::SeqCst), concurrency.min(30));
        let took = bench.env.now().since_ms(start);
        assert!((ms..ms + 100).contains(&took), "{took} ms with {concurrency} at the same time");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_loses_the_oldest_and_memory_stays_bounded() {
    const BYTES_MAX: usize = 20_000;
    let started = Started::default();
    let noted = started.clone();
    let bench = Bench::new(1, BYTES_MAX, move |env, body, _| {
        note(&noted, &body);
        async move {
            env.sleep(1_000).await;
            true
        }
    });
    for i in 0..1_000 {
        bench.publish(&["ledger"], &i.to_string()).await;
        assert!(bench.topic.backlog().bytes() <= BYTES_MAX);
        sleep(Duration::from_millis(1)).await;
    }
    while !bench.topic.log().is_empty() || bench.deliveries.under_way() > 0 {
        sleep(Duration::from_millis(100)).await;
    }
    let delivered = started.lock().unwrap().len() as u64;
    assert_eq!(delivered + bench.deliveries.lost(), 1_000, "lost messages are counted");
    assert!(bench.deliveries.lost() > 500, "{:?}", bench.deliveries);
    assert_eq!(started.lock().unwrap().last().map(String::as_str), Some("999"), "the newest stay");
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_deliveries_under_way_and_starts_no_retries() {
    let bench = Bench::new(4, 1 << 20, |env, body, _| async move {
        env.sleep(100).await;
        body != "bad"
    });
    for body in ["good", "bad", "good"] {
        bench.publish(&["ledger"], body).await;
    }
    sleep(Duration::from_millis(50)).await;
    assert_eq!(bench.deliveries.under_way(), 3);
    bench.stopper.stop();
    bench.tasks.ended().await;
    assert_eq!((bench.deliveries.delivered(), bench.deliveries.under_way()), (2, 0));
    assert_eq!(bench.dead().await, ["bad"], "a message is not retried after stop");
}

#[tokio::test(start_paused = true)]
async fn waiting_messages_are_delivered_together_and_retried_alone() {
    let env = PausedEnv::new();
    let topic = Arc::new(MemoryTopic::new(1 << 20));
    let letters = letters();
    let (_stopper, stop) = Stopper::new();
    let config = SubscriptionConfig { batch: 3, ..SubscriptionConfig::new(VIEW, &["ledger"]) };
    let calls: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = calls.clone();
    let subscription = Subscription::new(
        topic.clone(),
        letters.clone(),
        config,
        env,
        stop,
        move |messages: Messages, _| {
            let bodies: Vec<String> = messages.iter().map(|message| org(message)).collect();
            noted.lock().unwrap().push(bodies.concat());
            async move {
                assert_ne!(bodies.concat(), "e", "planted");
                (0..bodies.len()).filter(|at| ["b", "c"].contains(&bodies[*at].as_str())).collect()
            }
        },
    );
    for (services, body) in
        [("ledger", "a"), ("ledger", "b"), ("ledger", "c"), ("other", "d"), ("ledger", "e")]
    {
        assert_eq!(publish(&topic, &[services], body).await, [Ok(())]);
    }
    let deliveries = subscription.deliveries().clone();
    let tasks = Tasks::new(Arc::new(TokioSpawner::current()));
    tasks.spawn(subscription.run());
    sleep(Duration::from_secs(10)).await;
    let mut calls = calls.lock().unwrap().clone();
    assert_eq!(calls[..2], ["abc", "e"]);
    calls.sort();
    assert_eq!(calls, ["abc", "b", "b", "c", "c", "e", "e", "e"]);
    let letters = letters.list(VIEW, None, 10).await.unwrap();
    let mut dead: Vec<String> = letters.iter().map(org_of_letter).collect();
    dead.sort();
    assert_eq!(dead, ["b", "c", "e"]);
    let counts = (deliveries.delivered(), deliveries.retried(), deliveries.dead());
    assert_eq!((counts, deliveries.under_way()), ((1, 6, 3), 0));
}
