//! Waiting by looking again and again: reads are billed, so ever less often.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use fanfold::{LogId, Seq, Time};
use fanfold_pipeline::ports::{Env, Journal, ViewTable, Waits};

/// The pause after the first look: about what a command needs through all hops at best.
const FIRST_MS: u64 = 50;
/// The longest pause.
const LONGEST_MS: u64 = 1_000;

/// Looks at the tail of the log, or at the view's cursor, with pauses that double from 50 ms to
/// 1 s: about thirty looks in the 25 s that a request may wait.
///
/// A look at a cursor costs a read unit. One at a tail, too, as long as nothing was appended: the
/// [journal](crate::dynamo::DynamoJournal) remembers where the last commit ends that it has seen,
/// so that no commit is read twice.
pub struct PollingWaits {
    journal: Arc<dyn Journal>,
    views: BTreeMap<String, Arc<dyn ViewTable>>,
    env: Arc<dyn Env>,
}

impl PollingWaits {
    /// Waits for this journal, and for the views in these tables.
    pub fn new(
        journal: Arc<dyn Journal>,
        views: BTreeMap<String, Arc<dyn ViewTable>>,
        env: Arc<dyn Env>,
    ) -> Self {
        Self { journal, views, env }
    }

    fn pauses(&self, ms: u64) -> Pauses<'_> {
        Pauses { env: &*self.env, until: self.env.now().plus_ms(ms), next_ms: FIRST_MS }
    }
}

/// The pauses between looks.
struct Pauses<'a> {
    env: &'a dyn Env,
    until: Time,
    next_ms: u64,
}

impl Pauses<'_> {
    /// `false`, at once, when the time is over.
    async fn pause(&mut self) -> bool {
        let left_ms = self.until.since_ms(self.env.now());
        if left_ms > 0 {
            self.env.sleep(self.next_ms.min(left_ms)).await;
            self.next_ms = (self.next_ms * 2).min(LONGEST_MS);
        }
        left_ms > 0
    }
}

/// Who cannot look stops waiting: the caller looks by itself, and learns why.
#[async_trait]
impl Waits for PollingWaits {
    async fn entry(&self, log: &LogId, seq: Seq, ms: u64) {
        let mut pauses = self.pauses(ms);
        while let Ok(tail) = self.journal.tail(log).await
            && tail < seq
            && pauses.pause().await
        {}
    }

    /// For a view that is not served here, nobody can wait.
    async fn view(&self, view: &str, log: &LogId, seq: Seq, ms: u64) {
        let Some(table) = self.views.get(view) else { return };
        let mut pauses = self.pauses(ms);
        while let Ok(cursor) = table.cursor(log).await
            && cursor.is_none_or(|cursor| cursor.seq < seq && cursor.parked.is_none())
            && pauses.pause().await
        {}
    }
}
