use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use fanfold::{LogId, Seq, Time};
use fanfold_pipeline::ports::{Change, Token};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Batch, WrongEvent, records_of};
use crate::names::attribute::{AT, BODY, N, PK, SEQ, TOKEN};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(borrow, default)]
    event_name: Cow<'a, str>,
    #[serde(borrow)]
    dynamodb: StreamRecord<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StreamRecord<'a> {
    #[serde(borrow, default)]
    sequence_number: Cow<'a, str>,
    #[serde(borrow, default)]
    new_image: Option<HashMap<Cow<'a, str>, &'a RawValue>>,
}

/// The types of a slot's attributes. DynamoDB writes numbers as strings.
#[derive(Deserialize)]
enum Attribute<'a> {
    S(#[serde(borrow)] Cow<'a, str>),
    N(#[serde(borrow)] Cow<'a, str>),
    B(#[serde(borrow)] Cow<'a, str>),
}

/// Decodes an event of the commands table's stream (view type NEW_IMAGE, or more).
///
/// Records of removed slots are ignored. A slot that an operator has raised has no commands.
///
/// A record that cannot be read is skipped with an alarm: only an operator can have written it, and it
/// must not stop the shard's other logs (F7). Its log then has a gap, which the sweep reports.
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
                    "the relay cannot read a change of the commands table, and skips it: the log stands still"
                );
            }
        }
    }
    Ok(batch)
}

fn read(record: &RawValue) -> Result<Option<(String, Change)>, String> {
    let record: Record<'_> = serde_json::from_str(record.get())
        .map_err(|error| format!("not a stream record: {error}"))?;
    let StreamRecord { sequence_number, new_image } = record.dynamodb;
    if record.event_name == "REMOVE" {
        return Ok(None);
    }
    let at = |problem: String| format!("record {sequence_number}: {problem}");
    let image = new_image.ok_or_else(|| at("no new image".to_owned()))?;
    let change = change(&image).map_err(at)?;
    Ok(Some((sequence_number.into_owned(), change)))
}

fn change(image: &HashMap<Cow<'_, str>, &RawValue>) -> Result<Change, String> {
    let attribute = |name: &str| {
        let json = image.get(name).ok_or_else(|| format!("no attribute `{name}`"))?;
        serde_json::from_str::<Attribute<'_>>(json.get())
            .map_err(|error| format!("attribute `{name}`: {error}"))
    };
    let string = |name: &str| match attribute(name)? {
        Attribute::S(text) => Ok(text.into_owned()),
        _ => Err(format!("attribute `{name}` is not a string")),
    };
    let number = |name: &str| match attribute(name)? {
        Attribute::N(text) => text.parse::<u64>().map_err(|e| format!("attribute `{name}`: {e}")),
        _ => Err(format!("attribute `{name}` is not a number")),
    };
    let bytes = |name: &str| match attribute(name)? {
        Attribute::B(text) => {
            BASE64_STANDARD.decode(&*text).map_err(|e| format!("attribute `{name}`: {e}"))
        }
        _ => Err(format!("attribute `{name}` is not binary")),
    };
    let log: LogId = string(PK)?.parse().map_err(|e| format!("attribute `{PK}`: {e}"))?;
    let (last, n) = (Seq(number(SEQ)?), number(N)?);
    let body = bytes(BODY)?;
    // A slot that was raised has neither commands nor a body.
    if n > last.0 || n == 0 && !body.is_empty() {
        return Err(format!("`{N}` is {n}, but `{SEQ}` is {last}"));
    }
    let token = bytes(TOKEN)?;
    let token = token.try_into().map_err(|_| format!("attribute `{TOKEN}` is not 16 bytes"))?;
    Ok(Change {
        log,
        last,
        n,
        at: Time(number(AT)?),
        token: Token(u128::from_be_bytes(token)),
        body: Bytes::from(body),
    })
}
