//! Shards: positions, trimming, arrivals, and the placement of records.

use std::sync::Arc;

use crate::hash_key::{HashKey, HashKeyRange};
use crate::limit::{Backlog, Limit};
use crate::transit::{Batch, MemoryStream, Position, Shard};
use fanfold_pipeline::ports::{CommandStream, StreamRecord};
use futures::FutureExt;
use futures::executor::block_on;

use super::paused_env::PausedEnv;

const EVERYTHING: Limit = Limit { items: 1_000, bytes: 1_000_000 };

fn shard_of(items: u64) -> Shard<u64> {
    let shard = Shard::new(Arc::default());
    for item in 0..items {
        let position = shard.append(HashKey(u128::from(item)), 10, item);
        assert_eq!(position, Position(item));
    }
    shard
}

fn items<T: Copy>(read: Vec<(Position, T)>) -> Vec<T> {
    read.into_iter().map(|(_, item)| item).collect()
}

#[test]
fn items_are_read_from_any_position_and_stay() {
    let shard = shard_of(5);
    for (from, max, expected) in [
        (0, 10, vec![0, 1, 2, 3, 4]),
        (0, 2, vec![0, 1]),
        (3, 10, vec![3, 4]),
        (5, 10, vec![]),
        (9, 10, vec![]),
        (u64::MAX, 10, vec![]),
        (2, 0, vec![]),
    ] {
        assert_eq!(items(shard.read(Position(from), max)), expected, "from {from}, max {max}");
    }
    assert_eq!((shard.start(), shard.end()), (Position(0), Position(5)));
}

#[test]
fn trimmed_items_are_skipped() {
    for (below, start, left) in
        [(0, 0, vec![0, 1, 2, 3, 4]), (3, 3, vec![3, 4]), (5, 5, vec![]), (9, 5, vec![])]
    {
        let shard = shard_of(5);
        shard.trim(Position(below));
        assert_eq!(items(shard.read(Position::START, 10)), left, "below {below}");
        assert_eq!((shard.start(), shard.end()), (Position(start), Position(5)), "below {below}");
        assert_eq!(shard.is_empty(), left.is_empty());
        shard.trim(Position::START);
        assert_eq!(shard.start(), Position(start), "trimming never goes back");
        assert_eq!(shard.append(HashKey(0), 1, 99), Position(5), "positions continue");
    }
}

#[test]
fn the_oldest_items_are_dropped_beyond_a_number_of_bytes() {
    for (bytes_max, left) in [(50, 5), (49, 4), (20, 2), (0, 0)] {
        let shard = shard_of(5);
        shard.trim_to_bytes(bytes_max);
        assert_eq!(shard.end().0 - shard.start().0, left, "at most {bytes_max} bytes");
    }
}

#[test]
fn a_backlog_counts_the_items_in_its_shards() {
    let backlog = Arc::<Backlog>::default();
    let shards = [Shard::new(backlog.clone()), Shard::new(backlog.clone())];
    for (bytes, shard) in [(10, 0), (20, 1), (30, 1)] {
        shards[shard].append(HashKey(0), bytes, ());
    }
    assert_eq!((backlog.items(), backlog.bytes()), (3, 60));
    assert!(!backlog.exceeds(Limit { items: 3, bytes: 60 }));
    assert!(backlog.exceeds(Limit { items: 2, bytes: 60 }));
    assert!(backlog.exceeds(Limit { items: 3, bytes: 59 }));
    shards[1].trim(Position(1));
    assert_eq!((backlog.items(), backlog.bytes()), (2, 40));
    shards.iter().for_each(|shard| shard.trim(shard.end()));
    assert_eq!((backlog.items(), backlog.bytes()), (0, 0));
}

#[test]
fn batches_are_bounded_and_continue_where_they_ended() {
    let odd = |key: HashKey| key.0 % 2 == 1;
    for (bound, expected, next, is_full) in [
        (EVERYTHING, vec![1, 3, 5, 7, 9], 10, false),
        (Limit { items: 2, ..EVERYTHING }, vec![1, 3], 5, true),
        (Limit { items: 5, ..EVERYTHING }, vec![1, 3, 5, 7, 9], 10, false),
        (Limit { bytes: 29, ..EVERYTHING }, vec![1, 3], 5, true),
        (Limit { bytes: 1, ..EVERYTHING }, vec![1], 3, true),
    ] {
        let shard = shard_of(10);
        let mut batch = Batch::starting_at(Position(0));
        shard.fill(&mut batch, bound, odd);
        assert_eq!(items(batch.items.clone()), expected, "{bound:?}");
        assert_eq!((batch.next, batch.is_full), (Position(next), is_full), "{bound:?}");
        assert_eq!(batch.bytes, expected.len() * 10, "{bound:?}");
        if !is_full {
            shard.append(HashKey(11), 10, 11);
            shard.fill(&mut batch, EVERYTHING, odd);
            assert_eq!(items(batch.items), [1, 3, 5, 7, 9, 11], "filled with the later item");
        }
    }
}

#[test]
fn arrivals_are_noticed_without_a_runtime() {
    let shard = shard_of(3);
    assert!(shard.arrived(Position(2)).now_or_never().is_some(), "it is there");
    let mut fourth = Box::pin(shard.arrived(Position(3)));
    let mut fifth = Box::pin(shard.arrived(Position(4)));
    assert!((&mut fourth).now_or_never().is_none());
    assert!((&mut fifth).now_or_never().is_none());
    shard.append(HashKey(0), 1, 3);
    assert!((&mut fourth).now_or_never().is_some());
    assert!((&mut fifth).now_or_never().is_none(), "not yet");
    shard.append(HashKey(0), 1, 4);
    shard.trim(Position(5));
    assert!((&mut fifth).now_or_never().is_some(), "it was there");
}

#[tokio::test]
async fn records_go_to_the_shard_of_their_key() {
    let bound = Limit { items: 1_000, bytes: 1 << 20 };
    let stream = MemoryStream::new(3, bound, PausedEnv::new());
    let record = |org: usize| StreamRecord {
        key: format!("ledger/org:{org}").parse().unwrap(),
        data: vec![0; 10].into(),
    };
    let records: Vec<StreamRecord> = (0..300).map(record).collect();
    block_on(stream.put_records(&records)).unwrap();
    let ranges = HashKeyRange::equal(3);
    let mut found = 0;
    for ((range, shard), expected) in stream.records().iter().zip(&ranges) {
        assert_eq!(range, *expected);
        let records = shard.read(Position::START, usize::MAX);
        assert!(records.len() > 60, "about a third: {}", records.len());
        found += records.len();
        for (_, record) in records {
            assert!(
                range.contains(HashKey::of(record.key.as_str())),
                "{} in {range:?}",
                record.key
            );
        }
    }
    assert_eq!(found, 300);
}
