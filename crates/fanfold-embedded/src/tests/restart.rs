//! A durable engine that is shut down and opened again.

use crate::Engine;
use crate::shards::ShardId;
use crate::store::OpenError;
use fanfold::Seq;

use super::engine::{balance, config, request, send};

/// Sends one command to each org. Returns the seqs of the receipts.
async fn send_all(engine: &Engine, orgs: u64, id: u64, command: &str, data: &str) -> Vec<Seq> {
    let request = |org: u64| request(&org.to_string(), id, command, data);
    let answers = send(engine, &(0..orgs).map(request).collect::<Vec<_>>()).await.into_iter();
    answers.map(|answer| answer.expect("it is accepted").seq).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reopened_engine_continues_and_recognises_repeated_commands() {
    let folder = tempfile::tempdir().expect("a folder");
    let orgs = 50;
    for round in 1..=4_i64 {
        let engine = Engine::open(config(), folder.path()).expect("it opens");
        assert!(engine.recovered().await);
        if round == 1 {
            send_all(&engine, orgs, 1, "open", r#"{"account":"cash"}"#).await;
        }
        let id = round as u64 + 1;
        send_all(&engine, orgs, id, "deposit", r#"{"account":"cash","amount":10}"#).await;
        // Neither the repeated command changes anything, nor the previous round's id with another
        // amount.
        send_all(&engine, orgs, id, "deposit", r#"{"account":"cash","amount":10}"#).await;
        let last =
            send_all(&engine, orgs, id - 1, "deposit", r#"{"account":"cash","amount":99}"#).await;
        assert_eq!(last, vec![Seq(round as u64 * 3 + 1); orgs as usize], "dense over restarts");
        for org in [0, 7, orgs - 1] {
            assert_eq!(
                balance(&engine, &org.to_string(), last[0]).await["balance"],
                round * 10,
                "org {org}"
            );
        }
        assert!(engine.shutdown().await, "nothing was left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn splits_and_merges_survive_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::open(config(), folder.path()).expect("it opens");
    engine.split_shard(ShardId(1), None).expect("it splits");
    engine.merge_shards(ShardId(2), ShardId(3)).expect("it merges");
    send_all(&engine, 20, 1, "open", r#"{"account":"cash"}"#).await;
    assert!(engine.shutdown().await, "nothing was left");

    let engine = Engine::open(config(), folder.path()).expect("it opens");
    let shards: Vec<u64> = engine.shards().iter().map(|shard| shard.id.0).collect();
    assert_eq!(shards, [0, 4, 5, 6]);
    send_all(&engine, 20, 2, "deposit", r#"{"account":"cash","amount":5}"#).await;
    for org in 0..20 {
        assert_eq!(balance(&engine, &org.to_string(), Seq(2)).await["balance"], 5);
    }
    assert!(engine.shutdown().await, "nothing was left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_engine_cannot_open_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::open(config(), folder.path()).expect("it opens");
    assert!(matches!(Engine::open(config(), folder.path()), Err(OpenError::Locked(_))));
    assert!(engine.shutdown().await, "nothing was left");
    assert!(Engine::open(config(), folder.path()).is_ok());
}
