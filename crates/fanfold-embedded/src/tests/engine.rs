//! The whole engine with the example service: commands become entries, and reach the views.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::TransitConfig;
use crate::limit::Limit;
use crate::shards::ShardState;
use crate::{Config, Engine};
use fanfold::entry::Outcome;
use fanfold::{LogId, Seq, Services, Views};
use fanfold_pipeline::ingest::{IngestError, Receipt};
use fanfold_pipeline::ports::RowRange;
use fanfold_pipeline::read::Awaited;
use ledger::Ledger;
use ledger::views::{Balances, Statement, Totals};
use tokio::time::sleep;

const WAIT_MS: u64 = 20_000;

pub(crate) fn config() -> Config {
    Config {
        services: Services::new().with::<Ledger>(),
        views: Views::new().with::<Balances>().with::<Statement>().with::<Totals>(),
        parallelization: 2,
        ..Config::default()
    }
}

pub(crate) fn request(org: &str, id: u64, command: &str, data: &str) -> String {
    format!(
        r#"{{"type":"ledger","command":"{command}","id":{id},"user":"ann","org":"{org}","data":{data}}}"#
    )
}

pub(crate) async fn send(
    engine: &Engine,
    requests: &[String],
) -> Vec<Result<Receipt, IngestError>> {
    let requests: Vec<&[u8]> = requests.iter().map(String::as_bytes).collect();
    engine.ingest().ingest(&requests).await
}

fn log(org: &str) -> LogId {
    format!("ledger/org:{org}").parse().expect("a log")
}

pub(crate) async fn balance(engine: &Engine, org: &str, seq: Seq) -> serde_json::Value {
    let key = "cash".parse().expect("a key");
    let rows = engine.reads().row("balances", &log(org), &key, Some(seq), WAIT_MS).await;
    match rows.expect("the view answers") {
        Awaited::Ready(page) => serde_json::from_slice(&page.rows[0].body).expect("a row is JSON"),
        Awaited::Pending { seq, parked } => panic!("the view is at {seq}: {parked:?}"),
    }
}

