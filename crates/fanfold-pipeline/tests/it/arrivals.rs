//! Bounded loss, in virtual days: the change stream keeps a change for 24 hours, and one shard of the relay stands still.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use fanfold::host::canary::Canary;
use fanfold::{LogId, with_causes};
use fanfold_pipeline::arrivals::{InProcess, WhileArriving};
use fanfold_pipeline::ingest::{Ingest, IngestError, IngestPorts};
use fanfold_pipeline::ports::{Admission, Arrivals, Change, Env};
use serde_json::json;

use crate::check::play;
use crate::world::{NEVER, World, done, log, services};

const MINUTE_MS: u64 = 60_000;
/// How often the sweep and the stages run. Source: the in-memory stream of changes keeps some thousand.
const STEP_MINUTES: u64 = 5;
const HOUR_MS: u64 = 60 * MINUTE_MS;
/// Source: a stream of a DynamoDB table keeps a record for 24 hours.
const KEPT_MS: u64 = 24 * HOUR_MS;
const SHARDS: usize = 4;
/// The shard whose relay stands still.
const STUCK: usize = 2;

/// What happens in some days with one stuck shard.
struct Days {
    /// When the relay of the stuck shard runs again.
    mended_h: u64,
    /// When the sweep sleeps.
    sweep_sleeps_h: std::ops::Range<u64>,
    /// Whether the relay of the stuck shard stands still at all.
    is_stuck: bool,
    /// Commands are refused from this age on.
    age_ms_max: u64,
}

/// What came of them.
#[derive(Debug, Default)]
struct Came {
    accepted: usize,
    /// Commands that were accepted, and whose entries never came.
    lost: usize,
    /// The first and the last hour in which a command was refused.
    refused_h: Option<(u64, u64)>,
}

fn shard(log: &LogId) -> usize {
    log.as_str().bytes().map(usize::from).sum::<usize>() % SHARDS
}

/// Runs them. Each log gets a command each ten minutes, so a slot soon holds another batch.
async fn pass(days: Days) -> Came {
    let world = World::new();
    let arrivals: Arc<dyn Arrivals> = Arc::new(InProcess::default());
    let env: Arc<dyn Env> = world.env.clone();
    let admission = Arc::new(WhileArriving::new(arrivals.clone(), env.clone(), days.age_ms_max));
    let ingest = Ingest::new(
        IngestPorts { commands: world.wiring().commands, admission: admission.clone(), env },
        services(),
    );
    // A canary for each shard.
    let of_shard = |wanted: usize| {
        (0..100).find(|number| Canary::log(*number).is_some_and(|log| shard(&log) == wanted))
    };
    let numbers: Vec<usize> = (0..SHARDS).filter_map(of_shard).collect();
    assert_eq!(numbers.len(), SHARDS);
    let sweep = world.sweep().with_canaries(world.ingest(), numbers, arrivals);
    let (relay, processor) = (world.relay(), world.processor());
    let orgs: Vec<String> = (0..8).map(|n| format!("tenant-{n}")).collect();
    let begin = world.env.now();
    let mut streams: [VecDeque<Change>; SHARDS] = Default::default();
    let (mut changed, mut processed, mut after) = (0, 0, None);
    let mut last: BTreeMap<LogId, u64> = BTreeMap::new();
    let mut came = Came::default();
    for minute in (0..days.mended_h * 60 + 120).step_by(STEP_MINUTES as usize) {
        let hour = minute / 60;
        if !days.sweep_sleeps_h.contains(&hour) {
            after = sweep.sweep(after, 5, NEVER).await.expect("memory").next;
        }
        if minute % 10 == 0 {
            admission.refresh().await;
            for org in &orgs {
                let add = json!({
                    "type": "tally", "command": "add", "id": minute + 1, "user": "ann",
                    "org": org, "data": {"counter": "d", "by": 1},
                });
                match ingest.ingest(&[add.to_string().as_bytes()]).await.remove(0) {
                    Ok(receipt) => {
                        came.accepted += 1;
                        last.insert(receipt.log, receipt.seq.0);
                    }
                    Err(IngestError::NotAdmitted(_)) => {
                        let first = came.refused_h.map_or(hour, |(first, _)| first);
                        came.refused_h = Some((first, hour));
                    }
                    Err(error) => panic!("{}", with_causes(&error)),
                }
            }
        }
        let changes = world.changes();
        for change in &changes[changed..] {
            streams[shard(&change.log)].push_back(change.clone());
        }
        changed = changes.len();
        for (index, stream) in streams.iter_mut().enumerate() {
            let now = world.env.now();
            stream.retain(|change| now.since_ms(change.at) < KEPT_MS);
            if days.is_stuck && index == STUCK && hour < days.mended_h {
                continue;
            }
            let batch: Vec<Change> = stream.drain(..).collect();
            assert_eq!(relay.relay(&batch, NEVER).await.unfinished, None);
        }
        let records = world.records();
        done(&processor, &records[processed..]).await;
        processed = records.len();
        world.env.pass(STEP_MINUTES * MINUTE_MS);
    }
    assert!(world.env.now().since_ms(begin) > days.mended_h * HOUR_MS);
    for (log, last) in last {
        came.lost += (last - world.tail(&log).await.0) as usize;
    }
    let of_org = |org: &String| shard(&log(&format!("tally/org:{org}")));
    assert!(orgs.iter().any(|org| of_org(org) == STUCK), "a tenant is in the stuck shard");
    assert!(orgs.iter().any(|org| of_org(org) != STUCK), "others are not");
    came
}

