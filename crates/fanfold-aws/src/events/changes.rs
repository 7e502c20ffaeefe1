use std::collections::HashMap;

use aws_lambda_events::dynamodb::EventRecord;
use bytes::Bytes;
use fanfold::{LogId, Seq, Time};
use fanfold_pipeline::ports::{Change, Token};
use serde_dynamo::AttributeValue;
use serde_json::value::RawValue;

use super::{Batch, WrongEvent, records_of};
use crate::names::attribute::{AT, BODY, N, PK, SEQ, TOKEN};

/// The changes that a stream of the commands table tells of (view type NEW_IMAGE, or more).
///
/// A removed slot tells of nothing. One that cannot be read is passed over with an alarm: nobody
/// but an operator could have written it, and it must not stop the shard's other logs (F7). Its log
/// then has a gap, and the sweep reports it.
pub fn changes(event: &str) -> Result<Batch<Change>, WrongEvent> {
    let records = records_of(event, "records of the commands table's stream")?;
    let mut batch = Batch { items: Vec::new(), ids: Vec::new(), unreadable: 0 };
    for record in records {
        match read(record) {
            Ok(Some((id, change))) => {
                batch.items.push(change);
                batch.ids.push(id);
            }
            Ok(None) => {}
            Err(problem) => {
                batch.unreadable += 1;
                tracing::error!(
                    alarm = "undecodable_slot",
                    problem,
                    "a change of the commands table is passed over: the log stands still"
                );
            }
        }
    }
    Ok(batch)
}

fn read(record: &RawValue) -> Result<Option<(String, Change)>, String> {
    let record: EventRecord =
        serde_json::from_str(record.get()).map_err(|error| format!("no stream record: {error}"))?;
    if record.event_name == "REMOVE" {
        return Ok(None);
    }
    let id = record.change.sequence_number.unwrap_or_default();
    let image = record.change.new_image.into_inner();
    let change = change(image).map_err(|problem| format!("record {id}: {problem}"))?;
    Ok(Some((id, change)))
}

fn change(mut image: HashMap<String, AttributeValue>) -> Result<Change, String> {
    let mut attribute = |name| image.remove(name).ok_or_else(|| format!("no attribute `{name}`"));
    let log = text(PK, attribute(PK)?)?;
    let log: LogId = log.parse().map_err(|e| format!("attribute `{PK}`: {e}"))?;
    let (last, n) = (Seq(number(SEQ, attribute(SEQ)?)?), number(N, attribute(N)?)?);
    if n == 0 || n > last.0 {
        return Err(format!("{n} commands up to {last}"));
    }
    let token = bytes(TOKEN, attribute(TOKEN)?)?;
    let token = token.try_into().map_err(|_| format!("attribute `{TOKEN}` has not 16 bytes"))?;
    Ok(Change {
        log,
        last,
        n,
        at: Time(number(AT, attribute(AT)?)?),
        token: Token(u128::from_be_bytes(token)),
        body: Bytes::from(bytes(BODY, attribute(BODY)?)?),
    })
}

fn text(name: &str, value: AttributeValue) -> Result<String, String> {
    match value {
        AttributeValue::S(text) => Ok(text),
        _ => Err(format!("attribute `{name}` is no string")),
    }
}

fn number(name: &str, value: AttributeValue) -> Result<u64, String> {
    match value {
        AttributeValue::N(digits) => digits.parse().map_err(|e| format!("attribute `{name}`: {e}")),
        _ => Err(format!("attribute `{name}` is no number")),
    }
}

fn bytes(name: &str, value: AttributeValue) -> Result<Vec<u8>, String> {
    match value {
        AttributeValue::B(bytes) => Ok(bytes),
        _ => Err(format!("attribute `{name}` is not binary")),
    }
}
