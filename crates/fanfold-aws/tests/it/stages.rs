//! The stages over the adapters, when DynamoDB answers late, never, or another writer comes first.

use std::sync::Arc;
use std::time::Duration;

use fanfold::entry::Outcome;
use fanfold::host::body::record::{Part, Record};
use fanfold::host::body::{commit, slot};
use fanfold::{Command, Entry, LogId, Request, Seq, Time};
use fanfold_aws::dynamo::{DynamoCommands, DynamoJournal, DynamoParked, DynamoState};
use fanfold_aws::{OpenAdmission, SystemEnv};
use fanfold_embedded::TransitConfig;
use fanfold_embedded::testing::Ports;
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::ingest::{Ingest, IngestError, IngestPorts};
use fanfold_pipeline::packing::PackingTopic;
use fanfold_pipeline::ports::{Commands, CommitItem, Env, Journal, Unavailable};
use fanfold_pipeline::process::{Processor, ReceivedRecord};
use fanfold_pipeline::testing::SentMessages;
use fanfold_pipeline::wiring::Wiring;
use rand::distr::{Alphanumeric, SampleString};
use serde_json::{Value, json};

use crate::dynamo::Dynamo;
use crate::relaying::services;
use crate::wire::Trouble;

const NEVER: Time = Time(u64::MAX);
/// How long an attempt waits for its answer. It is long enough for answers that come.
const ATTEMPT: Duration = Duration::from_secs(1);

fn acme() -> LogId {
    "ledger/org:acme".parse().expect("a log")
}

fn request(id: u64, command: &str, data: &Value) -> Vec<u8> {
    let request = json!({"type": "ledger", "command": command, "id": id, "user": "ann",
                         "org": "acme", "data": data});
    request.to_string().into_bytes()
}

/// The first command opens the account, each other deposits one cent.
fn nth(id: u64) -> Vec<u8> {
    match id {
        1 => request(1, "open", &json!({"account": "cash"})),
        _ => request(id, "deposit", &json!({"account": "cash", "amount": 1})),
    }
}

fn command(json: &[u8]) -> Command {
    Request::parse(json, &services()).expect("a request").command
}

/// A record of the stream with commands whose seqs and ids are this range.
fn record(seqs: std::ops::RangeInclusive<u64>) -> ReceivedRecord {
    let commands: Vec<Command> = seqs.clone().map(|id| command(&nth(id))).collect();
    record_of(*seqs.start(), &commands)
}

fn record_of(first: u64, commands: &[Command]) -> ReceivedRecord {
    let commands: Vec<&Command> = commands.iter().collect();
    let bodies = slot::encode(&commands).expect("JSON");
    let (mut last, at) = (first - 1, SystemEnv.now());
    let parts = bodies.iter().map(|(n, body)| {
        last += *n as u64;
        Part { last: Seq(last), n: *n as u64, at, body }
    });
    let record = Record { log: acme(), parts: parts.collect() };
    ReceivedRecord { key: acme(), data: record.encode().expect("JSON").into(), arrived: at }
}

/// A processor with a cache of its own.
fn processor(dynamo: &Dynamo, state: &str) -> (Processor, Arc<SentMessages>) {
    let aws = dynamo.aws.clone().with_attempt_timeout(ATTEMPT);
    let (topic, env) = (SentMessages::new(1), Arc::new(SystemEnv));
    let memory = Ports::in_memory(&TransitConfig::default(), [], env.clone()).expect("ports");
    let wiring = Wiring {
        journal: Arc::new(DynamoJournal::new(&aws, dynamo.tables.journal())),
        state: Arc::new(DynamoState::new(&aws, state)),
        parked: Arc::new(DynamoParked::new(&aws, dynamo.tables.parked())),
        topic: Arc::new(PackingTopic::new(topic.clone(), env.clone())),
        ..memory.wiring(env)
    };
    (wiring.processor(services()), topic)
}

async fn done(processor: &Processor, records: &[ReceivedRecord]) {
    assert_eq!(processor.process(records, NEVER).await, BatchOutcome::DONE);
}

/// The commits of the log, each with its entries.
async fn commits(dynamo: &Dynamo) -> Vec<(CommitItem, Vec<Entry>)> {
    let journal = DynamoJournal::new(&dynamo.aws, dynamo.tables.journal());
    let (mut commits, mut from) = (Vec::new(), Seq(1));
    loop {
        let page = journal.read(&acme(), from, 100).await.expect("a read");
        for item in page.commits {
            from = item.last().next();
            let (entries, _) = commit::decode(item.first, &item.body).expect("a commit");
            commits.push((item, entries));
        }
        if !page.more {
            return commits;
        }
    }
}

/// Checks that the log has these commits, given by first and last seq, and each command once.
async fn assert_commits(dynamo: &Dynamo, expected: &[(u64, u64)]) {
    let commits = commits(dynamo).await;
    let ranges: Vec<(u64, u64)> =
        commits.iter().map(|(item, _)| (item.first.0, item.last().0)).collect();
    assert_eq!(ranges, expected);
    let entries = commits.iter().flat_map(|(_, entries)| entries);
    for (seq, entry) in (1..).zip(entries) {
        assert_eq!((entry.seq, entry.id.get()), (Seq(seq), seq), "each command at its seq");
        assert!(matches!(entry.outcome, Outcome::Accepted(_)), "{entry:?}");
    }
}

