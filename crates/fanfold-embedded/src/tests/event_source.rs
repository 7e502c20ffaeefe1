//! Event sources: batches, retries, bisection, order, checkpoints. Time is paused.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::event_source::{EventSource, EventSourceConfig};
use crate::hash_key::HashKey;
use crate::limit::Limit;
use crate::stop::{Stop, Stopper};
use crate::tasks::{Tasks, TokioSpawner};
use crate::transit::{Position, Shard};
use fanfold::Time;
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::ports::Env;
use proptest::prelude::*;
use tokio::time::sleep;

use super::paused_env::{PausedEnv, paused_runtime};

const FAILED_AT: fn(usize) -> BatchOutcome = |at| BatchOutcome { unfinished: Some(at) };

fn config() -> EventSourceConfig {
    EventSourceConfig::new("test")
}

fn stopper() -> (Stopper, Stop) {
    Stopper::new()
}

fn shard_of(items: Range<u64>) -> Arc<Shard<u64>> {
    let shard = Arc::new(Shard::new(Arc::default()));
    append(&shard, items);
    shard
}

fn append(shard: &Shard<u64>, items: Range<u64>) {
    for item in items {
        shard.append(HashKey(u128::from(item)), 10, item);
    }
}

/// Waits until the shard is empty.
async fn emptied(shard: &Shard<u64>) {
    for _ in 0..100_000 {
        if shard.is_empty() {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("the shard is never empty: it is at {}", shard.start());
}

/// All invocations so far: the first item and the number of items of each.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<(u64, usize)>>>);

impl Calls {
    fn note(&self, items: &[u64]) -> usize {
        let mut calls = self.0.lock().expect("no test panics in here");
        calls.push((items[0], items.len()));
        calls.len() - 1
    }

    fn all(&self) -> Vec<(u64, usize)> {
        self.0.lock().expect("no test panics in here").clone()
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Failure {
    /// The stage reports the item.
    Reports,
    /// The stage reports an item that is not in the batch.
    Nonsense,
    /// The stage panics.
    Panics,
    /// The stage does not return.
    Hangs,
}

/// Drives eight items in one batch. `item` fails `failures` times. Returns the invocations.
async fn with_failures(item: u64, failures: usize, how: Failure) -> Vec<(u64, usize)> {
    let shard = shard_of(0..8);
    let (_stopper, stop) = stopper();
    let calls = Calls::default();
    let left = Arc::new(Mutex::new(failures));
    let (noted, trimmed) = (calls.clone(), shard.clone());
    let source = EventSource::new(config(), PausedEnv::new(), stop, move |items: Vec<u64>, _| {
        noted.note(&items);
        let at = items.iter().position(|found| *found == item);
        let fails = at.filter(|_| {
            let mut left = left.lock().expect("no test panics in here");
            let fails = *left > 0;
            *left -= usize::from(fails);
            fails
        });
        assert!(trimmed.start() <= Position(items[0]), "unfinished items are not trimmed");
        async move {
            match (fails, how) {
                (None, _) => BatchOutcome::DONE,
                (Some(at), Failure::Reports) => FAILED_AT(at),
                (Some(_), Failure::Nonsense) => FAILED_AT(items.len()),
                (Some(_), Failure::Panics) => panic!("planted"),
                (Some(_), Failure::Hangs) => std::future::pending().await,
            }
        }
    });
    let tasks = Tasks::new(Arc::new(TokioSpawner::current()));
    source.drive(&shard, &tasks);
    emptied(&shard).await;
    calls.all()
}

#[tokio::test(start_paused = true)]
async fn unfinished_items_are_retried_and_bisected() {
    use Failure::{Hangs, Nonsense, Panics, Reports};
    for (item, failures, how, expected) in [
        (3, 0, Reports, vec![(0, 8)]),
        // The first retry begins at the failed item. Later ones take half of that, and after a
        // success the rest.
        (3, 1, Reports, vec![(0, 8), (3, 5)]),
        (3, 3, Reports, vec![(0, 8), (3, 5), (3, 3), (3, 2), (5, 3)]),
        (3, 4, Reports, vec![(0, 8), (3, 5), (3, 3), (3, 2), (3, 1), (4, 4)]),
        (3, 6, Reports, vec![(0, 8), (3, 5), (3, 3), (3, 2), (3, 1), (3, 1), (3, 1), (4, 4)]),
        (7, 2, Reports, vec![(0, 8), (7, 1), (7, 1)]),
        // No item is finished, so the whole batch is retried, in halves.
        (0, 1, Reports, vec![(0, 8), (0, 4), (4, 4)]),
        (5, 1, Panics, vec![(0, 8), (0, 4), (4, 4)]),
        (5, 3, Panics, vec![(0, 8), (0, 4), (4, 4), (4, 2), (4, 1), (5, 3)]),
        (5, 1, Nonsense, vec![(0, 8), (0, 4), (4, 4)]),
        (5, 1, Hangs, vec![(0, 8), (0, 4), (4, 4)]),
    ] {
        let calls = with_failures(item, failures, how).await;
        assert_eq!(calls, expected, "{item} fails {failures} times: {how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_continue_without_end_with_bounded_pauses() {
    let shard = shard_of(0..1);
    let (_stopper, stop) = stopper();
    let env = PausedEnv::new();
    let times: Arc<Mutex<Vec<Time>>> = Arc::default();
    let (noted, clock) = (times.clone(), env.clone());
    let config = EventSourceConfig { retry_first_ms: 100, retry_longest_ms: 1_000, ..config() };
    let source = EventSource::new(config, env, stop, move |_: Vec<u64>, deadline: Time| {
        let now = clock.now();
        assert_eq!(deadline, now.plus_ms(60_000), "an invocation has a minute");
        noted.lock().expect("no test panics in here").push(now);
        async { FAILED_AT(0) }
    });
    let tasks = Tasks::new(Arc::new(TokioSpawner::current()));
    source.drive(&shard, &tasks);
    sleep(Duration::from_secs(3_600)).await;

    let times = times.lock().unwrap().clone();
    assert!(times.len() > 3_600, "retries continue: {} attempts in an hour", times.len());
    let pauses = times.windows(2).map(|pair| pair[1].since_ms(pair[0]));
    for (attempt, pause) in pauses.enumerate() {
        let longest = (100 << attempt.min(10)).min(1_000);
        assert!(
            (longest / 2..=longest + 1).contains(&pause),
            "{pause} ms after attempt {attempt}, at most {longest}"
        );
    }
    assert_eq!(shard.end().0 - shard.start().0, 1, "the failed item is not trimmed");
}

#[tokio::test(start_paused = true)]
async fn batches_are_bounded() {
    for (items, bytes, expected) in [
        (10_000, 6_000_000, vec![(0, 7)]),
        (3, 6_000_000, vec![(0, 3), (3, 3), (6, 1)]),
        (10_000, 45, vec![(0, 4), (4, 3)]),
        (10_000, 1, vec![(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1)]),
        (0, 0, vec![(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1)]),
    ] {
        let shard = shard_of(0..7);
        let calls = Calls::default();
        let noted = calls.clone();
        let (_stopper, stop) = stopper();
        let config = EventSourceConfig { batch: Limit { items, bytes }, ..config() };
        let source = EventSource::new(config, PausedEnv::new(), stop, move |got: Vec<u64>, _| {
            noted.note(&got);
            async { BatchOutcome::DONE }
        });
        let tasks = Tasks::new(Arc::new(TokioSpawner::current()));
        source.drive(&shard, &tasks);
        emptied(&shard).await;
        assert_eq!(calls.all(), expected, "at most {items} items, {bytes} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_waits_for_a_batch_to_fill_up() {
    // Ten items arrive, the first at once and then one every 10 ms.
    for (window_ms, items, expected) in [
        (
            0,
            100,
            vec![(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (8, 1), (9, 1)],
        ),
        (25, 100, vec![(0, 3), (3, 3), (6, 3), (9, 1)]),
        (1_000, 100, vec![(0, 10)]),
        (1_000, 4, vec![(0, 4), (4, 4), (8, 2)]),
    ] {
        let shard = shard_of(0..0);
        let calls = Calls::default();
        let noted = calls.clone();
        let (_stopper, stop) = stopper();
        let batch = Limit { items, bytes: 1_000_000 };
        let config = EventSourceConfig { window_ms, batch, ..config() };
        let source = EventSource::new(config, PausedEnv::new(), stop, move |got: Vec<u64>, _| {
            noted.note(&got);
            async { BatchOutcome::DONE }
        });
        let tasks = Tasks::new(Arc::new(TokioSpawner::current()));
        source.drive(&shard, &tasks);
        for item in 0..10 {
            append(&shard, item..item + 1);
            sleep(Duration::from_millis(10)).await;
        }
        emptied(&shard).await;
        assert_eq!(calls.all(), expected, "a window of {window_ms} ms, at most {items} items");
    }
}

#[tokio::test(start_paused = true)]
async fn the_shard_is_trimmed_to_the_lowest_checkpoint() {
    // Two lanes: one of even keys, one of odd keys. The odd lane fails at 3 until the gate opens.
    let shard = shard_of(0..10);
    let (_stopper, stop) = stopper();
    let is_open = Arc::new(Mutex::new(false));
    let gate = is_open.clone();
    let config = EventSourceConfig { parallelization: 2, ..config() };
    let source = EventSource::new(config, PausedEnv::new(), stop, move |items: Vec<u64>, _| {
        let is_open = *gate.lock().expect("no test panics in here");
        let at = items.iter().position(|item| *item == 3).filter(|_| !is_open);
        async move { BatchOutcome { unfinished: at } }
    });
    let tasks = Tasks::new(Arc::new(TokioSpawner::current()));
    source.drive(&shard, &tasks);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(shard.start(), Position(3), "the even lane is further");
    append(&shard, 10..12);
    sleep(Duration::from_secs(60)).await;
    assert_eq!((shard.start(), shard.end()), (Position(3), Position(12)));
    *is_open.lock().unwrap() = true;
    emptied(&shard).await;
    assert_eq!(shard.start(), Position(12));
}

#[tokio::test(start_paused = true)]
async fn stop_finishes_the_invocation_under_way_and_starts_no_other() {
    let shard = shard_of(0..4);
    let (stopper, stop) = stopper();
    let calls = Calls::default();
    let noted = calls.clone();
    let env = PausedEnv::new();
    let timer = env.clone();
    let config = EventSourceConfig { batch: Limit { items: 1, bytes: 100 }, ..config() };
    let source = EventSource::new(config, env, stop, move |got: Vec<u64>, _| {
        let (noted, timer) = (noted.clone(), timer.clone());
        async move {
            timer.sleep(100).await;
            noted.note(&got);
            BatchOutcome::DONE
        }
    });
    let tasks = Tasks::new(Arc::new(TokioSpawner::current()));
    source.drive(&shard, &tasks);
    sleep(Duration::from_millis(150)).await;
    stopper.stop();
    tasks.ended().await;
    assert_eq!(calls.all(), [(0, 1), (1, 1)], "the second was under way");
    assert_eq!(shard.start(), Position(2), "the checkpoint is after the finished items");
}

#[tokio::test(start_paused = true)]
async fn stop_ends_a_waiting_lane_at_once() {
    let (stopper, stop) = stopper();
    let source =
        EventSource::new(config(), PausedEnv::new(), stop, |_: Vec<u64>, _| async { FAILED_AT(0) });
    let tasks = Tasks::new(Arc::new(TokioSpawner::current()));
    for items in [0, 5] {
        source.drive(&shard_of(0..items), &tasks);
    }
    sleep(Duration::from_secs(60)).await;
    drop(stopper);
    tasks.ended().await;
}

/// A stage that fails at random, with the history of each key.
#[derive(Clone, Default)]
pub(crate) struct Histories(Arc<Mutex<BTreeMap<u64, History>>>);

#[derive(Default)]
struct History {
    finished: Vec<u64>,
    is_under_way: bool,
}

impl Histories {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, History>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pauses for less than `pause_ms`, then finishes all or some of the items, or panics. Fails if
    /// a key is already under way.
    pub(crate) async fn invoke(
        self,
        got: Vec<(u64, u64)>,
        chance: Arc<PausedEnv>,
        pause_ms: u64,
        seed: u64,
    ) -> BatchOutcome {
        let keys: BTreeSet<u64> = got.iter().map(|(key, _)| *key).collect();
        let mark = |is_under_way| {
            for key in &keys {
                let mut histories = self.lock();
                let history = histories.entry(*key).or_default();
                let before = std::mem::replace(&mut history.is_under_way, is_under_way);
                assert!(before != is_under_way, "{key} is under way twice");
            }
        };
        mark(true);
        chance.sleep(chance.random() % pause_ms).await;
        let fate = (chance.random() ^ seed) % 10;
        let finished = match fate {
            0 => {
                mark(false);
                panic!("planted");
            }
            1..4 => chance.random() as usize % got.len(),
            _ => got.len(),
        };
        for (key, item) in &got[..finished] {
            self.lock().entry(*key).or_default().finished.push(*item);
        }
        mark(false);
        BatchOutcome { unfinished: (finished < got.len()).then_some(finished) }
    }

    /// The finished items of each key, in order.
    pub(crate) fn finished(&self) -> BTreeMap<u64, Vec<u64>> {
        self.lock().iter().map(|(key, history)| (*key, history.finished.clone())).collect()
    }
}

/// Checks under random failures that every item is finished, the items of a key in order and never
/// two at the same time.
async fn check_order(lanes: usize, batch: usize, keys: u64, items: u64, seed: u64) {
    let shard = Arc::new(Shard::new(Arc::default()));
    let (_stopper, stop) = stopper();
    let env = PausedEnv::new();
    let histories = Histories::default();
    let (stage, chance) = (histories.clone(), env.clone());
    let config = EventSourceConfig {
        parallelization: lanes,
        batch: Limit { items: batch, bytes: 1_000_000 },
        ..config()
    };
    let invoke = move |got, _| stage.clone().invoke(got, chance.clone(), 5, seed);
    let source = EventSource::new(config, env, stop, invoke);
    let tasks = Tasks::new(Arc::new(TokioSpawner::current()));
    source.drive(&shard, &tasks);
    let mut expected: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for item in 0..items {
        let key = item.wrapping_mul(seed | 1) % keys;
        shard.append(HashKey::of(&key.to_string()), 10, (key, item));
        expected.entry(key).or_default().push(item);
        if item % 7 == 0 {
            sleep(Duration::from_millis(3)).await;
        }
    }
    for _ in 0..100_000 {
        if shard.is_empty() {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(histories.finished(), expected, "seed {seed}, {lanes} lanes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_is_lost_and_keys_keep_their_order(
        lanes in 1usize..=10, batch in 1usize..40, keys in 1u64..30, items in 1u64..200, seed: u64
    ) {
        paused_runtime().block_on(check_order(lanes, batch, keys, items, seed));
    }
}
