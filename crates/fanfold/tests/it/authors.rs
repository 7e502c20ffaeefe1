//! What authors of services, views and reactors must keep to, and what is said to them.

use std::marker::PhantomData;
use std::panic::catch_unwind;
use std::sync::Arc;

use fanfold::entry::{self, Raw};
use fanfold::limits::COMMAND_BYTES_MAX;
use fanfold::reactor::{AnyReactor, REACTIONS_MAX};
use fanfold::view::AnyView;
use fanfold::{
    Code, Context, DocumentId, Documents, Entry, LogId, OutgoingCommand, Reactor, Reactors,
    Recorded, RowKey, Seq, Service, Services, Time, View, Views,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use crate::samples::{entries_of_all_kinds, entry, event, id, raw, valid};

/// What an author declares.
trait Constants: Send + Sync + 'static {
    const NAME: &'static str = "good";
    const EVENTS: &'static [(&'static str, u32)] = &[("sent", 1), ("received", 2)];
    const SERVICES: &'static [&'static str] = &["ledger"];
}

/// A service, a view and a reactor with these constants.
struct Author<C>(PhantomData<fn() -> C>);

struct Good;

impl Constants for Good {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Event {
    Sent { amount: u64 },
    Received {},
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Code for Never {
    fn code(&self) -> &'static str {
        "never"
    }
}

impl<C: Constants> Service for Author<C> {
    const NAME: &'static str = C::NAME;
    const DOCUMENT_VERSION: u32 = 1;
    const EVENTS: &'static [(&'static str, u32)] = C::EVENTS;
    type Command = Event;
    type Event = Event;
    type Document = ();
    type Rejection = Never;

    fn documents(_: &Event) -> Vec<DocumentId> {
        vec![]
    }
    fn init(_: &DocumentId) {}
    fn decide(
        _: &Documents<'_, ()>,
        _: &Event,
        _: &Context,
    ) -> Result<Vec<(DocumentId, Event)>, Never> {
        Err(Never)
    }
    fn evolve((): &mut (), _: &Event) {}
}

/// A row that panics when it is read with a negative sum.
#[derive(Serialize)]
struct Sum(i64);

impl<'de> Deserialize<'de> for Sum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sum = i64::deserialize(deserializer)?;
        assert!(sum >= 0, "below zero");
        Ok(Self(sum))
    }
}

impl<C: Constants> View for Author<C> {
    const NAME: &'static str = C::NAME;
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = C::SERVICES;
    const EVENTS: &'static [(&'static str, u32)] = C::EVENTS;
    type Event = Event;
    type Row = Sum;

    fn rows(entry: &Recorded<Event>) -> Vec<RowKey> {
        // Repeated, and in no order.
        entry.events().iter().rev().flat_map(|(id, _)| [id.into(), valid("all"), id.into()]).collect()
    }
    fn apply(row: Option<Sum>, _: &RowKey, entry: &Recorded<Event>) -> Option<Sum> {
        Some(Sum(row.map_or(0, |sum| sum.0) + entry.events().len() as i64))
    }
}

impl<C: Constants> Reactor for Author<C> {
    const NAME: &'static str = C::NAME;
    const SERVICES: &'static [&'static str] = C::SERVICES;
    const EVENTS: &'static [(&'static str, u32)] = C::EVENTS;
    type Event = Event;

    /// As many commands as the entry sent, each with as many bytes of data as the entry's seq.
    fn react(entry: &Recorded<Event>) -> Vec<OutgoingCommand> {
        let [(_, Event::Sent { amount }), ..] = entry.events() else { return vec![] };
        let command = OutgoingCommand {
            service: valid("ledger"),
            partition: valid("org:bank"),
            command: valid("deposit"),
            data: raw(format!("{{}}{}", " ".repeat(entry.seq.0 as usize)).trim_end()),
        };
        vec![command; *amount as usize]
    }
}
