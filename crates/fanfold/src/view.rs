//! The trait by which an author keeps a read model, and its object-safe form for hosts.

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::entry::{self, Entry, Raw, kinds};
use crate::host::catch::{Fault, catch};
use crate::host::describe::Generators;
use crate::host::position::{CommandId, Seq};
use crate::names::{DocumentId, LogId, Origin, RowKey, ServiceName};
use crate::service::{current_version, decode_event};
use crate::services::{Services, author_problems};
use crate::time::Time;

/// A read model: rows per log, folded from entries. It must be pure, as services are.
///
/// A view is per log: no row combines two organisations. For a view across logs use a reactor, or
/// consume a view's own table.
pub trait View: Send + Sync + 'static {
    /// `[a-z][a-z0-9-]{0,31}`.
    const NAME: &'static str;
    /// Raise it when rows change their meaning, or event types are added to `EVENTS` or removed. The view is then built
    /// again from the journal.
    const VERSION: u32;
    /// The services whose logs it reads.
    const SERVICES: &'static [&'static str];
    /// The event types that it understands, with their current versions. Fewer than the services
    /// have makes a filtered view.
    const EVENTS: &'static [(&'static str, u32)];
    /// An enum with `#[serde(tag = "type", content = "data")]`.
    type Event: DeserializeOwned + Send + Sync;
    /// One row. Its schema becomes part of the API's description.
    type Row: Serialize + DeserializeOwned + JsonSchema;

    /// Brings the data of an event of version `from` to the current version of its type. `None`, the default, means: as
    /// the event's service does it. An app without that service must define it.
    fn upcast(kind: &str, from: u32, data: &Raw) -> Option<Raw> {
        let _ = (kind, from, data);
        None
    }
    /// The rows that the entry touches.
    fn rows(entry: &Recorded<Self::Event>) -> Vec<RowKey>;
    /// Folds the entry, with all its events, into one of its rows; `None` means no row. Called once
    /// per entry and row.
    fn apply(
        row: Option<Self::Row>,
        key: &RowKey,
        entry: &Recorded<Self::Event>,
    ) -> Option<Self::Row>;
}

/// An entry as views and reactors receive it. They receive no duplicates, no stale entries, and no accepted entries
/// without an event that they understand.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded<E> {
    /// The entry's log.
    pub log: LogId,
    /// Its position there.
    pub seq: Seq,
    /// Its time.
    pub time: Time,
    /// The command's origin.
    pub origin: Origin,
    /// The command's id.
    pub id: CommandId,
    /// The outcome of the command.
    pub outcome: Outcome<E>,
}

/// The outcome of a command, as views and reactors receive it.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<E> {
    /// The events that the view understands, each with its document.
    Accepted(Vec<(DocumentId, E)>),
    /// The service refused the command.
    Rejected {
        /// Machine-readable.
        code: String,
        /// For people.
        message: String,
    },
    /// The service could not decide.
    Faulted {
        /// The panic, or the breach of the contract.
        message: String,
    },
    /// An operator gave the command up.
    Lost {
        /// The operator's reason.
        reason: String,
    },
}

impl<E> Recorded<E> {
    /// The events that the view understands, each with its document; none unless the command was
    /// accepted.
    pub fn events(&self) -> &[(DocumentId, E)] {
        match &self.outcome {
            Outcome::Accepted(events) => events,
            Outcome::Rejected { .. } | Outcome::Faulted { .. } | Outcome::Lost { .. } => &[],
        }
    }
}

impl<E: DeserializeOwned> Recorded<E> {
    /// `entry` as a reader of `events` receives it; `None` if there is nothing in it for the reader.
    pub(crate) fn read(
        log: &LogId,
        entry: &Entry,
        events: &[(&str, u32)],
        upcast: impl Fn(&str, u32, Raw) -> Result<Raw, Fault>,
    ) -> Result<Option<Self>, Fault> {
        let outcome = match &entry.outcome {
            entry::Outcome::Accepted(all) => {
                let mut understood = Vec::with_capacity(all.len());
                for event in all {
                    if let Some(decoded) = decode_event(events, &upcast, event)? {
                        understood.push((event.document.clone(), decoded));
                    }
                }
                if understood.is_empty() {
                    return Ok(None);
                }
                Outcome::Accepted(understood)
            }
            entry::Outcome::Rejected { code, message, .. } => {
                Outcome::Rejected { code: code.clone(), message: message.clone() }
            }
            entry::Outcome::Faulted { message, .. } => {
                Outcome::Faulted { message: message.clone() }
            }
            entry::Outcome::Lost { reason } => Outcome::Lost { reason: reason.clone() },
            entry::Outcome::Duplicate { .. } | entry::Outcome::Stale => return Ok(None),
        };
        Ok(Some(Self {
            log: log.clone(),
            seq: entry.seq,
            time: entry.time,
            origin: entry.origin.clone(),
            id: entry.id,
            outcome,
        }))
    }
}

