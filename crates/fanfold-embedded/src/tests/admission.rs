//! Memory stays bounded: commands and records are refused while the backlog exceeds its limit.

use crate::limit::Limit;
use crate::shards::Shards;
use crate::{TransitConfig, ports::Ports};
use bytes::Bytes;
use fanfold::{LogId, Time};
use fanfold_pipeline::ports::{
    Admission, Append, AppendError, CommandStream, Commands, StreamRecord, Token, Unavailable,
};

use super::paused_env::PausedEnv;

fn log() -> LogId {
    "ledger/org:acme".parse().expect("a log")
}

async fn append(memory: &Ports, token: u128, bytes: usize) -> Result<(), AppendError> {
    let body = Bytes::from(vec![b'x'; bytes]);
    let append = Append { n: 1, body, at: Time(0), token: Token(token) };
    memory.commands.append(&log(), append).await.map(|_| ())
}

async fn put(memory: &Ports, bytes: usize) -> Result<(), Unavailable> {
    let record = StreamRecord { key: log(), data: vec![b'x'; bytes].into() };
    memory.stream.put_records(&[record]).await?.remove(0)
}

fn consume<T: Clone>(shards: &Shards<T>) {
    shards.iter().for_each(|(_, shard)| shard.trim(shard.end()));
}

#[tokio::test]
async fn commands_are_refused_while_the_backlog_exceeds_the_limit() {
    for (bound, bytes, appends, puts) in [
        // The limit is exceeded in items or in bytes, by changes, by records, or by both together.
        (Limit { items: 10, bytes: 1 << 30 }, 1, 11, 0),
        (Limit { items: 10, bytes: 1 << 30 }, 1, 0, 11),
        (Limit { items: 10, bytes: 1 << 30 }, 1, 5, 6),
        (Limit { items: 1_000, bytes: 10_000 }, 1_000, 9, 0),
        (Limit { items: 1_000, bytes: 10_000 }, 1_000, 0, 9),
        (Limit { items: 1_000, bytes: 10_000 }, 1_000, 4, 5),
    ] {
        let config = TransitConfig { backlog: bound, ..TransitConfig::default() };
        let memory = Ports::in_memory(&config, [], PausedEnv::new()).expect("ports");
        for token in 0..appends {
            memory.admission.admit(&log()).expect("below the bound");
            append(&memory, token, bytes).await.expect("below the bound");
        }
        for _ in 0..puts {
            memory.admission.admit(&log()).expect("below the bound");
            put(&memory, bytes).await.expect("below the bound");
        }
        let refused = memory.admission.admit(&log()).expect_err("above the bound");
        assert!(refused.retry_after_s > 0, "{refused:?}");
        consume(memory.commands.changes());
        consume(memory.stream.records());
        memory.admission.admit(&log()).expect("all was consumed");
    }
}

#[tokio::test]
async fn an_append_without_admission_is_throttled_and_changes_nothing() {
    let bound = Limit { items: 10, bytes: 1 << 30 };
    let config = TransitConfig { backlog: bound, ..TransitConfig::default() };
    let memory = Ports::in_memory(&config, [], PausedEnv::new()).expect("ports");
    for token in 0..21 {
        append(&memory, token, 1).await.expect("below twice the bound");
        put(&memory, 1).await.expect("below twice the bound");
    }
    let before = memory.commands.slot(&log()).await.unwrap();
    let throttled = append(&memory, 99, 1).await.expect_err("above twice the bound");
    assert!(matches!(throttled, AppendError::Unavailable(Unavailable::Throttled { .. })));
    assert!(matches!(put(&memory, 1).await, Err(Unavailable::Throttled { .. })));
    assert_eq!(memory.commands.slot(&log()).await.unwrap(), before);
    assert_eq!(memory.commands.changes().backlog().items(), 21);
    // Each stream has its own limit: a full change stream does not stop the relay.
    consume(memory.stream.records());
    put(&memory, 1).await.expect("there is room again");
}

#[tokio::test]
async fn a_closed_admission_refuses_everything() {
    let memory = Ports::in_memory(&TransitConfig::default(), [], PausedEnv::new()).expect("ports");
    memory.admission.admit(&log()).expect("open");
    memory.admission.close();
    memory.admission.admit(&log()).expect_err("closed");
}
