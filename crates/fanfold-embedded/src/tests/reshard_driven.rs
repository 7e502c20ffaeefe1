//! An event source over a stream whose shards are split and merged. Time is paused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::event_source::{EventSource, EventSourceConfig};
use crate::hash_key::HashKey;
use crate::limit::Limit;
use crate::shards::{ShardId, Shards};
use crate::stop::Stopper;
use crate::tasks::{Tasks, TokioSpawner};
use crate::transit::Shard;
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::ports::Env;
use proptest::prelude::*;
use tokio::time::{sleep, timeout};

use super::event_source::Histories;
use super::paused_env::{PausedEnv, paused_runtime};

const LOWEST: HashKey = HashKey(0);
const HIGHEST: HashKey = HashKey(u128::MAX);

fn config() -> EventSourceConfig {
    EventSourceConfig::new("test")
}

/// The finished items in order, and the item that fails.
#[derive(Default)]
struct Stage {
    finished: Mutex<Vec<u64>>,
    failing: Mutex<Option<u64>>,
}

impl Stage {
    fn finished(&self) -> Vec<u64> {
        self.finished.lock().expect("no test panics in here").clone()
    }

    fn fail_at(&self, item: Option<u64>) {
        *self.failing.lock().expect("no test panics in here") = item;
    }

    fn invoke(&self, items: &[u64]) -> BatchOutcome {
        let failing = *self.failing.lock().expect("no test panics in here");
        let unfinished = items.iter().position(|item| Some(*item) == failing);
        let finished = &items[..unfinished.unwrap_or(items.len())];
        self.finished.lock().expect("no test panics in here").extend(finished);
        BatchOutcome { unfinished }
    }
}

/// A stage that is driven from a stream.
struct Driven {
    stage: Arc<Stage>,
    shards: Arc<Shards<u64>>,
    stopper: Stopper,
    tasks: Tasks,
}

impl Driven {
    fn new(shards: usize, config: EventSourceConfig) -> Self {
        let (stage, shards) = (Arc::<Stage>::default(), Arc::new(Shards::equal(shards)));
        let (stopper, stop) = Stopper::new();
        let invoked = stage.clone();
        let source = EventSource::new(config, PausedEnv::new(), stop, move |items: Vec<u64>, _| {
            let outcome = invoked.invoke(&items);
            async move { outcome }
        });
        let tasks = Tasks::new(Arc::new(TokioSpawner::current()));
        source.drive_all(&shards, &tasks);
        Self { stage, shards, stopper, tasks }
    }
}

async fn for_ms(ms: u64) {
    sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(start_paused = true)]
async fn children_are_driven_when_their_parents_are_finished() {
    let driven = Driven::new(2, config());
    let Driven { stage, shards, .. } = &driven;
    stage.fail_at(Some(1));
    for (key, item) in [(LOWEST, 1), (HIGHEST, 2)] {
        shards.append(key, 10, item);
    }
    shards.merge(ShardId(0), ShardId(1)).expect("they are neighbours");
    shards.append(LOWEST, 10, 3);
    shards.split(ShardId(2), None).expect("it can be split");
    shards.append(HIGHEST, 10, 4);
    for_ms(60_000).await;
    assert_eq!(stage.finished(), [2], "one parent fails, so its children must wait");
    assert_eq!(shards.backlog().items(), 3);
    stage.fail_at(None);
    for_ms(60_000).await;
    assert_eq!(stage.finished(), [2, 1, 3, 4]);
    assert_eq!(shards.backlog().items(), 0);
    let left: Vec<ShardId> = shards.list().into_iter().map(|info| info.id).collect();
    assert_eq!(left, [ShardId(3), ShardId(4)]);
}

#[tokio::test(start_paused = true)]
async fn new_shards_are_driven_and_drained_ones_released() {
    for lanes in [1, 3] {
        let config = EventSourceConfig { parallelization: lanes, ..config() };
        let Driven { stage, shards, stopper, tasks } = Driven::new(1, config);
        for_ms(1_000).await;
        let mut last = ShardId(0);
        let mut gone: Vec<Weak<Shard<u64>>> = Vec::new();
        for item in 0..100 {
            gone.extend(shards.iter().map(|(_, shard)| Arc::downgrade(&shard)));
            let children = shards.split(last, None).expect("it can be split");
            shards.append(LOWEST, 10, item);
            last = shards.merge(children[0].id, children[1].id).expect("neighbours")[0].id;
            for_ms(10).await;
        }
        for_ms(1_000).await;
        assert_eq!(stage.finished(), (0..100).collect::<Vec<_>>(), "{lanes} lanes");
        assert_eq!(shards.list().len(), 1);
        assert!(gone.iter().all(|shard| shard.upgrade().is_none()), "their lanes have ended");
        stopper.stop();
        tasks.ended().await;
    }
}

