//! Groups a batch of the command stream by log, and sorts it by seq.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use fanfold::host::body::parked::{Content, Parked, Reason};
use fanfold::host::body::record::{Part, Record};
use fanfold::host::body::slot;
use fanfold::{Command, LogId, Seq, Time};
use foldhash::fast::RandomState;

/// A record received from the command stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedRecord {
    /// Its partition key.
    pub key: LogId,
    /// Its body.
    pub data: Bytes,
    /// When it arrived on the stream.
    pub arrived: Time,
}

/// A command with its seq, and where the processor found it.
#[derive(Clone)]
pub(super) struct Arrival {
    pub seq: Seq,
    pub at: Time,
    pub command: Arc<Command>,
    /// The index of its record in the batch; `None` if it was only parked.
    pub record: Option<usize>,
    /// Whether it is in the parked table.
    pub parked: bool,
    /// An operator's reason for giving it up.
    pub given_up: Option<String>,
}

impl Arrival {
    /// Whether both are the same command at the same seq.
    pub(super) fn is_repeat_of(&self, other: &Self) -> bool {
        self.seq == other.seq && self.command.is_repeat_of(&other.command)
    }
}

/// The part of a batch for one log.
pub(super) struct LogBatch {
    pub log: LogId,
    /// By seq.
    pub arrivals: Vec<Arrival>,
    /// Whether a nudge is among the records: the log is to be loaded again.
    pub nudged: bool,
    /// The index of the first of its records.
    pub first_record: usize,
    /// What this build cannot read. It is to be parked.
    pub unreadable: Vec<(Seq, Parked)>,
}

pub(super) fn gather(records: &[ReceivedRecord]) -> Vec<LogBatch> {
    let mut batches: Vec<LogBatch> = Vec::new();
    let mut batch_of: HashMap<&LogId, usize, RandomState> = HashMap::default();
    for (index, record) in records.iter().enumerate() {
        let at = *batch_of.entry(&record.key).or_insert_with(|| {
            batches.push(LogBatch {
                log: record.key.clone(),
                arrivals: Vec::new(),
                nudged: false,
                first_record: index,
                unreadable: Vec::new(),
            });
            batches.len() - 1
        });
        read(record, index, &mut batches[at]);
    }
    for batch in &mut batches {
        // A stable sort: of repeats, the one of the earlier record stays.
        batch.arrivals.sort_by_key(|arrival| arrival.seq);
        batch.arrivals.dedup_by(|later, first| later.is_repeat_of(first));
    }
    batches
}

fn read(record: &ReceivedRecord, index: usize, batch: &mut LogBatch) {
    let unreadable = |bytes: &[u8], at: Time, detail: String| Parked {
        reason: Reason::Undecodable,
        at,
        detail,
        content: Content::Bytes(bytes.to_vec()),
    };
    let decoded = match Record::decode(&record.data) {
        Ok(decoded) if decoded.log == record.key => decoded,
        Ok(decoded) => {
            let detail = format!("the record's key is {}, its log {}", record.key, decoded.log);
            let parked = unreadable(&record.data, record.arrived, detail);
            return batch.unreadable.push((Seq::ZERO, parked));
        }
        Err(error) => {
            let parked = unreadable(&record.data, record.arrived, error.to_string());
            return batch.unreadable.push((Seq::ZERO, parked));
        }
    };
    batch.nudged |= decoded.parts.is_empty();
    for part in decoded.parts {
        let Part { n, at, body, .. } = part;
        match slot::decode(body) {
            Ok(commands) if commands.len() as u64 == n => {
                let numbered = commands.into_iter().zip(part.first().0..);
                batch.arrivals.extend(numbered.map(|(command, seq)| Arrival {
                    seq: Seq(seq),
                    at,
                    command: Arc::new(command),
                    record: Some(index),
                    parked: false,
                    given_up: None,
                }));
            }
            Ok(commands) => {
                let detail = format!("the slot has {} commands instead of {n}", commands.len());
                batch.unreadable.push((part.first(), unreadable(body, at, detail)));
            }
            Err(error) => {
                batch.unreadable.push((part.first(), unreadable(body, at, error.to_string())));
            }
        }
    }
}
