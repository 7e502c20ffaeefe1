use std::collections::BTreeSet;

use fanfold::entry::{Entry, Outcome};
use fanfold::{CommandId, Origin};

use super::*;

fn commit(seq: u64) -> Commit {
    let entry = Entry {
        seq: Seq(seq),
        time: Time(0),
        origin: Origin::nobody(),
        id: CommandId::NONE,
        command: None,
        digest: None,
        trace: None,
        outcome: Outcome::Stale,
    };
    let log = "ledger/org:acme".parse().expect("a log");
    Commit { log, entries: [entry].into(), prev: Arc::default() }
}

/// The list has a fast path for a commit behind all others. The test compares it with a set,
/// for every sequence of five out of five commits.
#[test]
fn commits_to_publish_are_kept_once_and_in_order() {
    for sequence in 0..5_u64.pow(5) {
        let mut work = LogWork {
            id: "ledger/org:acme".parse().expect("a log"),
            log: None,
            queue: VecDeque::new(),
            unpark: Vec::new(),
            more_parked: false,
            publish: Vec::new(),
            first_record: 0,
            unfinished: None,
            caution: None,
            has_lease: false,
            run_max: 1,
            tracing: Tracing::default(),
        };
        let mut model = BTreeSet::new();
        for digit in 0..5 {
            let seq = sequence / 5_u64.pow(digit) % 5 + 1;
            work.publish(commit(seq));
            model.insert(Seq(seq));
            assert!(work.publish.iter().map(Commit::first).eq(model.iter().copied()));
        }
    }
}
