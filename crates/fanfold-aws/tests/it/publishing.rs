//! The processor over SNS, which fails in its own ways.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fanfold::body::notification::{Attributes, Message};
use fanfold::body::record::{Part, Record};
use fanfold::limits::PUBLISH_BATCH_BYTES_MAX;
use fanfold::{LogId, Seq};
use fanfold_aws::SnsTopic;
use fanfold_embedded::memory::{Memory, MemoryConfig};
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::ports::{Env, Topic, Unavailable};
use fanfold_pipeline::process::{Processor, ProcessorPorts, ReceivedRecord};
use percent_encoding::percent_decode_str;

use crate::relaying::{change, services};
use crate::wire::{Answer, TestEnv, aws};

const ARN: &str = "arn:aws:sns:eu-west-1:123456789012:commits";

/// An entry of a `PublishBatch`.
#[derive(Debug, Clone, Default, PartialEq)]
struct Entry {
    id: String,
    message: String,
    /// By name: type and value.
    attributes: BTreeMap<String, (String, String)>,
}

/// The entries of a `PublishBatch`, as SNS's query protocol has them.
fn entries_of(body: &str) -> Vec<Entry> {
    let decoded = |text: &str| {
        percent_decode_str(&text.replace('+', " ")).decode_utf8().unwrap().into_owned()
    };
    let fields: BTreeMap<String, String> = body
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect();
    assert_eq!((&*fields["Action"], &*fields["TopicArn"]), ("PublishBatch", ARN));
    let mut entries = Vec::new();
    for member in 1.. {
        let prefix = format!("PublishBatchRequestEntries.member.{member}.");
        let Some(id) = fields.get(&format!("{prefix}Id")) else { return entries };
        let mut attributes = BTreeMap::new();
        for number in 1.. {
            let prefix = format!("{prefix}MessageAttributes.entry.{number}.");
            let Some(name) = fields.get(&format!("{prefix}Name")) else { break };
            let value = |part: &str| fields[&format!("{prefix}Value.{part}")].clone();
            attributes.insert(name.clone(), (value("DataType"), value("StringValue")));
        }
        let message = fields[&format!("{prefix}Message")].clone();
        entries.push(Entry { id: id.clone(), message, attributes });
    }
    entries
}

/// The answer to a `PublishBatch`; of each entry its error's code, or none.
fn answer<'a>(entries: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Answer {
    let (mut failed, mut successful) = (String::new(), String::new());
    for (id, code) in entries {
        match code {
            Some(code) => failed.push_str(&format!(
                "<member><Id>{id}</Id><Code>{code}</Code><Message>so it is</Message>\
                 <SenderFault>false</SenderFault></member>"
            )),
            None => successful
                .push_str(&format!("<member><Id>{id}</Id><MessageId>m-{id}</MessageId></member>")),
        }
    }
    let body = format!(
        "<PublishBatchResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\">\
         <PublishBatchResult><Failed>{failed}</Failed><Successful>{successful}</Successful>\
         </PublishBatchResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>\
         </PublishBatchResponse>"
    );
    Some((200, body))
}

fn refusal(status: u16, code: &str) -> Answer {
    let body = format!(
        "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error>\
         <Type>Sender</Type><Code>{code}</Code><Message>so it is</Message></Error>\
         <RequestId>r</RequestId></ErrorResponse>"
    );
    Some((status, body))
}

/// One record that opens many accounts: its notifications are several messages.
fn record(log: &str, commands: u64) -> ReceivedRecord {
    let change = change(log, commands, commands);
    let log: LogId = log.parse().unwrap();
    let part = Part { last: Seq(commands), n: commands, at: change.at, body: &change.body };
    let data = Record { log: log.clone(), parts: vec![part] }.encode().unwrap();
    ReceivedRecord { key: log, data: data.into(), arrived: change.at }
}

/// Publishes what the commands of five logs come to, with SNS answering as `answers` does, given
/// the call's number and its entries. Returns the outcome, and the calls.
async fn publish(
    mut answers: impl FnMut(usize, &[Entry]) -> Answer + Send + 'static,
) -> (BatchOutcome, Vec<Vec<Entry>>) {
    let calls: Arc<Mutex<Vec<Vec<Entry>>>> = Arc::default();
    let seen = calls.clone();
    let aws = aws(move |body| {
        let entries = entries_of(body);
        seen.lock().unwrap().push(entries.clone());
        answers(seen.lock().unwrap().len(), &entries)
    });
    let env = Arc::new(TestEnv::new(2));
    let memory = Memory::new(&MemoryConfig::default(), [], env.clone());
    let ports = ProcessorPorts {
        journal: memory.journal,
        state: memory.state,
        parked: memory.parked,
        topic: Arc::new(SnsTopic::new(&aws, vec![ARN.to_owned()])),
        env: env.clone(),
    };
    // About 50 KiB of notification each: a message each.
    let records: Vec<_> = ["a", "b", "c"].map(|o| record(&format!("ledger/org:{o}"), 150)).into();
    let processor = Processor::new(ports, services());
    let outcome = processor.process(&records, env.now().plus_ms(60_000)).await;
    let calls = calls.lock().unwrap().clone();
    (outcome, calls)
}