fn ingest(dynamo: &Dynamo) -> (Ingest, Arc<DynamoCommands>) {
    let aws = dynamo.aws.clone().with_attempt_timeout(ATTEMPT);
    let commands = Arc::new(DynamoCommands::new(&aws, dynamo.tables.commands()));
    let env = Arc::new(SystemEnv);
    let ports = IngestPorts { commands: commands.clone(), admission: Arc::new(OpenAdmission), env };
    (Ingest::new(ports, services()), commands)
}

/// An answer that is lost after the slot was written costs one more attempt, and nothing else.
#[tokio::test]
async fn a_slot_whose_answer_was_lost_is_written_once() {
    for lost in [1, 2] {
        let dynamo = Dynamo::start().await;
        let (ingest, commands) = ingest(&dynamo);
        let table = dynamo.tables.commands();
        dynamo.wire.trouble("UpdateItem", &table, 1, Trouble::LoseAnswer);
        // A second attempt that is lost changes nothing.
        dynamo.wire.trouble("UpdateItem", &table, lost - 1, Trouble::LoseRequest);
        let requests = [nth(1), nth(2)];
        let requests: Vec<&[u8]> = requests.iter().map(Vec::as_slice).collect();
        let answers = ingest.ingest(&requests).await;
        let receipts: Vec<u64> =
            answers.into_iter().map(|answer| answer.expect("a receipt").seq.0).collect();
        assert_eq!(receipts, [1, 2]);
        let slot = commands.slot(&acme()).await.expect("a slot").expect("a slot");
        assert_eq!((slot.seq, slot.n), (Seq(2), 2), "the batch was counted once");
        assert_eq!(dynamo.wire.count("UpdateItem", &table), lost + 1);

        let answers = ingest.ingest(&[&nth(3)]).await;
        let receipt = answers.into_iter().next().expect("an answer").expect("a receipt");
        assert_eq!(receipt.seq, Seq(3), "the next command has the next seq");
    }
}

/// Throttled attempts are retried up to a limit; after that, nothing was accepted.
#[tokio::test]
async fn a_throttled_append_is_retried() {
    let dynamo = Dynamo::start().await;
    let (ingest, commands) = ingest(&dynamo);
    let table = dynamo.tables.commands();
    let throttled = Trouble::Answer(400, "ProvisionedThroughputExceededException");
    dynamo.wire.trouble("UpdateItem", &table, 3, throttled);
    let answers = ingest.ingest(&[&nth(1)]).await;
    assert_eq!(answers[0].as_ref().expect("a receipt").seq, Seq(1));
    assert_eq!(dynamo.wire.count("UpdateItem", &table), 4);

    dynamo.wire.trouble("UpdateItem", &table, usize::MAX, throttled);
    let answers = ingest.ingest(&[&nth(2)]).await;
    let error = answers[0].as_ref().expect_err("throttled");
    assert!(matches!(error, IngestError::Unavailable(Unavailable::Throttled { .. })), "{error:?}");
    let slot = commands.slot(&acme()).await.expect("a slot").expect("a slot");
    assert_eq!(slot.seq, Seq(1), "nothing was accepted");
}

/// An answer was lost, and the retries were throttled. The error must not say that nothing was
/// accepted.
#[tokio::test]
async fn a_lost_answer_leaves_the_outcome_unknown_after_a_throttle() {
    let dynamo = Dynamo::start().await;
    let (ingest, commands) = ingest(&dynamo);
    let table = dynamo.tables.commands();
    let throttled = Trouble::Answer(400, "ProvisionedThroughputExceededException");
    dynamo.wire.trouble("UpdateItem", &table, 1, Trouble::LoseAnswer);
    dynamo.wire.trouble("UpdateItem", &table, usize::MAX, throttled);
    let answers = ingest.ingest(&[&nth(1)]).await;
    let error = answers[0].as_ref().expect_err("throttled, at last");
    assert!(matches!(error, IngestError::Unavailable(Unavailable::TimedOut { .. })), "{error:?}");
    let slot = commands.slot(&acme()).await.expect("a slot").expect("a slot");
    assert_eq!(slot.seq, Seq(1), "the command was accepted");
}

/// The stored commit has the writer's own nonce, so nothing is read again or decided twice.
#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_written_once() {
    for lost in [1, 2] {
        let dynamo = Dynamo::start().await;
        let (processor, topic) = processor(&dynamo, &dynamo.tables.state());
        let table = dynamo.tables.journal();
        done(&processor, &[record(1..=3)]).await;
        dynamo.wire.seen();
        dynamo.wire.trouble("PutItem", &table, 1, Trouble::LoseAnswer);
        dynamo.wire.trouble("PutItem", &table, lost - 1, Trouble::LoseRequest);
        done(&processor, &[record(4..=6)]).await;
        let seen = dynamo.wire.seen();
        let puts = seen.iter().filter(|call| call.operation == "PutItem" && call.table == table);
        assert_eq!(puts.count(), lost + 1);
        assert!(seen.iter().all(|call| call.operation != "Query"), "nothing is loaded: {seen:?}");
        done(&processor, &[record(7..=7)]).await;
        assert_commits(&dynamo, &[(1, 3), (4, 6), (7, 7)]).await;
        assert_eq!(topic.all().len(), 3, "each is published once");
    }
}

