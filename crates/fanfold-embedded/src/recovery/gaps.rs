//! A view has gaps when its subscription has passed commits without all of their rows: dropped
//! notifications, dead letters, and logs that the projector has marked as behind. The view's sweep
//! fills them from the journal, when their commands may no longer be in the command log. A crash
//! after that can lose rows that readers have seen, and replaying the command log does not restore
//! them. So the engine stores durably which views have gaps, until these are closed. After a crash
//! such a view catches up in all logs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use fanfold::Time;

use crate::store::{Store, StoreError, Table};
use crate::striped::lock;
use crate::subscription::Deliveries;
use crate::tables::StoredView;

/// The meta table's key of the views with gaps.
const GAPS_KEY: &[u8] = b"gaps";
/// How much later than a gap a walk must begin to close it, in milliseconds: a sweep ignores what
/// is younger than ten seconds (`docs/design.md#sweep`).
const YOUNG_MS: u64 = 12_000;

/// The gaps of one view.
pub(crate) struct ViewGaps {
    view: &'static str,
    deliveries: Arc<Deliveries>,
    table: Arc<StoredView>,
    state: Mutex<State>,
}

struct State {
    /// The number of this run's gaps that are closed.
    closed: u64,
    /// The number of gaps at some time, and that time.
    noted: (u64, Time),
    /// Whether an earlier run has left gaps that are not closed.
    has_unclosed: bool,
}

impl ViewGaps {
    pub(crate) fn new(
        view: &'static str,
        deliveries: Arc<Deliveries>,
        table: Arc<StoredView>,
        has_unclosed: bool,
    ) -> Self {
        let state = State { closed: 0, noted: (0, Time::default()), has_unclosed };
        Self { view, deliveries, table, state: Mutex::new(state) }
    }

    /// The view's name.
    pub(crate) fn view(&self) -> &'static str {
        self.view
    }

    fn count(&self) -> u64 {
        self.deliveries.lost() + self.deliveries.dead() + self.table.marked_behind()
    }

    pub(crate) fn are_open(&self) -> bool {
        let state = lock(&self.state);
        state.has_unclosed || self.count() > state.closed
    }

    /// Whether an earlier run has left gaps that are not closed.
    pub(crate) fn has_unclosed(&self) -> bool {
        lock(&self.state).has_unclosed
    }

    /// Closes the gaps of earlier runs, because the view has caught up in all logs.
    pub(crate) fn close_earlier(&self) {
        lock(&self.state).has_unclosed = false;
    }

    /// Begins a walk of the sweep over all logs. Returns the number of gaps that are closed after
    /// it, if it misses no log.
    pub(crate) fn walk_begins(&self, now: Time) -> u64 {
        let mut state = lock(&self.state);
        let (noted, at) = state.noted;
        if now.since_ms(at) < YOUNG_MS {
            return state.closed;
        }
        state.noted = (self.count(), now);
        noted
    }

    /// Ends a walk that missed no log. `closed`: the result of [`ViewGaps::walk_begins`].
    pub(crate) fn walk_ended(&self, closed: u64) {
        let mut state = lock(&self.state);
        state.closed = state.closed.max(closed);
    }
}

/// Stores the names of the views with gaps.
pub(crate) struct StoredGaps {
    store: Arc<Store>,
    views: Vec<Arc<ViewGaps>>,
    stored: BTreeSet<String>,
}

impl StoredGaps {
    /// The names of the views that an earlier run has left with gaps.
    pub(crate) fn left(store: &Store) -> Result<BTreeSet<String>, StoreError> {
        let stored = store.get(Table::META, GAPS_KEY)?;
        let left = stored.map(|stored| serde_json::from_slice(&stored)).transpose();
        left.map(Option::unwrap_or_default).map_err(|error| {
            StoreError::damaged(format!("the views with gaps cannot be read: {error}"))
        })
    }

    /// `left`: the result of [`StoredGaps::left`].
    pub(crate) fn new(
        store: Arc<Store>,
        views: Vec<Arc<ViewGaps>>,
        left: BTreeSet<String>,
    ) -> Self {
        Self { store, views, stored: left }
    }

    /// Stores which views have gaps, if that has changed. Must run before the checkpoint after
    /// which the command log is cut off.
    pub(crate) fn store(&mut self) -> Result<(), StoreError> {
        let open = self.views.iter().filter(|view| view.are_open());
        let mut open: BTreeSet<String> = open.map(|view| view.view.to_owned()).collect();
        // A view that this run does not host keeps its gaps.
        let is_hosted = |name: &String| self.views.iter().any(|view| view.view == name);
        open.extend(self.stored.iter().filter(|name| !is_hosted(name)).cloned());
        if open != self.stored {
            // Cannot fail: names are text.
            let value = serde_json::to_vec(&open).unwrap_or_default();
            self.store.put_now(Table::META, GAPS_KEY, Some(value.into()))?;
            self.stored = open;
        }
        Ok(())
    }
}
