//! Decodes Lambda's events into what the stages take, and encodes the answers. The functions are pure.
//!
//! Each record is decoded alone, and only the fields that are needed. So a record that cannot be read
//! is skipped and stops no other, and fields that AWS adds have no effect.
//!
//! Requests of HTTP are decoded with the types of the crate `aws_lambda_events`. Its types of records
//! require too much: they cannot read a change without `SizeBytes`, or one with microseconds in its
//! arrival time, and its commands would be skipped. Tests decode here what those types encode.

mod changes;
mod http;
mod messages;
mod records;

use fanfold::Time;
use fanfold_pipeline::BatchOutcome;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use changes::changes;
pub use http::{http_request, http_response};
pub use messages::{Delivery, ViewEvent, messages_of_dead_letter, view_event};
pub use records::records;

/// An event of another kind than this Lambda handles: its event source is wrong, or an operator sent
/// the event by hand.
#[derive(Debug, thiserror::Error)]
#[error("expected {expected}, but the event {found}")]
pub struct WrongEvent {
    /// The kind of event that the Lambda handles.
    pub expected: &'static str,
    /// What is wrong with the event, as a clause.
    pub found: String,
}

/// The records of an event that a stage takes, with their identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<T> {
    /// The records that can be read, in order.
    pub items: Vec<T>,
    /// The identifier of each item's record, as Lambda expects it in the answer.
    pub ids: Vec<String>,
    /// The number of records that were skipped because they cannot be read.
    pub unreadable: usize,
}

/// The answer to an event source mapping (`ReportBatchItemFailures`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResponse {
    /// The records to deliver again.
    pub batch_item_failures: Vec<BatchItemFailure>,
}

/// A record to deliver again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchItemFailure {
    /// The sequence number of a stream's record, or the id of a queue's message. If it is empty, Lambda
    /// treats the whole batch as failed.
    pub item_identifier: String,
}

impl BatchResponse {
    /// The answer to a stream: only the first unfinished record. Lambda sets its checkpoint there, and
    /// delivers that record and all later ones again.
    pub fn of_stream(outcome: BatchOutcome, ids: &[String]) -> Self {
        Self::of_queue(outcome.unfinished, ids)
    }

    /// The answer to a queue: every message that failed, by index.
    pub fn of_queue(failed: impl IntoIterator<Item = usize>, ids: &[String]) -> Self {
        let id = |index: usize| ids.get(index).cloned().unwrap_or_default();
        let failures = failed.into_iter().map(|i| BatchItemFailure { item_identifier: id(i) });
        Self { batch_item_failures: failures.collect() }
    }
}

#[derive(Deserialize)]
struct Records<'a> {
    #[serde(rename = "Records", borrow)]
    records: Vec<&'a RawValue>,
}

/// The records of an event, each still as JSON.
fn records_of<'a>(event: &'a str, expected: &'static str) -> Result<Vec<&'a RawValue>, WrongEvent> {
    match serde_json::from_str::<Records<'a>>(event) {
        Ok(Records { records }) => Ok(records),
        Err(error) => Err(WrongEvent { expected, found: shape(event, &error) }),
    }
}

/// Describes an event, to find out where it comes from: its fields, but none of its values.
fn shape(event: &str, error: &serde_json::Error) -> String {
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(event) {
        Ok(object) => {
            let keys: Vec<&str> = object.keys().map(String::as_str).take(20).collect();
            format!("has the fields [{}]: {error}", keys.join(", "))
        }
        Err(_) => format!("is no JSON object: {error}"),
    }
}

/// The time of seconds since 1970, perhaps with a fraction, as Kinesis and DynamoDB write times.
fn time_of_seconds(seconds: f64) -> Time {
    Time((seconds.max(0.0) * 1_000.0) as u64)
}
