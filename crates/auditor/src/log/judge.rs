//! Checks one entry against the receipts for its seq and against the rules of the ledger.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::LogAudit;
use crate::claims::{Content, IdUse, origin};
use crate::exact::is_same;
use crate::invariant::Invariant::{self, F3, F4, F6, F8};
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
    #[serde(default)]
    pub(super) events: Vec<Event>,
    pub(super) code: Option<String>,
    pub(super) of: Option<u64>,
}

/// The code of a command whose id was used by another command.
const ID_REUSED: &str = "id_reused";
const STATUSES: [&str; 6] = ["accepted", "rejected", "faulted", "lost", "duplicate", "stale"];

impl Entry {
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

    /// Compares the receipts up to this seq with the entry. Returns the content of the command
    /// with a receipt for it.
    pub(super) fn compare_receipts(&mut self, entry: &Entry) -> Option<Content> {
        let names = self.task.names;
        let (origin, mut content) = (entry.origin(), None);
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
            let sent = names.command(claim.command).name();
            if entry.command.as_deref() != Some(sent) {
                let what = format!("`{sent}` was sent, and the entry has {:?}", entry.command);
                self.breach(F3, entry.seq, what);
            }
            content.get_or_insert(claim.content());
        }
        content
    }

    pub(super) fn lost(&mut self, seq: u64) {
        self.breach(F8, seq, "a command has a receipt for this seq, and there is no entry");
    }

    /// Checks that the entry is the right result of its command, and folds it. `promised` is the
    /// content of the command with a receipt for its seq.
    pub(super) fn judge(&mut self, entry: &Entry, promised: Option<Content>) {
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
        let content = promised.or(match known {
            Some(IdUse::One(content)) => Some(content),
            _ => None,
        });
        let window = match self.windows.get_mut(&*origin) {
            Some(window) => window,
            None => self.windows.entry(origin.clone().into_owned()).or_default(),
        };
        let state = window.use_id(id, seq, self.time, content.map(|content| content.digest()));
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
        let content = content.filter(|_| !wrong);
        match entry.shown_status() {
            "accepted" => self.accepted(entry, content),
            ID_REUSED => self.ledger.reject(seq),
            "rejected" => self.rejected(entry, content),
            _ => {}
        }
    }

    fn accepted(&mut self, entry: &Entry, content: Option<Content>) {
        let (seq, events) = (entry.seq, &entry.events);
        let wrong = match content {
            Some(Content { command, memo }) => {
                let command = self.task.names.command(command);
                match self.ledger.decide(&command) {
                    Ok(expected) if Ledger::are_expected(events, &expected) => {
                        memo.and_then(|memo| wrong_memo(memo, events))
                    }
                    Ok(expected) => Some(format!(
                        "{command:?} has the events {:?}, and should have {:?}",
                        events.iter().map(Event::to_string).collect::<Vec<_>>(),
                        expected.iter().map(shown).collect::<Vec<_>>()
                    )),
                    Err(code) => Some(format!("{command:?} is accepted, and should be `{code}`")),
                }
            }
            None => self.ledger.check(entry.command.as_deref(), events).err(),
        };
        if let Some(what) = wrong {
            self.breach(F6, seq, what);
        }
        self.ledger.apply(seq, events);
        self.statement.add(seq, entry.at, events);
    }

    fn rejected(&mut self, entry: &Entry, content: Option<Content>) {
        if let Some(Content { command, .. }) = content {
            let command = self.task.names.command(command);
            let expected = self.ledger.decide(&command).err();
            if expected != entry.code.as_deref() {
                let expected = expected.unwrap_or("accepted");
                let code = entry.code.as_deref().unwrap_or("rejected");
                let what = format!("{command:?} is `{code}`, and should be `{expected}`");
                self.breach(F6, entry.seq, what);
            }
        }
        self.ledger.reject(entry.seq);
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