/// Six hours, as on AWS.
const AGE_MS_MAX: u64 = 6 * HOUR_MS;

#[test]
fn a_stuck_shard_stops_admission_before_it_loses_commands() {
    play(async || {
        let mended =
            Days { mended_h: 23, sweep_sleeps_h: 0..0, is_stuck: true, age_ms_max: AGE_MS_MAX };
        let came = pass(mended).await;
        assert_eq!(came.lost, 0, "{came:?}");
        assert_eq!(came.refused_h, Some((6, 23)), "until it is mended: {came:?}");
    });
}

/// The check can fail: without the bound the same days lose commands.
#[test]
fn without_the_bound_a_stuck_shard_loses_commands() {
    play(async || {
        let days =
            |age_ms_max| Days { mended_h: 29, sweep_sleeps_h: 0..0, is_stuck: true, age_ms_max };
        let came = pass(days(u64::MAX)).await;
        assert!(came.lost > 0 && came.refused_h.is_none(), "{came:?}");
        // What was accepted in the first six hours is lost after 24, unless the relay is mended before.
        let bounded = pass(days(AGE_MS_MAX)).await;
        assert!(bounded.lost < came.lost / 2, "{bounded:?} {came:?}");
    });
}

#[test]
fn a_sweep_that_sleeps_stops_admission_too() {
    play(async || {
        let days =
            Days { mended_h: 12, sweep_sleeps_h: 2..11, is_stuck: false, age_ms_max: AGE_MS_MAX };
        let came = pass(days).await;
        assert_eq!((came.lost, came.refused_h), (0, Some((8, 11))), "{came:?}");
    });
}

/// A healthy pipeline is never refused, nor one without a sweep, which has stored nothing.
#[test]
fn a_healthy_pipeline_admits_everything() {
    play(async || {
        for sweep_sleeps_h in [0..0, 0..100] {
            let days =
                Days { mended_h: 10, sweep_sleeps_h, is_stuck: false, age_ms_max: AGE_MS_MAX };
            let came = pass(days).await;
            assert_eq!((came.lost, came.refused_h), (0, None), "{came:?}");
            assert_eq!(came.accepted, 8 * 6 * 12);
        }
    });
}

/// A read that fails changes nothing, and one read serves for a while.
#[test]
fn the_time_is_read_now_and_then() {
    play(async || {
        let world = World::new();
        let arrivals = Arc::new(InProcess::default());
        let admission = WhileArriving::new(arrivals.clone(), world.env.clone(), HOUR_MS);
        let log = log("tally/org:acme");
        let admits = || admission.admit(&log).is_ok();
        let begin = world.env.now();
        arrivals.put(begin).await.expect("memory");
        admission.refresh().await;
        world.env.pass(HOUR_MS);
        assert!(admits(), "just within the bound");
        world.env.pass(1);
        let refused = admission.admit(&log).expect_err("just beyond it");
        assert_eq!((refused.retry_after_s, refused.is_full), (120, false));
        assert!(refused.reason.contains("1.0 hours"), "{}", refused.reason);
        arrivals.put(world.env.now()).await.expect("memory");
        assert!(!admits(), "it is not read yet");
        admission.refresh().await;
        assert!(admits());
        arrivals.put(begin).await.expect("memory");
        world.env.pass(29_999);
        admission.refresh().await;
        assert!(admits(), "it is not read again so soon");
        world.env.pass(1);
        admission.refresh().await;
        assert!(!admits());
    });
}
