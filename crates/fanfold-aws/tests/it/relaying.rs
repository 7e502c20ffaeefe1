//! The relay over Kinesis, with the failures of Kinesis.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use fanfold::host::body::record::Record;
use fanfold::host::body::slot;
use fanfold::{LogId, Request, Seq, Services};
use fanfold_aws::KinesisStream;
use fanfold_pipeline::ports::{Change, CommandStream, Env, StreamRecord, Token, Unavailable};
use fanfold_pipeline::relay::{Relay, RelayPorts};
use fanfold_pipeline::testing::ManualEnv;
use fanfold_pipeline::{BatchOutcome, conformance};
use ledger::Ledger;
use serde_json::{Value, json};

use crate::answers::{Answer, aws, env};

/// The keys and data of the records of each `PutRecords`.
pub(crate) type Calls = Arc<Mutex<Vec<Vec<(String, Bytes)>>>>;

pub(crate) fn services() -> Services {
    Services::new().with::<Ledger>()
}

/// The records of a `PutRecords`.
pub(crate) fn records_of(body: &str) -> Vec<(String, Bytes)> {
    let request: Value = serde_json::from_str(body).unwrap();
    assert_eq!(request["StreamName"], "the-stream");
    let record = |record: &Value| {
        let data = BASE64_STANDARD.decode(record["Data"].as_str().unwrap()).unwrap();
        (record["PartitionKey"].as_str().unwrap().to_owned(), Bytes::from(data))
    };
    request["Records"].as_array().unwrap().iter().map(record).collect()
}

/// The answer to a `PutRecords`, with each record's error code if it failed.
pub(crate) fn answer(codes: &[Option<&str>]) -> Answer {
    let record = |(at, code): (usize, &Option<&str>)| match code {
        Some(code) => json!({ "ErrorCode": code, "ErrorMessage": "so it is" }),
        None => json!({ "SequenceNumber": format!("4954{at}"), "ShardId": "shardId-000000000000" }),
    };
    let records: Vec<Value> = codes.iter().enumerate().map(record).collect();
    let failed = codes.iter().flatten().count();
    let body = json!({ "FailedRecordCount": failed, "Records": records, "EncryptionType": "KMS" });
    Some((200, body.to_string()))
}

pub(crate) fn refusal(status: u16, code: &str) -> Answer {
    Some((status, json!({ "__type": code, "message": "so it is" }).to_string()))
}

/// A change of `n` commands, the last of which has the seq `last`.
pub(crate) fn change(log: &str, last: u64, n: u64) -> Change {
    let log: LogId = log.parse().unwrap();
    let commands: Vec<_> = (last + 1 - n..=last)
        .map(|seq| {
            let request = json!({
                "type": "ledger", "command": "open", "id": seq, "user": "ann",
                "org": log.partition().trim_start_matches("org:"),
                "data": { "account": format!("account-{seq}") },
            });
            let request = Request::parse(request.to_string().as_bytes(), &services()).unwrap();
            assert_eq!(request.log, log);
            request.command
        })
        .collect();
    let commands: Vec<_> = commands.iter().collect();
    let (_, body) = slot::encode(&commands).unwrap().remove(0);
    let at = env(0).now();
    Change { log, last: Seq(last), n, at, token: Token(u128::from(last)), body: body.into() }
}

/// The last seqs of a record's parts.
fn seqs(data: &[u8]) -> Vec<u64> {
    Record::decode(data).unwrap().parts.iter().map(|part| part.last.0).collect()
}

struct Fixture {
    relay: Relay,
    env: Arc<ManualEnv>,
    calls: Calls,
}

