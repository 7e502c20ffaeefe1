//! What a function's answer to a batch means (`ReportBatchItemFailures`).

use std::collections::BTreeSet;

use serde_json::Value;

/// What becomes of a stream's batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is done.
    Done,
    /// The checkpoint is before this record of the batch: it comes again, with all behind it.
    From(usize),
    /// Nothing of it is done.
    Failed,
}

/// Of a batch of a stream, whose records have these sequence numbers, in order: the checkpoint is
/// the lowest that is reported.
pub fn of_stream(answer: Option<&[u8]>, ids: &[&str]) -> Outcome {
    match failures(answer, ids) {
        None => Outcome::Failed,
        Some(failed) => failed.first().map_or(Outcome::Done, |first| Outcome::From(*first)),
    }
}

/// The places of the records that failed. `None`: all, for the invocation failed (there is no
/// `answer`), or has answered what Lambda takes for that.
///
/// Nothing, `null`, an object without a list, and an empty list say that all is done. An identifier
/// that is empty, missing, or of no record of the batch makes all of it fail.
pub fn failures(answer: Option<&[u8]>, ids: &[&str]) -> Option<BTreeSet<usize>> {
    let answer = answer?;
    let answer: Value = match answer.trim_ascii() {
        b"" => Value::Null,
        answer => serde_json::from_slice(answer).ok()?,
    };
    let listed = match &answer["batchItemFailures"] {
        Value::Null => return Some(BTreeSet::new()),
        Value::Array(listed) => listed,
        _ => return None,
    };
    let place = |failure: &Value| {
        let id = failure["itemIdentifier"].as_str()?;
        ids.iter().position(|of| *of == id)
    };
    listed.iter().map(place).collect()
}
