//! The trait by which an author owns documents and decides on commands, and its object-safe form for hosts.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::marker::PhantomData;
use std::ops::Index;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::entry::{Event, Raw};
use crate::host::catch::{Fault, catch, truncated};
use crate::host::describe::{Generators, Variants, variants};
use crate::host::limits::{CODE_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::host::position::{CommandId, Seq};
use crate::names::{DocumentId, LogId, Name, Origin};
use crate::tagged::{TaggedError, from_tagged};
use crate::time::Time;

/// How often [`Service::more`] may ask for new documents for one command. Source: our choice. Each round may cost a read
/// of the state table.
pub const MORE_ROUNDS_MAX: usize = 4;

/// A command for which [`Service::more`] asked once more.
pub(crate) fn asks_too_often() -> Fault {
    Fault::new(format!("`more` asks for new documents more than {MORE_ROUNDS_MAX} times"))
}

/// A service decides on commands, and folds its events into documents. It must be pure (no I/O, no clock, no
/// randomness), so that folding a log twice gives the same documents (F9).
///
/// A log is processed one command after another, so **one decision may read and change several
/// documents of its partition atomically**: a transfer between two accounts of one organisation
/// needs no saga.
pub trait Service: Send + Sync + 'static {
    /// The request's `type`: `[a-z][a-z0-9-]{0,31}`.
    const NAME: &'static str;
    /// Raise it when `evolve`, `init` or `Document` change the result of a fold. Fanfold then folds all documents again
    /// from the log, beside those of the old version.
    const DOCUMENT_VERSION: u32;
    /// Every event type and its current version, from 1 on.
    const EVENTS: &'static [(&'static str, u32)];
    /// An enum with `#[serde(tag = "command", content = "data")]`. Its schema becomes part of the API's description.
    type Command: DeserializeOwned + JsonSchema + Send + Sync;
    /// An enum with `#[serde(tag = "type", content = "data")]`.
    type Event: Serialize + DeserializeOwned + JsonSchema;
    /// The state of one thing that the service owns.
    type Document: Clone + Serialize + DeserializeOwned + Send + Sync;
    /// Why a command is refused.
    type Rejection: Error + Code;

    /// The documents that the decision reads, and all that it may change.
    fn documents(command: &Self::Command) -> Vec<DocumentId>;
    /// Documents that the decision needs beside `docs`, by what is in those: a command that cancels a booking finds the
    /// room in the booking. Fanfold loads them and asks again, up to [`MORE_ROUNDS_MAX`] times, until nothing new is
    /// asked for. Documents that `docs` already has are ignored. The default asks for none.
    fn more(command: &Self::Command, docs: &Documents<'_, Self::Document>) -> Vec<DocumentId> {
        let _ = (command, docs);
        Vec::new()
    }
    /// A document that no event has touched.
    fn init(id: &DocumentId) -> Self::Document;
    /// The events that follow from the command, each with the document that it changes, or the refusal.
    fn decide(
        docs: &Documents<'_, Self::Document>,
        command: &Self::Command,
        ctx: &Context,
    ) -> Result<Vec<(DocumentId, Self::Event)>, Self::Rejection>;
    /// Folds one event into its document.
    fn evolve(doc: &mut Self::Document, event: &Self::Event);
    /// Brings the data of an event of version `from` to the current version of its type.
    /// [`Raw::change`] renames, adds and removes fields, and leaves all others as they are stored.
    fn upcast(kind: &str, from: u32, data: Raw) -> Raw {
        let _ = (kind, from);
        data
    }
}

/// A stable, machine-readable code, as `overdrawn`: up to 64 bytes.
pub trait Code {
    /// The code.
    fn code(&self) -> &'static str;
}

/// The documents that a command declared or asked for, in their state before it.
#[derive(Debug)]
pub struct Documents<'a, D>(Vec<(&'a DocumentId, Cow<'a, D>)>)
where
    D: Clone;

