//! A second, tiny service that can be made to fail, and its views, one of which can fail, too.

use std::convert::Infallible;

use fanfold::view::Outcome;
use fanfold::{Code, Context, DocumentId, Documents, Recorded, RowKey, Service, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Counts up.
pub(crate) struct Counter;

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "command", content = "data", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Command {
    Add { n: u32 },
    Explode { why: String },
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub(crate) enum Event {
    Added { n: u32 },
}

/// The service refuses nothing.
#[derive(Debug, thiserror::Error)]
#[error("never")]
pub(crate) struct Never(Infallible);

impl Code for Never {
    fn code(&self) -> &'static str {
        match self.0 {}
    }
}

const COUNT: &str = "count";

fn count() -> DocumentId {
    DocumentId::new(COUNT).expect("it is a name")
}

impl Service for Counter {
    const NAME: &'static str = "counter";
    const DOCUMENT_VERSION: u32 = 1;
    const EVENTS: &'static [(&'static str, u32)] = &[("added", 1)];
    type Command = Command;
    type Event = Event;
    type Document = u64;
    type Rejection = Never;

    fn documents(_: &Command) -> Vec<DocumentId> {
        vec![count()]
    }

    fn init(_: &DocumentId) -> u64 {
        0
    }

    fn decide(
        _: &Documents<'_, u64>,
        command: &Command,
        _: &Context,
    ) -> Result<Vec<(DocumentId, Event)>, Never> {
        match command {
            Command::Add { n } => Ok(vec![(count(), Event::Added { n: *n })]),
            Command::Explode { why } => panic!("{why}"),
        }
    }

    fn evolve(count: &mut u64, Event::Added { n }: &Event) {
        *count += u64::from(*n);
    }
}

/// One row, `count`: the sum.
pub(crate) struct Tally;

/// As [`Tally`], but panics on entries of the org `cursed`.
pub(crate) struct Fragile;

/// A filtered view: it reads none of the events.
pub(crate) struct Narrow;

fn sum(row: Option<u64>, entry: &Recorded<Event>) -> Option<u64> {
    let Outcome::Accepted(events) = &entry.outcome else { return row };
    let added: u64 = events.iter().map(|(_, Event::Added { n })| u64::from(*n)).sum();
    Some(row.unwrap_or(0) + added)
}

fn the_row() -> Vec<RowKey> {
    vec![(&count()).into()]
}

impl View for Tally {
    const NAME: &'static str = "tally";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &[Counter::NAME];
    const EVENTS: &'static [(&'static str, u32)] = Counter::EVENTS;
    type Event = Event;
    type Row = u64;

    fn rows(_: &Recorded<Event>) -> Vec<RowKey> {
        the_row()
    }

    fn apply(row: Option<u64>, _: &RowKey, entry: &Recorded<Event>) -> Option<u64> {
        sum(row, entry)
    }
}

impl View for Fragile {
    const NAME: &'static str = "fragile";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &[Counter::NAME];
    const EVENTS: &'static [(&'static str, u32)] = Counter::EVENTS;
    type Event = Event;
    type Row = u64;

    fn rows(_: &Recorded<Event>) -> Vec<RowKey> {
        the_row()
    }

    fn apply(row: Option<u64>, _: &RowKey, entry: &Recorded<Event>) -> Option<u64> {
        assert_ne!(entry.log.partition(), "org:cursed", "entries of this org make the view panic");
        sum(row, entry)
    }
}

impl View for Narrow {
    const NAME: &'static str = "narrow";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &[Counter::NAME];
    const EVENTS: &'static [(&'static str, u32)] = &[];
    type Event = Event;
    type Row = u64;

    fn rows(_: &Recorded<Event>) -> Vec<RowKey> {
        the_row()
    }

    fn apply(row: Option<u64>, _: &RowKey, _: &Recorded<Event>) -> Option<u64> {
        row
    }
}
