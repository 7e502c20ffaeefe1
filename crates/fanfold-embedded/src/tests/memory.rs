//! Behaviour of these ports beyond the specification: limits, bounds, expiry.

use crate::TransitConfig;
use crate::limit::Limit;
use crate::ports::Ports;
use crate::transit::Position;
use crate::transit::{MemoryStream, MemoryTopic};
use bytes::Bytes;
use fanfold::host::limits::{PUT_RECORDS_MAX, STREAM_RECORD_BYTES_MAX};
use fanfold::{LogId, RowKey, Seq, StateKey, Time};
use fanfold_pipeline::ports::{
    CommandStream, DeadLetters, State, StoredRow, StreamRecord, Unavailable, ViewTable,
};

use super::paused_env::PausedEnv;
use super::subscription::publish;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn ports() -> Ports {
    let config = TransitConfig::default();
    Ports::in_memory(&config, ["balances"], PausedEnv::new()).expect("ports")
}

fn log(org: &str) -> LogId {
    format!("ledger/org:{org}").parse().expect("a log")
}

#[tokio::test]
async fn a_tombstone_is_removed_when_another_is_put_a_day_later() {
    let (table, log) = (ports().views["balances"].clone(), log("tombstones"));
    let key = |name: &str| RowKey::new(name).expect("a key");
    let dead = |expires| StoredRow { seq: Seq(1), body: None, expires: Some(Time(expires)) };
    let live = StoredRow { seq: Seq(2), body: Some(Bytes::from_static(b"1")), expires: None };
    for (name, expires) in [("a", DAY_MS), ("b", DAY_MS + 1), ("revived", DAY_MS)] {
        table.put_row(&log, &key(name), &dead(expires), None).await.unwrap();
    }
    table.put_row(&log, &key("revived"), &live, Some(Seq(1))).await.unwrap();
    for (expires, expected) in
        [(2 * DAY_MS - 1, [true, true]), (2 * DAY_MS, [false, true]), (9 * DAY_MS, [false, false])]
    {
        let late = key(&format!("at/{expires}"));
        table.put_row(&log, &late, &dead(expires), None).await.unwrap();
        let rows = table.rows(&log, &[key("a"), key("b"), key("revived"), late]).await.unwrap();
        let there: Vec<bool> = rows.iter().map(Option::is_some).collect();
        assert_eq!(there[..2], expected, "after a put of one that expires at {expires}");
        assert_eq!(there[2..], [true, true], "the revived row and the new one stay");
    }
}

#[tokio::test]
async fn calls_beyond_limits_are_refused_as_on_aws() {
    let bound = Limit { items: 10_000, bytes: 100 << 20 };
    let stream = MemoryStream::new(1, bound, PausedEnv::new());
    let record = |bytes: usize| StreamRecord { key: log("a"), data: vec![0; bytes].into() };
    let too_many = vec![record(1); PUT_RECORDS_MAX.get() + 1];
    assert!(matches!(stream.put_records(&too_many).await, Err(Unavailable::Failed { .. })));
    let too_large = vec![record(STREAM_RECORD_BYTES_MAX - 100); 6];
    assert!(matches!(stream.put_records(&too_large).await, Err(Unavailable::Failed { .. })));
    let one_too_large = [record(1), record(STREAM_RECORD_BYTES_MAX + 1), record(2)];
    let results = stream.put_records(&one_too_large).await.unwrap();
    let taken: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(taken, [true, false, true], "a part fails while others are put");

    let keys: Vec<StateKey> = (0..1_001).map(StateKey::head).collect();
    let state = ports().state;
    assert!(matches!(state.get(&log("a"), &keys).await, Err(Unavailable::Failed { .. })));
}

#[tokio::test]
async fn a_bounded_topic_keeps_messages_until_all_subscribers_have_passed() {
    let topic = MemoryTopic::new(3_000);
    assert_eq!(topic.subscribe("fast"), Position(0));
    assert_eq!(topic.subscribe("slow"), Position(0));
    for _ in 0..5 {
        assert_eq!(publish(&topic, &["ledger"], "acme").await, [Ok(())]);
    }
    topic.pass("fast", Position(5));
    assert_eq!(topic.log().start(), Position(0), "the slow one has not passed");
    topic.pass("slow", Position(2));
    assert_eq!(topic.log().start(), Position(2));
    topic.pass("slow", Position(1));
    assert_eq!(topic.subscribe("slow"), Position(2), "a subscriber continues at its position");
    for _ in 0..100 {
        assert_eq!(publish(&topic, &["ledger"], "acme").await, [Ok(())]);
        assert!(topic.backlog().bytes() <= 3_000, "{:?}", topic.backlog());
    }
    assert!(topic.log().start() > Position(80), "the oldest were dropped");
    assert_eq!(topic.log().end(), Position(105));
}

#[tokio::test]
async fn dead_letters_are_bounded() {
    let dead_letters = Limit { items: 3, bytes: 100 };
    let config = TransitConfig { dead_letters, ..TransitConfig::default() };
    let ports = Ports::in_memory(&config, [], PausedEnv::new()).expect("ports");
    let letters = ports.dead_letters;
    for (size, expected) in [
        (10, vec![10]),
        (20, vec![10, 20]),
        (30, vec![10, 20, 30]),
        (40, vec![20, 30, 40]),
        (90, vec![90]),
        (101, vec![]),
        (50, vec![50]),
    ] {
        letters.push("balances", vec![b'x'; size].into());
        let left = letters.list("balances", None, 10).await.unwrap();
        let sizes: Vec<usize> = left.iter().map(|letter| letter.body.len()).collect();
        assert_eq!(sizes, expected, "after {size}");
    }
    let left = letters.list("balances", None, 10).await.unwrap();
    assert_eq!(left[0].id, 6, "an id is never given twice");
}
