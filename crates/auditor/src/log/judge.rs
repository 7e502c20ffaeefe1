//! Checks one entry against the receipts for its seq, against the rules of ids, and, with a model,
//! against the rules of the ledger.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Fold, LogAudit};
use crate::claims::{Claim, IdUse, InternedCommand, origin};
use crate::exact::is_same;
use crate::invariant::Invariant::{self, F3, F4, F6, F8, Outcome};
use crate::ledger::{Event, Ledger, shown};
use crate::receipts::Digest;
use crate::window::IdState;

/// An entry, as the target shows it.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    pub(super) log: String,
    pub(super) seq: u64,
    pub(super) status: String,
    pub(super) user: Option<String>,
    pub(super) client: Option<String>,
    pub(super) id: Option<u64>,
    pub(super) at: u64,
    pub(super) command: Option<String>,
    /// The digest of the command's data, if the entry uses its id.
    pub(super) digest: Option<Digest>,
    #[serde(default)]
    events: Vec<Box<RawValue>>,
    pub(super) code: Option<String>,
    pub(super) of: Option<u64>,
}

/// The code of a command whose id was used by another command.
const ID_REUSED: &str = "id_reused";
const STATUSES: [&str; 6] = ["accepted", "rejected", "faulted", "lost", "duplicate", "stale"];

impl Entry {
    /// The events, as those of the ledger.
    pub(super) fn ledger_events(&self) -> serde_json::Result<Vec<Event>> {
        self.events.iter().map(|event| serde_json::from_str(event.get())).collect()
    }

    fn origin(&self) -> Option<Cow<'_, str>> {
        Some(origin(self.user.as_deref()?, self.client.as_deref()))
    }

    /// The status; `id_reused` if the entry was rejected for that.
    fn shown_status(&self) -> &str {
        match (self.status.as_str(), self.code.as_deref()) {
            ("rejected", Some(ID_REUSED)) => ID_REUSED,
            (status, _) => status,
        }
    }

    /// A field that entries of this status do not have, with the invariant that it breaks.
    fn extra_field(&self) -> Option<(Invariant, &'static str)> {
        let status = self.status.as_str();
        let may_have_of = status == "duplicate" || self.shown_status() == ID_REUSED;
        // A view would fold the events.
        let extra = [
            (status != "accepted" && !self.events.is_empty(), F6, "events"),
            (status != "rejected" && self.code.is_some(), F3, "code"),
            (!may_have_of && self.of.is_some(), F3, "of"),
        ];
        extra.into_iter().find(|(is, ..)| *is).map(|(_, invariant, field)| (invariant, field))
    }
}

