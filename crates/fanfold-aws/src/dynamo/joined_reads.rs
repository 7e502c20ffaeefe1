//! Reads by key that begin at the same time are one call.
//!
//! The stages work on many logs at a time, and each log asks for its own few items. Whoever asks
//! first lets the others ask too, and then reads for all of them: a `BatchGetItem` costs what its
//! keys cost one by one, and saves a hundred calls. Nothing is kept, and nothing is read that
//! nobody asked for. What was left out of an answer is its asker's to ask for again: nobody else
//! waits for it (F7).

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
    /// As DynamoDB has it.
    pub(super) fn item(&self) -> Item {
        item([(PK, text(&self.pk)), (SK, text(&self.sk))])
    }

    /// Of an item, or of a key. There is none without.
    pub(super) fn of(item: &Item) -> Option<Self> {
        let part = |name| item.get(name)?.as_s().ok().cloned();
        Some(Self { pk: part(PK)?, sk: part(SK)? })
    }
}

/// What came of asking for a key.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Item(Item),
    /// It was left out: who wants it asks again.
    LeftOut,
    Failed(Unavailable),
}

/// What came of asking for some keys; those that are not in it have no item.
pub(super) type Found = HashMap<Key, Outcome>;

/// The same for one who asks, in the order of the keys.
type Answer = Vec<Option<Outcome>>;

/// Those who ask at the moment.
#[derive(Debug, Default)]
pub(super) struct Together(Mutex<Vec<Asked>>);

#[derive(Debug)]
struct Asked {
    keys: Vec<Key>,
    answer: oneshot::Sender<Answer>,
}

impl Together {
    /// Asks for the items of these keys. Whoever gets a [`Reader`] asks first, and has to read for
    /// all; if that one is dropped, nobody answers, and all others have to ask anew.
    pub(super) fn ask(&self, keys: Vec<Key>) -> (oneshot::Receiver<Answer>, Option<Reader<'_>>) {
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut all = self.all();
            all.push(Asked { keys, answer });
            all.len() == 1
        };
        (answered, is_first.then(|| Reader(Some(self))))
    }

    fn all(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to read for all.
#[derive(Debug)]
pub(super) struct Reader<'a>(Option<&'a Together>);

impl Reader<'_> {
    /// Lets the others ask; then, what all of them ask for.
    pub(super) async fn all_asked(mut self) -> AllAsked {
        yield_now().await;
        AllAsked(self.take())
    }

    fn take(&mut self) -> Vec<Asked> {
        self.0.take().map_or_else(Vec::new, |together| mem::take(&mut *together.all()))
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// Those who are answered by one read.
pub(super) struct AllAsked(Vec<Asked>);

impl AllAsked {
    /// The keys, each once: `BatchGetItem` refuses to be asked twice for one.
    pub(super) fn keys(&self) -> BTreeSet<Key> {
        self.0.iter().flat_map(|asked| &asked.keys).cloned().collect()
    }

    /// Answers each.
    pub(super) fn answer(self, found: &Found) {
        for Asked { keys, answer } in self.0 {
            // Who does not wait any more is not answered.
            let _ = answer.send(keys.iter().map(|key| found.get(key).cloned()).collect());
        }
    }
}
