//! What clients sent and were promised, and what readers saw, over all lives of an engine.

use std::collections::BTreeMap;

use fanfold::invariant::{Breach, Invariant};
use fanfold::{Command, CommandId, Entry, LogId, Origin, Request, RowKey, Seq, Services};
use serde_json::Value;

type RowPlace = (&'static str, LogId, RowKey);

/// Receipts, each with its command.
pub(super) type Promises = BTreeMap<(LogId, Seq), Command>;

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
    pub(super) violations: Vec<Breach>,
}

impl Seen {
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

    /// A reader saw a view, after the engine had recovered.
    pub(super) fn sees_rows(
        &mut self,
        view: &'static str,
        log: &LogId,
        cursor: Seq,
        rows: Vec<(RowKey, Seq, Vec<u8>)>,
    ) {
        let before = self.cursors.insert((view, log.clone()), cursor).unwrap_or_default();
        self.check(Invariant::F6, before <= cursor, || {
            format!("{view} {log}: a reader saw {before}, and then {cursor}")
        });
        for (key, seq, row) in rows {
            let seen = self.rows.entry((view, log.clone(), key.clone())).or_default();
            let latest = seen.last_key_value().map(|(latest, _)| *latest).unwrap_or_default();
            seen.insert(seq, row);
            self.check(Invariant::F6, latest <= seq, || {
                format!("{view} {log}: a reader saw {key} at {latest}, and then at {seq}")
            });
        }
    }
}
