//! The relay and the processor over a `PutRecords` that fails in random ways: the log is dense (F1), and
//! the relay sends nothing behind an unacknowledged record (F2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fanfold::entry::Outcome;
use fanfold::host::body::commit;
use fanfold::host::body::record::Record;
use fanfold::{LogId, Seq};
use fanfold_aws::KinesisStream;
use fanfold_embedded::TransitConfig;
use fanfold_embedded::testing::Ports;
use fanfold_pipeline::ports::{Change, Env, Journal};
use fanfold_pipeline::process::ReceivedRecord;
use fanfold_pipeline::relay::{Relay, RelayPorts};
use fanfold_pipeline::testing::ManualEnv;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::answers::{Answer, aws, env};
use crate::relaying::{answer, change, records_of, refusal, services};

/// The most calls with a fate of their own. All later calls succeed, so that a run ends.
const FATES_MAX: usize = 40;
/// The most deliveries of a batch: more than there are fates.
const TURNS_MAX: usize = 400;

/// The fate of a `PutRecords`.
#[derive(Debug, Clone)]
enum Fate {
    /// It is answered. The flags say, in turn, whether a record is put.
    Answered(Vec<bool>),
    /// It is throttled as a whole, and puts nothing.
    Throttled,
    /// It puts some or all records, but the answer is lost or an error.
    Lost { put: Vec<bool>, is_error: bool },
    /// It is not answered, and its records arrive after this many other calls.
    Late { put: Vec<bool>, calls: usize },
}

fn fate() -> impl Strategy<Value = Fate> {
    let some = || vec(any::<bool>(), 1..5);
    prop_oneof![
        3 => some().prop_map(Fate::Answered),
        1 => Just(Fate::Throttled),
        2 => (some(), any::<bool>()).prop_map(|(put, is_error)| Fate::Lost { put, is_error }),
        2 => (some(), 1usize..6).prop_map(|(put, calls)| Fate::Late { put, calls }),
    ]
}

/// The records in a stream, and those that arrive later.
#[derive(Default)]
struct Kinesis {
    records: Vec<(String, Bytes)>,
    late: Vec<(usize, Vec<(String, Bytes)>)>,
    fates: Vec<Fate>,
    calls: usize,
    /// Per log, the first command that was sent and is not acknowledged.
    unacknowledged: BTreeMap<String, Seq>,
}

impl Kinesis {
    fn put_records(&mut self, records: Vec<(String, Bytes)>) -> Answer {
        let fate = self.fates.get(self.calls).cloned().unwrap_or(Fate::Answered(vec![true]));
        self.calls += 1;
        self.arrive(self.calls);
        self.note_sent(&records);
        let chosen = |put: &[bool]| -> Vec<(String, Bytes)> {
            let by_turns = records.iter().zip(put.iter().cycle());
            by_turns.filter(|(_, put)| **put).map(|(record, _)| record.clone()).collect()
        };
        match fate {
            Fate::Answered(put) => {
                self.records.extend(chosen(&put));
                for (log, _) in chosen(&put) {
                    self.unacknowledged.remove(&log);
                }
                let codes = put.iter().cycle().take(records.len());
                let codes = codes.map(|put| (!put).then_some("InternalFailure"));
                answer(&codes.collect::<Vec<_>>())
            }
            Fate::Throttled => refusal(400, "ProvisionedThroughputExceededException"),
            Fate::Lost { put, is_error } => {
                self.records.extend(chosen(&put));
                if is_error { refusal(500, "InternalFailure") } else { None }
            }
            Fate::Late { put, calls } => {
                self.late.push((self.calls + calls, chosen(&put)));
                None
            }
        }
    }

    /// Checks F2: a call has one record of a log, which begins no later than the first unacknowledged
    /// command.
    fn note_sent(&mut self, records: &[(String, Bytes)]) {
        let mut logs = BTreeSet::new();
        for (log, data) in records {
            assert!(logs.insert(log), "{log} has two records in one call");
            let first = Record::decode(data).unwrap().parts[0].first();
            let unacknowledged = self.unacknowledged.entry(log.clone()).or_insert(first);
            assert!(first <= *unacknowledged, "{log}: {first} is sent, {unacknowledged} missing");
            *unacknowledged = first;
        }
    }

    /// Adds late records that are due at this call.
    fn arrive(&mut self, call: usize) {
        let (due, late) =
            std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= call);
        self.late = late;
        let due: Vec<(usize, Vec<(String, Bytes)>)> = due;
        self.records.extend(due.into_iter().flat_map(|(_, records)| records));
    }
}

