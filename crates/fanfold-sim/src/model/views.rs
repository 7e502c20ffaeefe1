//! Checks of the views: every row is the fold at its seq, no cursor passes a row that is not
//! stored, and no reader goes backwards.

use std::collections::BTreeMap;

use fanfold::entry::Entry;
use fanfold::host::catch::Fault as Panic;
use fanfold::host::invariant::Invariant;
use fanfold::host::limits::ROW_BYTES_MAX;
use fanfold::{AnyView, LogId, RowKey, Seq};
use fanfold_pipeline::ports::StoredRow;

use super::{Case, History, Model, at};

/// Why a view parks at a row above the limit.
pub(super) const ROW_TOO_LARGE: &str = "the row is too large";

#[derive(Default)]
pub(super) struct ViewModel {
    pub(super) rows: BTreeMap<RowKey, History<Option<Vec<u8>>>>,
    stored: BTreeMap<RowKey, Seq>,
    cursor: Seq,
    /// The first entry that the view cannot apply.
    pub(super) broken: Option<Seq>,
    /// The highest cursor that a reader saw.
    seen: Seq,
    rows_seen: BTreeMap<RowKey, Seq>,
    rebuilds: Rebuilds,
}

/// How often a view's log was rebuilt, and whether it is now: then readers find rows missing, and go backwards afterwards.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilds {
    ended: u64,
    is_under_way: bool,
}

impl Rebuilds {
    /// Whether what a reader found is as without rebuilds, if this was before its read.
    pub fn leave_alone(self, after: Self) -> bool {
        self == after && !self.is_under_way
    }
}

impl Model {
    /// A view's table stored a row.
    pub fn row_stored(&mut self, view: &'static str, log: &LogId, key: &RowKey, row: &StoredRow) {
        let rows = self.log(log).views.entry(view).or_default();
        let before = rows.stored.insert(key.clone(), row.seq);
        let fold = rows.rows.get(key).and_then(|history| at(history, row.seq));
        let same = fold.is_some_and(|(since, body)| {
            *since == row.seq && body.as_deref() == row.body.as_deref()
        });
        let what = format!("{view} {log} {key}: {row:?}, before at {before:?}, should be {fold:?}");
        let forward = before.is_none_or(|before| before < row.seq);
        self.check(Invariant::F6, same && forward, || what);
    }

    /// A view's cursor moved.
    pub fn advanced(&mut self, view: &'static str, log: &LogId, to: Seq) {
        let tail = self.tail(log);
        let rows = self.log(log).views.entry(view).or_default();
        let from = std::mem::replace(&mut rows.cursor, to);
        let missing = rows.rows.iter().find_map(|(key, history)| {
            let touched = at(history, to).map_or(Seq::ZERO, |(since, _)| *since);
            let stored = rows.stored.get(key).copied().unwrap_or_default();
            (stored < touched).then(|| format!("{key} is stored at {stored}, not {touched}"))
        });
        let passes_broken = rows.broken.is_some_and(|broken| to >= broken);
        self.check(
            Invariant::F6,
            from < to && to <= tail && missing.is_none() && !passes_broken,
            || format!("{view} {log}: the cursor moved from {from} to {to} of {tail}: {missing:?}"),
        );
    }

    /// A rebuild has removed rows of a view's log.
    pub fn cleared(&mut self, view: &'static str, log: &LogId) {
        let rows = self.log(log).views.entry(view).or_default();
        rows.rebuilds.is_under_way = true;
        rows.stored.clear();
    }

    /// A rebuild has released a view, with the cursor at `to` and so many rows.
    pub fn rebuilt(&mut self, view: &'static str, log: &LogId, to: Seq, rows_left: usize) {
        let rows = self.log(log).views.entry(view).or_default();
        rows.rebuilds = Rebuilds { ended: rows.rebuilds.ended + 1, is_under_way: false };
        (rows.cursor, rows.seen) = (to, Seq::ZERO);
        rows.rows_seen.clear();
        self.came_upon(Case::Rebuilt);
        self.check(Invariant::F6, rows_left == 0, || {
            format!("{view} {log}: the cursor is set back to {to}, and rows are left")
        });
    }

    /// The rebuilds of a view's log until now.
    pub fn rebuilds(&self, view: &str, log: &LogId) -> Rebuilds {
        let of = self.logs.get(log).and_then(|model| model.views.get(view));
        of.map(|of| of.rebuilds).unwrap_or_default()
    }

    /// A view acknowledged a message with a commit, given by its log and last seq, while its cursor
    /// of this log was at `cursor`. `excused`: the view is parked or marked behind for this log.
    pub fn message_acknowledged(
        &mut self,
        view: &'static str,
        commit: (&LogId, Seq),
        cursor: Seq,
        excused: bool,
    ) {
        let (log, last) = commit;
        // Since then a rebuild may have set the cursor back. The end of the run shows whether the entries are applied again.
        let excused = excused || self.rebuilds(view, log) != Rebuilds::default();
        self.check(Invariant::F6, cursor >= last || excused, || {
            format!("{view} {log}: {last} was acknowledged, the cursor is at {cursor}")
        });
    }

