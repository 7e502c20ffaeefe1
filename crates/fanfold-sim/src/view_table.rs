//! A view's table, behind the layer of faults.

use std::sync::Arc;

use async_trait::async_trait;
use fanfold::host::body::lease::Lease;
use fanfold::{LogId, RowKey, Seq};
use fanfold_embedded::testing::StoredView;
use fanfold_pipeline::ports::{
    Cursor, CursorMove, LeaseWrite, OperatorView, ParkedView, ParkedViewPage, PutRowError, RowPage,
    RowRange, StoredRow, Unavailable, ViewTable,
};

use crate::watch::Watch;

/// A view's table.
pub struct SimViewTable {
    /// The view's name.
    pub view: &'static str,
    /// The in-memory table.
    pub memory: Arc<StoredView>,
    /// Faults, auditor and trace.
    pub watch: Watch,
}

#[async_trait]
impl ViewTable for SimViewTable {
    async fn cursor(&self, log: &LogId) -> Result<Option<Cursor>, Unavailable> {
        let (memory, log) = (self.memory.clone(), log.clone());
        self.watch.faults.call("view table", async move { memory.cursor(&log).await }).await
    }

    async fn rows(
        &self,
        log: &LogId,
        keys: &[RowKey],
    ) -> Result<Vec<Option<StoredRow>>, Unavailable> {
        let (memory, log, keys) = (self.memory.clone(), log.clone(), keys.to_vec());
        self.watch.faults.call("view table", async move { memory.rows(&log, &keys).await }).await
    }

    async fn put_row(
        &self,
        log: &LogId,
        key: &RowKey,
        row: &StoredRow,
        loaded: Option<Seq>,
    ) -> Result<(), PutRowError> {
        let (memory, watch, view) = (self.memory.clone(), self.watch.clone(), self.view);
        let (log, key, row) = (log.clone(), key.clone(), row.clone());
        let effect = async move {
            let result = memory.put_row(&log, &key, &row, loaded).await;
            if result.is_ok() {
                watch.note(|| format!("row {view} {log} {key} {}", row.seq));
                watch.audit(|model| model.row_stored(view, &log, &key, &row));
            }
            result
        };
        self.watch.faults.call("view table", effect).await
    }

    async fn move_cursor(&self, log: &LogId, to: Seq) -> Result<CursorMove, Unavailable> {
        let (memory, watch, view) = (self.memory.clone(), self.watch.clone(), self.view);
        let log = log.clone();
        let effect = async move {
            let result = memory.move_cursor(&log, to).await;
            if result == Ok(CursorMove::Moved) {
                watch.note(|| format!("cursor {view} {log} {to}"));
                watch.audit(|model| model.advanced(view, &log, to));
            }
            result
        };
        self.watch.faults.call("view table", effect).await
    }

    async fn mark_behind(&self, log: &LogId, target: Seq) -> Result<(), Unavailable> {
        let (memory, log) = (self.memory.clone(), log.clone());
        let effect = async move { memory.mark_behind(&log, target).await };
        self.watch.faults.call("view table", effect).await
    }

    async fn park(&self, log: &LogId, at: Seq, parked: &ParkedView) -> Result<(), Unavailable> {
        let (memory, watch, view) = (self.memory.clone(), self.watch.clone(), self.view);
        let (log, parked) = (log.clone(), parked.clone());
        let effect = async move {
            watch.note(|| format!("park {view} {log} {} {}", parked.seq, parked.reason));
            watch.check_crashes(view, &log, &parked.reason);
            memory.park(&log, at, &parked).await
        };
        self.watch.faults.call("view table", effect).await
    }

    async fn release(
        &self,
        log: &LogId,
        parked: &ParkedView,
        to: Option<Seq>,
    ) -> Result<bool, Unavailable> {
        let (memory, watch, view) = (self.memory.clone(), self.watch.clone(), self.view);
        let (log, parked) = (log.clone(), parked.clone());
        let effect = async move {
            let released = memory.release(&log, &parked, to).await;
            watch.note(|| format!("release {view} {log} {} {released:?}", parked.seq));
            released
        };
        self.watch.faults.call("view table", effect).await
    }

    async fn replace_lease(
        &self,
        log: &LogId,
        before: Option<&Lease>,
        lease: &Lease,
    ) -> Result<LeaseWrite, Unavailable> {
        let (memory, watch, view) = (self.memory.clone(), self.watch.clone(), self.view);
        let (of, log, before, lease) = (log.clone(), log.clone(), before.copied(), *lease);
        let task = self.watch.world.task();
        if lease.attempts > 0 {
            self.watch.attempts().begun(view, &of, task);
        }
        let effect = async move {
            let result = memory.replace_lease(&log, before.as_ref(), &lease).await;
            watch.note(|| format!("attempt {view} {log} {lease:?} {result:?}"));
            if result == Ok(LeaseWrite::Stored) {
                if lease.attempts > 0 {
                    watch.check_lease(view, &log, &lease);
                } else {
                    watch.attempts().reset(view, &log);
                }
            }
            result
        };
        let result = self.watch.faults.call("view table", effect).await;
        match &result {
            Ok(LeaseWrite::Stored) if lease.attempts > 0 => {}
            Ok(_) => self.watch.attempts().ended(view, &of, task),
            Err(_) => self.watch.attempts().unanswered(view, &of, 1),
        }
        result
    }

    async fn scan(&self, log: &LogId, range: &RowRange) -> Result<RowPage, Unavailable> {
        let (memory, log, range) = (self.memory.clone(), log.clone(), range.clone());
        self.watch.faults.call("view table", async move { memory.scan(&log, &range).await }).await
    }
}

#[async_trait]
impl OperatorView for SimViewTable {
    async fn parked(
        &self,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<ParkedViewPage, Unavailable> {
        let (memory, after) = (self.memory.clone(), after.cloned());
        let effect = async move { memory.parked(after.as_ref(), limit).await };
        self.watch.faults.call("view table", effect).await
    }

    async fn replace_parked(
        &self,
        log: &LogId,
        parked: &ParkedView,
        to: Seq,
        then: Option<&ParkedView>,
    ) -> Result<bool, Unavailable> {
        let (memory, watch, view) = (self.memory.clone(), self.watch.clone(), self.view);
        let (log, parked, then) = (log.clone(), parked.clone(), then.cloned());
        let effect = async move {
            let replaced = memory.replace_parked(&log, &parked, to, then.as_ref()).await;
            watch.note(|| format!("rebuild {view} {log} to {to} {then:?}: {replaced:?}"));
            if replaced == Ok(true) && then.is_none() {
                // The in-memory table does not fail.
                let left = memory.scan(&log, &RowRange { limit: 1, ..RowRange::default() }).await;
                let left = left.map_or(0, |page| page.rows.len());
                watch.audit(|model| model.rebuilt(view, &log, to, left));
            }
            replaced
        };
        self.watch.faults.call("view table", effect).await
    }

    async fn clear(
        &self,
        log: &LogId,
        parked: &ParkedView,
        limit: usize,
    ) -> Result<Option<usize>, Unavailable> {
        let (memory, watch, view) = (self.memory.clone(), self.watch.clone(), self.view);
        let (log, parked) = (log.clone(), parked.clone());
        let effect = async move {
            let cleared = memory.clear(&log, &parked, limit).await;
            watch.note(|| format!("clear {view} {log}: {cleared:?}"));
            if matches!(cleared, Ok(Some(_))) {
                watch.audit(|model| model.cleared(view, &log));
            }
            cleared
        };
        self.watch.faults.call("view table", effect).await
    }
}