impl<D: Clone> Documents<'_, D> {
    /// The document; `None` if the command neither declared it nor asked for it.
    pub fn get(&self, id: &DocumentId) -> Option<&D> {
        self.0.iter().find(|(declared, _)| *declared == id).map(|(_, doc)| doc.as_ref())
    }
}

impl<D: Clone> Index<&DocumentId> for Documents<'_, D> {
    type Output = D;

    /// Panics if the command neither declared the document nor asked for it: the command becomes a `faulted` entry.
    fn index(&self, id: &DocumentId) -> &D {
        match self.get(id) {
            Some(doc) => doc,
            None => panic!("neither `documents` nor `more` named the document `{id}`"),
        }
    }
}

/// What a decision may use beside its documents.
#[derive(Debug, Clone)]
pub struct Context {
    /// The command's log.
    pub log: LogId,
    /// The command's position.
    pub seq: Seq,
    /// The entry's time.
    pub time: Time,
    /// The command's origin. For users, [`Origin::user_name`] is the user.
    pub origin: Origin,
    /// The command's id.
    pub id: CommandId,
    /// The client's own time in milliseconds, if it gave one.
    pub timestamp: Option<u64>,
}

/// A document in memory, in its service's own type.
pub type AnyDocument = Box<dyn Any + Send + Sync>;

/// A command in its service's own type.
pub type AnyCommand = Box<dyn Any + Send + Sync>;

/// Why a service cannot read a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCommand {
    /// The service has no command of this name.
    #[error("`command`: the service `{service}` has no command `{command}`")]
    Unknown {
        /// The service.
        service: &'static str,
        /// The command.
        command: Name,
    },
    /// The data does not fit the command.
    #[error("`{path}`: {message}")]
    Data {
        /// The path of the field, as `data.amount`.
        path: String,
        /// What is wrong with it.
        message: String,
    },
}

impl InvalidCommand {
    /// The code of the rejection when the processor finds it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown_command",
            Self::Data { .. } => "invalid_data",
        }
    }
}

/// A service's decision on a command.
pub enum Decision {
    /// The events, and each document that they change: its new state, and the bytes of its JSON.
    Accepted {
        /// In the order of the decision.
        events: Vec<Event>,
        /// One per document.
        documents: Vec<(DocumentId, AnyDocument, usize)>,
    },
    /// The refusal.
    Rejected {
        /// Machine-readable.
        code: String,
        /// For people.
        message: String,
    },
    /// Nothing is decided: the service asks for these documents, which are new.
    More(Vec<DocumentId>),
}

/// The object-safe form of a [`Service`]. Commands and events are JSON. Documents are opaque in memory, and JSON when
/// they are stored. A panic is returned as a [`Fault`].
pub trait AnyService: Send + Sync {
    /// See [`Service::NAME`].
    fn name(&self) -> &'static str;
    /// See [`Service::DOCUMENT_VERSION`].
    fn document_version(&self) -> u32;
    /// See [`Service::EVENTS`].
    fn events(&self) -> &'static [(&'static str, u32)];
    /// The commands, by name, with the schemas of their data.
    fn command_variants(&self, generators: &mut Generators) -> Variants;
    /// The event types, by name, with the schemas of their data.
    fn event_variants(&self, generators: &mut Generators) -> Variants;
    /// Reads a command.
    fn parse(&self, name: &Name, data: &RawValue) -> Result<AnyCommand, InvalidCommand>;
    /// The documents that the command declares, without repetition.
    fn documents(&self, command: &AnyCommand) -> Result<Vec<DocumentId>, Fault>;
    /// The documents that the command needs beside `docs`, without repetition; see [`Service::more`].
    fn more(
        &self,
        docs: &[(&DocumentId, Option<&AnyDocument>)],
        command: &AnyCommand,
    ) -> Result<Vec<DocumentId>, Fault>;
    /// Decides, and folds the events. `docs` are the documents that the command declared or asked for, `None` where
    /// none is stored.
    fn decide(
        &self,
        docs: &[(&DocumentId, Option<&AnyDocument>)],
        command: &AnyCommand,
        ctx: &Context,
    ) -> Result<Decision, Fault>;
    /// See [`Service::upcast`].
    fn upcast(&self, kind: &str, from: u32, data: Raw) -> Result<Raw, Fault>;
    /// Brings a stored event to the current version of its type. One whose type is not listed, or of a newer version,
    /// stays as it is, as does one that cannot be upcast.
    fn bring_up_to_date(&self, event: &mut Event) -> Result<(), Fault> {
        let kind = event.kind.as_str();
        let current =
            current_version(self.events(), kind).filter(|current| *current > event.version);
        if let Some(version) = current {
            event.data = self.upcast(kind, event.version, event.data.clone())?;
            event.version = version;
        }
        Ok(())
    }
    /// Folds a stored event into its document (`None` if none is stored).
    fn fold(&self, doc: Option<AnyDocument>, event: &Event) -> Result<AnyDocument, Fault>;
    /// Reads a stored document.
    fn decode_document(&self, json: &[u8]) -> Result<AnyDocument, Fault>;
    /// Writes a document.
    fn encode_document(&self, doc: &AnyDocument) -> Result<Vec<u8>, Fault>;
}

