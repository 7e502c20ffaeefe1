//! The calls that the adapters make on one table. All of them request the capacity that they
//! consumed. Reads are strongly consistent, except those of an index, which cannot be, and those of
//! [`Table::eventual`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemOutput;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Delete, KeysAndAttributes, ReturnConsumedCapacity, ReturnValue,
    ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};
use fanfold::LogId;
use fanfold_pipeline::ports::Unavailable;
use futures::stream::{self, StreamExt};

use super::item::{Item, Malformed, item};
use super::joined_reads::{Found, JoinedReads, Key, KeyResult};
use crate::Aws;
use crate::call::RetryPolicy;
use crate::error::{Call, CallError};

/// The most keys of one `BatchGetItem`. Source: DynamoDB.
const BATCH_GET_MAX: usize = 100;
/// Batches of keys that are read at the same time. Source: our choice.
const BATCHES_AT_ONCE: usize = 4;

#[derive(Debug, Clone)]
pub(super) struct Table {
    aws: Aws,
    name: String,
    /// The name of the port in errors.
    hop: &'static str,
    consistent: bool,
    joined_reads: Arc<JoinedReads>,
}

/// An expression in which `#name` is the attribute of that name, with the values of its `:names`.
pub(super) struct Expression<'a, const N: usize>(
    pub(super) &'a str,
    pub(super) [(&'static str, AttributeValue); N],
);

/// A query of items under one partition key.
pub(super) struct Query<'a, const N: usize> {
    /// The condition on the items' keys.
    pub keys: Expression<'a, N>,
    /// The attributes to return; `None` means all.
    pub only: Option<&'a str>,
    pub index: Option<&'static str>,
    pub descending: bool,
    pub limit: Option<usize>,
    /// The key after which to continue.
    pub start: Option<Item>,
}

impl<'a, const N: usize> Query<'a, N> {
    pub(super) fn new(keys: Expression<'a, N>) -> Self {
        Self { keys, only: None, index: None, descending: false, limit: None, start: None }
    }
}

/// One page of a query or a scan: at most 1 MB.
pub(super) struct Page {
    pub items: Vec<Item>,
    /// The key after which to continue; `None` at the end.
    pub next: Option<Item>,
}

/// Why a write was not made.
pub(super) enum WriteError {
    /// Its condition failed; with the item as it is.
    Conflict(Option<Item>),
    Unavailable(Unavailable),
}

impl Table {
    pub(super) fn new(aws: &Aws, name: impl Into<String>, hop: &'static str) -> Self {
        let joined_reads = Arc::default();
        Self { aws: aws.clone(), name: name.into(), hop, consistent: true, joined_reads }
    }

    /// The same table, read by key eventually consistent, at half the price.
    pub(super) fn eventual(&self) -> Self {
        Self { consistent: false, joined_reads: Arc::default(), ..self.clone() }
    }

    /// A failure of this table's port.
    pub(super) fn failed(&self, message: impl ToString) -> Unavailable {
        let message = format!("{}: {}", self.name, message.to_string());
        Unavailable::Failed { hop: self.hop, message }
    }

    /// The error of an item that Fanfold did not write. A retry finds the same.
    pub(super) fn malformed(&self) -> impl Fn(Malformed) -> Unavailable {
        |malformed| {
            let message = format!("{}: {malformed}", self.name);
            Unavailable::Damaged { hop: self.hop, message }
        }
    }

    pub(super) async fn get(
        &self,
        key: Item,
        only: Option<&str>,
    ) -> Result<Option<Item>, Unavailable> {
        let request = self
            .aws
            .dynamodb
            .get_item()
            .table_name(&self.name)
            .set_key(Some(key))
            .set_projection_expression(only.map(ToOwned::to_owned))
            .set_expression_attribute_names(only.and_then(|only| names([only])))
            .consistent_read(self.consistent)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let call = self.call("GetItem");
        let sent = self.aws.call(call, RetryPolicy::BRIEF, || request.clone().send()).await;
        let output = sent.map_err(|error| error.unavailable(self.hop))?;
        self.aws.meter.read(output.consumed_capacity());
        Ok(output.item)
    }

