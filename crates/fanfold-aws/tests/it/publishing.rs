//! The processor over SNS, with the failures of SNS.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fanfold::host::body::notification::{Attributes, Message};
use fanfold::host::body::record::{Part, Record};
use fanfold::host::limits::PUBLISH_BATCH_BYTES_MAX;
use fanfold::{LogId, Seq};
use fanfold_aws::SnsTopic;
use fanfold_embedded::TransitConfig;
use fanfold_embedded::testing::Ports;
use fanfold_pipeline::packing::{MessageTopics, PackingTopic};
use fanfold_pipeline::ports::{Env, ParkedTable, PublishError, Unavailable};
use fanfold_pipeline::process::ReceivedRecord;
use fanfold_pipeline::wiring::Wiring;
use fanfold_pipeline::{BatchOutcome, conformance};
use percent_encoding::percent_decode_str;

use crate::answers::{Answer, aws, env};
use crate::relaying::{change, services};

const ARN: &str = "arn:aws:sns:eu-west-1:123456789012:commits";

/// An entry of a `PublishBatch`.
#[derive(Debug, Clone, Default, PartialEq)]
struct Entry {
    id: String,
    message: String,
    /// Types and values, by name.
    attributes: BTreeMap<String, (String, String)>,
}

/// The most bytes of one call: all messages with their attributes' names, types and values. Source:
/// SNS, `PublishBatch`, `BatchRequestTooLong`.
const SNS_BATCH_BYTES_MAX: usize = 256 * 1024;
/// The most messages of one call. Source: SNS, `PublishBatch`, `TooManyEntriesInBatchRequest`.
const SNS_BATCH_MAX: usize = 10;

impl Entry {
    /// The bytes of the entry, as SNS counts them.
    fn bytes(&self) -> usize {
        let attribute = |(name, (kind, value)): (&String, &(String, String))| {
            name.len() + kind.len() + value.len()
        };
        self.message.len() + self.attributes.iter().map(attribute).sum::<usize>()
    }
}

/// The entries of a `PublishBatch` in SNS's query protocol. Checks the limits of SNS.
fn entries_of(body: &str) -> Vec<Entry> {
    let entries = all_entries_of(body);
    assert!(entries.len() <= SNS_BATCH_MAX, "{} messages", entries.len());
    let bytes: usize = entries.iter().map(Entry::bytes).sum();
    assert!(bytes <= SNS_BATCH_BYTES_MAX, "{bytes} bytes");
    entries
}