/// Initial bytes of a buffer: enough for most events and documents.
const SCRATCH_BYTES: usize = 256;

struct Hosted<S>(PhantomData<fn() -> S>);

/// `S` in its object-safe form.
pub(crate) fn hosted<S: Service>() -> Arc<dyn AnyService> {
    Arc::new(Hosted::<S>(PhantomData))
}

fn typed<T: 'static>(any: &(dyn Any + Send + Sync)) -> Result<&T, Fault> {
    any.downcast_ref().ok_or_else(|| Fault::new("the value belongs to another service"))
}

/// An adjacently tagged event, as JSON.
#[derive(Deserialize)]
pub(crate) struct Written<'a> {
    #[serde(rename = "type", borrow)]
    pub(crate) kind: Cow<'a, str>,
    /// Absent for variants without content. `null` is content: a variant may hold an `Option`.
    #[serde(default = "Raw::empty")]
    pub(crate) data: Raw,
}

impl<S: Service> Hosted<S> {
    /// Writes an event, with `json` as its buffer.
    fn encode_event(
        document: DocumentId,
        event: &S::Event,
        json: &mut Vec<u8>,
    ) -> Result<Event, Fault> {
        let fault = |e: serde_json::Error| Fault::new(format!("an event cannot be written: {e}"));
        json.clear();
        catch("Event", || serde_json::to_writer(&mut *json, event))?.map_err(fault)?;
        let written: Written<'_> = serde_json::from_slice(json).map_err(fault)?;
        let version = current_version(S::EVENTS, &written.kind)
            .ok_or_else(|| Fault::new(format!("`EVENTS` does not list `{}`", written.kind)))?;
        let kind = Name::new(written.kind.as_ref())
            .map_err(|e| Fault::new(format!("the event type `{}` {e}", written.kind)))?;
        Ok(Event { kind, version, document, data: written.data })
    }

    fn decode_event(event: &Event) -> Result<S::Event, Fault> {
        decode_event(S::EVENTS, Self::upcast, event)?
            .ok_or_else(|| Fault::new(format!("`EVENTS` does not list `{}`", event.kind)))
    }

