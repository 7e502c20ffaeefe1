//! The kit of a service.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{ServiceKit, must, parsed, raw, same, shown, shown_event, stored, valid, written};
use crate::entry::{Event, Outcome, Raw};
use crate::host::catch::Fault;
use crate::host::limits::DOCUMENT_BYTES_MAX;
use crate::names::{DocumentId, Name};
use crate::service::{
    AnyDocument, AnyService, Decision, MORE_ROUNDS_MAX, Service, asks_too_often, decode_event,
};

/// A service and its stored documents.
pub struct UnderTest<S> {
    service: Arc<dyn AnyService>,
    documents: BTreeMap<DocumentId, Vec<u8>>,
    of: PhantomData<fn() -> S>,
}

impl<S> UnderTest<S> {
    pub(super) fn new(service: Arc<dyn AnyService>) -> Self {
        Self { service, documents: BTreeMap::new(), of: PhantomData }
    }
}

impl<S: Service> ServiceKit<S> {
    /// Adds an event to the past.
    #[track_caller]
    #[must_use]
    pub fn given(self, document: &str, event: S::Event) -> Self {
        let event = written(S::EVENTS, document, event);
        must("given", self.survives(&event));
        self.given_stored(document, event.kind.as_str(), event.version, event.data)
    }

    /// Adds an event to the past as it was stored, perhaps by an older build: `data` is JSON.
    #[track_caller]
    #[must_use]
    pub fn given_stored(
        mut self,
        document: &str,
        kind: &str,
        version: u32,
        data: impl Serialize,
    ) -> Self {
        let event = stored(document, kind, version, data);
        must("given", self.fold(&event));
        self.push("given", Outcome::Accepted(vec![event]));
        self
    }

    /// Decides on a command. Its outcome is part of the past of the next one.
    #[track_caller]
    #[must_use]
    pub fn when(mut self, command: &str, data: impl Serialize) -> Self {
        let data = raw(data);
        let outcome = match self.outcome(&valid(command), &data.0) {
            Ok(outcome) => outcome,
            Err(fault) => {
                Outcome::Faulted { message: fault.message().to_owned(), data, timestamp: None }
            }
        };
        self.push(command, outcome);
        self
    }

