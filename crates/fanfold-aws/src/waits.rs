//! Waits by polling. Reads are billed, so the pauses grow.

use std::sync::Arc;

use async_trait::async_trait;
use fanfold::{LogId, Seq, Time};
use fanfold_pipeline::ports::{Env, Journal, ViewTable, Waits};

/// The pause after the first read, in milliseconds. Source: about what a command needs through all
/// hops at best.
const FIRST_MS: u64 = 50;
/// The longest pause, in milliseconds. Source: our choice; about thirty reads in the longest wait.
const LONGEST_MS: u64 = 1_000;

/// Waits that poll the tail of the log or the view's cursor. The pauses double from 50 ms to 1 s, which
/// makes about thirty reads in the 25 s that a request may wait.
///
/// A read of a cursor costs a read unit. So does a read of a tail while nothing was appended: the
/// [journal](crate::dynamo::DynamoJournal) remembers the end of the last commit that it has seen, so
/// it reads no commit twice.
pub struct PollingWaits {
    journal: Arc<dyn Journal>,
    env: Arc<dyn Env>,
}

impl PollingWaits {
    /// Waits for entries of this journal, and for views.
    pub fn new(journal: Arc<dyn Journal>, env: Arc<dyn Env>) -> Self {
        Self { journal, env }
    }

    fn pauses(&self, ms: u64) -> Pauses<'_> {
        Pauses { env: &*self.env, until: self.env.now().plus_ms(ms), next_ms: FIRST_MS }
    }
}

/// The pauses between reads.
struct Pauses<'a> {
    env: &'a dyn Env,
    until: Time,
    next_ms: u64,
}

impl Pauses<'_> {
    /// Sleeps until the next read. Returns `false`, without a pause, if the time is over.
    async fn pause(&mut self) -> bool {
        let left_ms = self.until.since_ms(self.env.now());
        if left_ms > 0 {
            self.env.sleep(self.next_ms.min(left_ms)).await;
            self.next_ms = (self.next_ms * 2).min(LONGEST_MS);
        }
        left_ms > 0
    }
}

/// A wait ends if a read fails: the caller reads next, and gets the error.
#[async_trait]
impl Waits for PollingWaits {
    async fn entry(&self, log: &LogId, seq: Seq, ms: u64) {
        let mut pauses = self.pauses(ms);
        while let Ok(tail) = self.journal.tail(log).await
            && tail < seq
            && pauses.pause().await
        {}
    }

    async fn view(&self, _view: &str, table: &dyn ViewTable, log: &LogId, seq: Seq, ms: u64) {
        let mut pauses = self.pauses(ms);
        while let Ok(cursor) = table.cursor(log).await
            && cursor.is_none_or(|cursor| cursor.seq < seq && cursor.parked.is_none())
            && pauses.pause().await
        {}
    }
}