fn all_entries_of(body: &str) -> Vec<Entry> {
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

/// The codes of entries that are the sender's fault.
const SENDER_FAULTS: [&str; 4] =
    ["InvalidParameter", "NotFound", "AuthorizationError", "KMSAccessDenied"];

/// The answer to a `PublishBatch`, with each entry's error code if it failed.
fn answer<'a>(entries: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Answer {
    let (mut failed, mut successful) = (String::new(), String::new());
    for (id, code) in entries {
        match code {
            Some(code) => failed.push_str(&format!(
                "<member><Id>{id}</Id><Code>{code}</Code><Message>so it is</Message>\
                 <SenderFault>{}</SenderFault></member>",
                SENDER_FAULTS.contains(&code)
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

/// A record that opens many accounts, so that its notifications are several messages.
fn record(log: &str, commands: u64) -> ReceivedRecord {
    let change = change(log, commands, commands);
    let log: LogId = log.parse().unwrap();
    let part = Part { last: Seq(commands), n: commands, at: change.at, body: &change.body };
    let data = Record { log: log.clone(), parts: vec![part] }.encode().unwrap();
    ReceivedRecord { key: log, data: data.into(), arrived: change.at }
}

/// Processes commands of three logs, and answers each `PublishBatch` with `answers`, which gets the
/// call's number and its entries. Returns the outcome and the calls.
async fn publish(
    answers: impl FnMut(usize, &[Entry]) -> Answer + Send + 'static,
) -> (BatchOutcome, Vec<Vec<Entry>>) {
    // About 50 KiB of notification each, so each has its own message.
    publish_of(["a", "b", "c"].map(|org| (org.to_owned(), 150)).to_vec(), answers).await
}

/// Like [`publish`], with these orgs and their numbers of commands.
async fn publish_of(
    orgs: Vec<(String, u64)>,
    answers: impl FnMut(usize, &[Entry]) -> Answer + Send + 'static,
) -> (BatchOutcome, Vec<Vec<Entry>>) {
    let (outcome, calls, _) = publish_and_park(orgs, answers).await;
    (outcome, calls)
}

/// Like [`publish_of`]; also returns the orgs that have something parked.
async fn publish_and_park(
    orgs: Vec<(String, u64)>,
    mut answers: impl FnMut(usize, &[Entry]) -> Answer + Send + 'static,
) -> (BatchOutcome, Vec<Vec<Entry>>, Vec<String>) {
    let calls: Arc<Mutex<Vec<Vec<Entry>>>> = Arc::default();
    let seen = calls.clone();
    let aws = aws(move |body| {
        let entries = entries_of(body);
        seen.lock().unwrap().push(entries.clone());
        answers(seen.lock().unwrap().len(), &entries)
    });
    let env = env(2);
    let memory = Ports::in_memory(&TransitConfig::default(), [], env.clone()).expect("ports");
    let topic = Arc::new(SnsTopic::new(&aws, vec![ARN.to_owned()]));
    let topic = Arc::new(PackingTopic::new(topic, env.clone()));
    let processor = Wiring { topic, ..memory.wiring(env.clone()) }.processor(services());
    let records: Vec<_> = orgs
        .iter()
        .map(|(org, commands)| record(&format!("ledger/org:{org}"), *commands))
        .collect();
    let outcome = processor.process(&records, env.now().plus_ms(60_000)).await;
    let calls = calls.lock().unwrap().clone();
    let mut parked = Vec::new();
    for record in &records {
        if !memory.parked.list(&record.key, (Seq::ZERO, ""), 1).await.unwrap().is_empty() {
            parked.push(record.key.partition().to_owned());
        }
    }
    (outcome, calls, parked)
}

fn partitions(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.attributes["partitions"].1.clone()).collect()
}

fn all_done(entries: &[Entry]) -> Answer {
    answer(entries.iter().map(|entry| (entry.id.as_str(), None)))
}

#[tokio::test(start_paused = true)]
async fn warming_publishes_nothing_and_accepts_a_refusal() {
    let bodies: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = bodies.clone();
    let refusing = aws(move |body| {
        seen.lock().unwrap().push(body.to_owned());
        refusal(400, "EmptyBatchRequest")
    });
    assert_eq!(SnsTopic::new(&refusing, vec![ARN.to_owned()]).warm().await, Ok(()));
    let bodies = bodies.lock().unwrap().clone();
    let [body] = &bodies[..] else { panic!("{bodies:?}") };
    assert!(body.contains("Action=PublishBatch") && all_entries_of(body).is_empty(), "{body}");
    let silent = SnsTopic::new(&aws(|_| None), vec![ARN.to_owned()]);
    assert!(silent.warm().await.is_err(), "there is no answer");
}

#[tokio::test(start_paused = true)]
async fn messages_carry_the_attributes_of_filter_policies() {
    let (outcome, calls) = publish(|_, entries| all_done(entries)).await;
    assert_eq!((outcome, calls.len()), (BatchOutcome::DONE, 1));
    assert_eq!(partitions(&calls[0]), [r#"["org:a"]"#, r#"["org:b"]"#, r#"["org:c"]"#]);
    for Entry { message, attributes, .. } in &calls[0] {
        let array = "String.Array".to_owned();
        assert_eq!(attributes["services"], (array.clone(), r#"["ledger"]"#.to_owned()));
        assert_eq!(attributes["kinds"], (array, r#"["ledger.opened"]"#.to_owned()));
        assert!(message.starts_with(r#"[{"specversion":"1.0""#), "{message}");
    }
}

/// More messages than a call takes go in as few calls as possible, each within the limits, in order.
#[tokio::test(start_paused = true)]
async fn many_messages_need_few_calls_within_the_limits_of_sns() {
    // In turn: messages of about 50 KiB, pairs that do not fit into one message, and pairs that do.
    for (commands, at_least) in [(&[150][..], 12), (&[120, 180], 12), (&[30, 165], 8)] {
        let names: Vec<String> = (10..26).map(|org| format!("o{org}")).collect();
        let orgs = names.iter().cloned().zip(commands.iter().copied().cycle()).collect();
        let (outcome, calls) = publish_of(orgs, |_, entries| all_done(entries)).await;
        assert_eq!(outcome, BatchOutcome::DONE);
        let messages: usize = calls.iter().map(Vec::len).sum();
        assert!(messages >= at_least, "{messages} messages");
        let published = calls.iter().flat_map(|call| partitions(call)).collect::<String>();
        let order: Vec<usize> = names.iter().filter_map(|name| published.find(name)).collect();
        assert!(order.len() == names.len() && order.is_sorted(), "{published}");
        let bytes = |call: &[Entry]| call.iter().map(Entry::bytes).sum::<usize>();
        for pair in calls.windows(2) {
            let with_next = bytes(&pair[0]) + pair[1][0].bytes();
            assert!(
                pair[0].len() == SNS_BATCH_MAX || with_next > PUBLISH_BATCH_BYTES_MAX.get() - 4_096,
                "the next message would have fitted: {with_next} bytes"
            );
        }
    }
}

/// The suite's batches reach the limits of a call, in messages and in bytes.
#[tokio::test(start_paused = true)]
async fn the_topic_passes_the_conformance_suite() {
    let bodies: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let (seen, mut calls) = (bodies.clone(), 0);
    let aws = aws(move |body| {
        calls += 1;
        // In turn: throttled, some entries fail, published.
        if calls % 3 == 1 {
            return refusal(429, "Throttling");
        }
        let entries = entries_of(body);
        let ids: BTreeSet<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids.len(), entries.len(), "ids are distinct in a batch");
        let fate = |at: usize| (calls % 3 == 2 && at % 2 == 1).then_some("Throttled");
        let taken = entries.iter().enumerate().filter(|(at, _)| fate(*at).is_none());
        let taken = taken.map(|(_, entry)| Bytes::copy_from_slice(entry.message.as_bytes()));
        seen.lock().unwrap().extend(taken);
        answer(entries.iter().enumerate().map(|(at, entry)| (entry.id.as_str(), fate(at))))
    });
    let topic = SnsTopic::new(&aws, vec![ARN.to_owned()]);
    conformance::message_topics(&topic, "t", async || std::mem::take(&mut *bodies.lock().unwrap()))
        .await;
}

#[tokio::test(start_paused = true)]
async fn only_failed_messages_are_published_again() {
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
async fn a_message_that_is_never_published_is_reported() {
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
async fn each_result_has_its_error() {
    let codes = ["Throttled", "NotFound", "KMSAccessDenied", "InvalidParameter", "InternalError"];
    let aws = aws(move |_| {
        let failed = codes.iter().zip(["1", "2", "3", "4", "5"]);
        answer([("0", None)].into_iter().chain(failed.map(|(code, id)| (id, Some(*code)))))
    });
    let topic = SnsTopic::new(&aws, vec![ARN.to_owned()]);
    // A message with only duplicates has no kinds, and an attribute must not be empty.
    let message = Message { body: "[]".to_owned(), attributes: Attributes::default() };
    let results = topic.publish_messages(0, &vec![message; 7]).await.unwrap();
    let hop = "topic";
    let failed = |said: &str| Unavailable::Failed { hop, message: said.to_owned() };
    let refused = |said: &str| Unavailable::Refused { hop, message: said.to_owned() };
    let expected = [
        Ok(()),
        Err(Unavailable::Throttled { hop }.into()),
        // Codes that do not concern the message.
        Err(refused("NotFound: so it is").into()),
        Err(refused("KMSAccessDenied: so it is").into()),
        Err(PublishError::Refused("InvalidParameter: so it is".to_owned())),
        Err(failed("InternalError: so it is").into()),
        Err(failed("neither acknowledged nor refused").into()),
    ];
    assert_eq!(results, expected);
    assert!(topic.publish_messages(1, &[]).await.is_err(), "there is no such topic");
    assert_eq!(topic.publish_messages(0, &[]).await, Ok(Vec::new()));
}

/// SNS refuses one commit because of its content, either as an entry or with the whole call. The others
/// are published. The refused one is published by reference, or parked if that is refused, too.
#[tokio::test(start_paused = true)]
async fn a_refused_message_does_not_stop_others() {
    let is_of_b = |entry: &Entry| entry.attributes["partitions"].1.contains("org:b");
    for (whole_call, always) in [(false, false), (false, true), (true, false), (true, true)] {
        let orgs = ["a", "b", "c"].map(|org| (org.to_owned(), 2)).to_vec();
        let published: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let accepted = published.clone();
        let (outcome, calls, parked) = publish_and_park(orgs, move |_, entries| {
            let refused = |entry: &Entry| {
                is_of_b(entry) && (always || !entry.message.contains(r#""body":"journal""#))
            };
            if whole_call && entries.iter().any(refused) {
                return refusal(400, "InvalidParameter");
            }
            let partitions = entries.iter().filter(|entry| !refused(entry)).flat_map(|entry| {
                ["org:a", "org:b", "org:c"]
                    .into_iter()
                    .filter(|org| entry.attributes["partitions"].1.contains(org))
            });
            accepted.lock().unwrap().extend(partitions.map(str::to_owned));
            let code = |entry: &Entry| refused(entry).then_some("InvalidParameter");
            answer(entries.iter().map(|entry| (entry.id.as_str(), code(entry))))
        })
        .await;
        let what = format!("whole call: {whole_call}, always: {always}");
        assert_eq!(outcome, BatchOutcome::DONE, "{what}");
        let expected: &[&str] =
            if always { &["org:a", "org:c"] } else { &["org:a", "org:b", "org:c"] };
        assert_eq!(published.lock().unwrap().iter().collect::<Vec<_>>(), expected, "{what}");
        assert_eq!(parked, if always { vec!["org:b"] } else { vec![] }, "{what}");
        assert!(calls.len() <= 8, "{what}: {} calls", calls.len());
    }
}

/// A refusal that concerns every message parks nothing: the batch is unfinished, and nothing is retried
/// at once.
#[tokio::test(start_paused = true)]
async fn a_topic_that_refuses_everything_parks_nothing() {
    for code in ["AuthorizationError", "NotFound", "KMSAccessDenied"] {
        for whole_call in [true, false] {
            let orgs = ["a", "b"].map(|org| (org.to_owned(), 2)).to_vec();
            let (outcome, calls, parked) = publish_and_park(orgs, move |_, entries| {
                if whole_call {
                    return refusal(403, code);
                }
                answer(entries.iter().map(|entry| (entry.id.as_str(), Some(code))))
            })
            .await;
            assert_eq!(outcome, BatchOutcome { unfinished: Some(0) }, "{code}");
            assert_eq!((calls.len(), parked), (1, vec![]), "{code}");
        }
    }
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
    assert_eq!(topic.publish_messages(0, &[message]).await, Ok(vec![Ok(())]));
    let body = String::from_utf8(bodies.lock().unwrap()[0].to_vec()).unwrap();
    let attributes = entries_of(&body).remove(0).attributes;
    assert_eq!(attributes.keys().collect::<Vec<_>>(), ["services"]);
}
