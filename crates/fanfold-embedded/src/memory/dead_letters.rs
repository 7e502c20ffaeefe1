use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use fanfold_pipeline::ports::{DeadLetter, DeadLetters, Unavailable};

use crate::shard::Bound;
use crate::striped::lock;
use crate::subscription::Undelivered;

#[derive(Default)]
struct Letters {
    /// By id: ids grow.
    letters: VecDeque<DeadLetter>,
    bytes: usize,
    next_id: u64,
    dropped: u64,
}

impl Letters {
    fn drop_oldest(&mut self) {
        if let Some(letter) = self.letters.pop_front() {
            self.bytes -= letter.body.len();
            self.dropped += 1;
        }
    }
}

/// The messages that could not be delivered, by view, the oldest dropped when there are too many.
pub struct MemoryDeadLetters {
    views: Mutex<BTreeMap<String, Letters>>,
    bound: Bound,
}

impl MemoryDeadLetters {
    /// None yet; of each view at most `bound`.
    pub fn new(bound: Bound) -> Self {
        Self { views: Mutex::default(), bound }
    }

    /// Adds a message that could not be delivered.
    pub fn push(&self, view: &str, body: Bytes) {
        let mut views = lock(&self.views);
        let letters = views.entry(view.to_owned()).or_default();
        letters.bytes += body.len();
        letters.letters.push_back(DeadLetter { id: letters.next_id, body });
        letters.next_id += 1;
        while letters.letters.len() > self.bound.items || letters.bytes > self.bound.bytes {
            letters.drop_oldest();
        }
    }

    /// How many of the view's were dropped because there were too many.
    pub fn dropped(&self, view: &str) -> u64 {
        lock(&self.views).get(view).map_or(0, |letters| letters.dropped)
    }
}

impl Undelivered for MemoryDeadLetters {
    fn push(&self, view: &str, body: Bytes) {
        self.push(view, body);
    }
}

#[async_trait]
impl DeadLetters for MemoryDeadLetters {
    async fn list(
        &self,
        view: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, Unavailable> {
        let views = lock(&self.views);
        let letters = views.get(view).into_iter().flat_map(|letters| &letters.letters);
        let letters = letters.filter(|letter| after.is_none_or(|after| letter.id > after));
        Ok(letters.take(limit).cloned().collect())
    }

    async fn remove(&self, view: &str, id: u64) -> Result<(), Unavailable> {
        if let Some(letters) = lock(&self.views).get_mut(view)
            && let Ok(at) = letters.letters.binary_search_by_key(&id, |letter| letter.id)
            && let Some(letter) = letters.letters.remove(at)
        {
            letters.bytes -= letter.body.len();
        }
        Ok(())
    }
}
