//! Given, when, then: kits for the tests of services, views and reactors.
//!
//! The kits do as production does: commands and events pass through JSON, documents and rows are stored and loaded
//! again between any two steps. So they also find mistakes that otherwise only production would show: attributes of
//! serde that lose something, documents that a command neither declares nor asks for, decisions and folds that differ when they are
//! repeated (F6, F9).
//!
//! Every method panics, with a diff, when an expectation does not hold. Entries have the seqs 1, 2, 3 …
//! and, unless [`Kit::at`] says otherwise, the times 1,000, 2,000, 3,000 … ms.
//!
//! ```
//! use fanfold::{Code, Context, DocumentId, Documents, Service, testing};
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//! use serde_json::json;
//!
//! struct Doors;
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(tag = "command", content = "data", rename_all = "snake_case")]
//! enum Command { Open { door: DocumentId } }
//!
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! #[serde(tag = "type", content = "data", rename_all = "snake_case")]
//! enum Event { Opened { times: u32 } }
//!
//! #[derive(Debug, thiserror::Error)]
//! #[error("the door is worn out")]
//! struct WornOut;
//!
//! impl Code for WornOut {
//!     fn code(&self) -> &'static str { "worn_out" }
//! }
//!
//! impl Service for Doors {
//!     const NAME: &'static str = "doors";
//!     const DOCUMENT_VERSION: u32 = 1;
//!     const EVENTS: &'static [(&'static str, u32)] = &[("opened", 1)];
//!     type Command = Command;
//!     type Event = Event;
//!     type Document = u32;
//!     type Rejection = WornOut;
//!
//!     fn documents(Command::Open { door }: &Command) -> Vec<DocumentId> { vec![door.clone()] }
//!     fn init(_: &DocumentId) -> u32 { 0 }
//!     fn decide(
//!         doors: &Documents<'_, u32>,
//!         Command::Open { door }: &Command,
//!         _: &Context,
//!     ) -> Result<Vec<(DocumentId, Event)>, WornOut> {
//!         match doors[door] {
//!             2.. => Err(WornOut),
//!             times => Ok(vec![(door.clone(), Event::Opened { times: times + 1 })]),
//!         }
//!     }
//!     fn evolve(opened: &mut u32, Event::Opened { times }: &Event) { *opened = *times }
//! }
//!
//! testing::service::<Doors>()
//!     .given("front", Event::Opened { times: 1 })
//!     .when("open", json!({ "door": "front" }))
//!     .then([("front", Event::Opened { times: 2 })])
//!     .when("open", json!({ "door": "front" }))
//!     .then_rejected("worn_out")
//!     .when("open", json!({ "dor": "front" }))
//!     .then_rejected("invalid_data");
//! ```

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;
use similar::TextDiff;

use crate::entry::{Entry, Event, Outcome, Raw};
use crate::host::position::{CommandId, Seq};
use crate::names::{LogId, Origin};
use crate::reactor::{AnyReactor, Reactor, Reactors};
use crate::service::{Context, Service, Written, current_version};
use crate::services::Services;
use crate::time::Time;
use crate::view::{AnyView, View, Views};

mod exact;
mod service;
mod subscriber;
#[cfg(test)]
mod tests;

pub use service::UnderTest;

use exact::Exact;

/// The kit of a service: given events, when a command comes, then events follow, or a refusal.
pub type ServiceKit<S> = Kit<UnderTest<S>>;
/// The kit of a view: given entries, then there are rows.
pub type ViewKit = Kit<Arc<dyn AnyView>>;
/// The kit of a reactor: given entries, then commands answer the last one.
pub type ReactorKit = Kit<Arc<dyn AnyReactor>>;

/// Tests `S` on the log `<service>/org:acme`, as the user `ann`.
pub fn service<S: Service>() -> ServiceKit<S> {
    let services = Services::new().with::<S>();
    let service = services.get(S::NAME).expect("just added");
    Kit::new(UnderTest::new(Arc::clone(service)), S::NAME, S::EVENTS)
}

/// Tests `V` on the log `<its first service>/org:acme`.
pub fn view<V: View>() -> ViewKit {
    let views = Views::new().with::<V>();
    let view = views.get(V::NAME).expect("just added");
    Kit::new(Arc::clone(view), V::SERVICES.first().expect("a view reads a service"), V::EVENTS)
}

/// Tests `R` on the log `<its first service>/org:acme`.
pub fn reactor<R: Reactor>() -> ReactorKit {
    let reactors = Reactors::new().with::<R>();
    let reactor = reactors.get(R::NAME).expect("just added");
    Kit::new(Arc::clone(reactor), R::SERVICES.first().expect("it reads a service"), R::EVENTS)
}