    /// The documents before a command, in the service's own type.
    fn before<'a>(
        docs: &[(&'a DocumentId, Option<&'a AnyDocument>)],
    ) -> Result<Documents<'a, S::Document>, Fault> {
        let mut before = Vec::with_capacity(docs.len());
        for &(id, doc) in docs {
            before.push((
                id,
                match doc {
                    Some(doc) => Cow::Borrowed(typed::<S::Document>(doc.as_ref())?),
                    None => Cow::Owned(catch("init", || S::init(id))?),
                },
            ));
        }
        Ok(Documents(before))
    }

    /// The documents that a command asks for and does not have.
    fn asked(
        command: &S::Command,
        before: &Documents<'_, S::Document>,
    ) -> Result<Vec<DocumentId>, Fault> {
        let mut more = catch("more", || S::more(command, before))?;
        more.retain(|id| before.get(id).is_none());
        more.sort();
        more.dedup();
        Ok(more)
    }

    fn upcast(kind: &str, from: u32, data: Raw) -> Result<Raw, Fault> {
        catch("upcast", || S::upcast(kind, from, data))
    }

    fn read_document(json: &[u8]) -> Result<S::Document, Fault> {
        catch("Document", || serde_json::from_slice(json))?
            .map_err(|e| Fault::new(format!("a stored document cannot be read: {e}")))
    }

    fn write_document(doc: &S::Document, json: &mut Vec<u8>) -> Result<(), Fault> {
        catch("Document", || serde_json::to_writer(json, doc))?
            .map_err(|e| Fault::new(format!("a document cannot be written: {e}")))
    }
}

pub(crate) fn current_version(events: &[(&str, u32)], kind: &str) -> Option<u32> {
    events.iter().find(|(listed, _)| *listed == kind).map(|(_, version)| *version)
}

/// Reads a stored event; `None` if its type is not listed.
pub(crate) fn decode_event<E: DeserializeOwned>(
    events: &[(&str, u32)],
    upcast: impl FnOnce(&str, u32, Raw) -> Result<Raw, Fault>,
    event: &Event,
) -> Result<Option<E>, Fault> {
    let kind = event.kind.as_str();
    let Some(current) = current_version(events, kind) else {
        return Ok(None);
    };
    let unreadable = |message: String| {
        Fault::new(format!(
            "the event `{kind}` version {} cannot be read: {message}",
            event.version
        ))
    };
    let read = |data: &RawValue| {
        catch("Event", || from_tagged(["type", "data"], kind, data))?.map_err(|error| match error {
            TaggedError::UnknownTag => unreadable("the event type has no such variant".to_owned()),
            TaggedError::BadContent { path, message } => unreadable(format!("`{path}`: {message}")),
        })
    };
    if event.version > current {
        return Err(unreadable(format!("this build knows versions up to {current}")));
    }
    if event.version == current {
        return read(&event.data.0).map(Some);
    }
    read(&upcast(kind, event.version, event.data.clone())?.0).map(Some)
}

