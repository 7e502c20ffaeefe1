//! Decides a command, folds its events, and encodes its entry, in this order.

use std::sync::Arc;

use super::shelf::Held;
use super::{Log, Sent};
use crate::entry::{Entry, Outcome, Raw};
use crate::host::body::commit;
use crate::host::body::head::Prev;
use crate::host::body::notification::Commit;
use crate::host::catch::Fault;
use crate::host::command::Command;
use crate::host::digest::Digest;
use crate::host::invariant::Breach;
use crate::host::limits::{COMMIT_BYTES_MAX, DOCUMENT_BYTES_MAX};
use crate::host::position::{CommandId, Seq};
use crate::host::window::Sighting;
use crate::names::{DocumentId, Origin};
use crate::service::{
    AnyCommand, AnyDocument, Context, Decision, InvalidCommand, MORE_ROUNDS_MAX, asks_too_often,
};
use crate::time::Time;

/// Bytes of the brackets around the entries, and of the comma before one.
const COMMIT_PUNCTUATION_BYTES: usize = 3;

/// The code of the refusal of a command that uses the id of another one.
const ID_REUSED: &str = "id_reused";

/// Initial bytes of a payload: enough for a commit with a few small entries.
const PAYLOAD_BYTES: usize = 512;

/// A command of the command stream, as its service reads it.
pub struct Work {
    /// Its position.
    pub seq: Seq,
    /// When it was accepted.
    pub at: Time,
    /// The command. It is shared, because a conflict makes the processor decide it again.
    pub command: Arc<Command>,
    /// How its service reads it.
    pub prepared: Prepared,
}

/// How a service reads a command's name and data.
pub enum Prepared {
    /// The service can decide it.
    Ready {
        /// The command in the service's own type.
        command: AnyCommand,
        /// The documents that it declares.
        documents: Vec<DocumentId>,
    },
    /// The service has no such command.
    Invalid(InvalidCommand),
    /// Declaring its documents panicked.
    Faulted(Fault),
    /// An operator gave it up, for this reason.
    GivenUp(String),
}

/// A commit to append to the journal.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The time of its last entry.
    pub at: Time,
    /// The body to store.
    pub body: Vec<u8>,
    /// The commit to publish once it is stored.
    pub commit: Commit,
    payload_bytes: usize,
}

/// The commit that is being filled.
#[derive(Default)]
pub(super) struct Open {
    entries: Vec<Entry>,
    /// The JSON of the entries: `[entry,entry`.
    payload: Vec<u8>,
    /// The `prev` before the first entry.
    prev: Arc<Prev>,
}

impl Log {
    /// Parses a command with its service. The result shows what must be loaded for it.
    pub fn prepare(&self, seq: Seq, at: Time, command: Arc<Command>) -> Work {
        let prepared = match self.service.parse(&command.name, &command.data) {
            Err(invalid) => Prepared::Invalid(invalid),
            Ok(parsed) => match self.service.documents(&parsed) {
                Ok(documents) => Prepared::Ready { command: parsed, documents },
                Err(fault) => Prepared::Faulted(fault),
            },
        };
        Work { seq, at, command, prepared }
    }

    /// Decides the command after the tail. Everything that [`Log::wants`] returns for it must have
    /// been provided. Returns work that is not at `Place::Next`, and work whose service asks for
    /// documents that are not in memory: then [`Log::wants`] returns those, too.
    pub fn decide(&mut self, work: Work, now: Time) -> Result<(), Work> {
        if work.seq != self.tail.next() {
            return Err(work);
        }
        let time = self.time.max(work.at.min(now));
        let mut changed = Vec::new();
        if let Prepared::GivenUp(reason) = work.prepared {
            self.push(lost(work.seq, time, reason), Vec::new());
            return Ok(());
        }
        let digest = Digest::of_json(work.command.data.get());
        let outcome = match self.sight(&work.command, time) {
            Sighting::Known(of) => self.repeated(&work.command, digest, of),
            Sighting::Unknown => Outcome::Stale,
            Sighting::New => match self.outcome(&work, time, &mut changed) {
                Some(outcome) => outcome,
                None => {
                    self.asks_for_more = true;
                    return Err(work);
                }
            },
        };
        let seq = work.seq;
        let Command { origin, id, name, trace, .. } = &*work.command;
        let (origin, command) = (origin.clone(), Some(name.clone()));
        let digest = outcome.uses_id().then_some(digest);
        let (id, trace) = (*id, *trace);
        self.push(Entry { seq, time, origin, id, command, digest, trace, outcome }, changed);
        Ok(())
    }

