use async_trait::async_trait;
use bytes::Bytes;
use fanfold::LogId;
use fanfold::host::body::record::Record;
use fanfold::host::limits::{PUT_RECORDS_BYTES_MAX, PUT_RECORDS_MAX};

use super::Unavailable;

/// The command stream.
///
/// Records reach the processor at least once. Those of one key come from one shard, nearly in the
/// order in which they were acknowledged. Small reorderings and repetitions MAY happen, losses MUST
/// NOT.
#[async_trait]
pub trait CommandStream: Send + Sync {
    /// Puts records: at most 500, and at most 5 MiB together. One result per record, in order. Some
    /// MAY fail while others are put.
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
    /// A nudge: a record that makes the processor load this log again.
    pub fn nudge(log: LogId) -> Self {
        // Cannot fail: it has only a name.
        let data = Record::nudge(log.clone()).encode().unwrap_or_default().into();
        Self { key: log, data }
    }

    /// The bytes that count against the limit of a call.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len() + self.key.as_str().len()
    }
}

/// How many records of these sizes fit into one call, at least one.
pub(crate) fn put_len(sizes: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let fits = sizes.take(PUT_RECORDS_MAX.get()).take_while(|size| {
        bytes += size;
        bytes <= PUT_RECORDS_BYTES_MAX.get()
    });
    fits.count().max(1)
}
