use std::sync::Arc;

use async_trait::async_trait;
use fanfold::limits::{PUT_RECORDS_BYTES_MAX, PUT_RECORDS_MAX, STREAM_RECORD_BYTES_MAX};
use fanfold_pipeline::ports::{CommandStream, Env, StreamRecord, Unavailable};
use fanfold_pipeline::process::ReceivedRecord;

use super::ITEM_OVERHEAD_BYTES;
use crate::faults;
use crate::hash_key::HashKey;
use crate::limit::Limit;
use crate::shards::Shards;
use crate::tables::beyond_limit;

const HOP: &str = "command stream";

/// The command stream: shards by ranges of the keys' MD5s, as Kinesis has them.
pub struct MemoryStream {
    records: Arc<Shards<ReceivedRecord>>,
    limit: Limit,
    env: Arc<dyn Env>,
}

impl MemoryStream {
    /// Shards of equal width. Puts are throttled while more than twice `limit` is in them: a
    /// relay that sends again and again what is not processed fills no memory.
    pub fn new(shards: usize, limit: Limit, env: Arc<dyn Env>) -> Self {
        Self::over(Shards::equal(shards), limit, env)
    }

    /// As [`MemoryStream::new`], with these shards.
    pub fn over(records: Shards<ReceivedRecord>, limit: Limit, env: Arc<dyn Env>) -> Self {
        Self { records: Arc::new(records), limit: limit.twice(), env }
    }

    /// What was put, in the order in which it was acknowledged. Its shards can be split and merged.
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

/// What Kinesis counts: the data and the key.
fn weight(record: &StreamRecord) -> usize {
    record.data.len() + record.key.as_str().len()
}

#[async_trait]
impl CommandStream for MemoryStream {
    async fn put_records(
        &self,
        records: &[StreamRecord],
    ) -> Result<Vec<Result<(), Unavailable>>, Unavailable> {
        if records.len() > PUT_RECORDS_MAX {
            return Err(beyond_limit(HOP, records.len(), PUT_RECORDS_MAX, "records"));
        }
        let bytes: usize = records.iter().map(weight).sum();
        if bytes > PUT_RECORDS_BYTES_MAX {
            return Err(beyond_limit(HOP, bytes, PUT_RECORDS_BYTES_MAX, "bytes"));
        }
        Ok(records.iter().map(|record| self.put(record)).collect())
    }
}
