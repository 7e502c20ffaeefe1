//! Reads a function's answer to a batch (`ReportBatchItemFailures`).

use std::collections::BTreeSet;

use serde_json::Value;

/// The outcome of a stream's batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchAnswer {
    /// All of it is done.
    Done,
    /// The checkpoint is before this record of the batch: it is retried, with all records behind
    /// it.
    From(usize),
    /// Nothing of it is done.
    Failed,
}

/// The outcome of a stream's batch, whose records have these sequence numbers, in order. The
/// checkpoint is the lowest that is reported.
pub fn of_stream(answer: Option<&[u8]>, ids: &[&str]) -> BatchAnswer {
    match failures(answer, ids) {
        None => BatchAnswer::Failed,
        Some(failed) => failed.first().map_or(BatchAnswer::Done, |first| BatchAnswer::From(*first)),
    }
}

/// The indices of the records that failed. `None`: all of them, because the invocation failed
/// (there is no `answer`), or gave an answer that Lambda treats as a failure.
///
/// An empty answer, `null`, an object without a list, and an empty list mean that all are done. An
/// identifier that is empty, missing, or not of the batch makes the whole batch fail.
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