    /// Puts the entry behind the tail into the open commit, with the documents that it changes.
    fn push(&mut self, mut entry: Entry, mut changed: Vec<(DocumentId, AnyDocument, usize)>) {
        let seq = entry.seq;
        let start = self.open.payload.len();
        if start == 0 {
            self.open.payload.reserve(PAYLOAD_BYTES);
        }
        let mut bytes = write(&mut entry, &mut self.open.payload);
        if bytes + COMMIT_PUNCTUATION_BYTES > COMMIT_BYTES_MAX.get() {
            changed.clear();
            entry.outcome = too_large("the entry", bytes, COMMIT_BYTES_MAX.get());
            self.open.payload.truncate(start);
            bytes = write(&mut entry, &mut self.open.payload);
        }
        for (id, document, bytes) in changed {
            let stored = self.documents.get(&id).map_or(Seq::ZERO, |held| held.stored);
            self.documents.put(id, Held { value: Some(document), seq, stored, bytes });
        }
        if start + bytes + COMMIT_PUNCTUATION_BYTES > COMMIT_BYTES_MAX.get() {
            let mut payload = self.open.payload.split_off(start);
            self.close();
            payload[0] = b'[';
            self.open.payload = payload;
        }
        if self.open.entries.is_empty() {
            self.open.prev = self.prev.clone();
        }
        self.advance(&entry);
        self.open.entries.push(entry);
    }

    /// The work of giving up a command at this seq.
    pub fn give_up(seq: Seq, at: Time, command: Arc<Command>, reason: String) -> Work {
        Work { seq, at, command, prepared: Prepared::GivenUp(reason) }
    }

    pub(super) fn sight(&self, command: &Command, now: Time) -> Sighting {
        match self.windows.get(&command.origin) {
            Some(held) => held.value.sight(command.id, now),
            None => Sighting::New,
        }
    }

    /// The outcome of a command whose id was used before: it is the same command, or another one.
    fn repeated(&self, command: &Command, digest: Digest, of: Seq) -> Outcome {
        let Some(first) = self.first(of) else { return Outcome::Duplicate { of } };
        let id = command.id;
        let message = if let Some(name) = first.command.filter(|name| *name != command.name) {
            format!("`id`: {id} was used at seq {of} for the command `{name}`: use a new one")
        } else if first.digest.is_some_and(|first| first != digest) {
            format!("`id`: {id} was used at seq {of} with other `data`: use a new one")
        } else {
            return Outcome::Duplicate { of };
        };
        Outcome::Rejected { code: ID_REUSED.to_owned(), message, of: Some(of) }
    }

    /// The command of the entry at `seq`, if `seq` is above the head or its entry was provided.
    fn first(&self, seq: Seq) -> Option<Sent> {
        let decided = self.sealed.iter().map(|sealed| &*sealed.commit.entries);
        let decided = decided.chain([&*self.open.entries]);
        let entry = decided.flat_map(|entries| {
            let first = entries.first().map_or(Seq::ZERO, |entry| entry.seq);
            seq.0.checked_sub(first.0).and_then(|at| entries.get(at as usize))
        });
        let known = || self.command_at(seq).cloned();
        let provided = || self.firsts.get(&seq).cloned().flatten();
        entry.map(Sent::from).next().or_else(known).or_else(provided)
    }