#[tokio::test(start_paused = true)]
async fn stop_ends_the_watcher_of_shards_at_once() {
    // Idle, during retries, and with children that wait for their parent.
    for (items, reshards) in [(0, false), (5, false), (5, true)] {
        let Driven { stage, shards, stopper, tasks } = Driven::new(1, config());
        stage.fail_at(Some(0));
        for item in 0..items {
            shards.append(LOWEST, 10, item);
        }
        if reshards {
            shards.split(ShardId(0), None).expect("it can be split");
        }
        for_ms(60_000).await;
        drop(stopper);
        let ended = tasks.ended();
        assert!(timeout(Duration::from_millis(1), ended).await.is_ok());
        assert_eq!(shards.backlog().items(), items as usize, "unfinished items are not trimmed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_shard_does_not_wait_for_its_last_batch_to_fill_up() {
    let Driven { stage, shards, .. } =
        &Driven::new(1, EventSourceConfig { window_ms: 3_600_000, ..config() });
    shards.append(LOWEST, 10, 1);
    for_ms(1_000).await;
    assert_eq!(stage.finished(), [0u64; 0]);
    shards.split(ShardId(0), None).expect("it can be split");
    for_ms(1).await;
    assert_eq!(stage.finished(), [1]);
    assert_eq!(shards.list().len(), 2, "it was drained");
}

/// Checks under random failures, splits and merges that every item is finished, the items of a key
/// in order and never two at the same time.
async fn check_order(lanes: usize, batch: usize, keys: u64, items: u64, seed: u64) {
    let (env, histories) = (PausedEnv::new(), Histories::default());
    let (_stopper, stop) = Stopper::new();
    let config = EventSourceConfig {
        parallelization: lanes,
        batch: Limit { items: batch, bytes: 1_000_000 },
        ..config()
    };
    let (stage, chance) = (histories.clone(), env.clone());
    let invoke = move |got, _| stage.clone().invoke(got, chance.clone(), 20, seed);
    let shards = Arc::new(Shards::equal(2));
    let tasks = Tasks::new(Arc::new(TokioSpawner::current()));
    EventSource::new(config, env.clone(), stop, invoke).drive_all(&shards, &tasks);
    let mut expected: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for item in 0..items {
        let key = item.wrapping_mul(seed | 1) % keys;
        shards.append(HashKey::of(&key.to_string()), 10, (key, item));
        expected.entry(key).or_default().push(item);
        let layout = shards.layout();
        let open = layout.open();
        let which = env.random() as usize % open.len();
        match (env.random() ^ seed) % 16 {
            0..2 => {
                // A shard of a single key cannot be split, so an error is fine.
                let _ = shards.split(open[which].id, None);
            }
            2..4 if which + 1 < open.len() => {
                shards.merge(open[which].id, open[which + 1].id).expect("they are neighbours");
            }
            4..8 => for_ms(3).await,
            _ => {}
        }
    }
    let mark = shards.mark();
    for _ in 0..100_000 {
        if shards.has_passed(&mark) {
            break;
        }
        for_ms(100).await;
    }
    assert_eq!(shards.backlog().items(), 0);
    assert_eq!(shards.list().len(), shards.layout().open().len(), "closed shards are gone");
    assert_eq!(histories.finished(), expected, "seed {seed}, {lanes} lanes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_is_lost_and_keys_keep_their_order_over_reshards(
        lanes in 1usize..=10, batch in 1usize..40, keys in 1u64..30, items in 1u64..200, seed: u64
    ) {
        paused_runtime().block_on(check_order(lanes, batch, keys, items, seed));
    }
}

/// Several threads that put, one that splits and merges, and the event source, in parallel.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn puts_race_with_reshards() {
    const WRITERS: u64 = 3;
    const EACH: u64 = 20_000;
    let Driven { stage, shards, .. } = &Driven::new(1, config());
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let shards = shards.clone();
            std::thread::spawn(move || {
                let key = HashKey::of(&writer.to_string());
                (0..EACH).for_each(|item| shards.append(key, 10, writer * EACH + item));
            })
        })
        .collect();
    let mut reshards = 0;
    while writers.iter().any(|writer| !writer.is_finished()) {
        let layout = shards.layout();
        let resharded = match layout.open() {
            [one, other, ..] if layout.open().len() > 4 => shards.merge(one.id, other.id),
            open => shards.split(open[open.len() / 2].id, None),
        };
        reshards += u64::from(resharded.is_ok());
        tokio::task::yield_now().await;
    }
    let drained = async {
        while shards.backlog().items() > 0 {
            for_ms(1).await;
        }
    };
    timeout(Duration::from_secs(30), drained).await.expect("everything is finished");
    let finished = stage.finished();
    for writer in 0..WRITERS {
        let of_writer = finished.iter().copied().filter(|item| item / EACH == writer);
        assert!(of_writer.eq(writer * EACH..(writer + 1) * EACH), "after {reshards} reshards");
    }
}
