//! The lanes of a shard, and the order of parents and children.

use std::collections::BTreeMap;

use lambda_host::answer::BatchAnswer;
use lambda_host::lane::Rules;
use lambda_host::shard::{Family, Shard};

const RULES: Rules =
    Rules { size: 3, window_ms: 0, bisect: true, retry_ms: 100, retry_ms_max: 1_000 };

#[test]
fn lanes_run_in_parallel_and_keep_the_order_of_a_key() {
    let mut shard = Shard::new(RULES, 4);
    for n in 0..40_u32 {
        let key = format!("key-{}", n % 10);
        shard.push(key.as_bytes(), (key.clone(), n), 0);
    }
    let mut last: BTreeMap<String, u32> = BTreeMap::new();
    let (mut now_ms, mut most) = (0, 0);
    while !shard.is_empty() {
        let batches = shard.take(now_ms);
        most = most.max(batches.len());
        for (lane, batch) in batches {
            for (key, n) in batch {
                assert!(last.insert(key, n).is_none_or(|before| before < n));
            }
            shard.finish(lane, BatchAnswer::Done, now_ms);
        }
        now_ms += 1;
    }
    assert_eq!(last.len(), 10);
    assert!(most > 1, "lanes have batches at the same time");
}

#[test]
fn a_lane_that_fails_stops_no_other() {
    let mut shard = Shard::new(RULES, 2);
    // Two keys of different lanes.
    let is_alone = |n: &u32| {
        let mut probe = Shard::new(RULES, 2);
        probe.push(b"0", 0, 0);
        probe.push(&n.to_string().into_bytes(), 0, 0);
        probe.take(0).len() == 2
    };
    let other = (1..).find(is_alone).expect("there is one").to_string();
    shard.push(b"0", 0, 0);
    shard.push(other.as_bytes(), 1, 0);
    let mut done = 0;
    for (lane, batch) in shard.take(0) {
        let outcome = if batch == [0] { BatchAnswer::Failed } else { BatchAnswer::Done };
        done += shard.finish(lane, outcome, 0).done;
    }
    assert_eq!((done, shard.len(), shard.due_ms()), (1, 1, Some(100)));
}

#[test]
fn children_are_read_after_their_parents() {
    let of = |name: &str, parents: &[&str]| {
        (name.to_owned(), parents.iter().map(|parent| (*parent).to_owned()).collect::<Vec<_>>())
    };
    let all = || vec![of("a", &["gone"]), of("b", &[]), of("ab", &["a", "b"]), of("c", &["ab"])];
    let mut family = Family::default();
    family.set_shards(all());
    assert_eq!(family.start(), ["a", "b"]);
    family.finish("a");
    assert_eq!(family.start(), Vec::<String>::new(), "one parent is not finished");
    family.finish("b");
    family.set_shards(all());
    assert_eq!(family.start(), ["ab"]);
    assert_eq!(family.start(), Vec::<String>::new(), "each is started once");
    // Its parents are gone from the stream, but it is already started.
    family.set_shards(vec![of("ab", &["a", "b"]), of("c", &["ab"])]);
    assert_eq!(family.start(), Vec::<String>::new());
    family.finish("ab");
    assert_eq!(family.start(), ["c"]);
}
