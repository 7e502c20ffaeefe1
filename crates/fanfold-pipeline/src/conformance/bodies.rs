use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use fanfold::{LogId, Seq, Time};

use crate::ports::{
    Append, AppendError, CataloguePage, CataloguePosition, Change, Commands, OperatorCommands,
    Slot, SlotRaise, Token, Unavailable,
};

/// A commands table whose slots keep the bodies of their batches, as DynamoDB's do, over a table
/// whose slots do not.
pub struct WithBodies<C> {
    commands: Arc<C>,
    batches: Mutex<BTreeMap<LogId, Change>>,
}

impl<C> WithBodies<C> {
    /// Over `commands`. What was appended before has no body.
    pub fn new(commands: Arc<C>) -> Self {
        Self { commands, batches: Mutex::default() }
    }
}

#[async_trait]
impl<C: Commands> Commands for WithBodies<C> {
    async fn append(&self, log: &LogId, append: Append) -> Result<Seq, AppendError> {
        let Append { n, body, at, token } = append.clone();
        let last = self.commands.append(log, append).await?;
        let change = Change { log: log.clone(), last, n, at, token, body };
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        if batches.get(log).is_none_or(|batch| batch.last < last) {
            batches.insert(log.clone(), change);
        }
        Ok(last)
    }

    async fn slot(&self, log: &LogId) -> Result<Option<Slot>, Unavailable> {
        self.commands.slot(log).await
    }

    async fn batch(&self, log: &LogId) -> Result<Option<Change>, Unavailable> {
        Ok(self.batches.lock().unwrap_or_else(PoisonError::into_inner).get(log).cloned())
    }

    async fn catalogue(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
    ) -> Result<CataloguePage, Unavailable> {
        self.commands.catalogue(after, limit).await
    }
}

#[async_trait]
impl<C: OperatorCommands> OperatorCommands for WithBodies<C> {
    async fn raise(
        &self,
        log: &LogId,
        to: Seq,
        at: Time,
        token: Token,
    ) -> Result<SlotRaise, Unavailable> {
        let raise = self.commands.raise(log, to, at, token).await?;
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        if raise == SlotRaise::Raised && batches.get(log).is_some_and(|batch| batch.last <= to) {
            batches.remove(log);
        }
        Ok(raise)
    }
}