/// The part that all kits share: a log, to which they append.
pub struct Kit<T> {
    subject: T,
    /// The event types that the subject understands.
    events: &'static [(&'static str, u32)],
    log: LogId,
    origin: Origin,
    time: Time,
    entries: Vec<Entry>,
}

impl<T> Kit<T> {
    fn new(subject: T, service: &str, events: &'static [(&'static str, u32)]) -> Self {
        let log = valid(&format!("{service}/org:acme"));
        let origin = Origin::user(&valid("ann")).expect("`ann` is not reserved");
        Self { subject, events, log, origin, time: Time(1_000), entries: Vec::new() }
    }

    /// Continues in another log, as `ledger/user:ann`.
    #[track_caller]
    #[must_use]
    pub fn in_log(mut self, log: &str) -> Self {
        self.log = valid(log);
        self
    }

    /// Continues as another user.
    #[track_caller]
    #[must_use]
    pub fn by(mut self, user: &str) -> Self {
        self.origin = must(user, Origin::user(&valid(user)));
        self
    }

    /// Continues as a client of a user.
    #[track_caller]
    #[must_use]
    pub fn by_client(mut self, user: &str, client: &str) -> Self {
        self.origin = must(user, Origin::client(&valid(user), &valid(client)));
        self
    }

    /// The time of the next entry. Each later entry is one second later.
    #[must_use]
    pub fn at(mut self, time: Time) -> Self {
        self.time = time;
        self
    }

    /// The log so far.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    #[track_caller]
    fn last(&self) -> &Entry {
        self.entries.last().expect("nothing has happened yet")
    }

    /// The context of the next command.
    fn context(&self) -> Context {
        let seq = self.entries.last().map_or(Seq(1), |last| last.seq.next());
        Context {
            log: self.log.clone(),
            seq,
            time: self.time,
            origin: self.origin.clone(),
            id: CommandId::new(seq.0).expect("a test is shorter than 2^53"),
            timestamp: None,
        }
    }

    fn push(&mut self, command: &str, outcome: Outcome) {
        let Context { seq, time, origin, id, .. } = self.context();
        let command = Some(valid(command));
        self.entries.push(Entry {
            seq,
            time,
            origin,
            id,
            command,
            digest: None,
            trace: None,
            outcome,
        });
        self.time = time.plus_ms(1_000);
    }
}

/// Panics with a diff unless both are the same.
#[track_caller]
fn same(what: &str, expected: &Raw, actual: &Raw) {
    let [expected, actual] = [expected, actual].map(|json| must("JSON", Exact::read(&json.0)));
    if expected != actual {
        let [expected, actual] = [expected, actual].map(|json| json.to_string());
        let diff = TextDiff::from_lines(&expected, &actual);
        panic!("{what}:\n{}", diff.unified_diff().context_radius(20).header("expected", "actual"));
    }
}

/// An outcome as the HTTP API shows it.
fn shown(outcome: &Outcome) -> Raw {
    let status = ("status", raw(outcome.status()));
    match outcome {
        Outcome::Accepted(events) => {
            let events: Vec<Raw> = events.iter().map(shown_event).collect();
            object([status, ("events", raw(events))])
        }
        Outcome::Rejected { code, message, .. } => {
            object([status, ("code", raw(code)), ("message", raw(message))])
        }
        Outcome::Faulted { message, .. } => object([status, ("message", raw(message))]),
        Outcome::Duplicate { .. } | Outcome::Stale | Outcome::Lost { .. } => object([status]),
    }
}

fn shown_event(event: &Event) -> Raw {
    object([
        ("document", raw(&event.document)),
        ("type", raw(&event.kind)),
        ("data", event.data.clone()),
    ])
}

fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Raw)>) -> Raw {
    raw(BTreeMap::from_iter(fields))
}

/// An event as its service writes it. A type that is not in `events` gets version 1, because the subject does not read
/// it anyway.
#[track_caller]
fn written(events: &[(&str, u32)], document: &str, event: impl Serialize) -> Event {
    let json = raw(event);
    let Written { kind, data } =
        must("an event is not {type, data}", serde_json::from_str(json.get()));
    let version = current_version(events, &kind).unwrap_or(1);
    stored(document, &kind, version, data)
}

#[track_caller]
fn stored(document: &str, kind: &str, version: u32, data: impl Serialize) -> Event {
    Event { kind: valid(kind), version, document: valid(document), data: raw(data) }
}

#[track_caller]
fn raw(json: impl Serialize) -> Raw {
    Raw::of(&json)
}

#[track_caller]
fn parsed(json: &[u8]) -> Raw {
    must("JSON", serde_json::from_slice(json))
}

#[track_caller]
fn valid<T: FromStr<Err: Display>>(text: &str) -> T {
    must(text, text.parse())
}

/// Like `expect`, but the panic shows the error as its `Display`.
#[track_caller]
fn must<T>(what: &str, result: Result<T, impl Display>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}
