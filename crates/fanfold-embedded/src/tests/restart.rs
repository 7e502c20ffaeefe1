//! A durable engine that is shut down and opened again.

use crate::shards::ShardId;
use crate::store::OpenError;
use crate::{Config, Engine};
use fanfold::{Recorded, RowKey, Seq, View, Views};
use fanfold_pipeline::read::ServedView;
use ledger::views::Balances;
use std::sync::Arc;

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

/// `balances`, but of other event types than the one that ships.
struct OtherBalances<const VERSION: u32>;

impl<const VERSION: u32> View for OtherBalances<VERSION> {
    const NAME: &'static str = "balances";
    const VERSION: u32 = VERSION;
    const SERVICES: &'static [&'static str] = Balances::SERVICES;
    const EVENTS: &'static [(&'static str, u32)] = &[("opened", 1)];
    type Event = ledger::Event;
    type Row = u64;

    fn rows(_: &Recorded<ledger::Event>) -> Vec<RowKey> {
        vec![]
    }

    fn apply(row: Option<u64>, _: &RowKey, _: &Recorded<ledger::Event>) -> Option<u64> {
        row
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_other_event_types_needs_another_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = async |views: Views| {
        let engine = Engine::open(Config { views, ..config() }, folder.path())?;
        assert!(engine.recovered().await);
        let served = engine.reads().views().await.expect("a list");
        let of = |view: &Arc<ServedView>| (view.version, view.since);
        let found: Vec<_> = served.iter().filter(|view| view.name == "balances").map(of).collect();
        assert!(engine.shutdown().await, "nothing was left");
        Ok::<_, OpenError>(found[0])
    };
    let (version, since) = served(config().views).await.expect("it opens");
    assert!(version == 1 && since.is_some(), "{since:?}");
    assert_eq!(
        served(config().views).await.expect("it opens"),
        (1, since),
        "since the first start"
    );
    // Refused starts are no crashes: many of them do not make the engine suspicious.
    for _ in 0..3 {
        served(Views::new().with::<OtherBalances<1>>()).await.expect_err("a conflict");
    }
    let error = served(Views::new().with::<OtherBalances<1>>()).await.expect_err("a conflict");
    let OpenError::View(conflict) = error else { panic!("{error}") };
    let conflict = conflict.to_string();
    assert!(conflict.starts_with("the view `balances` has announced version 1"), "{conflict}");
    assert!(conflict.contains("raise its `VERSION`"), "{conflict}");
    let engine = Engine::open(config(), folder.path()).expect("it opens");
    let durable = engine.monitor().durable().expect("it has a folder").unclean_starts();
    assert_eq!(durable, 0);
    assert!(engine.shutdown().await);
    let (version, second) =
        served(Views::new().with::<OtherBalances<2>>()).await.expect("it opens");
    assert!(version == 2 && second > since, "{second:?}");
    let (version, third) = served(config().views).await.expect("back to the first version");
    assert!(version == 1 && third > second, "{third:?}");
}

#[tokio::test]
async fn a_folder_belongs_to_the_app_that_made_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = async |app: Option<&str>, adopt| {
        let config = Config { app: app.map(str::to_owned), adopt, ..config() };
        let engine = Engine::open(config, folder.path())?;
        assert!(engine.shutdown().await);
        Ok::<_, OpenError>(())
    };
    open(None, false).await.expect("no name");
    open(Some("ledger"), false).await.expect("the first name");
    open(Some("ledger"), false).await.expect("the same name");
    open(None, false).await.expect("no name");
    let error = open(Some("books"), false).await.expect_err("another name").to_string();
    assert!(error.contains("has the data of the app `ledger`, and this is `books`"), "{error}");
    assert!(error.contains("choose another folder"), "{error}");
    open(Some("books"), true).await.expect("it was renamed");
    open(Some("ledger"), false).await.expect_err("it belongs to `books` now");
}