/// No attempt is answered. The batch is delivered again, to a processor without the log in its cache.
#[tokio::test]
async fn a_commit_whose_every_answer_is_lost_is_found_when_the_batch_comes_again() {
    let dynamo = Dynamo::start().await;
    let (processor, _) = processor(&dynamo, &dynamo.tables.state());
    let table = dynamo.tables.journal();
    done(&processor, &[record(1..=3)]).await;
    dynamo.wire.trouble("PutItem", &table, 1, Trouble::LoseAnswer);
    dynamo.wire.trouble("PutItem", &table, 2, Trouble::LoseRequest);
    let outcome = processor.process(&[record(4..=6)], NEVER).await;
    assert_eq!(outcome.unfinished, Some(0));
    done(&processor, &[record(4..=6), record(7..=7)]).await;
    assert_commits(&dynamo, &[(1, 3), (4, 6), (7, 7)]).await;
}

/// Another environment has appended a commit: it is read, and the rest of the batch decided after it.
#[tokio::test]
async fn a_commit_of_another_writer_is_read_and_the_rest_decided_again() {
    for others in [4, 5, 6, 8] {
        let dynamo = Dynamo::start().await;
        let state = dynamo.tables.state();
        let table = dynamo.tables.journal();
        let (stale, _) = processor(&dynamo, &state);
        let (other, _) = processor(&dynamo, &state);
        done(&stale, &[record(1..=3)]).await;
        done(&other, &[record(4..=others)]).await;
        dynamo.wire.seen();
        let before = dynamo.aws.meter.snapshot();
        done(&stale, &[record(4..=6)]).await;
        let mut expected = vec![(1, 3), (4, others)];
        expected.extend((others < 6).then_some((others + 1, 6)));
        let units = (dynamo.aws.meter.snapshot() - &before).of(&table);
        assert_eq!(units.conflicts, 1.0, "the condition failed once");
        assert_eq!(units.write, if others < 6 { 1.0 } else { 0.0 });
        assert_commits(&dynamo, &expected).await;
    }
}

/// A log of several pages without a snapshot is folded from its beginning.
#[tokio::test]
async fn a_cold_processor_reads_a_journal_of_several_pages() {
    let dynamo = Dynamo::start().await;
    let (writer, _) = processor(&dynamo, &dynamo.tables.state());
    done(&writer, &[record(1..=1)]).await;
    let mut rng = rand::rng();
    // Random letters, which zstd shortens only by a quarter.
    let mut large = |id: u64| {
        let memo = Alphanumeric.sample_string(&mut rng, 40_000);
        command(&request(id, "deposit", &json!({"account": "cash", "amount": 1, "memo": memo})))
    };
    for round in 0..5 {
        let first = 2 + round * 10;
        let commands: Vec<Command> = (first..first + 10).map(&mut large).collect();
        done(&writer, &[record_of(first, &commands)]).await;
    }
    let bytes: usize = commits(&dynamo).await.iter().map(|(item, _)| item.body.len()).sum();
    assert!(bytes > 1024 * 1024, "more than a page of DynamoDB's: {bytes}");

    dynamo.make_table("empty-state").await;
    let (cold, _) = processor(&dynamo, "empty-state");
    dynamo.wire.seen();
    let withdraw = |id, amount| {
        command(&request(id, "withdraw", &json!({"account": "cash", "amount": amount})))
    };
    done(&cold, &[record_of(52, &[withdraw(52, 50), withdraw(53, 1)])]).await;
    assert!(dynamo.wire.count("Query", &dynamo.tables.journal()) > 1, "several pages");
    let commits = commits(&dynamo).await;
    let (_, last) = commits.last().expect("a commit");
    let [all, none] = last.as_slice() else { panic!("two entries: {last:?}") };
    assert!(matches!(all.outcome, Outcome::Accepted(_)), "all that was paid in: {all:?}");
    assert!(matches!(none.outcome, Outcome::Rejected { .. }), "nothing is left: {none:?}");
}

/// A refusal names the missing permission, and the adapter does not retry it.
#[tokio::test]
async fn a_table_without_permission_leaves_the_batch_unfinished() {
    let dynamo = Dynamo::start().await;
    let (processor, _) = processor(&dynamo, &dynamo.tables.state());
    let table = dynamo.tables.state();
    dynamo.wire.trouble("GetItem", &table, 1, Trouble::Answer(400, "AccessDeniedException"));
    let outcome = processor.process(&[record(1..=2)], NEVER).await;
    assert_eq!(outcome.unfinished, Some(0));
    assert_eq!(dynamo.wire.count("GetItem", &table), 1);
    done(&processor, &[record(1..=2)]).await;
    assert_commits(&dynamo, &[(1, 2)]).await;
}
