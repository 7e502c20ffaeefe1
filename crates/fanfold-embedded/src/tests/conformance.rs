//! The conformance suite on the ports in memory. Runs without a runtime where no call waits.

use std::sync::Arc;

use crate::limit::Limit;
use crate::ports::Ports;
use crate::shards::Shards;
use crate::transit::{MemoryStream, MemoryTopic, Position};
use crate::{SystemEnv, TransitConfig};
use bytes::Bytes;
use fanfold_pipeline::conformance;
use fanfold_pipeline::ports::{
    Append, CommandStream, Commands, Env, Journal, ParkedTable, State, StreamRecord, Token,
    ViewTable,
};
use futures::executor::block_on;

use super::paused_env::PausedEnv;

fn ports(env: Arc<dyn Env>) -> Ports {
    Ports::in_memory(&TransitConfig::default(), ["v"], env).expect("ports")
}

const ROOMY: Limit = Limit { items: 100_000, bytes: 1 << 30 };

/// Reads and trims all items of some shards.
pub(crate) fn drained<T: Clone>(shards: &Shards<T>) -> Vec<T> {
    let mut items = Vec::new();
    for (_, shard) in shards.iter() {
        items.extend(shard.read(Position::START, usize::MAX).into_iter().map(|(_, item)| item));
        shard.trim(shard.end());
    }
    items
}

pub(crate) async fn commands_conform(ports: &Ports) {
    let commands = &*ports.commands;
    conformance::commands(commands, "c").await;
    conformance::catalogue(commands, "c").await;
    drained(commands.changes());
    conformance::changes(commands, "c", async || drained(commands.changes())).await;
    conformance::operator_commands(commands, "o").await;
    let arrived = async || drained(commands.changes());
    conformance::raised_changes(commands, "o", arrived).await;
    let log = "conformance/org:closed".parse().unwrap();
    assert!(!commands.close(&log).await.unwrap(), "no slot, nothing to close");
    let (body, at) = (Bytes::from_static(b"[]"), fanfold::Time(1));
    commands.append(&log, Append { n: 1, body, at, token: Token(1) }).await.unwrap();
    assert!(commands.close(&log).await.unwrap());
    conformance::closed_slot(commands, &log).await;
    conformance::raised_closed_slot(commands, &log).await;
}

#[test]
fn commands() {
    block_on(commands_conform(&ports(Arc::new(SystemEnv))));
}

#[test]
fn journal() {
    block_on(conformance::journal(&*ports(Arc::new(SystemEnv)).journal, "j"));
}

#[test]
fn state() {
    block_on(conformance::state(&*ports(Arc::new(SystemEnv)).state, "s"));
}

#[test]
fn parked() {
    block_on(conformance::parked(&*ports(Arc::new(SystemEnv)).parked, "p"));
}

#[test]
fn operators() {
    let ports = ports(Arc::new(SystemEnv));
    block_on(conformance::operator_parked(&*ports.parked, "o"));
    block_on(conformance::operator_view(&*ports.views["v"], "o"));
    block_on(conformance::operator_journal(&*ports.journal, "o"));
}

#[test]
fn view_table() {
    block_on(conformance::view_table(&*ports(Arc::new(SystemEnv)).views["v"], "v"));
}

#[test]
fn view_registry() {
    block_on(conformance::view_registry(&*ports(Arc::new(SystemEnv)).view_registry));
}

#[test]
fn timeline() {
    block_on(conformance::operator_timeline(
        &*ports(Arc::new(SystemEnv)).timeline,
        SystemEnv.now(),
    ));
}

#[test]
fn command_stream() {
    let stream = MemoryStream::new(3, ROOMY, Arc::new(SystemEnv));
    let arrived = async || {
        let records = drained(stream.records()).into_iter();
        records.map(|record| StreamRecord { key: record.key, data: record.data }).collect()
    };
    block_on(conformance::command_stream(&stream, "r", arrived));
}

