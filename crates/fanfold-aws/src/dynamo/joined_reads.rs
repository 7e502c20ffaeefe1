//! Joins reads by key that begin at the same time into one call.
//!
//! The stages work on many logs at a time, and each log reads a few items of its own. The first read
//! yields once, so that others can join it, and then makes one `BatchGetItem` for all of them. That
//! costs as much as reading the keys one by one, and saves up to a hundred calls. Nothing is cached,
//! and only requested keys are read. If DynamoDB leaves a key unprocessed, only the reads that
//! requested this key retry it, so no other read waits for it (F7).

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fanfold_pipeline::ports::Unavailable;
use futures::channel::oneshot;
use tokio::task::yield_now;

use super::item::{Item, item, text};
use crate::names::attribute::{PK, SK};

/// The key of an item in a table with sort keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub pk: String,
    pub sk: String,
}

impl Key {
    /// The key as DynamoDB takes it.
    pub(super) fn item(&self) -> Item {
        item([(PK, text(&self.pk)), (SK, text(&self.sk))])
    }

    /// The key of an item. Every item has one.
    pub(super) fn of(item: &Item) -> Option<Self> {
        let part = |name| item.get(name)?.as_s().ok().cloned();
        Some(Self { pk: part(PK)?, sk: part(SK)? })
    }
}

/// The result of reading a key that has an item, or that was not read.
#[derive(Debug, Clone)]
pub(super) enum KeyResult {
    Item(Item),
    /// DynamoDB left it out of the answer: it can be requested again.
    Unprocessed,
    Failed(Unavailable),
}

/// The results of reading some keys. A key without a result has no item.
pub(super) type Found = HashMap<Key, KeyResult>;

/// The results of one request, in the order of its keys.
type Answer = Vec<Option<KeyResult>>;

/// The requests that wait to be read together.
#[derive(Debug, Default)]
pub(super) struct JoinedReads(Mutex<Vec<Request>>);

#[derive(Debug)]
struct Request {
    keys: Vec<Key>,
    answer: oneshot::Sender<Answer>,
}

impl JoinedReads {
    /// Adds a request for the items of these keys. The first request also gets a [`Reader`], and its
    /// caller has to read for all requests. If the caller drops the reader, the other requests get no
    /// answer, and have to be made again.
    pub(super) fn ask(&self, keys: Vec<Key>) -> (oneshot::Receiver<Answer>, Option<Reader<'_>>) {
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut all = self.all();
            all.push(Request { keys, answer });
            all.len() == 1
        };
        (answered, is_first.then(|| Reader(Some(self))))
    }

    fn all(&self) -> MutexGuard<'_, Vec<Request>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty of the first request's caller to read for all requests.
#[derive(Debug)]
pub(super) struct Reader<'a>(Option<&'a JoinedReads>);

impl Reader<'_> {
    /// Yields once, so that others can add requests, then takes all of them.
    pub(super) async fn join(mut self) -> JoinedRead {
        yield_now().await;
        JoinedRead(self.take())
    }

    fn take(&mut self) -> Vec<Request> {
        self.0.take().map_or_else(Vec::new, |together| mem::take(&mut *together.all()))
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// The requests that one read answers.
pub(super) struct JoinedRead(Vec<Request>);

impl JoinedRead {
    /// The keys of all requests, each once, since `BatchGetItem` refuses repeated keys.
    pub(super) fn keys(&self) -> BTreeSet<Key> {
        self.0.iter().flat_map(|asked| &asked.keys).cloned().collect()
    }

    /// Answers each request.
    pub(super) fn answer(self, found: &Found) {
        for Request { keys, answer } in self.0 {
            // Fails if the caller no longer waits.
            let _ = answer.send(keys.iter().map(|key| found.get(key).cloned()).collect());
        }
    }
}
