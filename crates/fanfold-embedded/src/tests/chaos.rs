//! What `chaos` breaks, and that the engine goes on when it ends.

use std::time::Duration;

use fanfold::host::body::parked::Reason;
use fanfold::{LogId, Seq};
use fanfold_pipeline::operate::{Done, WaitingItem};
use tokio::time::sleep;

use super::engine::{balance, config, request, send};
use crate::chaos::{DELAY_MS_MAX, FAULT_MS_MAX};
use crate::{Chaos, ChaosPort, ChaosStage, Config, Engine, Fault, HashKey, NotPlanted, Scope};

const LONG_MS: u64 = 60_000;

fn acme() -> LogId {
    "ledger/org:acme".parse().expect("a log")
}

/// An engine that can be broken.
fn broken_engine() -> Engine {
    Engine::start(Config { chaos: true, ..config() }).expect("an engine")
}

/// An engine that can be broken, with an account of the org `acme`.
async fn engine() -> Engine {
    let engine = broken_engine();
    open(&engine, "acme").await;
    engine
}

async fn open(engine: &Engine, org: &str) {
    accept(engine, request(org, 1, "open", r#"{"account":"cash"}"#)).await;
    assert_eq!(balance(engine, org, Seq(1)).await["balance"], 0, "{org}");
}

async fn accept(engine: &Engine, request: String) -> Seq {
    let mut receipts = send(engine, &[request]).await;
    receipts.remove(0).expect("it is accepted").seq
}

async fn deposit(engine: &Engine, id: u64) -> Seq {
    accept(engine, request("acme", id, "deposit", r#"{"account":"cash","amount":1}"#)).await
}

fn chaos(engine: &Engine) -> &Chaos {
    engine.chaos().expect("it can be broken")
}

/// Breaks something for the log of `acme`.
fn plant(engine: &Engine, fault: Fault) {
    let planted = chaos(engine).plant(fault, Scope::Log(acme()), LONG_MS, None);
    assert_eq!(planted.map(|planted| planted.met), Ok(0));
}

/// Waits until the fault has broken a call.
async fn until_met(engine: &Engine) {
    while chaos(engine).planted().iter().all(|planted| planted.met == 0) {
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until something waits for this reason, and returns it.
async fn waiting(engine: &Engine, reason: Reason) -> WaitingItem {
    loop {
        let page = engine.operate().waiting(None, None, 100).await.expect("memory answers");
        if let Some(item) = page.items.into_iter().find(|item| item.reason == reason) {
            return item;
        }
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_goes_on_when_a_fault_ends() {
    let faults = [
        Fault::Fail(ChaosPort::Stream),
        Fault::Fail(ChaosPort::Journal),
        Fault::Fail(ChaosPort::State),
        Fault::Fail(ChaosPort::Topic),
        Fault::Kill(ChaosStage::Relay),
        Fault::Kill(ChaosStage::Process),
        Fault::Kill(ChaosStage::View("balances".to_owned())),
        Fault::Delay(ChaosStage::Process, 1),
        Fault::Hold,
    ];
    for fault in faults {
        // A log that was not there before, so that the processor loads it.
        let engine = broken_engine();
        plant(&engine, fault.clone());
        accept(&engine, request("acme", 1, "open", r#"{"account":"cash"}"#)).await;
        until_met(&engine).await;
        assert_eq!(chaos(&engine).heal(None), 1, "{fault:?}");
        assert_eq!(balance(&engine, "acme", Seq(1)).await["balance"], 0, "{fault:?}");
        assert!(engine.shutdown().await, "{fault:?}: drained");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_of_one_log_does_not_touch_another_shard() {
    let engine = engine().await;
    let shards = engine.shards();
    let shard_of = |log: &LogId| shards.iter().position(|s| s.range.contains(HashKey::of_log(log)));
    let other = (0..100).map(|n| format!("org{n}")).find(|org| {
        shard_of(&format!("ledger/org:{org}").parse().expect("a log")) != shard_of(&acme())
    });
    let range = shards[shard_of(&acme()).expect("it has a shard")].range;
    let fail = Fault::Fail(ChaosPort::Journal);
    chaos(&engine).plant(fail, Scope::Range(range), LONG_MS, None).expect("it is planted");
    let seq = deposit(&engine, 2).await;
    until_met(&engine).await;
    open(&engine, &other.expect("there are several shards")).await;
    let tail = engine.operate().waiting(None, None, 100).await.expect("memory answers");
    assert_eq!(tail.items, [], "nothing is parked, it is only late");
    chaos(&engine).heal(None);
    assert_eq!(balance(&engine, "acme", seq).await["balance"], 1);
}

/// A command that is given up while its record is held comes into conflict, and is accepted again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_record_comes_too_late_for_its_seq() {
    let engine = engine().await;
    plant(&engine, Fault::Hold);
    let held = deposit(&engine, 2).await;
    until_met(&engine).await;
    assert_eq!(engine.operate().skip(&acme(), held, None, "gone").await.unwrap(), Done::Begun);
    // The nudge is held, too.
    assert_eq!(chaos(&engine).heal(Some(1)), 1);
    assert_eq!(waiting(&engine, Reason::Conflict).await.seq, held);
    let again = engine.operate().resume(&acme(), held, None).await.unwrap();
    let Done::Accepted(receipt) = again else { panic!("{again:?}") };
    assert_eq!(balance(&engine, "acme", receipt.seq).await["balance"], 1);
    assert!(engine.shutdown().await, "drained");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_or_refused_is_parked() {
    let engine = engine().await;
    plant(&engine, Fault::Damage);
    let damaged = deposit(&engine, 2).await;
    let bytes = waiting(&engine, Reason::Undecodable).await;
    chaos(&engine).heal(None);
    let removed =
        engine.operate().skip(&bytes.log, bytes.seq, Some(&bytes.identity), "noise").await;
    assert_eq!(removed.unwrap(), Done::Removed);
    engine.operate().skip(&acme(), damaged, None, "damaged").await.unwrap();

    plant(&engine, Fault::Refuse);
    let refused = deposit(&engine, 3).await;
    let item = waiting(&engine, Reason::Unpublished).await;
    chaos(&engine).heal(None);
    engine.operate().resume(&acme(), item.seq, None).await.unwrap();
    assert_eq!(balance(&engine, "acme", refused).await["balance"], 1);
    assert!(engine.shutdown().await, "drained");
}

/// The first record is held. Those behind it wait for it, and are not lost when it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_may_break_only_some_calls() {
    let engine = engine().await;
    let hold = chaos(&engine).plant(Fault::Hold, Scope::Log(acme()), LONG_MS, Some(1));
    deposit(&engine, 2).await;
    until_met(&engine).await;
    let last = deposit(&engine, 3).await;
    assert_eq!(waiting(&engine, Reason::Gap).await.seq, last);
    let planted = chaos(&engine).planted();
    assert_eq!((planted[0].id, planted[0].met), (hold.expect("it is planted").id, 1));
    chaos(&engine).heal(None);
    assert_eq!(balance(&engine, "acme", last).await["balance"], 2);
}

/// A batch is one call of a stage, however many records it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_a_stage_is_one_call() {
    let engine = engine().await;
    let late = |ms, times| {
        let delay = Fault::Delay(ChaosStage::Relay, ms);
        chaos(&engine).plant(delay, Scope::Log(acme()), LONG_MS, times).expect("it is planted").id
    };
    late(1_500, Some(1));
    deposit(&engine, 2).await;
    until_met(&engine).await;
    // Four changes gather behind the call.
    let counted = late(1, None);
    for id in 3..=6 {
        deposit(&engine, id).await;
    }
    assert_eq!(balance(&engine, "acme", Seq(6)).await["balance"], 5);
    let planted = chaos(&engine).planted();
    let met = planted.iter().find(|planted| planted.id == counted).map(|planted| planted.met);
    assert_eq!(met, Some(1), "one batch");
}

#[tokio::test]
async fn faults_are_bounded() {
    let engine = broken_engine();
    let plant = |fault, ms| chaos(&engine).plant(fault, Scope::All, ms, None);
    for ms in [0, FAULT_MS_MAX + 1] {
        assert_eq!(plant(Fault::Refuse, ms), Err(NotPlanted::Lasts));
    }
    for ms in [0, DELAY_MS_MAX + 1] {
        let delay = Fault::Delay(ChaosStage::Relay, ms);
        assert_eq!(plant(delay, LONG_MS), Err(NotPlanted::Delay));
    }
    let ids: Vec<u64> =
        (0..32).map(|_| plant(Fault::Refuse, LONG_MS).expect("it is planted").id).collect();
    assert_eq!(ids, (1..=32).collect::<Vec<_>>());
    assert_eq!(plant(Fault::Refuse, LONG_MS), Err(NotPlanted::TooMany));
    assert_eq!((chaos(&engine).heal(Some(7)), chaos(&engine).heal(Some(7))), (1, 0));
    plant(Fault::Refuse, 1).expect("there is room again");
    sleep(Duration::from_millis(5)).await;
    assert_eq!(chaos(&engine).planted().len(), 31, "the last one has ended by itself");
    assert!(Engine::start(config()).expect("an engine").chaos().is_none());
}
