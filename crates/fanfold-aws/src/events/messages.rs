use std::borrow::Cow;

use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use bytes::Bytes;
use fanfold::Time;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Batch, WrongEvent, records_of, shape};

const EXPECTED: &str = "messages of SNS or SQS, or a scheduled event";

/// What a view's Lambda is called for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewEvent {
    /// Messages that SNS delivers itself. What fails makes the invocation fail: Lambda tries it
    /// again, and then puts the event to the dead letters.
    Topic(Vec<Bytes>),
    /// Messages by way of a queue. What fails is reported by its id.
    Queue {
        /// The messages.
        batch: Batch<Bytes>,
        /// Of each, how it came.
        deliveries: Vec<Delivery>,
    },
    /// The schedule of the view's sweep.
    Schedule {
        /// When it was due; `None` if the event does not say, as one that an operator sends.
        due: Option<Time>,
    },
}

/// How a message of a queue came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// By which SQS knows this delivery; empty if the event does not say.
    pub receipt_handle: String,
    /// How often the message was received, this time included: above 1, it has failed before, and
    /// has perhaps ended its process.
    pub times: u32,
}

#[derive(Deserialize)]
struct AnyEvent<'a> {
    #[serde(rename = "detail-type", borrow, default)]
    detail_type: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
}

/// What Lambda says of an invocation that it gave up.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failed<'a> {
    #[serde(borrow)]
    request_payload: &'a RawValue,
}

/// SNS writes its own records' fields with capitals, SQS does not.
#[derive(Deserialize)]
struct AnyRecord<'a> {
    #[serde(rename = "Sns", borrow, default)]
    sns: Option<Envelope<'a>>,
    #[serde(rename = "messageId", borrow, default)]
    message_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    body: Option<Cow<'a, str>>,
    #[serde(rename = "receiptHandle", borrow, default)]
    receipt_handle: Option<Cow<'a, str>>,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attributes {
    #[serde(default)]
    approximate_receive_count: String,
}

/// What SNS wraps a message in: for Lambda, and for a queue without raw delivery.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "Message", borrow)]
    message: Cow<'a, str>,
}

/// Tells the three apart by their shapes.
pub fn view_event(event: &str) -> Result<ViewEvent, WrongEvent> {
    if let Some(due) = schedule(event) {
        return Ok(ViewEvent::Schedule { due });
    }
    let mut topic = Vec::new();
    let mut queue = Batch { items: Vec::new(), ids: Vec::new(), unreadable: 0 };
    let mut deliveries = Vec::new();
    for record in records_of(event, EXPECTED)? {
        let wrong = |error| WrongEvent { expected: EXPECTED, found: shape(record.get(), &error) };
        let record: AnyRecord<'_> = serde_json::from_str(record.get()).map_err(wrong)?;
        match record {
            AnyRecord { sns: Some(Envelope { message }), .. } => topic.push(bytes(message)),
            AnyRecord {
                message_id: Some(id),
                body: Some(body),
                receipt_handle,
                attributes,
                ..
            } => {
                let times = attributes.approximate_receive_count.parse().unwrap_or(1);
                let receipt_handle = receipt_handle.unwrap_or_default().into_owned();
                deliveries.push(Delivery { receipt_handle, times });
                queue.items.push(bytes(unwrap(&body)));
                queue.ids.push(id.into_owned());
            }
            _ => {
                let found = "has a record of neither".to_owned();
                return Err(WrongEvent { expected: EXPECTED, found });
            }
        }
    }
    match (topic.is_empty(), queue.items.is_empty()) {
        (false, true) => Ok(ViewEvent::Topic(topic)),
        (true, false) => Ok(ViewEvent::Queue { batch: queue, deliveries }),
        _ => {
            let found = "has records of both, or none".to_owned();
            Err(WrongEvent { expected: EXPECTED, found })
        }
    }
}

/// The messages in a dead letter of a view. Lambda writes there the event that it could not
/// deliver, as the payload of a request (destination for failures) or as it is (dead-letter queue),
/// a queue the message itself. A scheduled event that failed has none: the next one does the same.
/// What cannot be read is handed on as it is, so that the projector reports it.
pub fn messages_of_dead_letter(body: &str) -> Vec<Bytes> {
    let failed = serde_json::from_str::<Failed<'_>>(body);
    match view_event(failed.map_or(body, |failed| failed.request_payload.get())) {
        Ok(ViewEvent::Topic(messages)) => messages,
        Ok(ViewEvent::Queue { batch, .. }) => batch.items,
        Ok(ViewEvent::Schedule { .. }) => Vec::new(),
        Err(_) => vec![bytes(unwrap(body))],
    }
}

/// When a scheduled event was due, if it says so; `None` for an event of another kind.
fn schedule(event: &str) -> Option<Option<Time>> {
    let event = serde_json::from_str::<AnyEvent<'_>>(event).ok()?;
    (event.detail_type == "Scheduled Event").then(|| {
        let time = DateTime::from_str(&event.time, DateTimeFormat::DateTime).ok()?;
        u64::try_from(time.to_millis().ok()?).ok().map(Time)
    })
}

/// A notification is an array, and comes as it is with raw delivery; an object is SNS's envelope.
fn unwrap(body: &str) -> Cow<'_, str> {
    if body.trim_start().starts_with('{')
        && let Ok(Envelope { message }) = serde_json::from_str(body)
    {
        return message;
    }
    Cow::Borrowed(body)
}

fn bytes(text: Cow<'_, str>) -> Bytes {
    Bytes::from(text.into_owned())
}
