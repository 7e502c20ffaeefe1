//! The trait by which an author answers events with commands (sagas, process managers), and its object-safe form for
//! hosts.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::entry::{Entry, Raw};
use crate::host::catch::{Fault, catch};
use crate::host::command::Command;
use crate::host::limits::COMMAND_BYTES_MAX;
use crate::host::position::CommandId;
use crate::names::{LogId, Name, Origin, Partition, ServiceName};
use crate::services::author_problems;
use crate::view::Recorded;

/// The most commands that one entry may cause. Source: their ids, `seq * 64 + index`.
pub const REACTIONS_MAX: usize = 64;

/// Answers entries with commands to any log. It must be pure, as services are: the same entry always gives the same
/// commands in the same order. The window of the target log then accepts each of them once (F4).
pub trait Reactor: Send + Sync + 'static {
    /// `[a-z][a-z0-9-]{0,31}`.
    const NAME: &'static str;
    /// The services whose logs it reads.
    const SERVICES: &'static [&'static str];
    /// The event types that it understands, with their current versions.
    const EVENTS: &'static [(&'static str, u32)];
    /// An enum with `#[serde(tag = "type", content = "data")]`.
    type Event: DeserializeOwned + Send + Sync;

    /// As [`Service::upcast`](crate::Service::upcast).
    fn upcast(kind: &str, from: u32, data: Raw) -> Raw {
        let _ = (kind, from);
        data
    }
    /// The commands that answer the entry: at most [`REACTIONS_MAX`].
    fn react(entry: &Recorded<Self::Event>) -> Vec<OutgoingCommand>;
}

/// A command that a reactor sends.
#[derive(Debug, Clone)]
pub struct OutgoingCommand {
    /// The service that decides on it.
    pub service: ServiceName,
    /// The partition of its log.
    pub partition: Partition,
    /// Its name.
    pub command: Name,
    /// Its data.
    pub data: Box<RawValue>,
}

/// The object-safe form of a [`Reactor`].
pub trait AnyReactor: Send + Sync {
    /// See [`Reactor::NAME`].
    fn name(&self) -> &'static str;
    /// See [`Reactor::SERVICES`].
    fn services(&self) -> &'static [&'static str];
    /// See [`Reactor::EVENTS`].
    fn events(&self) -> &'static [(&'static str, u32)];
    /// The commands that answer the entry, in order, each with its log.
    fn react(&self, log: &LogId, entry: &Entry) -> Result<Vec<(LogId, Command)>, Fault>;
}

struct Hosted<R>(PhantomData<fn() -> R>);

impl<R: Reactor> AnyReactor for Hosted<R> {
    fn name(&self) -> &'static str {
        R::NAME
    }

    fn services(&self) -> &'static [&'static str] {
        R::SERVICES
    }

    fn events(&self) -> &'static [(&'static str, u32)] {
        R::EVENTS
    }

    fn react(&self, log: &LogId, entry: &Entry) -> Result<Vec<(LogId, Command)>, Fault> {
        let upcast = |kind: &str, from, data| catch("upcast", || R::upcast(kind, from, data));
        let Some(recorded) = Recorded::read(log, entry, R::EVENTS, upcast)? else {
            return Ok(Vec::new());
        };
        let outgoing = catch("react", || R::react(&recorded))?;
        if outgoing.len() > REACTIONS_MAX {
            return Err(Fault::new(format!(
                "`react` answers with {} commands, at most {REACTIONS_MAX} are allowed",
                outgoing.len()
            )));
        }
        if let Some(large) = outgoing.iter().find(|out| out.data.get().len() > COMMAND_BYTES_MAX) {
            return Err(Fault::new(format!(
                "the command `{}` has {} bytes of data, at most {COMMAND_BYTES_MAX} are allowed",
                large.command,
                large.data.get().len()
            )));
        }
        let name = ServiceName::new(R::NAME).map_err(|e| Fault::new(e.to_string()))?;
        let origin = Origin::reactor(&name, log);
        let numbered = outgoing.into_iter().zip(entry.seq.0 * REACTIONS_MAX as u64..);
        numbered
            .map(|(out, id)| {
                let id = CommandId::new(id)
                    .ok_or_else(|| Fault::new(format!("seq {} is too high", entry.seq)))?;
                let command = Command {
                    origin: origin.clone(),
                    id,
                    name: out.command,
                    timestamp: None,
                    data: out.data,
                    trace: entry.trace,
                };
                Ok((LogId::new(&out.service, &out.partition), command))
            })
            .collect()
    }
}

/// The reactors of one host, by name.
#[derive(Clone, Default)]
pub struct Reactors(BTreeMap<&'static str, Arc<dyn AnyReactor>>);

impl Reactors {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `R`. Panics, at start-up, if its constants break the rules of [`Reactor`] or its name
    /// is taken.
    #[must_use]
    pub fn with<R: Reactor>(mut self) -> Self {
        let problems = author_problems("reactor", R::NAME, R::EVENTS);
        assert!(problems.is_empty(), "{}", problems.join("; "));
        let taken = self.0.insert(R::NAME, Arc::new(Hosted::<R>(PhantomData)));
        assert!(taken.is_none(), "two reactors are called `{}`", R::NAME);
        self
    }

    /// The reactor of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn AnyReactor>> {
        self.0.get(name)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn AnyReactor>> {
        self.0.values()
    }
}
