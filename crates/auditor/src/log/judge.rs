//! One entry: whether it is what was promised for its place, and what its command must lead to.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::LogAudit;
use crate::claims::{Content, Told, origin};
use crate::exact::is_same;
use crate::ledger::{Event, Ledger, shown};
use crate::receipts::Digest;
use crate::window::Sighting;
use crate::{F3, F4, F6, F8};

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

/// The code of a command with the id of another one.
const ID_REUSED: &str = "id_reused";

impl Entry {
    /// Who numbered its command.
    fn origin(&self) -> Option<Cow<'_, str>> {
        Some(origin(self.user.as_deref()?, self.client.as_deref()))
    }

    /// Its status; of those that were rejected for their ids, why.
    fn shown_status(&self) -> &str {
        match (self.status.as_str(), self.code.as_deref()) {
            ("rejected", Some(ID_REUSED)) => ID_REUSED,
            (status, _) => status,
        }
    }
}

impl LogAudit<'_> {
    /// What readers saw at `seq`, or before it and nobody has come by.
    pub(super) fn check_seen(&mut self, seq: u64, raw: Option<&RawValue>) {
        while let Some(seen) = self.claims.entries.get(self.seen_done).filter(|s| s.seq <= seq) {
            self.seen_done += 1;
            self.done.seen += 1;
            let now = raw.filter(|_| seen.seq == seq);
            if now.is_none_or(|now| !is_same(now, &seen.entry)) {
                let now = now.map_or("there is none", |now| now.get());
                let what = format!("a reader saw {}, and now {now}", seen.entry);
                self.done.findings.add(F3, self.task.log, Some(seen.seq), what);
            }
        }
    }

    /// The receipts for this place, and those before it that have no entry. Returns what was asked
    /// by the command that was promised this place.
    pub(super) fn check_claims(&mut self, entry: &Entry) -> Option<Content> {
        let names = self.task.names;
        let (whose, mut promised) = (entry.origin(), None);
        let same_user = |number| whose.as_deref() == Some(names.text(number));
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
            if !same_user(claim.user) || entry.id != Some(claim.id) {
                let what = format!(
                    "promised to {} of {}, and held by {:?} of {:?}",
                    claim.id,
                    names.text(claim.user),
                    entry.id,
                    whose
                );
                self.breach(F3, entry.seq, what);
                continue;
            }
            let asked = names.asked(claim.deed).name();
            if entry.command.as_deref() != Some(asked) {
                let what = format!("`{asked}` was sent, and became {:?}", entry.command);
                self.breach(F3, entry.seq, what);
            }
            promised.get_or_insert(claim.content());
        }
        promised
    }

    pub(super) fn lost(&mut self, seq: u64) {
        self.breach(F8, seq, "a command got a receipt, and no entry is there");
    }

    /// Whether the entry is what its command must lead to; then folds it. `promised`: what was asked
    /// by the command with the receipt for its place.
    pub(super) fn judge(&mut self, entry: &Entry, promised: Option<Content>) {
        let seq = entry.seq;
        let (Some(user), Some(id)) = (entry.origin(), entry.id) else {
            if entry.status != "lost" {
                self.breach(F3, seq, format!("`{}`, and nobody's", entry.status));
            }
            return;
        };
        let told = self.task.names.find(&user).and_then(|number| self.claims.sent(number, id));
        match told {
            None if self.task.run.is_whole && user.starts_with(&self.task.run.users) => {
                self.breach(F3, seq, format!("{user} has sent no {id}"));
            }
            Some(Told::Refused) => {
                let what = format!("{id} of {user} was refused, and has an entry");
                self.breach(F3, seq, what);
            }
            _ => {}
        }
        let asked = promised.or(match told {
            Some(Told::Command(content)) => Some(content),
            _ => None,
        });
        let window = match self.windows.get_mut(&*user) {
            Some(window) => window,
            None => self.windows.entry(user.clone().into_owned()).or_default(),
        };
        self.time = self.time.max(entry.at);
        let sighting = window.take(id, seq, self.time, asked.map(|content| content.digest()));
        let wrong = match (sighting, entry.shown_status()) {
            (Sighting::Known { of, is_same }, "duplicate") if is_same != Some(false) => {
                entry.of != Some(of)
            }
            (Sighting::Known { of, is_same }, ID_REUSED) if is_same != Some(true) => {
                entry.of != Some(of)
            }
            (Sighting::BelowFloor, "stale") => false,
            (Sighting::New, "accepted" | "rejected" | "faulted" | "lost") => false,
            _ => true,
        };
        if wrong {
            let should = match sighting {
                Sighting::Known { of, is_same: Some(true) } => format!("a duplicate of {of}"),
                Sighting::Known { of, is_same: Some(false) } => {
                    format!("`{ID_REUSED}` of {of}, whose command is another")
                }
                Sighting::Known { of, is_same: None } => {
                    format!("a duplicate of {of}, or `{ID_REUSED}`")
                }
                Sighting::BelowFloor => "stale".to_owned(),
                Sighting::New => format!("neither a duplicate nor stale nor `{ID_REUSED}`"),
            };
            let of = entry.of.map_or(String::new(), |of| format!(" of {of}"));
            let status = entry.shown_status();
            let is_known = ["accepted", "rejected", "faulted", "lost", "duplicate", "stale"]
                .contains(&entry.status.as_str());
            let what = format!("id {id} of {user} is `{status}`{of}, and should be {should}");
            self.breach(if is_known { F4 } else { F3 }, seq, what);
        } else if sighting == Sighting::New {
            self.lookups.offer(&user, id, seq);
        }
        let asked = asked.filter(|_| !wrong);
        match entry.shown_status() {
            "accepted" => self.accepted(entry, asked),
            ID_REUSED => self.ledger.reject(seq),
            "rejected" => self.rejected(entry, asked),
            _ => {}
        }
    }

    fn accepted(&mut self, entry: &Entry, asked: Option<Content>) {
        let (seq, events) = (entry.seq, &entry.events);
        let wrong = match asked {
            Some(Content { deed, memo }) => {
                let asked = self.task.names.asked(deed);
                match self.ledger.decide(&asked) {
                    Ok(expected) if Ledger::are(events, &expected) => {
                        memo.and_then(|memo| wrong_memo(memo, events))
                    }
                    Ok(expected) => Some(format!(
                        "{asked:?} led to {:?}, and should to {:?}",
                        events.iter().map(Event::to_string).collect::<Vec<_>>(),
                        expected.iter().map(shown).collect::<Vec<_>>()
                    )),
                    Err(code) => Some(format!("{asked:?} is accepted, and should be `{code}`")),
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

    fn rejected(&mut self, entry: &Entry, asked: Option<Content>) {
        if let Some(Content { deed, .. }) = asked {
            let asked = self.task.names.asked(deed);
            let expected = self.ledger.decide(&asked).err();
            if expected != entry.code.as_deref() {
                let expected = expected.unwrap_or("accepted");
                let code = entry.code.as_deref().unwrap_or("rejected");
                let what = format!("{asked:?} is `{code}`, and should be `{expected}`");
                self.breach(F6, entry.seq, what);
            }
        }
        self.ledger.reject(entry.seq);
    }
}

/// What is wrong with the memos of these events, each of which should have the same.
fn wrong_memo(sent: Digest, events: &[Event]) -> Option<String> {
    let memo = |event: &Event| event.data.memo.as_deref().map(Digest::of);
    let event = events.iter().find(|event| event.moved().is_some() && memo(event) != Some(sent))?;
    let found = event.data.memo.as_ref();
    let found = found.map_or("none".to_owned(), |memo| format!("another, of {} bytes", memo.len()));
    Some(format!("`{event}` should have the memo that was sent, and has {found}"))
}