/// An entry as one view understands it.
pub struct AnyRecorded {
    /// Its position.
    pub seq: Seq,
    recorded: Box<dyn Any + Send + Sync>,
}

/// A fold that failed at an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {at} cannot be applied")]
pub struct ApplyFault {
    /// The entry.
    pub at: Seq,
    /// Why.
    #[source]
    pub fault: Fault,
}

/// The object-safe form of a [`View`]. Entries are as stored, rows are JSON. A panic is returned as a [`Fault`].
pub trait AnyView: Send + Sync {
    /// See [`View::NAME`].
    fn name(&self) -> &'static str;
    /// See [`View::VERSION`].
    fn version(&self) -> u32;
    /// See [`View::SERVICES`].
    fn services(&self) -> &'static [&'static str];
    /// See [`View::EVENTS`].
    fn events(&self) -> &'static [(&'static str, u32)];
    /// The schemas of a row: as it is written, and as a stored one is read.
    fn row_schemas(&self, generators: &mut Generators) -> [Value; 2];
    /// The view beside these services, which upcast the events that it does not upcast itself.
    fn beside(&self, services: &Services) -> Arc<dyn AnyView>;
    /// The event types of which the view does not upcast an older version itself. Its `upcast` is called with empty data;
    /// a panic shows that the view has one.
    fn left_to_services(&self) -> Vec<&'static str>;
    /// Reads an entry; `None` if there is nothing in it for the view.
    fn read(&self, log: &LogId, entry: &Entry) -> Result<Option<AnyRecorded>, Fault>;
    /// The rows that the entry touches, without repetition.
    fn rows(&self, entry: &AnyRecorded) -> Result<Vec<RowKey>, Fault>;
    /// Folds `entries`, in order, into the row stored as `row`. Each of them must touch it.
    fn fold(
        &self,
        key: &RowKey,
        row: Option<&[u8]>,
        entries: &[&AnyRecorded],
    ) -> Result<Option<Vec<u8>>, ApplyFault>;

    /// The kinds that the view reads: its events, by service, and the kinds that every service has. A notification's
    /// `prev` of these kinds shows whether the view missed an entry.
    fn kinds(&self) -> Vec<String> {
        let events = self.services().iter().flat_map(|service| {
            self.events().iter().map(move |(kind, _)| format!("{service}.{kind}"))
        });
        let common = [kinds::REJECTED, kinds::FAULTED, kinds::LOST];
        events.chain(common.into_iter().map(str::to_owned)).collect()
    }

    /// Whether the view understands fewer event types than one of its services has. Its cursor may then lag behind the
    /// log's tail without being wrong, so a caller cannot wait for it.
    fn is_filtered(&self, services: &Services) -> bool {
        let own = |kind: &str| current_version(self.events(), kind).is_some();
        services.have_more_than(self.services().iter().copied(), own)
    }
}

struct Hosted<V> {
    /// Those beside it.
    services: Services,
    of: PhantomData<fn() -> V>,
}

impl<V: View> Hosted<V> {
    fn beside(services: Services) -> Self {
        Self { services, of: PhantomData }
    }

    fn upcast(&self, service: &str, kind: &str, from: u32, data: Raw) -> Result<Raw, Fault> {
        if let Some(data) = catch("upcast", || V::upcast(kind, from, &data))? {
            return Ok(data);
        }
        // A service with another version would make other data of it.
        let (found, current) = (self.services.get(service), current_version(V::EVENTS, kind));
        let same = found.filter(|found| current_version(found.events(), kind) == current);
        let service = same.ok_or_else(|| {
            Fault::new(format!(
                "the event `{kind}` version {from} cannot be read: define `upcast`, since the view \
                 has no service `{service}` with its version beside it"
            ))
        })?;
        service.upcast(kind, from, data)
    }

    fn typed(entry: &AnyRecorded) -> Result<&Recorded<V::Event>, Fault> {
        entry
            .recorded
            .downcast_ref()
            .ok_or_else(|| Fault::new("the entry was read by another view"))
    }
}