fn partitions(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.attributes["partitions"].1.clone()).collect()
}

fn all_done(entries: &[Entry]) -> Answer {
    answer(entries.iter().map(|entry| (entry.id.as_str(), None)))
}

#[tokio::test(start_paused = true)]
async fn messages_carry_what_filter_policies_need() {
    let (outcome, calls) = publish(|_, entries| all_done(entries)).await;
    assert_eq!((outcome, calls.len()), (BatchOutcome::DONE, 1));
    assert_eq!(partitions(&calls[0]), [r#"["org:a"]"#, r#"["org:b"]"#, r#"["org:c"]"#]);
    for Entry { message, attributes, .. } in &calls[0] {
        let array = "String.Array".to_owned();
        assert_eq!(attributes["services"], (array.clone(), r#"["ledger"]"#.to_owned()));
        assert_eq!(attributes["kinds"], (array, r#"["ledger.opened"]"#.to_owned()));
        assert!(message.starts_with(r#"[{"specversion":"1.0""#), "{message}");
    }
    let bytes: usize = calls[0].iter().map(|entry| entry.message.len()).sum();
    assert!(bytes <= PUBLISH_BATCH_BYTES_MAX);
}

#[tokio::test(start_paused = true)]
async fn only_what_failed_is_published_again() {
    for code in ["Throttled", "InternalError"] {
        let (outcome, calls) = publish(move |call, entries| {
            let fate = |at: usize| (at == 1 && call == 1).then_some(code);
            answer(entries.iter().enumerate().map(|(at, entry)| (entry.id.as_str(), fate(at))))
        })
        .await;
        assert_eq!((outcome, calls.len()), (BatchOutcome::DONE, 2), "{code}");
        assert_eq!(partitions(&calls[1]), [r#"["org:b"]"#], "{code}");
        assert_eq!(calls[1][0].message, calls[0][1].message, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_never_published_is_reported() {
    let (outcome, calls) = publish(|_, entries| {
        let fate =
            |at: &Entry| at.attributes["partitions"].1.contains("org:b").then_some("InternalError");
        answer(entries.iter().map(|entry| (entry.id.as_str(), fate(entry))))
    })
    .await;
    assert_eq!(outcome, BatchOutcome { unfinished: Some(1) }, "the record of org:b");
    assert!(calls.len() > 1 && calls[1..].iter().all(|call| call.len() == 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_failed_is_made_again() {
    let failures: [fn() -> Answer; 3] =
        [|| refusal(429, "Throttling"), || refusal(500, "InternalError"), || None];
    for (index, failure) in failures.into_iter().enumerate() {
        let (outcome, calls) =
            publish(move |call, entries| if call == 1 { failure() } else { all_done(entries) })
                .await;
        assert_eq!((outcome, calls.len()), (BatchOutcome::DONE, 2), "failure {index}");
        assert_eq!(calls[0], calls[1], "failure {index}");
    }
}

#[tokio::test(start_paused = true)]
async fn results_are_told_apart() {
    let aws = aws(|_| answer([("0", None), ("1", Some("Throttled")), ("2", Some("NotFound"))]));
    let topic = SnsTopic::new(&aws, vec![ARN.to_owned()]);
    // Of duplicates only: it has no kinds, and an attribute must not be empty.
    let message = Message { body: "[]".to_owned(), attributes: Attributes::default() };
    let results = topic.publish(0, &vec![message; 4]).await.unwrap();
    let failed = |said: &str| Err(Unavailable::Failed { hop: "topic", message: said.to_owned() });
    let expected = [
        Ok(()),
        Err(Unavailable::Throttled { hop: "topic" }),
        failed("NotFound: so it is"),
        failed("neither acknowledged nor refused"),
    ];
    assert_eq!(results, expected);
    assert!(topic.publish(1, &[]).await.is_err(), "there is no such topic");
    assert_eq!(topic.publish(0, &[]).await, Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn an_empty_attribute_is_left_out() {
    let bodies: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let seen = bodies.clone();
    let aws = aws(move |body| {
        seen.lock().unwrap().push(Bytes::copy_from_slice(body.as_bytes()));
        answer([("0", None)])
    });
    let attributes = Attributes { services: ["ledger".to_owned()].into(), ..Attributes::default() };
    let message = Message { body: "[]".to_owned(), attributes };
    let topic = SnsTopic::new(&aws, vec![ARN.to_owned()]);
    assert_eq!(topic.publish(0, &[message]).await, Ok(vec![Ok(())]));
    let body = String::from_utf8(bodies.lock().unwrap()[0].to_vec()).unwrap();
    let attributes = entries_of(&body).remove(0).attributes;
    assert_eq!(attributes.keys().collect::<Vec<_>>(), ["services"]);
}