    /// Checks the stored rows of a view whose cursor is at `cursor`. Each must be the fold at its
    /// seq, and none may be older than the cursor requires. `rows` has live rows only.
    pub fn rows_stored(
        &mut self,
        view: &'static str,
        log: &LogId,
        cursor: Seq,
        rows: &BTreeMap<RowKey, (Seq, Vec<u8>)>,
    ) {
        let fold = self.log(log).views.entry(view).or_default();
        let mut wrong = Vec::new();
        for (key, (seq, body)) in rows {
            let expected = fold.rows.get(key).and_then(|history| at(history, *seq));
            let same =
                |(since, row): &(Seq, Option<Vec<u8>>)| since == seq && row.as_ref() == Some(body);
            if !expected.is_some_and(same) {
                wrong.push(format!("{key} at {seq} is not its fold, which is {expected:?}"));
            }
        }
        for (key, history) in &fold.rows {
            let Some((since, row)) = at(history, cursor) else { continue };
            let shown = rows.get(key).map(|(seq, _)| *seq);
            // An entry behind the cursor may have removed a missing row.
            let is_removed_later =
                history.iter().any(|(later, row)| later > since && row.is_none());
            if row.is_some() && shown < Some(*since) && !(shown.is_none() && is_removed_later) {
                wrong.push(format!("{key} at {shown:?}, {since} is below the cursor {cursor}"));
            }
        }
        for what in wrong {
            self.check(Invariant::F6, false, || format!("{view} {log}: {what}"));
        }
    }

    /// Checks a row that a reader saw. The row may have changed since.
    pub fn row_seen(
        &mut self,
        view: &'static str,
        log: &LogId,
        key: &RowKey,
        seq: Seq,
        row: &[u8],
    ) {
        let fold = self.log(log).views.entry(view).or_default();
        let expected = fold.rows.get(key).and_then(|history| at(history, seq)).cloned();
        let same = matches!(&expected, Some((since, Some(body))) if *since == seq && body == row);
        self.check(Invariant::F6, same, || {
            format!("{view} {log}: a reader saw {key} at {seq}, its fold is {expected:?}")
        });
    }

    /// The rows that a view should have at the tail.
    pub fn rows(&self, view: &str, log: &LogId) -> BTreeMap<RowKey, (Seq, Option<Vec<u8>>)> {
        let rows = self.logs.get(log).and_then(|model| model.views.get(view));
        let rows = rows.into_iter().flat_map(|view| &view.rows);
        rows.filter_map(|(key, history)| Some((key.clone(), history.last()?.clone()))).collect()
    }

    /// A reader read these rows of a view, with the cursor at `seq`.
    pub fn seen(&mut self, view: &'static str, log: &LogId, seq: Seq, rows: &[(RowKey, Seq)]) {
        let seen = self.log(log).views.entry(view).or_default();
        let before = std::mem::replace(&mut seen.seen, seq);
        let mut backwards = (seq < before).then(|| format!("from {before} to {seq}"));
        for (key, at) in rows {
            let before = seen.rows_seen.insert(key.clone(), *at).unwrap_or_default();
            if *at < before {
                backwards = Some(format!("{key} from {before} to {at}"));
            }
        }
        // The rows were read after the cursor, so they contain everything up to it, unless an entry
        // behind it has removed a row.
        let missing = seen.rows.iter().find(|(key, history)| {
            let Some((since, _)) = at(history, seq) else { return false };
            let stays = history.iter().filter(|(at, _)| at >= since).all(|(_, row)| row.is_some());
            let shown = rows.iter().find(|(shown, _)| shown == *key).map(|(_, at)| *at);
            stays && shown < Some(*since)
        });
        let missing = missing.map(|(key, _)| format!("{key} is not what it was at {seq}"));
        let wrong = backwards.or(missing);
        self.check(Invariant::F6, wrong.is_none(), || format!("{view} {log}: read {wrong:?}"));
    }
}

impl ViewModel {
    /// Folds a single entry into the rows.
    pub(super) fn apply(
        &mut self,
        view: &dyn AnyView,
        log: &LogId,
        entry: &Entry,
    ) -> Result<(), Panic> {
        let Some(recorded) = view.read(log, entry)? else { return Ok(()) };
        let mut folded = Vec::new();
        for key in view.rows(&recorded)? {
            let row = self.rows.get(&key).and_then(|history| history.last());
            let row = row.and_then(|(_, row)| row.as_deref());
            let row = view.fold(&key, row, &[&recorded]).map_err(|fault| fault.fault)?;
            if row.as_ref().is_some_and(|row| row.len() > ROW_BYTES_MAX.get()) {
                return Err(Panic::new(ROW_TOO_LARGE.to_owned()));
            }
            folded.push((key, row));
        }
        for (key, row) in folded {
            self.rows.entry(key).or_default().push((entry.seq, row));
        }
        Ok(())
    }
}
