use async_trait::async_trait;
use bytes::Bytes;
use fanfold::LogId;
use fanfold::body::record::Record;
use fanfold::limits::{PUT_RECORDS_BYTES_MAX, PUT_RECORDS_MAX};

use super::Unavailable;

/// The command stream.
///
/// Records reach the processor at least once. Those of one key come from one shard, nearly in the
/// order in which they were acknowledged: small reorderings and repetitions MAY happen, losses
/// MUST NOT.
#[async_trait]
pub trait CommandStream: Send + Sync {
    /// Puts records: at most 500, at most 5 MiB together. One result per record, in order: a part
    /// of them MAY fail while others are put.
    async fn put_records(
        &self,
        records: &[StreamRecord],
    ) -> Result<Vec<Result<(), Unavailable>>, Unavailable>;
}

/// A record of the command stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRecord {
    /// The partition key: its MD5 chooses the shard.
    pub key: LogId,
    /// The body, at most 1 MiB.
    pub data: Bytes,
}

impl StreamRecord {
    /// A nudge: look at this log again.
    pub fn nudge(log: LogId) -> Self {
        // A name is all it holds, which JSON always can.
        let data = Record::nudge(log.clone()).encode().unwrap_or_default().into();
        Self { key: log, data }
    }

    /// What it counts for in a call.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len() + self.key.as_str().len()
    }
}

/// How many records of these sizes one call takes: at least one.
pub(crate) fn put_len(sizes: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let fits = sizes.take(PUT_RECORDS_MAX).take_while(|size| {
        bytes += size;
        bytes <= PUT_RECORDS_BYTES_MAX
    });
    fits.count().max(1)
}