/// A relay whose `PutRecords` are answered by `answers`, which gets the call's number and its keys.
fn relay(mut answers: impl FnMut(usize, &[String]) -> Answer + Send + 'static) -> Fixture {
    let calls: Calls = Arc::default();
    let seen = calls.clone();
    let aws = aws(move |body| {
        let records = records_of(body);
        let keys: Vec<String> = records.iter().map(|(key, _)| key.clone()).collect();
        seen.lock().unwrap().push(records);
        answers(seen.lock().unwrap().len(), &keys)
    });
    let env = env(1);
    let stream = Arc::new(KinesisStream::new(&aws, "the-stream"));
    // Makes every change a record of its own.
    let relay = Relay::new(RelayPorts { stream, env: env.clone() }).with_record_bytes(1);
    Fixture { relay, env, calls }
}

/// The keys and seqs of the records of each call, in order.
fn sent(calls: &Calls) -> Vec<Vec<(String, Vec<u64>)>> {
    let calls = calls.lock().unwrap();
    let call = |call: &Vec<(String, Bytes)>| {
        call.iter().map(|(key, data)| (key.clone(), seqs(data))).collect()
    };
    calls.iter().map(call).collect()
}

fn expected(calls: &[&[(&str, u64)]]) -> Vec<Vec<(String, Vec<u64>)>> {
    let call = |call: &&[(&str, u64)]| {
        call.iter().map(|(key, seq)| ((*key).to_owned(), vec![*seq])).collect()
    };
    calls.iter().map(call).collect()
}

const A: &str = "ledger/org:a";
const B: &str = "ledger/org:b";
const C: &str = "ledger/org:c";

fn changes() -> Vec<Change> {
    [(A, 1), (B, 1), (A, 2), (C, 1), (B, 2), (A, 3)].map(|(log, last)| change(log, last, 1)).into()
}

/// The records of B fail in the first two calls, with HTTP 200.
#[tokio::test(start_paused = true)]
async fn only_failed_records_are_sent_again_in_order() {
    for code in ["ProvisionedThroughputExceededException", "InternalFailure"] {
        let Fixture { relay, env, calls } = relay(move |call, keys| {
            let code = |key: &String| (key == B && call <= 2).then_some(code);
            answer(&keys.iter().map(code).collect::<Vec<_>>())
        });
        let outcome = relay.relay(&changes(), env.now().plus_ms(60_000)).await;
        assert_eq!(outcome, BatchOutcome::DONE);
        let rounds: [&[(&str, u64)]; 4] =
            [&[(A, 1), (B, 1), (C, 1)], &[(A, 2), (B, 1)], &[(A, 3), (B, 1)], &[(B, 2)]];
        assert_eq!(sent(&calls), expected(&rounds), "{code}");
    }
}

/// The whole call fails: it is throttled, broken, or never answered.
#[tokio::test(start_paused = true)]
async fn a_call_that_failed_is_made_again() {
    let failures: [fn() -> Answer; 4] = [
        || refusal(400, "ProvisionedThroughputExceededException"),
        || refusal(500, "InternalFailure"),
        || Some((502, "<html>Bad Gateway</html>".to_owned())),
        || None,
    ];
    for (index, failure) in failures.into_iter().enumerate() {
        let Fixture { relay, env, calls } =
            relay(
                move |call, keys| {
                    if call == 1 { failure() } else { answer(&vec![None; keys.len()]) }
                },
            );
        let outcome = relay.relay(&changes(), env.now().plus_ms(60_000)).await;
        assert_eq!(outcome, BatchOutcome::DONE);
        let first: &[(&str, u64)] = &[(A, 1), (B, 1), (C, 1)];
        let rounds = [first, first, &[(A, 2), (B, 2)], &[(A, 3)]];
        assert_eq!(sent(&calls), expected(&rounds), "failure {index}");
    }
}

