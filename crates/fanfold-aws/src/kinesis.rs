use async_trait::async_trait;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use fanfold_pipeline::ports::{CommandStream, StreamRecord, Unavailable};

use crate::Aws;
use crate::call::Tries;
use crate::error::{Call, is_throttled};

const HOP: &str = "command stream";

/// The command stream on Kinesis. The partition key is the log; nothing is retried here, for only
/// the relay knows what may follow what.
#[derive(Debug, Clone)]
pub struct KinesisStream {
    aws: Aws,
    name: String,
}

impl KinesisStream {
    /// The stream of this name.
    pub fn new(aws: &Aws, name: impl Into<String>) -> Self {
        Self { aws: aws.clone(), name: name.into() }
    }

    /// Makes the connection, and gets the credentials, before there is something to put. It puts
    /// nothing: Kinesis refuses an empty batch, and no other permission is needed to be refused.
    pub async fn warm(&self) -> Result<(), Unavailable> {
        let request = self.aws.kinesis.put_records().stream_name(&self.name);
        self.aws.warm(HOP, request.set_records(Some(Vec::new())).send()).await
    }
}

#[async_trait]
impl CommandStream for KinesisStream {
    async fn put_records(
        &self,
        records: &[StreamRecord],
    ) -> Result<Vec<Result<(), Unavailable>>, Unavailable> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let entry = |record: &StreamRecord| {
            let entry = PutRecordsRequestEntry::builder().partition_key(record.key.as_str());
            // Both that it requires are set.
            entry.data(Blob::new(record.data.clone())).build().ok()
        };
        let entries = records.iter().filter_map(entry).collect();
        let request = self.aws.kinesis.put_records().stream_name(&self.name);
        let request = request.set_records(Some(entries));
        let call = Call::new("PutRecords", &self.name);
        let output = self.aws.call(call, Tries::ONE, || request.clone().send()).await;
        let output = output.map_err(|error| error.unavailable(HOP))?;
        let results: Vec<_> = output.records().iter().map(result).collect();
        if results.len() != records.len() {
            let message = format!("{} results for {} records", results.len(), records.len());
            return Err(Unavailable::Failed { hop: HOP, message });
        }
        Ok(results)
    }
}

/// A record without a sequence number has none because it is not in the stream. All codes but those
/// of a shard that had no room for it leave open whether it was put.
fn result(entry: &PutRecordsResultEntry) -> Result<(), Unavailable> {
    match entry.error_code() {
        Some(code) if is_throttled(code) => Err(Unavailable::Throttled { hop: HOP }),
        Some(code) => {
            let message = format!("{code}: {}", entry.error_message().unwrap_or_default());
            Err(Unavailable::Failed { hop: HOP, message })
        }
        None if entry.sequence_number().is_some_and(|number| !number.is_empty()) => Ok(()),
        None => {
            let message = "neither a sequence number nor an error".to_owned();
            Err(Unavailable::Failed { hop: HOP, message })
        }
    }
}
