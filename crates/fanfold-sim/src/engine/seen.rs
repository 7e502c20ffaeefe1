//! What clients sent and were promised, and what readers saw, over all lives of an engine.

use std::collections::{BTreeMap, BTreeSet};

use fanfold::host::invariant::{Breach, Invariant};
use fanfold::{Command, CommandId, Entry, LogId, Origin, Request, RowKey, Seq, Services};
use serde_json::Value;

type RowPlace = (&'static str, LogId, RowKey);

/// Receipts, each with its command.
pub(super) type Promises = BTreeMap<(LogId, Seq), Command>;

/// The latest that readers had seen of a view when a read of it began: what it returns must not be older.
pub(super) struct Floor {
    cursor: Seq,
    rows: BTreeMap<RowKey, Seq>,
}

/// What clients and readers have seen so far.
#[derive(Default)]
pub(super) struct Seen {
    /// Every command that was ever sent, whether it was accepted or not.
    sent: BTreeMap<(LogId, Origin, CommandId), Vec<Command>>,
    /// The receipts.
    pub(super) promised: Promises,
    /// Entries that a reader saw.
    pub(super) entries: BTreeMap<(LogId, Seq), Entry>,
    /// Rows that a reader saw, by their seq.
    pub(super) rows: BTreeMap<RowPlace, BTreeMap<Seq, Vec<u8>>>,
    cursors: BTreeMap<(&'static str, LogId), Seq>,
    /// Views that an operator had rebuilt for a log: their readers may go backwards.
    pub(super) rebuilt: BTreeSet<(&'static str, LogId)>,
    pub(super) violations: Vec<Breach>,
}

/// What readers had seen at some time.
#[derive(Default, Clone)]
pub(super) struct SeenBefore {
    entries: BTreeMap<(LogId, Seq), Entry>,
    rows: BTreeMap<RowPlace, BTreeMap<Seq, Vec<u8>>>,
}

impl Seen {
    /// What readers have seen until now.
    pub(super) fn before(&self) -> SeenBefore {
        SeenBefore { entries: self.entries.clone(), rows: self.rows.clone() }
    }

    /// Replaces what readers have seen.
    pub(super) fn exchange(&mut self, other: SeenBefore) -> SeenBefore {
        let entries = std::mem::replace(&mut self.entries, other.entries);
        SeenBefore { entries, rows: std::mem::replace(&mut self.rows, other.rows) }
    }

    pub(super) fn check(
        &mut self,
        invariant: Invariant,
        holds: bool,
        what: impl FnOnce() -> String,
    ) {
        if !holds {
            self.violations.push(Breach { invariant, what: what() });
        }
    }

    /// A client is about to send a command. `None`: the command is not valid.
    pub(super) fn sends(&mut self, command: &Value, services: &Services) -> Option<Request> {
        let request = Request::parse(command.to_string().as_bytes(), services).ok()?;
        let Request { log, command } = request.clone();
        let place = (log, command.origin.clone(), command.id);
        let sent = self.sent.entry(place).or_default();
        if !sent.contains(&command) {
            sent.push(command);
        }
        Some(request)
    }

    /// A client has a receipt.
    pub(super) fn promises(&mut self, log: LogId, seq: Seq, command: Command) {
        let other = self.promised.insert((log.clone(), seq), command.clone());
        self.check(Invariant::F1, other.is_none(), || {
            format!("{log} {seq} is promised to {} and to {other:?}", command.identity())
        });
    }

    /// The commands whose outcome this entry may be.
    pub(super) fn candidates(&self, log: &LogId, entry: &Entry) -> Vec<Command> {
        if let Some(command) = self.promised.get(&(log.clone(), entry.seq)) {
            return vec![command.clone()];
        }
        let place = (log.clone(), entry.origin.clone(), entry.id);
        self.sent.get(&place).cloned().unwrap_or_default()
    }

    /// A reader saw an entry.
    pub(super) fn sees_entry(&mut self, log: &LogId, entry: &Entry) {
        let place = (log.clone(), entry.seq);
        let before = self.entries.insert(place, entry.clone()).filter(|before| before != entry);
        self.check(Invariant::F3, before.is_none(), || {
            format!("{log}: a reader saw {before:?}, and then {entry:?}")
        });
    }

    /// What readers have seen of a view until now.
    pub(super) fn floor(&self, view: &'static str, log: &LogId) -> Floor {
        let cursor = self.cursors.get(&(view, log.clone())).copied().unwrap_or_default();
        let of_log = self.rows.iter().filter(|((v, l, _), _)| (*v, l) == (view, log));
        let latest = of_log.filter_map(|((_, _, key), seen)| {
            seen.last_key_value().map(|(seq, _)| (key.clone(), *seq))
        });
        Floor { cursor, rows: latest.collect() }
    }

    /// A reader saw a view, after the engine had recovered. `floor` is from before the read. Reads
    /// overlap, so one that ends later may have seen less.
    pub(super) fn sees_rows(
        &mut self,
        view: &'static str,
        log: &LogId,
        floor: &Floor,
        cursor: Seq,
        rows: Vec<(RowKey, Seq, Vec<u8>)>,
    ) {
        let none = Floor { cursor: Seq::ZERO, rows: BTreeMap::new() };
        let is_rebuilt = self.rebuilt.contains(&(view, log.clone()));
        let floor = if is_rebuilt { &none } else { floor };
        let before = floor.cursor;
        self.check(Invariant::F6, before <= cursor, || {
            format!("{view} {log}: a reader saw {before}, and then {cursor}")
        });
        let latest = self.cursors.entry((view, log.clone())).or_default();
        *latest = cursor.max(*latest);
        for (key, seq, row) in rows {
            let before = floor.rows.get(&key).copied().unwrap_or_default();
            self.check(Invariant::F6, before <= seq, || {
                format!("{view} {log}: a reader saw {key} at {before}, and then at {seq}")
            });
            self.rows.entry((view, log.clone(), key)).or_default().insert(seq, row);
        }
    }
}
