use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fanfold::LogId;
use fanfold_pipeline::process::ReceivedRecord;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Batch, WrongEvent, records_of, time_of_seconds};

/// A record of Kinesis. The type of `aws_lambda_events` 1.2 is not used: it reads the fraction of an
/// arrival time as milliseconds, so that `.5` is 5 ms, and refuses more than three digits.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    kinesis: KinesisRecord<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KinesisRecord<'a> {
    #[serde(borrow)]
    partition_key: Cow<'a, str>,
    #[serde(borrow)]
    sequence_number: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, str>,
    approximate_arrival_timestamp: f64,
}

/// Decodes an event of the command stream.
///
/// The relay and the sweep put every record under its log's name. A record under another key comes
/// from neither and has no accepted command. It is skipped with an alarm, because there is no log to
/// park it for, and it must not stop the shard (F7). It stays in the stream, at the sequence number
/// that the alarm names, until it expires. The data of a record is not checked here: the processor
/// parks data that it cannot read.
pub fn records(event: &str) -> Result<Batch<ReceivedRecord>, WrongEvent> {
    let records = records_of(event, "records of the command stream")?;
    let mut batch = Batch { items: Vec::new(), ids: Vec::new(), unreadable: 0 };
    for record in records {
        match read(record) {
            Ok((id, received)) => {
                batch.items.push(received);
                batch.ids.push(id);
            }
            Err(problem) => {
                batch.unreadable += 1;
                tracing::error!(
                    alarm = "foreign_record",
                    problem,
                    "the processor skips a record of the command stream that Fanfold did not write"
                );
            }
        }
    }
    Ok(batch)
}

fn read(record: &RawValue) -> Result<(String, ReceivedRecord), String> {
    let record: Record<'_> = serde_json::from_str(record.get())
        .map_err(|error| format!("not a record of Kinesis: {error}"))?;
    let KinesisRecord { partition_key, sequence_number, data, approximate_arrival_timestamp } =
        record.kinesis;
    let at = |problem: String| format!("record {sequence_number}: {problem}");
    let key: LogId = partition_key.parse().map_err(|e| at(format!("the partition key: {e}")))?;
    let data = BASE64_STANDARD.decode(&*data).map_err(|e| at(format!("the data: {e}")))?;
    let arrived = time_of_seconds(approximate_arrival_timestamp);
    let received = ReceivedRecord { key, data: data.into(), arrived };
    Ok((sequence_number.into_owned(), received))
}
