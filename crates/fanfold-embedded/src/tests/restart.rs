//! A durable engine that is shut down and opened again.

use std::path::Path;

use crate::shards::ShardId;
use crate::store::OpenError;
use crate::{Config, Engine};
use fanfold::{LogId, Seq, Services, Views};
use fanfold_pipeline::read::Awaited;
use ledger::Ledger;
use ledger::views::{Balances, Statement, Totals};

const WAIT_MS: u64 = 20_000;

fn open(folder: &Path) -> Result<Engine, OpenError> {
    let config = Config {
        services: Services::new().with::<Ledger>(),
        views: Views::new().with::<Balances>().with::<Statement>().with::<Totals>(),
        ..Config::default()
    };
    Engine::open(config, folder)
}

fn log(org: u64) -> LogId {
    format!("ledger/org:{org}").parse().expect("a log")
}

/// Sends one command to each org. Returns the seqs of the receipts.
async fn send(engine: &Engine, orgs: u64, id: u64, command: &str, data: &str) -> Vec<Seq> {
    let request = |org| {
        format!(
            r#"{{"type":"ledger","command":"{command}","id":{id},"user":"ann","org":"{org}","data":{data}}}"#
        )
    };
    let requests: Vec<String> = (0..orgs).map(request).collect();
    let requests: Vec<&[u8]> = requests.iter().map(String::as_bytes).collect();
    let answers = engine.ingest().ingest(&requests).await.into_iter();
    answers.map(|answer| answer.expect("it is accepted").seq).collect()
}

async fn balance(engine: &Engine, org: u64, seq: Seq) -> i64 {
    let key = "cash".parse().expect("a key");
    let rows = engine.reads().row("balances", &log(org), &key, Some(seq), WAIT_MS).await;
    match rows.expect("the view answers") {
        Awaited::Ready(page) => {
            let row: serde_json::Value = serde_json::from_slice(&page.rows[0].body).expect("JSON");
            row["balance"].as_i64().expect("a number")
        }
        Awaited::Pending { seq, parked } => panic!("the view is at {seq}: {parked:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reopened_engine_continues_and_recognises_repeated_commands() {
    let folder = tempfile::tempdir().expect("a folder");
    let orgs = 50;
    for round in 1..=4_i64 {
        let engine = open(folder.path()).expect("it opens");
        assert!(engine.recovered().await);
        if round == 1 {
            send(&engine, orgs, 1, "open", r#"{"account":"cash"}"#).await;
        }
        let id = round as u64 + 1;
        send(&engine, orgs, id, "deposit", r#"{"account":"cash","amount":10}"#).await;
        // Neither the repeated command changes anything, nor the previous round's id with another
        // amount.
        send(&engine, orgs, id, "deposit", r#"{"account":"cash","amount":10}"#).await;
        let last =
            send(&engine, orgs, id - 1, "deposit", r#"{"account":"cash","amount":99}"#).await;
        assert_eq!(last, vec![Seq(round as u64 * 3 + 1); orgs as usize], "dense over restarts");
        for org in [0, 7, orgs - 1] {
            assert_eq!(balance(&engine, org, last[0]).await, round * 10, "org {org}");
        }
        assert!(engine.shutdown().await, "nothing was left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn splits_and_merges_survive_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path()).expect("it opens");
    engine.split_shard(ShardId(1), None).expect("it splits");
    engine.merge_shards(ShardId(2), ShardId(3)).expect("it merges");
    send(&engine, 20, 1, "open", r#"{"account":"cash"}"#).await;
    assert!(engine.shutdown().await, "nothing was left");

    let engine = open(folder.path()).expect("it opens");
    let shards: Vec<u64> = engine.shards().iter().map(|shard| shard.id.0).collect();
    assert_eq!(shards, [0, 4, 5, 6]);
    send(&engine, 20, 2, "deposit", r#"{"account":"cash","amount":5}"#).await;
    for org in 0..20 {
        assert_eq!(balance(&engine, org, Seq(2)).await, 5);
    }
    assert!(engine.shutdown().await, "nothing was left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_engine_cannot_open_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path()).expect("it opens");
    assert!(matches!(open(folder.path()), Err(OpenError::Locked(_))));
    assert!(engine.shutdown().await, "nothing was left");
    assert!(open(folder.path()).is_ok());
}