impl<S: Service> AnyService for Hosted<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn document_version(&self) -> u32 {
        S::DOCUMENT_VERSION
    }

    fn events(&self) -> &'static [(&'static str, u32)] {
        S::EVENTS
    }

    fn command_variants(&self, generators: &mut Generators) -> Variants {
        variants(&S::Command::json_schema(&mut generators.read), "command", "data")
    }

    fn event_variants(&self, generators: &mut Generators) -> Variants {
        variants(&S::Event::json_schema(&mut generators.written), "type", "data")
    }

    fn parse(&self, name: &Name, data: &RawValue) -> Result<AnyCommand, InvalidCommand> {
        let bad = |path: &str, message| InvalidCommand::Data { path: path.to_owned(), message };
        let parsed = catch("Command", || {
            from_tagged::<S::Command>(["command", "data"], name.as_str(), data)
        });
        match parsed.map_err(|fault| bad("data", fault.to_string()))? {
            Ok(command) => Ok(Box::new(command)),
            Err(TaggedError::UnknownTag) => {
                Err(InvalidCommand::Unknown { service: S::NAME, command: name.clone() })
            }
            Err(TaggedError::BadContent { path, message }) => Err(bad(&path, message)),
        }
    }

    fn documents(&self, command: &AnyCommand) -> Result<Vec<DocumentId>, Fault> {
        let command = typed::<S::Command>(command.as_ref())?;
        let mut declared = catch("documents", || S::documents(command))?;
        declared.sort();
        declared.dedup();
        Ok(declared)
    }

    fn more(
        &self,
        docs: &[(&DocumentId, Option<&AnyDocument>)],
        command: &AnyCommand,
    ) -> Result<Vec<DocumentId>, Fault> {
        Self::asked(typed::<S::Command>(command.as_ref())?, &Self::before(docs)?)
    }

    fn decide(
        &self,
        docs: &[(&DocumentId, Option<&AnyDocument>)],
        command: &AnyCommand,
        ctx: &Context,
    ) -> Result<Decision, Fault> {
        let command = typed::<S::Command>(command.as_ref())?;
        let before = Self::before(docs)?;
        let more = Self::asked(command, &before)?;
        if !more.is_empty() {
            return Ok(Decision::More(more));
        }
        let decided = catch("decide", || {
            S::decide(&before, command, ctx)
                .map_err(|rejection| (rejection.code().to_owned(), rejection.to_string()))
        })?;
        let decided = match decided {
            Ok(decided) => decided,
            Err((code, message)) => {
                return Ok(Decision::Rejected {
                    code: truncated(code, CODE_BYTES_MAX),
                    message: truncated(message, MESSAGE_BYTES_MAX),
                });
            }
        };
        // All JSON of this decision is written into one buffer.
        let mut json = Vec::with_capacity(SCRATCH_BYTES);
        let mut events = Vec::with_capacity(decided.len());
        let mut changed: Vec<(DocumentId, S::Document)> = Vec::new();
        for (document, event) in decided {
            let event = Self::encode_event(document, &event, &mut json)?;
            let at = match changed.iter().position(|(id, _)| *id == event.document) {
                Some(at) => at,
                None => {
                    let doc = before.get(&event.document).ok_or_else(|| {
                        Fault::new(format!(
                            "`decide` changes the document `{}`, which neither `documents` nor `more` named",
                            event.document
                        ))
                    })?;
                    let doc = catch("Document", || doc.clone())?;
                    changed.push((event.document.clone(), doc));
                    changed.len() - 1
                }
            };
            // Fold the event as the log will hold it: a replay then gives the same document, even if the author's
            // serde attributes leave something out (F9).
            let replayed = Self::decode_event(&event)?;
            catch("evolve", || S::evolve(&mut changed[at].1, &replayed))?;
            events.push(event);
        }
        let mut documents = Vec::with_capacity(changed.len());
        for (id, doc) in changed {
            // Read the document back. One that cannot be read (an infinite number, a nesting too deep) would stop the
            // log at its next cold load, so the command becomes a fault now.
            json.clear();
            Self::write_document(&doc, &mut json)?;
            Self::read_document(&json)?;
            documents.push((id, Box::new(doc) as AnyDocument, json.len()));
        }
        Ok(Decision::Accepted { events, documents })
    }

    fn upcast(&self, kind: &str, from: u32, data: Raw) -> Result<Raw, Fault> {
        Self::upcast(kind, from, data)
    }

    fn fold(&self, doc: Option<AnyDocument>, event: &Event) -> Result<AnyDocument, Fault> {
        let mut doc = match doc {
            Some(doc) => doc,
            None => Box::new(catch("init", || S::init(&event.document))?) as AnyDocument,
        };
        let decoded = Self::decode_event(event)?;
        let typed: &mut S::Document = doc
            .downcast_mut()
            .ok_or_else(|| Fault::new("the document belongs to another service"))?;
        catch("evolve", || S::evolve(typed, &decoded))?;
        Ok(doc)
    }

    fn decode_document(&self, json: &[u8]) -> Result<AnyDocument, Fault> {
        Ok(Box::new(Self::read_document(json)?))
    }

    fn encode_document(&self, doc: &AnyDocument) -> Result<Vec<u8>, Fault> {
        let mut json = Vec::with_capacity(SCRATCH_BYTES);
        Self::write_document(typed(doc.as_ref())?, &mut json)?;
        Ok(json)
    }
}
