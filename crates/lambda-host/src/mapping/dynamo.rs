//! The stream of a DynamoDB table.

use anyhow::Context;
use async_trait::async_trait;
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::types::ShardIteratorType;
use tokio::sync::OnceCell;

use super::stream::{Page, Record, Source};
use crate::event;

/// The most records that one call returns (DynamoDB Streams).
const RECORDS_MAX: usize = 1_000;

/// A table's stream.
pub struct TableStream {
    client: Client,
    table: String,
    region: String,
    arn: OnceCell<String>,
}

impl TableStream {
    /// The stream of the table with this name.
    pub fn new(client: Client, table: &str, region: &str) -> Self {
        let (table, region) = (table.to_owned(), region.to_owned());
        Self { client, table, region, arn: OnceCell::new() }
    }

    async fn arn(&self) -> anyhow::Result<&str> {
        let find = || async {
            let streams = self.client.list_streams().table_name(&self.table).send().await?;
            let arn = streams.streams().first().and_then(|stream| stream.stream_arn());
            anyhow::Ok(arn.with_context(|| format!("{} has no stream", self.table))?.to_owned())
        };
        self.arn.get_or_try_init(find).await.map(String::as_str)
    }
}

#[async_trait]
impl Source for TableStream {
    async fn shards(&self) -> anyhow::Result<Vec<(String, Vec<String>)>> {
        let arn = self.arn().await?;
        let mut shards = Vec::new();
        let mut after = None;
        loop {
            let request = self.client.describe_stream().stream_arn(arn);
            let page = request.set_exclusive_start_shard_id(after).send().await?;
            let stream = page
                .stream_description()
                .context("DynamoDB returned no description of the stream")?;
            for shard in stream.shards() {
                let id = shard.shard_id().unwrap_or_default().to_owned();
                let parents = shard.parent_shard_id().map(str::to_owned).into_iter().collect();
                shards.push((id, parents));
            }
            after = stream.last_evaluated_shard_id().map(str::to_owned);
            if after.is_none() {
                return Ok(shards);
            }
        }
    }

    async fn iterator(&self, shard: &str, after: Option<&str>) -> anyhow::Result<String> {
        let kind = match after {
            Some(_) => ShardIteratorType::AfterSequenceNumber,
            None => ShardIteratorType::TrimHorizon,
        };
        let request = self.client.get_shard_iterator().stream_arn(self.arn().await?);
        let request = request.shard_id(shard).shard_iterator_type(kind);
        let iterator = request.set_sequence_number(after.map(str::to_owned)).send().await?;
        Ok(iterator.shard_iterator().context("DynamoDB returned no iterator")?.to_owned())
    }

    async fn read(&self, _: &str, iterator: &str, limit: usize) -> anyhow::Result<Page> {
        let arn = self.arn().await?;
        let limit = i32::try_from(limit.min(RECORDS_MAX))?;
        let request = self.client.get_records().shard_iterator(iterator).limit(limit);
        let page = request.send().await?;
        let record = |record: &aws_sdk_dynamodbstreams::types::Record| {
            let change = record.dynamodb().context("a record has no change")?;
            Ok(Record {
                seq: change
                    .sequence_number()
                    .context("a change has no sequence number")?
                    .to_owned(),
                key: change.keys().map(event::item).unwrap_or_default().to_string().into_bytes(),
                event: event::of_change(record, arn, &self.region),
            })
        };
        let records = page.records().iter().map(record).collect::<anyhow::Result<_>>()?;
        Ok(Page { records, next: page.next_shard_iterator().map(str::to_owned) })
    }
}
