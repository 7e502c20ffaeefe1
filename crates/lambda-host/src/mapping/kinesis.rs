//! A Kinesis stream.

use anyhow::Context;
use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::ShardIteratorType;

use super::stream::{Page, Record, Source};
use crate::event;

/// The most records that one call returns (Kinesis).
const RECORDS_MAX: usize = 10_000;

/// A Kinesis stream.
pub struct KinesisStream {
    client: Client,
    name: String,
    region: String,
    arn: String,
}

impl KinesisStream {
    /// The stream with this name.
    pub fn new(client: Client, name: &str, region: &str, account: &str) -> Self {
        let arn = format!("arn:aws:kinesis:{region}:{account}:stream/{name}");
        Self { client, name: name.to_owned(), region: region.to_owned(), arn }
    }
}

#[async_trait]
impl Source for KinesisStream {
    async fn shards(&self) -> anyhow::Result<Vec<(String, Vec<String>)>> {
        let mut shards = Vec::new();
        let mut next = None::<String>;
        loop {
            // A request with a token must not name the stream.
            let name = next.is_none().then(|| self.name.clone());
            let request = self.client.list_shards().set_stream_name(name);
            let page = request.set_next_token(next.take()).send().await?;
            for shard in page.shards() {
                let parents = [shard.parent_shard_id(), shard.adjacent_parent_shard_id()];
                let parents = parents.into_iter().flatten().map(str::to_owned).collect();
                shards.push((shard.shard_id().to_owned(), parents));
            }
            next = page.next_token().map(str::to_owned);
            if next.is_none() {
                return Ok(shards);
            }
        }
    }

    async fn iterator(&self, shard: &str, after: Option<&str>) -> anyhow::Result<String> {
        let kind = match after {
            Some(_) => ShardIteratorType::AfterSequenceNumber,
            None => ShardIteratorType::TrimHorizon,
        };
        let request = self.client.get_shard_iterator().stream_name(&self.name).shard_id(shard);
        let request = request.shard_iterator_type(kind);
        let iterator =
            request.set_starting_sequence_number(after.map(str::to_owned)).send().await?;
        Ok(iterator.shard_iterator().context("Kinesis returned no iterator")?.to_owned())
    }

    async fn read(&self, shard: &str, iterator: &str, limit: usize) -> anyhow::Result<Page> {
        let limit = i32::try_from(limit.min(RECORDS_MAX))?;
        let request = self.client.get_records().shard_iterator(iterator).limit(limit);
        let page = request.send().await?;
        let record = |record: &aws_sdk_kinesis::types::Record| Record {
            seq: record.sequence_number().to_owned(),
            key: record.partition_key().as_bytes().to_vec(),
            event: event::of_kinesis(record, shard, &self.arn, &self.region),
        };
        let records = page.records().iter().map(record).collect();
        Ok(Page { records, next: page.next_shard_iterator().map(str::to_owned) })
    }
}
