//! Folds stored commits, and takes in items of the state table.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::shelf::{Held, Since};
use super::{Log, Sent, Want};
use crate::entry::{Entry, Event, Outcome};
use crate::host::body::DecodeError;
use crate::host::body::head::{decode_document, decode_window};
use crate::host::body::notification::{Commit, entry_kinds};
use crate::host::catch::Fault;
use crate::host::invariant::Breach;
use crate::host::position::Seq;
use crate::host::window::Window;
use crate::invariant;

/// Why this build cannot fold stored data.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The stored data contradicts an invariant.
    #[error(transparent)]
    Breach(#[from] Breach),
    /// A stored body cannot be read.
    #[error("a stored body cannot be read")]
    Body(#[from] DecodeError),
    /// An event cannot be folded, or a document cannot be read.
    #[error("the entry or document at seq {at} cannot be folded")]
    Fault {
        /// The seq of the entry or document.
        at: Seq,
        /// The reason.
        #[source]
        fault: Fault,
    },
}

impl Log {
    /// What must be provided before these entries can be folded.
    pub fn wants_to_fold(&self, entries: &[Entry]) -> BTreeSet<Want> {
        let mut wants = BTreeSet::new();
        for entry in entries {
            if entry.outcome.uses_id() {
                self.want_window(&entry.origin, &mut wants);
            }
            if let Outcome::Accepted(events) = &entry.outcome {
                events.iter().for_each(|event| self.want_document(&event.document, &mut wants));
            }
        }
        wants
    }

    /// Takes in the command of a wanted entry of the journal; `None` if there is no entry.
    pub fn provide_entry(&mut self, seq: Seq, sent: Option<Sent>) {
        self.firsts.insert(seq, sent);
    }

    /// Takes in a wanted item of the state table; `None` if there is none.
    pub fn provide(&mut self, want: Want, item: Option<(Seq, &[u8])>) -> Result<(), FoldError> {
        let seq = item.map_or(Seq::ZERO, |(seq, _)| seq);
        let bytes = item.map_or(0, |(_, body)| body.len());
        self.seen = self.seen.max(seq);
        match want {
            Want::Document(id) => {
                let value = match item {
                    Some((at, body)) => {
                        let document = self.service.decode_document(&decode_document(body)?);
                        Some(document.map_err(|fault| FoldError::Fault { at, fault })?)
                    }
                    None => None,
                };
                if self.documents.get(&id).is_none() {
                    self.documents.put(id, Held { value, seq, stored: seq, bytes });
                }
            }
            Want::Window(origin) => {
                let value = match item {
                    Some((_, body)) => decode_window(body)?,
                    None => Window::default(),
                };
                if self.windows.get(&origin).is_none() {
                    self.windows.put(origin, Held { value, seq, stored: seq, bytes });
                }
            }
            // Entries are not in the state table.
            Want::Entry(seq) => self.provide_entry(seq, None),
        }
        Ok(())
    }

    /// Folds the next stored commit. Everything that it touches must have been provided. After an error the caller drops
    /// the log.
    pub fn fold(&mut self, entries: Vec<Entry>, payload_bytes: usize) -> Result<(), FoldError> {
        let found = entries.first().map_or(Seq::ZERO, |entry| entry.seq);
        let expected = self.tail.next();
        invariant!(
            F3,
            found == expected,
            "expected a commit from {expected}, found one from {found}"
        )?;
        let prev = self.prev.clone();
        for entry in &entries {
            if let Outcome::Accepted(events) = &entry.outcome {
                for event in events {
                    self.fold_event(entry.seq, event)
                        .map_err(|fault| FoldError::Fault { at: entry.seq, fault })?;
                }
            }
            let is_first = self.advance(entry);
            let Entry { seq, origin, id, .. } = entry;
            invariant!(F4, is_first, "entry {seq} uses the id {id} of {origin} again")?;
        }
        let commit = Commit { log: self.id.clone(), entries: entries.into(), prev };
        Ok(self.remember(commit, payload_bytes)?)
    }

    fn fold_event(&mut self, seq: Seq, event: &Event) -> Result<(), Fault> {
        let service = &self.service;
        self.documents.change(
            &event.document,
            || None,
            |held| {
                // Snapshots are fuzzy: the stored document may already include entries above the head. An entry may have
                // several events of one document, so `stored`, not `seq`, decides: all of them are folded, or none.
                if seq > held.stored {
                    held.value = Some(service.fold(held.value.take(), event)?);
                    held.seq = seq;
                    // An estimate. The next decision on the document, or its next snapshot, measures it.
                    held.bytes = held.bytes.max(event.data.get().len());
                }
                Ok(())
            },
        )
    }

    /// Applies an entry to tail, time, window and `prev`. Returns whether its id was new to the window.
    pub(super) fn advance(&mut self, entry: &Entry) -> bool {
        let mut is_first = true;
        if entry.outcome.uses_id() {
            self.windows.change(&entry.origin, Window::default, |held| {
                if entry.seq > held.stored {
                    is_first = held.value.insert(entry.id, entry.seq, entry.time);
                    held.seq = entry.seq;
                    held.bytes = held.value.weight();
                }
            });
        }
        let prev = Arc::make_mut(&mut self.prev);
        match &entry.outcome {
            Outcome::Accepted(events) => {
                let service = self.id.service();
                events.iter().for_each(|e| prev.insert_event(service, e.kind.as_str(), entry.seq));
            }
            _ => entry_kinds("", entry).for_each(|kind| prev.insert(kind, entry.seq)),
        }
        self.tail = entry.seq;
        self.time = self.time.max(entry.time);
        is_first
    }

    /// Keeps the part of a stored commit that is needed until the head passes it.
    pub(super) fn remember(&mut self, commit: Commit, bytes: usize) -> Result<(), Breach> {
        let expected = self.since.last().unwrap_or(self.head).next();
        let found = commit.first();
        invariant!(
            F3,
            found == expected,
            "the commit from {found} is not stored behind {expected}"
        )?;
        let commands = commit.entries.iter().map(Sent::from).collect();
        let (first, last) = (commit.first(), commit.last());
        let unpublished = (last > self.published_before).then_some(commit);
        self.since.push(Since { first, last, bytes, commands, unpublished });
        Ok(())
    }
}
