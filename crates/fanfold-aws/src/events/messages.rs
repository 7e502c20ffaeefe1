use std::borrow::Cow;

use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use bytes::Bytes;
use fanfold::Time;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Batch, WrongEvent, records_of, shape};

const EXPECTED: &str = "messages of SNS or SQS, or a scheduled event";

/// An event of a view's Lambda.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewEvent {
    /// Messages that SNS delivers. If one fails, the invocation has to fail: Lambda retries it, and
    /// then moves the event to the dead letters.
    Topic(Vec<Bytes>),
    /// Messages that a queue delivers. The answer names those that failed.
    Queue {
        /// The messages.
        batch: Batch<Bytes>,
        /// The delivery of each message.
        deliveries: Vec<Delivery>,
    },
    /// A scheduled event, for the view's sweep.
    Schedule {
        /// When it was due; `None` if the event has no time, such as one that an operator sends.
        due: Option<Time>,
    },
}

/// The delivery of a message by a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The handle of this delivery in SQS; empty if the event has none.
    pub receipt_handle: String,
    /// How often the message was received, with this time. If it is above 1, the message has failed
    /// before, and may have ended its process.
    pub times: u32,
}

#[derive(Deserialize)]
struct AnyEvent<'a> {
    #[serde(rename = "detail-type", borrow, default)]
    detail_type: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
}

/// A dead letter of Lambda: the invocation that it gave up.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failed<'a> {
    #[serde(borrow)]
    request_payload: &'a RawValue,
}

/// A record of SNS or SQS. The fields of SNS begin with capitals, those of SQS do not.
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

/// The envelope that SNS puts around a message for Lambda, and for a queue without raw delivery.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "Message", borrow)]
    message: Cow<'a, str>,
}

/// Decodes an event of a view's Lambda, by its shape.
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
                let found = "has a record of neither SNS nor SQS".to_owned();
                return Err(WrongEvent { expected: EXPECTED, found });
            }
        }
    }
    match (topic.is_empty(), queue.items.is_empty()) {
        (false, true) => Ok(ViewEvent::Topic(topic)),
        (true, false) => Ok(ViewEvent::Queue { batch: queue, deliveries }),
        _ => {
            let found = "has records of both SNS and SQS, or no records".to_owned();
            Err(WrongEvent { expected: EXPECTED, found })
        }
    }
}

/// The messages in a dead letter of a view.
///
/// Lambda writes the event that it could not deliver, either as the payload of a request (destination
/// on failure) or unchanged (dead-letter queue). A queue writes the message itself. A scheduled event
/// has no messages, since the next one does the same work. A letter that cannot be read is returned as
/// one message, so that the projector reports it.
pub fn messages_of_dead_letter(body: &str) -> Vec<Bytes> {
    let failed = serde_json::from_str::<Failed<'_>>(body);
    match view_event(failed.map_or(body, |failed| failed.request_payload.get())) {
        Ok(ViewEvent::Topic(messages)) => messages,
        Ok(ViewEvent::Queue { batch, .. }) => batch.items,
        Ok(ViewEvent::Schedule { .. }) => Vec::new(),
        Err(_) => vec![bytes(unwrap(body))],
    }
}

/// When a scheduled event was due, if it has a time; `None` for an event of another kind.
fn schedule(event: &str) -> Option<Option<Time>> {
    let event = serde_json::from_str::<AnyEvent<'_>>(event).ok()?;
    (event.detail_type == "Scheduled Event").then(|| {
        let time = DateTime::from_str(&event.time, DateTimeFormat::DateTime).ok()?;
        u64::try_from(time.to_millis().ok()?).ok().map(Time)
    })
}

/// The message in a body: an object is SNS's envelope, and an array is a notification of raw delivery.
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
