use async_trait::async_trait;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use fanfold_pipeline::ports::{CommandStream, StreamRecord, Unavailable};

use crate::Aws;
use crate::call::RetryPolicy;
use crate::error::{Call, is_throttled};

const HOP: &str = "command stream";

/// The command stream on Kinesis. The partition key is the log. This adapter retries nothing, since
/// the relay decides which record may follow which.
#[derive(Debug, Clone)]
pub struct KinesisStream {
    aws: Aws,
    name: String,
}

impl KinesisStream {
    /// The stream with this name.
    pub fn new(aws: &Aws, name: impl Into<String>) -> Self {
        Self { aws: aws.clone(), name: name.into() }
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
            // Never fails, since both required fields are set.
            entry.data(Blob::new(record.data.clone())).build().ok()
        };
        let entries = records.iter().filter_map(entry).collect();
        let request = self.aws.kinesis.put_records().stream_name(&self.name);
        let request = request.set_records(Some(entries));
        let call = Call::new("PutRecords", &self.name);
        let output = self.aws.call(call, RetryPolicy::NONE, || request.clone().send()).await;
        let output = output.map_err(|error| error.unavailable(HOP))?;
        let results: Vec<_> = output.records().iter().map(result).collect();
        if results.len() != records.len() {
            let message = format!("{} results for {} records", results.len(), records.len());
            return Err(Unavailable::Failed { hop: HOP, message });
        }
        Ok(results)
    }
}

/// The result of one record. A record that was put has a sequence number. Codes other than those of a
/// throttled shard leave open whether it was put.
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
