//! A record of the command stream: slot bodies of one log, which the relay passes on unread, so that no content can stop
//! it; or a nudge.
//!
//! `[format][0][header length, u32 big-endian]header, then the bodies one after another`.

use serde::{Deserialize, Serialize};

use super::DecodeError;
use crate::host::limits::{NAME_BYTES_MAX, SERVICE_NAME_BYTES_MAX};
use crate::host::position::Seq;
use crate::names::LogId;
use crate::time::Time;

const FORMAT: u8 = 1;
const PREFIX_BYTES: usize = 6;
/// The most bytes that one part adds to the header: four numbers of twenty digits, with their keys.
const PART_HEADER_BYTES: usize = 110;

/// The most bytes of a log's name with escaped quotes, and of the header around it.
const NUDGE_BYTES_MAX: usize = PREFIX_BYTES + SERVICE_NAME_BYTES_MAX + 2 * NAME_BYTES_MAX + 64;

/// One batch of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// The seq of the batch's last command.
    pub last: Seq,
    /// The number of its commands.
    pub n: u64,
    /// When it was accepted.
    pub at: Time,
    /// The slot body.
    pub body: &'a [u8],
}

impl Part<'_> {
    /// The seq of the batch's first command.
    pub fn first(&self) -> Seq {
        Seq((self.last.0 + 1).saturating_sub(self.n))
    }

    /// The most bytes that the part adds to its record.
    pub fn weight(&self) -> usize {
        PART_HEADER_BYTES + self.body.len()
    }
}

/// A record. One without parts is a nudge: it makes the processor load the log and what is parked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// The log: the record's partition key.
    pub log: LogId,
    /// The batches, in the order of their seqs.
    pub parts: Vec<Part<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    log: LogId,
    parts: Vec<PartHeader>,
}

#[derive(Serialize, Deserialize)]
struct PartHeader {
    last: Seq,
    n: u64,
    at: Time,
    len: usize,
}

impl<'a> Record<'a> {
    /// A nudge for `log`.
    pub fn nudge(log: LogId) -> Self {
        Self { log, parts: Vec::new() }
    }

    /// Whether these are the bytes of a nudge.
    pub fn is_nudge(bytes: &[u8]) -> bool {
        // Fast path: a longer record is no nudge, so it need not be decoded.
        bytes.len() <= NUDGE_BYTES_MAX
            && Record::decode(bytes).is_ok_and(|record| record.parts.is_empty())
    }

    /// The bytes to put on the stream.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let part = |p: &Part<'_>| PartHeader { last: p.last, n: p.n, at: p.at, len: p.body.len() };
        let header = Header { log: self.log.clone(), parts: self.parts.iter().map(part).collect() };
        let weight: usize = self.parts.iter().map(Part::weight).sum();
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + 200 + weight);
        bytes.extend([FORMAT, 0, 0, 0, 0, 0]);
        serde_json::to_writer(&mut bytes, &header)?;
        let header_len = (bytes.len() - PREFIX_BYTES) as u32;
        bytes[2..PREFIX_BYTES].copy_from_slice(&header_len.to_be_bytes());
        for part in &self.parts {
            bytes.extend_from_slice(part.body);
        }
        Ok(bytes)
    }

    /// Reads what [`Record::encode`] wrote; the parts borrow from `bytes`.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let [format, codec, len @ ..] =
            bytes.first_chunk::<PREFIX_BYTES>().ok_or(DecodeError::Truncated)?;
        if *format != FORMAT {
            return Err(DecodeError::Format { found: *format, known: FORMAT });
        }
        if *codec != 0 {
            return Err(DecodeError::Codec { found: *codec });
        }
        let (header, mut bodies) = bytes[PREFIX_BYTES..]
            .split_at_checked(u32::from_be_bytes(*len) as usize)
            .ok_or(DecodeError::Truncated)?;
        let header: Header = super::read_json(header)?;
        let mut parts = Vec::with_capacity(header.parts.len());
        for PartHeader { last, n, at, len } in header.parts {
            let (body, rest) = bodies.split_at_checked(len).ok_or(DecodeError::Truncated)?;
            bodies = rest;
            if n == 0 || n > last.0 {
                return Err(DecodeError::Inconsistent("a part's number of commands"));
            }
            parts.push(Part { last, n, at, body });
        }
        Ok(Self { log: header.log, parts })
    }
}