/// The plan of a run.
#[derive(Debug, Clone)]
struct Plan {
    /// The log of each change, and its number of commands.
    changes: Vec<(u8, u64)>,
    fates: Vec<Fate>,
    record_bytes: usize,
    /// The number of changes, and of records, in a batch.
    batch: usize,
    /// Whether every batch gets a new relay.
    is_cold: bool,
    seed: u64,
}

fn plan() -> impl Strategy<Value = Plan> {
    (
        vec((0u8..3, 1u64..4), 1..16),
        vec(fate(), 0..FATES_MAX),
        prop_oneof![Just(1usize), Just(400), Just(100_000)],
        1usize..8,
        any::<bool>(),
        any::<u64>(),
    )
        .prop_map(|(changes, fates, record_bytes, batch, is_cold, seed)| Plan {
            changes,
            fates,
            record_bytes,
            batch,
            is_cold,
            seed,
        })
}

/// The changes of the plan, in the order of the commands table's stream.
fn changes_of(plan: &Plan) -> Vec<Change> {
    let mut lasts: BTreeMap<u8, u64> = BTreeMap::new();
    let made = plan.changes.iter().map(|(log, n)| {
        let last = lasts.entry(*log).or_default();
        *last += n;
        change(&format!("ledger/org:{log}"), *last, *n)
    });
    made.collect()
}

async fn relay_all(plan: &Plan, changes: &[Change], env: &Arc<ManualEnv>) -> Vec<(String, Bytes)> {
    let kinesis = Kinesis { fates: plan.fates.clone(), ..Kinesis::default() };
    let kinesis = Arc::new(Mutex::new(kinesis));
    let put = kinesis.clone();
    let aws = aws(move |body| put.lock().unwrap().put_records(records_of(body)));
    let relay = || {
        let stream = Arc::new(KinesisStream::new(&aws, "the-stream"));
        Relay::new(RelayPorts { stream, env: env.clone() }).with_record_bytes(plan.record_bytes)
    };
    let mut warm = relay();
    let mut rest = changes;
    for _ in 0..TURNS_MAX {
        let batch = &rest[..rest.len().min(plan.batch)];
        if batch.is_empty() {
            let mut kinesis = kinesis.lock().unwrap();
            kinesis.arrive(usize::MAX);
            return std::mem::take(&mut kinesis.records);
        }
        if plan.is_cold {
            warm = relay();
        }
        let outcome = warm.relay(batch, env.now().plus_ms(60_000)).await;
        rest = &rest[outcome.unfinished.unwrap_or(batch.len())..];
    }
    panic!("the relay does not come to its end");
}

async fn process_all(plan: &Plan, records: Vec<(String, Bytes)>, env: &Arc<ManualEnv>) -> Ports {
    let memory = Ports::in_memory(&TransitConfig::default(), [], env.clone()).expect("ports");
    let processor = memory.wiring(env.clone()).processor(services());
    let received = |(key, data): (String, Bytes)| ReceivedRecord {
        key: key.parse().unwrap(),
        data,
        arrived: env.now(),
    };
    let records: Vec<ReceivedRecord> = records.into_iter().map(received).collect();
    let mut rest = records.as_slice();
    for _ in 0..TURNS_MAX {
        let batch = &rest[..rest.len().min(plan.batch)];
        if batch.is_empty() {
            return memory;
        }
        let outcome = processor.process(batch, env.now().plus_ms(60_000)).await;
        rest = &rest[outcome.unfinished.unwrap_or(batch.len())..];
        env.sleep(1_000).await;
    }
    panic!("the processor does not come to its end");
}

async fn check(plan: &Plan) {
    let env = env(plan.seed);
    let changes = changes_of(plan);
    let records = relay_all(plan, &changes, &env).await;
    let memory = process_all(plan, records, &env).await;
    let logs: BTreeSet<&LogId> = changes.iter().map(|change| &change.log).collect();
    for log in logs {
        let accepted = changes.iter().filter(|c| c.log == *log).map(|c| c.last).max().unwrap();
        let page = memory.journal.read(log, Seq(1), 1_000).await.unwrap();
        let mut entries = Vec::new();
        for item in &page.commits {
            entries.extend(commit::decode(item.first, &item.body).unwrap().0);
        }
        let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq.0).collect();
        assert_eq!(seqs, (1..=accepted.0).collect::<Vec<_>>(), "{log} is dense");
        for entry in entries {
            // Each command's id is its seq, and it opens an account of its own.
            assert_eq!(entry.id.get(), entry.seq.0, "{log}: each command once");
            assert!(matches!(entry.outcome, Outcome::Accepted(_)), "{log}: {entry:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_dense_whatever_put_records_does(plan in plan()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(check(&plan));
    }
}