impl LogAudit<'_> {
    /// Compares what readers saw at `seq`, or at a missing seq before it, with the entry that is
    /// there now.
    pub(super) fn compare_seen_entries(&mut self, seq: u64, raw: Option<&RawValue>) {
        while let Some(seen) = self.claims.entries.get(self.seen_done).filter(|s| s.seq <= seq) {
            self.seen_done += 1;
            self.done.seen += 1;
            let now = raw.filter(|_| seen.seq == seq);
            if now.is_none_or(|now| !is_same(now, &seen.entry)) {
                let now = now.map_or("nothing", |now| now.get());
                let what = format!("a reader saw {}, and now there is {now}", seen.entry);
                self.done.findings.add(F3, self.task.log, Some(seen.seq), what);
            }
        }
    }

    /// Compares the receipts up to this seq with the entry. Returns the command with a receipt for
    /// it.
    pub(super) fn compare_receipts(&mut self, entry: &Entry) -> Option<Claim> {
        let names = self.task.names;
        let (origin, mut promised) = (entry.origin(), None);
        while let Some(claim) = self.claims.receipts().get(self.receipts_done).copied()
            && claim.seq <= entry.seq
        {
            self.receipts_done += 1;
            if claim.seq < entry.seq {
                self.lost(claim.seq);
                continue;
            }
            if entry.status == "lost" {
                self.done.given_up += 1;
                continue;
            }
            if origin.as_deref() != Some(names.text(claim.user)) || entry.id != Some(claim.id) {
                let what = format!(
                    "the receipt is for id {} of {}, and the entry has id {:?} of {origin:?}",
                    claim.id,
                    names.text(claim.user),
                    entry.id,
                );
                self.breach(F3, entry.seq, what);
                continue;
            }
            let sent = names.name(claim.command);
            if entry.command.as_deref() != Some(sent) {
                let what = format!("`{sent}` was sent, and the entry has {:?}", entry.command);
                self.breach(F3, entry.seq, what);
            }
            promised.get_or_insert(claim);
        }
        promised
    }

    pub(super) fn lost(&mut self, seq: u64) {
        self.breach(F8, seq, "a command has a receipt for this seq, and there is no entry");
    }

    /// Checks that the entry is the right result of its command, and folds it. `events`: its events,
    /// if the model knows them. `promised`: the command with a receipt for its seq.
    pub(super) fn judge(&mut self, entry: &Entry, events: &[Event], promised: Option<Claim>) {
        let seq = entry.seq;
        if let Some((invariant, field)) = entry.extra_field() {
            self.breach(invariant, seq, format!("a `{}` entry has `{field}`", entry.status));
        }
        let (Some(origin), Some(id)) = (entry.origin(), entry.id) else {
            if entry.status != "lost" {
                self.breach(F3, seq, format!("a `{}` entry has no user or no id", entry.status));
            }
            return;
        };
        let known = self.task.names.find(&origin).and_then(|number| self.claims.sent(number, id));
        match known {
            None if self.task.own.is_complete && origin.starts_with(&self.task.own.prefix) => {
                self.breach(F3, seq, format!("{origin} never sent the id {id}"));
            }
            Some(IdUse::Refused) => {
                let what = format!("id {id} of {origin} was refused, and has an entry");
                self.breach(F3, seq, what);
            }
            _ => {}
        }
        let sent = promised.or(match known {
            Some(IdUse::One(claim)) => Some(claim),
            _ => None,
        });
        let window = match self.windows.get_mut(&*origin) {
            Some(window) => window,
            None => self.windows.entry(origin.clone().into_owned()).or_default(),
        };
        let state = window.use_id(id, seq, self.time, sent.map(|claim| claim.content().digest()));
        let wrong = match (state, entry.shown_status()) {
            (IdState::Known { first, is_same }, "duplicate") if is_same != Some(false) => {
                entry.of != Some(first)
            }
            (IdState::Known { first, is_same }, ID_REUSED) if is_same != Some(true) => {
                entry.of != Some(first)
            }
            (IdState::BelowFloor, "stale") => false,
            (IdState::New, "accepted" | "rejected" | "faulted" | "lost") => false,
            _ => true,
        };
        if wrong {
            let expected = match state {
                IdState::Known { first, is_same: Some(true) } => format!("a duplicate of {first}"),
                IdState::Known { first, is_same: Some(false) } => {
                    format!("`{ID_REUSED}`, since {first} has another command")
                }
                IdState::Known { first, is_same: None } => {
                    format!("a duplicate of {first}, or `{ID_REUSED}`")
                }
                IdState::BelowFloor => "stale".to_owned(),
                IdState::New => format!("neither a duplicate nor stale nor `{ID_REUSED}`"),
            };
            let of = entry.of.map_or(String::new(), |of| format!(" of {of}"));
            let status = entry.shown_status();
            let is_status = STATUSES.contains(&entry.status.as_str());
            let what = format!("id {id} of {origin} is `{status}`{of}, and should be {expected}");
            self.breach(if is_status { F4 } else { F3 }, seq, what);
        } else if state == IdState::New {
            self.lookups.offer(&origin, id, seq);
        }
        let sent = sent.filter(|_| !wrong);
        if let Some(claim) = sent.filter(|_| state == IdState::New) {
            self.compare_with_sent(entry, claim);
        }
        let Some(fold) = &mut self.fold else { return };
        match entry.shown_status() {
            "accepted" => self.accepted(entry, events, sent),
            ID_REUSED => fold.ledger.reject(seq),
            "rejected" => self.rejected(entry, sent),
            _ => {}
        }
    }

    /// Compares the entry of a new id with the command that was sent, if the file has the digest of
    /// its data.
    fn compare_with_sent(&mut self, entry: &Entry, claim: Claim) {
        let InternedCommand::Named(name, sent) = claim.command else { return };
        if entry.status == "lost" {
            return;
        }
        let (names, seq) = (self.task.names, entry.seq);
        let name = names.text(name);
        if claim.seq == 0 && entry.command.as_deref() != Some(name) {
            let what = format!("`{name}` was sent, and the entry has {:?}", entry.command);
            self.breach(F3, seq, what);
        }
        if entry.digest != Some(sent) {
            let shown = entry.digest.map_or("none".to_owned(), |digest| digest.to_string());
            let what = format!(
                "`{name}` was sent with data of the digest {sent}, and the entry shows {shown}"
            );
            self.breach(F3, seq, what);
        }
        let expected = names.expected(&claim);
        let (status, code) = (entry.status.as_str(), entry.code.as_deref());
        if !expected.allows(status, code) {
            let code = code.map_or(String::new(), |code| format!(" with {code}"));
            let what = format!("`{name}` is {status}{code}, and should be {expected}");
            self.breach(Outcome, seq, what);
        }
    }

    fn accepted(&mut self, entry: &Entry, events: &[Event], sent: Option<Claim>) {
        let Some(Fold { ledger, statement }) = &mut self.fold else { return };
        let sent =
            sent.and_then(|claim| Some((self.task.names.command(claim.command)?, claim.memo)));
        let wrong = match sent {
            Some((command, memo)) => match ledger.decide(&command) {
                Ok(expected) if Ledger::are_expected(events, &expected) => {
                    memo.and_then(|memo| wrong_memo(memo, events))
                }
                Ok(expected) => Some(format!(
                    "{command:?} has the events {:?}, and should have {:?}",
                    events.iter().map(Event::to_string).collect::<Vec<_>>(),
                    expected.iter().map(shown).collect::<Vec<_>>()
                )),
                Err(code) => Some(format!("{command:?} is accepted, and should be `{code}`")),
            },
            None => ledger.check(entry.command.as_deref(), events).err(),
        };
        ledger.apply(entry.seq, events);
        statement.add(entry.seq, entry.at, events);
        if let Some(what) = wrong {
            self.breach(F6, entry.seq, what);
        }
    }

    fn rejected(&mut self, entry: &Entry, sent: Option<Claim>) {
        let Some(Fold { ledger, .. }) = &mut self.fold else { return };
        let command = sent.and_then(|claim| self.task.names.command(claim.command));
        let expected = command.map(|command| (command, ledger.decide(&command).err()));
        ledger.reject(entry.seq);
        if let Some((command, expected)) = expected
            && expected != entry.code.as_deref()
        {
            let expected = expected.unwrap_or("accepted");
            let code = entry.code.as_deref().unwrap_or("rejected");
            let what = format!("{command:?} is `{code}`, and should be `{expected}`");
            self.breach(F6, entry.seq, what);
        }
    }
}

/// What is wrong with the memos of these events: each movement should have the memo that was sent.
fn wrong_memo(sent: Digest, events: &[Event]) -> Option<String> {
    let memo = |event: &Event| event.data.memo.as_deref().map(Digest::of);
    let event = events.iter().find(|event| event.moved().is_some() && memo(event) != Some(sent))?;
    let found = event.data.memo.as_ref();
    let found = found.map_or("none".to_owned(), |memo| format!("another, of {} bytes", memo.len()));
    Some(format!("`{event}` should have the memo that was sent, and has {found}"))
}