    /// The items of a log under these sort keys, in their order. Each is billed alone. Calls at the same
    /// time are [joined](JoinedReads).
    ///
    /// Requests keys again that DynamoDB leaves unprocessed: an answer holds at most 16 MB, and single
    /// keys are throttled. A round that reads no key counts as a failed attempt, which bounds the
    /// rounds.
    pub(super) async fn get_many<'a>(
        &self,
        log: &LogId,
        sks: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<Option<Item>>, Unavailable> {
        let key = |sk: &str| Key { pk: log.to_string(), sk: sk.to_owned() };
        let keys: Vec<Key> = sks.into_iter().map(key).collect();
        let mut items: Vec<Option<Item>> = vec![None; keys.len()];
        let mut left: Vec<usize> = (0..keys.len()).collect();
        let mut attempt = 0;
        loop {
            let asked = left.len();
            let wanted = left.iter().map(|at| keys[*at].clone()).collect();
            for (at, outcome) in std::mem::take(&mut left).into_iter().zip(self.ask(wanted).await) {
                match outcome {
                    Some(KeyResult::Item(item)) => items[at] = Some(item),
                    None => {}
                    Some(KeyResult::Unprocessed) => left.push(at),
                    Some(KeyResult::Failed(error)) => return Err(error),
                }
            }
            if left.is_empty() {
                return Ok(items);
            }
            attempt = if left.len() < asked { 1 } else { attempt + 1 };
            if !RetryPolicy::BRIEF.pause(attempt, &self.aws.deadline).await {
                return Err(Unavailable::Throttled { hop: self.hop });
            }
        }
    }

    /// Requests these keys once; returns the results in their order.
    async fn ask(&self, keys: Vec<Key>) -> Vec<Option<KeyResult>> {
        loop {
            let (answered, reader) = self.joined_reads.ask(keys.clone());
            if let Some(reader) = reader {
                let all = reader.join().await;
                let found = self.read(all.keys()).await;
                all.answer(&found);
            }
            if let Ok(answer) = answered.await {
                return answer;
            }
        }
    }

    async fn read(&self, keys: BTreeSet<Key>) -> Found {
        let keys: Vec<Key> = keys.into_iter().collect();
        if let [key] = &keys[..] {
            let item = self.get(key.item(), None).await.transpose();
            let outcome = item.map(|item| item.map_or_else(KeyResult::Failed, KeyResult::Item));
            return outcome.map(|outcome| (key.clone(), outcome)).into_iter().collect();
        }
        let batches: Vec<_> = keys.chunks(BATCH_GET_MAX).map(|keys| self.get_batch(keys)).collect();
        let batches = stream::iter(batches).buffer_unordered(BATCHES_AT_ONCE);
        batches.collect::<Vec<Found>>().await.into_iter().flatten().collect()
    }

    async fn get_batch(&self, keys: &[Key]) -> Found {
        let output = match self.get_batch_once(keys).await {
            Ok(output) => output,
            Err(error) => {
                let failed = |key: &Key| (key.clone(), KeyResult::Failed(error.clone()));
                return keys.iter().map(failed).collect();
            }
        };
        let items = output.responses.into_iter().flatten().flat_map(|(_, items)| items);
        let found = items.filter_map(|item| Some((Key::of(&item)?, KeyResult::Item(item))));
        let left = output.unprocessed_keys.into_iter().flatten().flat_map(|(_, left)| left.keys);
        let left = left.filter_map(|key| Some((Key::of(&key)?, KeyResult::Unprocessed)));
        found.chain(left).collect()
    }

    async fn get_batch_once(&self, keys: &[Key]) -> Result<BatchGetItemOutput, Unavailable> {
        let batch = KeysAndAttributes::builder()
            .set_keys(Some(keys.iter().map(Key::item).collect()))
            .consistent_read(self.consistent);
        let batch = batch.build().map_err(|error| self.failed(error))?;
        let request = self
            .aws
            .dynamodb
            .batch_get_item()
            .request_items(&self.name, batch)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let call = self.call("BatchGetItem");
        let sent = self.aws.call(call, RetryPolicy::BRIEF, || request.clone().send()).await;
        let output = sent.map_err(|error| error.unavailable(self.hop))?;
        self.aws.meter.read(output.consumed_capacity());
        Ok(output)
    }