    /// `None`: a document that the service asks for is not in memory.
    fn outcome(
        &self,
        work: &Work,
        time: Time,
        changed: &mut Vec<(DocumentId, AnyDocument, usize)>,
    ) -> Option<Outcome> {
        let Command { origin, id, timestamp, data, .. } = &*work.command;
        let faulted = |fault: &Fault| Outcome::Faulted {
            message: fault.message().to_owned(),
            data: Raw(data.clone()),
            timestamp: *timestamp,
        };
        let (command, documents) = match &work.prepared {
            Prepared::Ready { command, documents } => (command, documents),
            Prepared::Invalid(invalid) => {
                let message = Fault::new(invalid.to_string()).message().to_owned();
                return Some(Outcome::rejected(invalid.code(), message));
            }
            Prepared::Faulted(fault) => return Some(faulted(fault)),
            // Has its entry already: see `decide`.
            Prepared::GivenUp(reason) => return Some(Outcome::Lost { reason: reason.clone() }),
        };
        let ctx = Context {
            log: self.id.clone(),
            seq: work.seq,
            time,
            origin: origin.clone(),
            id: *id,
            timestamp: *timestamp,
        };
        let Some(docs) = self.held(documents) else {
            return Some(faulted(&Fault::new("a document was not loaded")));
        };
        let mut decided = self.service.decide(&docs, command, &ctx);
        let mut ids = Vec::new();
        for _ in 0..MORE_ROUNDS_MAX {
            let Ok(Decision::More(more)) = decided else { break };
            if ids.is_empty() {
                ids.clone_from(documents);
            }
            ids.extend(more);
            decided = self.service.decide(&self.held(&ids)?, command, &ctx);
        }
        Some(match decided {
            Err(fault) => faulted(&fault),
            Ok(Decision::More(_)) => faulted(&asks_too_often()),
            Ok(Decision::Rejected { code, message }) => Outcome::rejected(code, message),
            Ok(Decision::Accepted { events, documents }) => {
                if let Some((id, _, bytes)) =
                    documents.iter().find(|(_, _, bytes)| *bytes > DOCUMENT_BYTES_MAX.get())
                {
                    return Some(too_large(
                        &format!("the document `{id}`"),
                        *bytes,
                        DOCUMENT_BYTES_MAX.get(),
                    ));
                }
                *changed = documents;
                Outcome::Accepted(events)
            }
        })
    }

    /// Everything decided since the last call, as commits. The caller appends them in order, one after another.
    pub fn seal(&mut self) -> Vec<Sealed> {
        self.close();
        self.firsts.clear();
        self.sealed.drain(..).collect()
    }

    fn close(&mut self) {
        let Open { entries, mut payload, prev } = std::mem::take(&mut self.open);
        let Some(last) = entries.last() else { return };
        let at = last.time;
        payload.push(b']');
        let commit = Commit { log: self.id.clone(), entries: entries.into(), prev };
        self.sealed.push_back(Sealed {
            at,
            body: commit::seal(&payload),
            commit,
            payload_bytes: payload.len(),
        });
    }

    /// Records that the journal acknowledged a commit. Commits must be acknowledged in their order
    /// (F3). After an error the caller drops the log.
    pub fn acknowledge(&mut self, sealed: Sealed) -> Result<(), Breach> {
        self.remember(sealed.commit, sealed.payload_bytes)
    }
}

/// The entry of a command that was given up.
fn lost(seq: Seq, time: Time, reason: String) -> Entry {
    Entry {
        seq,
        time,
        origin: Origin::nobody(),
        id: CommandId::NONE,
        command: None,
        digest: None,
        trace: None,
        outcome: Outcome::Lost { reason },
    }
}

fn too_large(what: &str, bytes: usize, max: usize) -> Outcome {
    let message = format!("{what} would be {bytes} bytes long, at most {max} are allowed");
    Outcome::rejected("too_large", message)
}

/// Appends the entry's JSON, behind a bracket or a comma, and returns its bytes without that. An entry that cannot be
/// written as JSON becomes a fault, which can.
fn write(entry: &mut Entry, payload: &mut Vec<u8>) -> usize {
    let start = payload.len();
    payload.push(if start == 0 { b'[' } else { b',' });
    if let Err(error) = commit::write_entry(entry, payload) {
        payload.truncate(start + 1);
        entry.outcome = Outcome::Faulted {
            message: format!("the entry cannot be written: {error}"),
            data: Raw(serde_json::value::RawValue::NULL.to_owned()),
            timestamp: None,
        };
        // A fault has only numbers, validated names and a message, which JSON can always hold.
        let _ = commit::write_entry(entry, payload);
    }
    payload.len() - start - 1
}
