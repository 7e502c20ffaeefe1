use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use fanfold_pipeline::ports::{DeadLetter, DeadLetters, Unavailable};

use crate::limit::Limit;
use crate::store::{Store, StoreError, Table};
use crate::striped::lock;

/// The messages that could not be delivered, by view. Beyond a limit the oldest are dropped.
///
/// Key: view and id. Value: the body.
pub struct StoredDeadLetters {
    store: Arc<Store>,
    limit: Limit,
    /// The next id of each view. The lock also admits one writer at a time, as letters are rare.
    next_ids: Mutex<BTreeMap<String, u64>>,
}

impl StoredDeadLetters {
    /// The dead letters in a store, at most `limit` for each view.
    pub fn new(store: Arc<Store>, limit: Limit) -> Self {
        Self { store, limit, next_ids: Mutex::default() }
    }

    fn key(view: &str, id: u64) -> Bytes {
        [view.as_bytes(), &[0], &id.to_be_bytes()].concat().into()
    }

    /// At most `limit` letters of a view with ids from `first` on.
    fn letters(&self, view: &str, first: u64, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let mut letters = Vec::new();
        let end = [view.as_bytes(), &[1]].concat();
        let start = Self::key(view, first);
        self.store.scan(Table::DEAD_LETTERS, &start, &end, false, |key, body| {
            let id = key.last_chunk::<8>().map(|id| u64::from_be_bytes(*id));
            letters.extend(id.map(|id| DeadLetter { id, body }));
            if letters.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(letters)
    }

    /// Adds a message that could not be delivered.
    pub fn push(&self, view: &str, body: Bytes) {
        if let Err(error) = self.add(view, body) {
            // The view's sweep finds the message's commits in the journal.
            tracing::error!(view, %error, "a dead letter could not be stored and is lost: the view's sweep repairs its rows");
        }
    }

    fn add(&self, view: &str, body: Bytes) -> Result<(), StoreError> {
        let mut next_ids = lock(&self.next_ids);
        let letters = self.letters(view, 0, usize::MAX)?;
        let stored = letters.last().map_or(0, |last| last.id + 1);
        let next = next_ids.entry(view.to_owned()).or_default();
        let id = stored.max(*next);
        *next = id + 1;
        let (mut items, mut bytes) = (letters.len() + 1, body.len());
        bytes += letters.iter().map(|letter| letter.body.len()).sum::<usize>();
        self.store.write(|writes| {
            writes.put(Table::DEAD_LETTERS, Self::key(view, id), body.clone());
            for oldest in letters.into_iter().chain([DeadLetter { id, body }]) {
                if items <= self.limit.items && bytes <= self.limit.bytes {
                    break;
                }
                (items, bytes) = (items - 1, bytes - oldest.body.len());
                writes.remove(Table::DEAD_LETTERS, Self::key(view, oldest.id));
            }
        });
        Ok(())
    }
}

#[async_trait]
impl DeadLetters for StoredDeadLetters {
    async fn list(
        &self,
        view: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, Unavailable> {
        let first = after.map_or(0, |after| after.saturating_add(1));
        let letters = if limit == 0 { Ok(Vec::new()) } else { self.letters(view, first, limit) };
        letters.map_err(|error| error.unavailable("dead letters"))
    }

    async fn remove(&self, view: &str, id: u64) -> Result<(), Unavailable> {
        let _alone = lock(&self.next_ids);
        self.store.remove(Table::DEAD_LETTERS, Self::key(view, id));
        Ok(())
    }
}