    /// Puts an item; returns the item that it replaces if there is no condition.
    pub(super) async fn put<const N: usize>(
        &self,
        item: Item,
        condition: Option<Expression<'_, N>>,
        retries: RetryPolicy,
    ) -> Result<Option<Item>, WriteError> {
        let mut request = self
            .aws
            .dynamodb
            .put_item()
            .table_name(&self.name)
            .set_item(Some(item))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        request = match condition {
            Some(Expression(condition, values)) => request
                .condition_expression(condition)
                .set_expression_attribute_names(names([condition]))
                .set_expression_attribute_values(values_of(values))
                .return_values_on_condition_check_failure(
                    ReturnValuesOnConditionCheckFailure::AllOld,
                ),
            None => request.return_values(ReturnValue::AllOld),
        };
        let call = self.call("PutItem");
        match self.aws.call(call, retries, || request.clone().send()).await {
            Ok(output) => {
                self.aws.meter.wrote(output.consumed_capacity());
                Ok(output.attributes)
            }
            Err(CallError::Conflict { error, .. }) => Err(WriteError::Conflict(match *error {
                PutItemError::ConditionalCheckFailedException(failed) => failed.item,
                _ => None,
            })),
            Err(error) => Err(WriteError::Unavailable(error.unavailable(self.hop))),
        }
    }

    /// Updates an item, or creates it; returns the attributes that `returned` names.
    pub(super) async fn update<const N: usize>(
        &self,
        key: Item,
        update: Expression<'_, N>,
        condition: Option<&str>,
        returned: ReturnValue,
        retries: RetryPolicy,
    ) -> Result<Item, WriteError> {
        let Expression(update, values) = update;
        let request = self
            .aws
            .dynamodb
            .update_item()
            .table_name(&self.name)
            .set_key(Some(key))
            .update_expression(update)
            .set_condition_expression(condition.map(ToOwned::to_owned))
            .set_expression_attribute_names(names([update, condition.unwrap_or_default()]))
            .set_expression_attribute_values(values_of(values))
            .return_values(returned)
            .set_return_values_on_condition_check_failure(
                condition.map(|_| ReturnValuesOnConditionCheckFailure::AllOld),
            )
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let call = self.call("UpdateItem");
        match self.aws.call(call, retries, || request.clone().send()).await {
            Ok(output) => {
                self.aws.meter.wrote(output.consumed_capacity());
                Ok(output.attributes.unwrap_or_default())
            }
            Err(CallError::Conflict { error, .. }) => Err(WriteError::Conflict(match *error {
                UpdateItemError::ConditionalCheckFailedException(failed) => failed.item,
                _ => None,
            })),
            Err(error) => Err(WriteError::Unavailable(error.unavailable(self.hop))),
        }
    }

