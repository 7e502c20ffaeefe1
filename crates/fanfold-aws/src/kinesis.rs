use async_trait::async_trait;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use fanfold::host::canary::Canary;
use fanfold_pipeline::ports::{CommandStream, StreamRecord, Unavailable};
use md5::{Digest, Md5};

use crate::Aws;
use crate::call::RetryPolicy;
use crate::error::{Call, is_throttled};

const HOP: &str = "command stream";
/// Canaries that are tried for each part of the stream. Source: twenty times as many as there are parts leave one of a
/// hundred parts empty in one of some ten million cases.
const CANARIES_PER_PART: usize = 20;

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

/// The numbers of `n` canaries whose logs are in different parts of the stream: its hash keys, which are the MD5 of
/// partition keys, are divided into `n` parts of one size, and each has one canary. So `n` shards of one size have one each.
pub fn spread_canaries(n: usize) -> Vec<usize> {
    let mut found: Vec<Option<usize>> = vec![None; n];
    // Chance finds the last part after some n * ln(n) numbers.
    for number in 0..n.saturating_mul(CANARIES_PER_PART) {
        let Some(log) = Canary::log(number) else { continue };
        let key = u32::from_be_bytes(md5_begin(log.as_str()));
        let part = (u64::from(key) * n as u64) >> 32;
        let part = found.get_mut(part as usize);
        part.map(|part| *part.get_or_insert(number));
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found.into_iter().flatten().collect()
}

/// The first four bytes of the MD5.
fn md5_begin(key: &str) -> [u8; 4] {
    let [a, b, c, d, ..]: [u8; 16] = Md5::digest(key).into();
    [a, b, c, d]
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_part_of_the_stream_has_a_canary() {
        for n in 0..=100 {
            let numbers = spread_canaries(n);
            assert_eq!(numbers.len(), n);
            let parts: BTreeSet<u64> = numbers
                .iter()
                .map(|number| {
                    let log = Canary::log(*number).expect("a canary");
                    let digest: [u8; 16] = Md5::digest(log.as_str()).into();
                    // By all bits, as Kinesis compares hash keys.
                    let key = u128::from_be_bytes(digest);
                    let size = u128::MAX / n as u128;
                    (key / size) as u64
                })
                .collect();
            assert_eq!(parts.len(), n, "{numbers:?}");
        }
    }
}