/// Opens an account in each org, and deposits 1 `deposits` times. Returns each org's last seq.
async fn deposit(engine: &Engine, orgs: u64, deposits: u64) -> BTreeMap<String, Seq> {
    let mut last = BTreeMap::new();
    for id in 1..=deposits + 1 {
        let requests: Vec<String> = (0..orgs)
            .map(|org| match id {
                1 => request(&org.to_string(), id, "open", r#"{"account":"cash"}"#),
                _ => request(&org.to_string(), id, "deposit", r#"{"account":"cash","amount":1}"#),
            })
            .collect();
        for (org, receipt) in (0..orgs).zip(send(engine, &requests).await) {
            let receipt = receipt.expect("accepted");
            assert_eq!(receipt.log, log(&org.to_string()));
            assert_eq!(receipt.seq, Seq(id), "dense");
            last.insert(org.to_string(), receipt.seq);
        }
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_become_entries_and_reach_the_views() {
    let engine = Engine::start(config()).expect("an engine");
    let last = deposit(&engine, 50, 40).await;
    for (org, seq) in last {
        match engine.reads().entry(&log(&org), seq, WAIT_MS).await.expect("the journal answers") {
            Awaited::Ready(entry) => assert!(matches!(entry.outcome, Outcome::Accepted(_))),
            Awaited::Pending { seq, .. } => panic!("the log {org} is at {seq}"),
        }
        assert_eq!(balance(&engine, &org, seq).await["balance"], 40, "org {org}");
        let range = RowRange { prefix: "cash/".to_owned(), limit: 100, ..RowRange::default() };
        let lines = engine.reads().rows("statement", &log(&org), &range, Some(seq), WAIT_MS).await;
        match lines.expect("the view answers") {
            Awaited::Ready(page) => assert_eq!(page.rows.len(), 40, "org {org}"),
            Awaited::Pending { seq, parked } => panic!("the view is at {seq}: {parked:?}"),
        }
    }
    assert!(engine.shutdown().await, "drained");
}

/// Splits shards up to eight, and merges them down to one, repeatedly until it is aborted.
async fn reshard(engine: Arc<Engine>) {
    let (mut grows, mut turns) = (true, 0);
    loop {
        let mut open = engine.shards();
        open.retain(|shard| shard.state == ShardState::Open);
        open.sort_by_key(|shard| shard.range.first);
        grows = open.len() == 1 || (grows && open.len() < 8);
        turns += 1;
        let at = turns % open.len();
        if grows {
            engine.split_shard(open[at].id, None).expect("it can be split");
        } else {
            let (one, other) = (at.min(open.len() - 2), at.min(open.len() - 2) + 1);
            engine.merge_shards(open[one].id, open[other].id).expect("they are neighbours");
        }
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_are_split_and_merged_under_load() {
    const ORGS: u64 = 60;
    const DEPOSITS: u64 = 300;
    let engine = Arc::new(Engine::start(config()).expect("an engine"));
    // In a task that can run on another thread: ports in memory never suspend this one.
    let resharding = tokio::spawn(reshard(engine.clone()));
    let last = deposit(&engine, ORGS, DEPOSITS).await;
    resharding.abort();
    assert!(resharding.await.is_err_and(|ended| ended.is_cancelled()), "it never fails");
    let engine = Arc::into_inner(engine).expect("no other task holds the engine");
    let layout = engine.command_shards().layout();
    assert!(layout.open().iter().any(|open| open.id.0 > 12), "many reshards: {layout:?}");
    for (org, seq) in last {
        assert_eq!(balance(&engine, &org, seq).await["balance"], DEPOSITS, "org {org}");
        let page = engine.reads().entries(&log(&org), Seq(1), 1_000).await.expect("it answers");
        assert_eq!(page.entries.len() as u64, DEPOSITS + 1, "org {org}");
        for (entry, seq) in page.entries.iter().zip(1..) {
            assert_eq!(entry.seq, Seq(seq), "org {org}");
            let Outcome::Accepted(_) = &entry.outcome else { panic!("org {org}: {entry:?}") };
        }
    }
    let shards = engine.command_shards().clone();
    assert!(engine.shutdown().await, "drained");
    assert!(
        shards.list().iter().all(|shard| shard.state == ShardState::Open),
        "no closed shard is left"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_are_duplicates_and_refusals_are_entries() {
    let engine = Engine::start(config()).expect("an engine");
    let open = request("acme", 1, "open", r#"{"account":"cash"}"#);
    let overdraw = request("acme", 2, "withdraw", r#"{"account":"cash","amount":1}"#);
    let unknown = request("acme", 3, "withdraw", r#"{"account":"cash"}"#);
    let answers = send(&engine, &[open.clone(), overdraw, open, unknown]).await;
    assert!(matches!(answers[3], Err(IngestError::Invalid(_))), "{:?}", answers[3]);
    for (seq, expected) in [(1, "accepted"), (2, "rejected"), (3, "duplicate")] {
        let entry = engine.reads().entry(&log("acme"), Seq(seq), WAIT_MS).await;
        let Ok(Awaited::Ready(entry)) = entry else { panic!("no entry {seq}: {entry:?}") };
        let found = match entry.outcome {
            Outcome::Accepted(_) => "accepted",
            Outcome::Rejected { .. } => "rejected",
            Outcome::Duplicate { .. } => "duplicate",
            _ => "something else",
        };
        assert_eq!(found, expected, "seq {seq}");
    }
    assert!(engine.shutdown().await, "drained");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_processes_all_accepted_commands() {
    let engine = Engine::start(config()).expect("an engine");
    let last = deposit(&engine, 20, 20).await;
    let ports = engine.ports().clone();
    let reads = engine.reads().clone();
    assert!(engine.shutdown().await, "drained");
    for (org, seq) in last {
        let page = reads
            .rows("totals", &log(&org), &RowRange { limit: 9, ..RowRange::default() }, Some(seq), 0)
            .await;
        assert!(matches!(page, Ok(Awaited::Ready(_))), "org {org}: {page:?}");
    }
    assert_eq!(ports.commands.changes().backlog().bytes(), 0);
    assert_eq!(ports.stream.records().backlog().bytes(), 0);
    assert_eq!(ports.topic.backlog().bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_engine_admits_nothing() {
    let engine = Engine::start(config()).expect("an engine");
    let ingest = engine.ingest().clone();
    assert!(engine.shutdown().await);
    let open = request("acme", 1, "open", r#"{"account":"cash"}"#);
    let answers = ingest.ingest(&[open.as_bytes()]).await;
    assert!(matches!(answers[..], [Err(IngestError::NotAdmitted(_))]), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_repairs_lost_notifications() {
    // A notification log of very few bytes, and frequent sweeps.
    let transit = TransitConfig { notifications_bytes_max: 1, ..TransitConfig::default() };
    let engine = Engine::start(Config { transit, sweep_ms: 100, ..config() }).expect("an engine");
    let last = deposit(&engine, 5, 5).await;
    let mut lost = 0;
    for (org, seq) in last {
        // The sweep skips commits that are younger than ten seconds.
        assert_eq!(balance(&engine, &org, seq).await["balance"], 5, "org {org}");
    }
    for (_, deliveries) in engine.status().deliveries {
        lost += deliveries.lost();
    }
    assert!(lost > 0, "the log of notifications was too small: {lost}");
    assert!(engine.shutdown().await, "drained");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_commands_are_refused_and_none_is_lost() {
    let backlog = Limit { items: 200, bytes: 1 << 20 };
    let engine = Engine::start(Config {
        transit: TransitConfig { backlog, ..TransitConfig::default() },
        ..config()
    });
    let engine = engine.expect("an engine");
    let mut accepted: BTreeMap<String, u64> = BTreeMap::new();
    let mut refused = 0;
    for round in 0..200 {
        let requests: Vec<String> = (0..100)
            .map(|org| request(&org.to_string(), round + 1, "open", r#"{"account":"cash"}"#))
            .collect();
        for (org, answer) in (0..100).zip(send(&engine, &requests).await) {
            match answer {
                Ok(_) => *accepted.entry(org.to_string()).or_default() += 1,
                Err(IngestError::NotAdmitted(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        if refused > 0 && round % 10 == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    }
    for (org, accepted) in accepted {
        let entry = engine.reads().entry(&log(&org), Seq(accepted), WAIT_MS).await;
        assert!(matches!(entry, Ok(Awaited::Ready(_))), "org {org} has no entry {accepted}");
    }
    assert!(engine.shutdown().await, "drained");
}