    /// Deletes an item; returns it, or `None` if there was none.
    pub(super) async fn delete(&self, key: Item) -> Result<Option<Item>, Unavailable> {
        let request = self
            .aws
            .dynamodb
            .delete_item()
            .table_name(&self.name)
            .set_key(Some(key))
            .return_values(ReturnValue::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let call = self.call("DeleteItem");
        let sent = self.aws.call(call, RetryPolicy::BRIEF, || request.clone().send()).await;
        let output = sent.map_err(|error| error.unavailable(self.hop))?;
        self.aws.meter.wrote(output.consumed_capacity());
        Ok(output.attributes)
    }

    /// Deletes items if another one, under `guard`, fulfils the condition, in one transaction. False if it does not.
    pub(super) async fn delete_if<const N: usize>(
        &self,
        guard: Item,
        condition: Expression<'_, N>,
        keys: Vec<Item>,
    ) -> Result<bool, Unavailable> {
        let Expression(condition, values) = condition;
        let check = ConditionCheck::builder()
            .table_name(&self.name)
            .set_key(Some(guard))
            .condition_expression(condition)
            .set_expression_attribute_names(names([condition]))
            .set_expression_attribute_values(values_of(values));
        let check = check.build().map_err(|error| self.failed(error))?;
        let mut parts = vec![TransactWriteItem::builder().condition_check(check).build()];
        for key in keys {
            let delete = Delete::builder().table_name(&self.name).set_key(Some(key)).build();
            let delete = delete.map_err(|error| self.failed(error))?;
            parts.push(TransactWriteItem::builder().delete(delete).build());
        }
        let request = self
            .aws
            .dynamodb
            .transact_write_items()
            .set_transact_items(Some(parts))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let call = self.call("TransactWriteItems");
        match self.aws.call(call, RetryPolicy::BRIEF, || request.clone().send()).await {
            Ok(output) => {
                for capacity in output.consumed_capacity() {
                    self.aws.meter.wrote(Some(capacity));
                }
                Ok(true)
            }
            Err(CallError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.unavailable(self.hop)),
        }
    }

    pub(super) async fn query<const N: usize>(
        &self,
        query: Query<'_, N>,
    ) -> Result<Page, Unavailable> {
        let Query { keys: Expression(keys, values), only, index, descending, limit, start } = query;
        let request = self
            .aws
            .dynamodb
            .query()
            .table_name(&self.name)
            .set_index_name(index.map(ToOwned::to_owned))
            .consistent_read(index.is_none())
            .key_condition_expression(keys)
            .set_projection_expression(only.map(ToOwned::to_owned))
            .set_expression_attribute_names(names([keys, only.unwrap_or_default()]))
            .set_expression_attribute_values(values_of(values))
            .scan_index_forward(!descending)
            .set_limit(limit.map(|limit| i32::try_from(limit.max(1)).unwrap_or(i32::MAX)))
            .set_exclusive_start_key(start)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let call = self.call("Query");
        let sent = self.aws.call(call, RetryPolicy::BRIEF, || request.clone().send()).await;
        let output = sent.map_err(|error| error.unavailable(self.hop))?;
        self.aws.meter.read(output.consumed_capacity());
        let items = output.items.unwrap_or_default();
        Ok(Page { items, next: output.last_evaluated_key.filter(|key| !key.is_empty()) })
    }

    /// At most `limit` items of the table, behind the key `start`: the attributes `only`, or all. Whole items are billed.
    pub(super) async fn scan(
        &self,
        only: Option<&str>,
        limit: usize,
        start: Option<Item>,
    ) -> Result<Page, Unavailable> {
        let request = self
            .aws
            .dynamodb
            .scan()
            .table_name(&self.name)
            .set_projection_expression(only.map(ToOwned::to_owned))
            .set_expression_attribute_names(only.and_then(|only| names([only])))
            .consistent_read(self.consistent)
            .limit(i32::try_from(limit.max(1)).unwrap_or(i32::MAX))
            .set_exclusive_start_key(start)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let call = self.call("Scan");
        let sent = self.aws.call(call, RetryPolicy::BRIEF, || request.clone().send()).await;
        let output = sent.map_err(|error| error.unavailable(self.hop))?;
        self.aws.meter.read(output.consumed_capacity());
        let items = output.items.unwrap_or_default();
        Ok(Page { items, next: output.last_evaluated_key.filter(|key| !key.is_empty()) })
    }

    fn call(&self, operation: &'static str) -> Call {
        Call::new(operation, &self.name)
    }
}

impl WriteError {
    /// The error of a write whose condition cannot fail, or whose failed condition shows no item.
    pub(super) fn unavailable(self, table: &Table) -> Unavailable {
        match self {
            Self::Unavailable(unavailable) => unavailable,
            Self::Conflict(_) => table.failed("a condition failed, and the answer has no item"),
        }
    }
}

/// The `#names` of expressions, each for the attribute of the same name. So no attribute collides with
/// one of DynamoDB's hundreds of reserved words.
fn names<const N: usize>(expressions: [&str; N]) -> Option<HashMap<String, String>> {
    let words = expressions.into_iter().flat_map(|expression| expression.split('#').skip(1));
    let names: HashMap<String, String> = words
        .map(|word| {
            let end = word.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(word.len());
            (format!("#{}", &word[..end]), word[..end].to_owned())
        })
        .collect();
    (!names.is_empty()).then_some(names)
}

fn values_of<const N: usize>(
    values: [(&'static str, AttributeValue); N],
) -> Option<HashMap<String, AttributeValue>> {
    // DynamoDB refuses an empty map.
    (N > 0).then(|| item(values))
}
