//! What Lambda brings: pure functions from an event's JSON to what the stages take, and back to
//! what Lambda is answered.
//!
//! Each record is read by itself, and only what is needed of it. So a record that cannot be read
//! is passed over, and blocks nobody, and whatever else AWS writes beside it may be of any shape.
//!
//! The types of the crate `aws_lambda_events` are used for HTTP. For records they ask for too much:
//! a change without `SizeBytes`, or one that arrived at a time with microseconds, would be unreadable,
//! and its commands passed over. The tests read here what those types write.

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

/// An event that is not of the kind that this Lambda is for: it is wired to something else, or
/// somebody tries it by hand.
#[derive(Debug, thiserror::Error)]
#[error("expected {expected}, but the event {found}")]
pub struct WrongEvent {
    /// What would have been right.
    pub expected: &'static str,
    /// What is wrong, as a clause.
    pub found: String,
}

/// The records of an event that a stage takes, with their identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<T> {
    /// What can be read, in order.
    pub items: Vec<T>,
    /// Of each item, by which Lambda knows its record.
    pub ids: Vec<String>,
    /// Records that were passed over because they could not be read.
    pub unreadable: usize,
}

/// What Lambda's event source mappings are answered (`ReportBatchItemFailures`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResponse {
    /// What comes again.
    pub batch_item_failures: Vec<BatchItemFailure>,
}

/// A record that comes again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchItemFailure {
    /// The sequence number of a stream's record, the id of a queue's message. Lambda takes an empty
    /// one for a failure of the whole batch.
    pub item_identifier: String,
}

impl BatchResponse {
    /// For a stream: the first unfinished record only. Lambda sets its checkpoint there, and brings
    /// everything from there on again.
    pub fn of_stream(outcome: BatchOutcome, ids: &[String]) -> Self {
        Self::of_queue(outcome.unfinished, ids)
    }

    /// For a queue: every message that failed.
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

/// The records of an event, each still as it came.
fn records_of<'a>(event: &'a str, expected: &'static str) -> Result<Vec<&'a RawValue>, WrongEvent> {
    match serde_json::from_str::<Records<'a>>(event) {
        Ok(Records { records }) => Ok(records),
        Err(error) => Err(WrongEvent { expected, found: shape(event, &error) }),
    }
}

/// What an event is, for whoever has to find out where it comes from; none of its values.
fn shape(event: &str, error: &serde_json::Error) -> String {
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(event) {
        Ok(object) => {
            let keys: Vec<&str> = object.keys().map(String::as_str).take(20).collect();
            format!("has the fields [{}]: {error}", keys.join(", "))
        }
        Err(_) => format!("is no JSON object: {error}"),
    }
}

/// Seconds since 1970, as Kinesis and DynamoDB write times, with or without a fraction.
fn time_of_seconds(seconds: f64) -> Time {
    Time((seconds.max(0.0) * 1_000.0) as u64)
}