/// One log's records are never put. When the relay gives up, it reports this log's first change, and
/// the others are put.
#[tokio::test(start_paused = true)]
async fn a_record_that_is_never_put_is_reported() {
    let Fixture { relay, env, calls } = relay(|_, keys| {
        let code = |key: &String| (key == B).then_some("InternalFailure");
        answer(&keys.iter().map(code).collect::<Vec<_>>())
    });
    let outcome = relay.relay(&changes(), env.now().plus_ms(60_000)).await;
    assert_eq!(outcome, BatchOutcome { unfinished: Some(1) });
    let sent_of = |log: &str| {
        let records = sent(&calls).into_iter().flatten().filter(|(key, _)| key == log);
        records.flat_map(|(_, seqs)| seqs).collect::<Vec<_>>()
    };
    assert_eq!((sent_of(A), sent_of(C)), (vec![1, 2, 3], vec![1]));
    assert!(sent_of(B).iter().all(|seq| *seq == 1), "B's second is not sent before its first");
}

#[tokio::test(start_paused = true)]
async fn each_result_has_its_error() {
    let hop = "command stream";
    let throttled = || Unavailable::Throttled { hop };
    let failed = |said: &str| Err(Unavailable::Failed { hop, message: said.to_owned() });
    let neither = Some((200, json!({ "Records": [{}] }).to_string()));
    let record = StreamRecord { key: A.parse().unwrap(), data: "x".into() };
    for (answer, expected) in [
        (answer(&[None]), Ok(())),
        (answer(&[Some("ProvisionedThroughputExceededException")]), Err(throttled())),
        (answer(&[Some("InternalFailure")]), failed("InternalFailure: so it is")),
        (neither, failed("neither a sequence number nor an error")),
    ] {
        let stream = KinesisStream::new(&aws(move |_| answer.clone()), "the-stream");
        let results = stream.put_records(std::slice::from_ref(&record)).await;
        assert_eq!(results, Ok(vec![expected]));
    }
    // An answer with too few results acknowledges nothing.
    let stream = KinesisStream::new(&aws(|_| answer(&[None])), "the-stream");
    assert!(stream.put_records(&[record.clone(), record.clone()]).await.is_err());
    let stream = KinesisStream::new(
        &aws(|_| refusal(400, "ProvisionedThroughputExceededException")),
        "the-stream",
    );
    assert_eq!(stream.put_records(&[record]).await, Err(throttled()));
    assert_eq!(stream.put_records(&[]).await, Ok(Vec::new()));
}

/// The most records, and the most bytes with partition keys, of one call. Source: Kinesis, `PutRecords`.
const KINESIS_RECORDS_MAX: usize = 500;
const KINESIS_BYTES_MAX: usize = 5 * 1024 * 1024;

#[tokio::test(start_paused = true)]
async fn the_stream_passes_the_conformance_suite() {
    let stored: Arc<Mutex<Vec<StreamRecord>>> = Arc::default();
    let (seen, mut calls) = (stored.clone(), 0);
    let aws = aws(move |body| {
        calls += 1;
        let records = records_of(body);
        let bytes: usize = records.iter().map(|(key, data)| key.len() + data.len()).sum();
        assert!(records.len() <= KINESIS_RECORDS_MAX && bytes <= KINESIS_BYTES_MAX, "{bytes}");
        // In turn: throttled as a whole, throttled in part, put.
        if calls % 3 == 1 {
            return refusal(400, "ProvisionedThroughputExceededException");
        }
        let fails = |at: usize| calls % 3 == 2 && at % 2 == 1;
        let code = |at| fails(at).then_some("ProvisionedThroughputExceededException");
        let codes: Vec<_> = (0..records.len()).map(code).collect();
        let put = records.into_iter().enumerate().filter(|(at, _)| !fails(*at));
        let record =
            |(key, data): (String, Bytes)| StreamRecord { key: key.parse().unwrap(), data };
        seen.lock().unwrap().extend(put.map(|(_, put)| record(put)));
        answer(&codes)
    });
    let stream = KinesisStream::new(&aws, "the-stream");
    let arrived = async || std::mem::take(&mut *stored.lock().unwrap());
    conformance::command_stream(&stream, "k", arrived).await;
}