impl<V: View> AnyView for Hosted<V> {
    fn name(&self) -> &'static str {
        V::NAME
    }

    fn version(&self) -> u32 {
        V::VERSION
    }

    fn services(&self) -> &'static [&'static str] {
        V::SERVICES
    }

    fn events(&self) -> &'static [(&'static str, u32)] {
        V::EVENTS
    }

    fn row_schemas(&self, generators: &mut Generators) -> [Value; 2] {
        [&mut generators.written, &mut generators.read]
            .map(|generator| generator.subschema_for::<V::Row>().to_value())
    }

    fn beside(&self, services: &Services) -> Arc<dyn AnyView> {
        Arc::new(Self::beside(services.clone()))
    }

    fn left_to_services(&self) -> Vec<&'static str> {
        let is_left = |kind: &str, from| {
            catch("upcast", || V::upcast(kind, from, &Raw::empty())).is_ok_and(|own| own.is_none())
        };
        let left =
            V::EVENTS.iter().filter(|(kind, current)| (1..*current).any(|v| is_left(kind, v)));
        left.map(|(kind, _)| *kind).collect()
    }

    fn read(&self, log: &LogId, entry: &Entry) -> Result<Option<AnyRecorded>, Fault> {
        let upcast = |kind: &str, from, data| self.upcast(log.service(), kind, from, data);
        let recorded = Recorded::<V::Event>::read(log, entry, V::EVENTS, upcast)?;
        Ok(recorded.map(|recorded| AnyRecorded { seq: entry.seq, recorded: Box::new(recorded) }))
    }

    fn rows(&self, entry: &AnyRecorded) -> Result<Vec<RowKey>, Fault> {
        let entry = Self::typed(entry)?;
        let mut keys = catch("rows", || V::rows(entry))?;
        for key in &keys {
            key.check().map_err(|e| Fault::new(format!("the row key `{key}` {e}")))?;
        }
        keys.sort();
        keys.dedup();
        Ok(keys)
    }

    fn fold(
        &self,
        key: &RowKey,
        row: Option<&[u8]>,
        entries: &[&AnyRecorded],
    ) -> Result<Option<Vec<u8>>, ApplyFault> {
        let Some(first) = entries.first() else {
            return Ok(row.map(<[u8]>::to_vec));
        };
        let fault = |at, message: String| ApplyFault { at, fault: Fault::new(message) };
        let mut row: Option<V::Row> = catch("Row", || row.map(serde_json::from_slice).transpose())
            .map_err(|fault| ApplyFault { at: first.seq, fault })?
            .map_err(|e| fault(first.seq, format!("the row `{key}` cannot be read: {e}")))?;
        for entry in entries {
            let at = entry.seq;
            row = Self::typed(entry)
                .and_then(|entry| catch("apply", || V::apply(row, key, entry)))
                .map_err(|fault| ApplyFault { at, fault })?;
        }
        let last = entries.last().map_or(first.seq, |entry| entry.seq);
        catch("Row", || row.map(|row| serde_json::to_vec(&row)).transpose())
            .map_err(|fault| ApplyFault { at: last, fault })?
            .map_err(|e| fault(last, format!("the row `{key}` cannot be written: {e}")))
    }
}

/// The views of one host, by name.
#[derive(Clone, Default)]
pub struct Views(BTreeMap<&'static str, Arc<dyn AnyView>>);

impl Views {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `V`. Panics, at start-up, if its constants break the rules of [`View`] or its name is
    /// taken. An [`App`](crate::App) reports such problems instead.
    #[must_use]
    pub fn with<V: View>(mut self) -> Self {
        let problems = self.add::<V>();
        assert!(problems.is_empty(), "{}", problems.join("; "));
        self
    }

    /// Adds `V`, and returns what is wrong with it.
    pub(crate) fn add<V: View>(&mut self) -> Vec<String> {
        let name = V::NAME;
        let mut problems = author_problems("view", name, V::EVENTS);
        if V::SERVICES.is_empty() {
            problems.push(format!("the view `{name}` reads no service"));
        }
        for service in V::SERVICES {
            if let Err(e) = ServiceName::new(*service) {
                problems.push(format!(
                    "the view `{name}` reads the service `{service}`, whose name {e}"
                ));
            }
        }
        let taken = self.0.insert(name, Arc::new(Hosted::<V>::beside(Services::new())));
        problems.extend(taken.map(|_| format!("two views are called `{name}`")));
        problems
    }

    /// The views beside these services, which upcast the events that the views do not upcast themselves. An
    /// [`App`](crate::App) does this.
    #[must_use]
    pub fn beside(&self, services: &Services) -> Self {
        Self(self.0.iter().map(|(name, view)| (*name, view.beside(services))).collect())
    }

    /// The view of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn AnyView>> {
        self.0.get(name)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn AnyView>> {
        self.0.values()
    }
}