    /// Expects that the command was accepted, with these events (perhaps none).
    #[track_caller]
    pub fn then<'a>(self, events: impl IntoIterator<Item = (&'a str, S::Event)>) -> Self {
        let events = events.into_iter().map(|(document, e)| written(S::EVENTS, document, e));
        let expected = Outcome::Accepted(events.collect());
        same("the outcome of the command", &shown(&expected), &shown(&self.last().outcome));
        self
    }

    /// Expects that the command was refused. The codes `unknown_command`, `invalid_data` and `too_large` are Fanfold's.
    #[track_caller]
    pub fn then_rejected(self, code: &str) -> Self {
        let actual = &self.last().outcome;
        let message = message(actual).to_owned();
        let expected = Outcome::rejected(code, message);
        same("the outcome of the command", &shown(&expected), &shown(actual));
        self
    }

    /// Expects that the service panicked or broke its contract, with a message that contains `part`.
    #[track_caller]
    pub fn then_faulted(self, part: &str) -> Self {
        let actual = &self.last().outcome;
        let message = message(actual).to_owned();
        let expected = Outcome::Faulted { message, data: Raw::empty(), timestamp: None };
        same("the outcome of the command", &shown(&expected), &shown(actual));
        self.then_message(part)
    }

    /// Expects that the message of the refusal or fault contains `part`.
    #[track_caller]
    pub fn then_message(self, part: &str) -> Self {
        let actual = &self.last().outcome;
        let shown = shown(actual);
        assert!(message(actual).contains(part), "`{part}` is not in the message: {}", shown.get());
        self
    }

    /// Expects this state of a document; `null` if no event has touched it.
    #[track_caller]
    pub fn then_document(self, document: &str, expected: impl Serialize) -> Self {
        let actual = self.subject.documents.get(document).map_or(b"null".as_slice(), Vec::as_slice);
        same(&format!("the document `{document}`"), &raw(expected), &parsed(actual));
        self
    }

    /// The documents that events have touched.
    pub fn documents(&self) -> BTreeMap<DocumentId, S::Document> {
        let read = |bytes: &Vec<u8>| serde_json::from_slice(bytes).expect("it was read before");
        self.subject.documents.iter().map(|(id, bytes)| (id.clone(), read(bytes))).collect()
    }

    #[track_caller]
    fn outcome(&mut self, name: &Name, data: &RawValue) -> Result<Outcome, Fault> {
        let service = Arc::clone(&self.subject.service);
        let command = match service.parse(name, data) {
            Ok(command) => command,
            Err(invalid) => {
                return Ok(Outcome::rejected(invalid.code(), invalid.to_string()));
            }
        };
        let mut loaded = Vec::new();
        let mut asked = service.documents(&command)?;
        let mut rounds = 0;
        loop {
            for id in asked.drain(..) {
                let document = self.load(&id)?;
                loaded.push((id, document));
            }
            let before: Vec<_> = loaded.iter().map(|(id, doc)| (id, doc.as_ref())).collect();
            asked = service.more(&before, &command)?;
            if asked.is_empty() {
                break;
            }
            rounds += 1;
            if rounds > MORE_ROUNDS_MAX {
                return Err(asks_too_often());
            }
        }
        let before: Vec<_> = loaded.iter().map(|(id, doc)| (id, doc.as_ref())).collect();
        let context = self.context();
        let decide = || {
            Ok(match service.decide(&before, &command, &context)? {
                Decision::Rejected { code, message } => (Outcome::rejected(code, message), vec![]),
                Decision::Accepted { events, documents } => (Outcome::Accepted(events), documents),
                Decision::More(_) => {
                    return Err(Fault::new("`more` asks for other documents again"));
                }
            })
        };
        let ((outcome, after), (again, _)) = (decide()?, decide()?);
        same("the same command, decided twice", &shown(&outcome), &shown(&again));
        if let Some((id, ..)) = after.iter().find(|(.., bytes)| *bytes > DOCUMENT_BYTES_MAX.get()) {
            let message = format!("the document `{id}` would be too large");
            return Ok(Outcome::rejected("too_large", message));
        }
        if let Outcome::Accepted(events) = &outcome {
            for event in events {
                self.survives(event)?;
                self.fold(event)?;
            }
        }
        for (id, document, _) in &after {
            let decided = parsed(&service.encode_document(document)?);
            let replayed = parsed(&self.subject.documents[id]);
            same(&format!("the document `{id}`, decided and replayed"), &decided, &replayed);
        }
        Ok(outcome)
    }

    /// Panics unless an event is the same after it was written and read.
    #[track_caller]
    fn survives(&self, event: &Event) -> Result<(), Fault> {
        let upcast = |kind: &str, from, data| self.subject.service.upcast(kind, from, data);
        if let Some(read) = decode_event::<S::Event>(S::EVENTS, upcast, event)? {
            let again = written(S::EVENTS, event.document.as_str(), read);
            same("an event, written and read back", &shown_event(event), &shown_event(&again));
        }
        Ok(())
    }

    fn load(&self, id: &DocumentId) -> Result<Option<AnyDocument>, Fault> {
        let bytes = self.subject.documents.get(id);
        bytes.map(|bytes| self.subject.service.decode_document(bytes)).transpose()
    }

    #[track_caller]
    fn fold(&mut self, event: &Event) -> Result<(), Fault> {
        let service = &self.subject.service;
        let document = service.fold(self.load(&event.document)?, event)?;
        let bytes = service.encode_document(&document)?;
        let again = service.encode_document(&service.decode_document(&bytes)?)?;
        let what = format!("the document `{}`, written and read back", event.document);
        same(&what, &parsed(&bytes), &parsed(&again));
        self.subject.documents.insert(event.document.clone(), bytes);
        Ok(())
    }
}

/// The message of a refusal or a fault.
fn message(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Rejected { message, .. } | Outcome::Faulted { message, .. } => message,
        _ => "",
    }
}
