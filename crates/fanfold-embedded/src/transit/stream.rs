use std::sync::Arc;

use async_trait::async_trait;
use fanfold::host::limits::{PUT_RECORDS_BYTES_MAX, PUT_RECORDS_MAX, STREAM_RECORD_BYTES_MAX};
use fanfold_pipeline::ports::{CommandStream, Env, StreamRecord, Unavailable};
use fanfold_pipeline::process::ReceivedRecord;

use super::ITEM_OVERHEAD_BYTES;
use crate::faults;
use crate::hash_key::HashKey;
use crate::limit::Limit;
use crate::shards::Shards;
use crate::tables::beyond_limit;

const HOP: &str = "command stream";

/// The command stream: shards by ranges of the MD5 of the key, as in Kinesis.
pub struct MemoryStream {
    records: Arc<Shards<ReceivedRecord>>,
    limit: Limit,
    env: Arc<dyn Env>,
}

impl MemoryStream {
    /// A stream of shards of equal width. Puts are throttled while the backlog exceeds twice
    /// `limit`, so that a relay that resends unprocessed records does not fill the memory.
    pub fn new(shards: usize, limit: Limit, env: Arc<dyn Env>) -> Self {
        Self::over(Shards::equal(shards), limit, env)
    }

    /// As [`MemoryStream::new`], with existing shards.
    pub fn over(records: Shards<ReceivedRecord>, limit: Limit, env: Arc<dyn Env>) -> Self {
        Self { records: Arc::new(records), limit: limit.twice(), env }
    }

    /// The shards, with the records in the order of their puts. They can be split and merged.
    pub fn records(&self) -> &Arc<Shards<ReceivedRecord>> {
        &self.records
    }

    fn put(&self, record: &StreamRecord) -> Result<(), Unavailable> {
        let bytes = weight(record);
        if bytes > STREAM_RECORD_BYTES_MAX {
            return Err(beyond_limit(HOP, bytes, STREAM_RECORD_BYTES_MAX, "bytes in a record"));
        }
        if self.records.backlog().exceeds(self.limit) {
            return Err(Unavailable::Throttled { hop: HOP });
        }
        let StreamRecord { key, data } = record.clone();
        let hash_key = HashKey::of_log(&key);
        let received = ReceivedRecord { key, data, arrived: self.env.now() };
        self.records.append(hash_key, ITEM_OVERHEAD_BYTES + bytes, received);
        faults::reached("stream.put");
        Ok(())
    }
}

/// The bytes of a record as Kinesis counts them: data and key.
fn weight(record: &StreamRecord) -> usize {
    record.data.len() + record.key.as_str().len()
}

#[async_trait]
impl CommandStream for MemoryStream {
    async fn put_records(
        &self,
        records: &[StreamRecord],
    ) -> Result<Vec<Result<(), Unavailable>>, Unavailable> {
        if records.len() > PUT_RECORDS_MAX.get() {
            return Err(beyond_limit(HOP, records.len(), PUT_RECORDS_MAX.get(), "records"));
        }
        let bytes: usize = records.iter().map(weight).sum();
        if bytes > PUT_RECORDS_BYTES_MAX.get() {
            return Err(beyond_limit(HOP, bytes, PUT_RECORDS_BYTES_MAX.get(), "bytes"));
        }
        Ok(records.iter().map(|record| self.put(record)).collect())
    }
}
