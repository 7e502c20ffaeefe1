//! The body of a commit: consecutive entries of one log.
//!
//! Keys: `t` time, `o` origin, `i` id, `c` command, `h` digest of its data, `p` its trace,
//! `r` result; results:
//! `a` accepted (events: `k` kind, `v` version, `d` document, `x` data), `r` rejected, `d` duplicate
//! of, `s` stale, `f` faulted, `l` lost. An entry's seq is the commit's first plus its index.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{DecodeError, envelope};
use crate::entry::{Entry, Event, Outcome, Raw};
use crate::host::digest::Digest;
use crate::host::limits::SEQ_END;
use crate::host::position::{CommandId, Seq};
use crate::names::{Name, Origin};
use crate::time::Time;
use crate::trace::TraceParent;

const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    t: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    o: Option<Cow<'a, Origin>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    i: Option<CommandId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    c: Option<Cow<'a, Name>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    h: Option<Digest>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "TraceParent::stored"
    )]
    p: Option<TraceParent>,
    r: Verdict<'a>,
}

#[derive(Serialize, Deserialize)]
enum Verdict<'a> {
    #[serde(rename = "a")]
    Accepted(Cow<'a, [Event]>),
    #[serde(rename = "r")]
    Rejected {
        code: Cow<'a, str>,
        message: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<Seq>,
    },
    #[serde(rename = "d")]
    Duplicate(Seq),
    #[serde(rename = "s")]
    Stale,
    #[serde(rename = "f")]
    Faulted {
        message: Cow<'a, str>,
        data: Cow<'a, Raw>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timestamp: Option<u64>,
    },
    #[serde(rename = "l")]
    Lost { reason: Cow<'a, str> },
}

/// Appends one entry's JSON to `payload`.
pub fn write_entry(entry: &Entry, payload: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let by_command = !entry.origin.is_nobody();
    let stored = Stored {
        t: entry.time,
        o: by_command.then_some(Cow::Borrowed(&entry.origin)),
        i: by_command.then_some(entry.id),
        c: entry.command.as_ref().map(Cow::Borrowed),
        h: entry.digest,
        p: entry.trace,
        r: match &entry.outcome {
            Outcome::Accepted(events) => Verdict::Accepted(Cow::Borrowed(events)),
            Outcome::Rejected { code, message, of } => {
                Verdict::Rejected { code: code.into(), message: message.into(), of: *of }
            }
            Outcome::Duplicate { of } => Verdict::Duplicate(*of),
            Outcome::Stale => Verdict::Stale,
            Outcome::Faulted { message, data, timestamp } => {
                let data = Cow::Borrowed(data);
                Verdict::Faulted { message: message.into(), data, timestamp: *timestamp }
            }
            Outcome::Lost { reason } => Verdict::Lost { reason: reason.into() },
        },
    };
    serde_json::to_writer(payload, &stored)
}

/// Wraps a payload of entries (`[entry,entry,…]`) in an envelope.
pub fn seal(payload: &[u8]) -> Vec<u8> {
    envelope::seal(FORMAT, payload)
}

/// The entries of a commit that starts at `first`, and the bytes of its payload.
pub fn decode(first: Seq, body: &[u8]) -> Result<(Vec<Entry>, usize), DecodeError> {
    let payload = envelope::open(FORMAT, body)?;
    let stored: Vec<Stored<'_>> = super::read_json(&payload)?;
    if first.0.saturating_add(stored.len() as u64) > SEQ_END {
        return Err(DecodeError::Inconsistent("the place of a commit"));
    }
    let entries = stored.into_iter().zip(first.0..).map(|(stored, seq)| Entry {
        seq: Seq(seq),
        time: stored.t,
        origin: stored.o.map_or_else(Origin::nobody, Cow::into_owned),
        id: stored.i.unwrap_or(CommandId::NONE),
        command: stored.c.map(Cow::into_owned),
        digest: stored.h,
        trace: stored.p,
        outcome: match stored.r {
            Verdict::Accepted(events) => Outcome::Accepted(events.into_owned()),
            Verdict::Rejected { code, message, of } => {
                Outcome::Rejected { code: code.into_owned(), message: message.into_owned(), of }
            }
            Verdict::Duplicate(of) => Outcome::Duplicate { of },
            Verdict::Stale => Outcome::Stale,
            Verdict::Faulted { message, data, timestamp } => {
                let data = data.into_owned();
                Outcome::Faulted { message: message.into_owned(), data, timestamp }
            }
            Verdict::Lost { reason } => Outcome::Lost { reason: reason.into_owned() },
        },
    });
    Ok((entries.collect(), payload.len()))
}