#[test]
fn topic() {
    let topic = MemoryTopic::new(1 << 30);
    let mut next = topic.subscribe("everything");
    let arrived = async || {
        let messages = topic.log().read(next, usize::MAX);
        next = topic.log().end();
        topic.pass("everything", next);
        messages.into_iter().flat_map(|(_, message)| message.commits.clone()).collect()
    };
    block_on(conformance::topic(&topic, "t", arrived));
}

pub(crate) async fn dead_letters_conform(ports: &Ports) {
    let letters = &*ports.dead_letters;
    let kill = async |bodies: Vec<Bytes>| {
        bodies.into_iter().for_each(|body| letters.push("balances", body));
    };
    conformance::dead_letters_of_views(letters, "balances", kill).await;
}

#[test]
fn dead_letters() {
    block_on(dead_letters_conform(&ports(Arc::new(SystemEnv))));
}

pub(crate) async fn waits_conform(all: &Ports, env: Arc<dyn Env>) {
    let table = &*all.views["v"];
    let (waits, journal, env) = (&*all.waits, &*all.journal, &*env);
    let ports = conformance::WaitsPorts { waits, journal, view: "v", table, env };
    conformance::waits(&ports, "w").await;
    assert_eq!(all.journal.waiters().logs() + table.waiters().logs(), 0, "no waiter is left");
}

#[tokio::test(start_paused = true)]
async fn waits() {
    let env = PausedEnv::new();
    waits_conform(&ports(env.clone()), env).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_in_real_time() {
    waits_conform(&ports(Arc::new(SystemEnv)), Arc::new(SystemEnv)).await;
}

/// The suite's races again, on parallel threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn races_on_threads() {
    const RACERS: u128 = 8;
    let memory = ports(Arc::new(SystemEnv));
    for round in 0..200_u64 {
        let racers: Vec<_> = (0..RACERS)
            .map(|racer| {
                let memory = memory.clone();
                tokio::spawn(async move { race(&memory, round, racer).await })
            })
            .collect();
        let mut wins = [0; 4];
        for racer in racers {
            let won = racer.await.expect("a racer");
            wins.iter_mut().zip(won).for_each(|(wins, won)| *wins += usize::from(won));
        }
        assert_eq!(wins, [1; 4], "exactly one wins each race of round {round}");
    }
}

/// Which of one racer's append, commit, snapshot and row were accepted.
async fn race(memory: &Ports, round: u64, racer: u128) -> [bool; 4] {
    use fanfold::{Seq, StateKey, Time};
    use fanfold_pipeline::ports::{CommitItem, Guarded, Nonce, StateItem, StoredRow};

    let log = "conformance/org:raced".parse().expect("a log");
    let (at, body) = (Time(1), Bytes::from_static(b"[]"));
    let token = Token(u128::from(round));
    let append = Append { n: 1, body: body.clone(), at, token };
    let appended = memory.commands.append(&log, append).await.is_ok();
    let first = Seq(round + 1);
    let commit = CommitItem { first, n: 1, at, nonce: Nonce(racer), body: body.clone() };
    let committed = memory.journal.append(&log, &commit).await.is_ok();
    let item = StateItem { seq: first, body: body.clone() };
    let stored = memory.state.put(&log, &StateKey::head(1), &item).await;
    let key = "raced".parse().expect("a key");
    let row = StoredRow { seq: first, body: Some(body), expires: None };
    let loaded = (round > 0).then_some(Seq(round));
    let put = memory.views["v"].put_row(&log, &key, &row, loaded).await.is_ok();
    let item = fanfold_pipeline::ports::ParkedItem {
        seq: first,
        identity: racer.to_string(),
        body: Bytes::new(),
    };
    memory.parked.park(&log, &item).await.expect("memory does not fail");
    let records = [StreamRecord { key: log.clone(), data: Bytes::new() }];
    memory.stream.put_records(&records).await.expect("memory does not fail");
    [appended, committed, stored == Ok(Guarded::Stored), put]
}
