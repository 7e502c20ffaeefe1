//! The settings of a stack that something other than its template can change.

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{
    ContinuousBackupsDescription, PointInTimeRecoveryStatus, StreamViewType, TimeToLiveStatus,
};
use fanfold_pipeline::ports::{HostChecked, HostChecks, Unavailable};

use crate::call::RetryPolicy;
use crate::error::Call;
use crate::names::Tables;
use crate::names::attribute::TTL;
use crate::{Aws, StreamOrder};

const HOP: &str = "settings";
const STREAM_ORDER: &str = "stream_order";
const CHANGE_STREAM: &str = "change_stream";
const RECOVERY: &str = "point_in_time_recovery";
const EXPIRY: &str = "time_to_live";

/// Compares a stack's settings with what the template sets: the order of the command stream, the stream of the commands
/// table, point-in-time recovery of the tables that cannot be rebuilt, and the expiry of the timeline. Seven calls of the
/// control plane, which cost nothing.
#[derive(Debug, Clone)]
pub struct StackChecks {
    aws: Aws,
    tables: Tables,
    order: StreamOrder,
}

impl StackChecks {
    /// The checks of the stack with these tables, whose command stream has this name.
    pub fn new(aws: &Aws, tables: Tables, stream: impl Into<String>) -> Self {
        Self { aws: aws.clone(), tables, order: StreamOrder::new(aws, stream) }
    }

    async fn stream_order(&self) -> Result<Option<String>, Unavailable> {
        let wrong = "the command stream ignores partition keys: set its record distribution strategy to USER_PARTITION_KEY";
        Ok((!self.order.keeps_order().await?).then(|| wrong.to_owned()))
    }

    async fn change_stream(&self, table: &str) -> Result<Option<String>, Unavailable> {
        let request = self.aws.dynamodb.describe_table().table_name(table);
        let send = || request.clone().send();
        let call = Call::new("DescribeTable", table);
        let output = self.aws.call(call, RetryPolicy::BRIEF, send).await;
        let output = output.map_err(|error| error.unavailable(HOP))?;
        let stream = output.table.and_then(|table| table.stream_specification);
        Ok(match stream.filter(|stream| stream.stream_enabled) {
            None => Some(format!(
                "the table {table} has no stream, so the relay gets no commands: set it as the template does"
            )),
            Some(stream) => match stream.stream_view_type {
                Some(StreamViewType::NewImage | StreamViewType::NewAndOldImages) => None,
                other => {
                    let found = other.map_or_else(|| "nothing".to_owned(), |of| of.to_string());
                    Some(format!(
                        "the stream of the table {table} has {found} of an item, and the relay needs NEW_IMAGE: set it as the template does"
                    ))
                }
            },
        })
    }

    async fn recovery(&self, table: &str) -> Result<Option<String>, Unavailable> {
        let request = self.aws.dynamodb.describe_continuous_backups().table_name(table);
        let send = || request.clone().send();
        let call = Call::new("DescribeContinuousBackups", table);
        let output = self.aws.call(call, RetryPolicy::BRIEF, send).await;
        let output = output.map_err(|error| error.unavailable(HOP))?;
        let backups = output.continuous_backups_description;
        let recovery = backups.and_then(
            |ContinuousBackupsDescription { point_in_time_recovery_description, .. }| {
                point_in_time_recovery_description
            },
        );
        let status = recovery.and_then(|recovery| recovery.point_in_time_recovery_status);
        Ok((status != Some(PointInTimeRecoveryStatus::Enabled)).then(|| {
            format!("the table {table} has no point-in-time recovery, and cannot be rebuilt: set it as the template does")
        }))
    }

    async fn expiry(&self, table: &str) -> Result<Option<String>, Unavailable> {
        let request = self.aws.dynamodb.describe_time_to_live().table_name(table);
        let send = || request.clone().send();
        let call = Call::new("DescribeTimeToLive", table);
        let output = self.aws.call(call, RetryPolicy::BRIEF, send).await;
        let output = output.map_err(|error| error.unavailable(HOP))?;
        let expiry = output.time_to_live_description;
        let is_right = expiry.is_some_and(|expiry| {
            let status = expiry.time_to_live_status;
            let is_on =
                matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling));
            is_on && expiry.attribute_name.as_deref() == Some(TTL)
        });
        Ok((!is_right).then(|| {
            format!("the table {table} does not expire items by `{TTL}`, so it grows: set it as the template does")
        }))
    }
}

#[async_trait]
impl HostChecks for StackChecks {
    async fn check(&self) -> HostChecked {
        let mut checked = HostChecked::default();
        let mut add = |what, result: Result<_, Unavailable>| {
            checked.add(what, result.map_err(|error| error.to_string()));
        };
        add(STREAM_ORDER, self.stream_order().await);
        add(CHANGE_STREAM, self.change_stream(&self.tables.commands()).await);
        let kept = [self.tables.commands(), self.tables.journal(), self.tables.parked()];
        for table in kept.into_iter().chain([self.tables.timeline()]) {
            add(RECOVERY, self.recovery(&table).await);
        }
        add(EXPIRY, self.expiry(&self.tables.timeline()).await);
        checked
    }
}
