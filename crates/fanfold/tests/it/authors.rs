//! The rules for authors of services, views and reactors, and the errors of those that break them.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::panic::catch_unwind;
use std::sync::Arc;

use fanfold::entry::Outcome;
use fanfold::host::limits::COMMAND_BYTES_MAX;
use fanfold::reactor::{AnyReactor, REACTIONS_MAX};
use fanfold::view::{self, AnyView};
use fanfold::{
    App, AppBuilder, Code, Context, DocumentId, Documents, Entry, Example, LogId, OutgoingCommand,
    Reactor, Reactors, Recorded, RowKey, Seq, Service, Services, Time, View, Views,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use crate::samples::{entries_of_all_kinds, entry, event, id, raw, user, valid};

/// The constants that an author declares.
trait Constants: Send + Sync + 'static {
    const NAME: &'static str = "good";
    const EVENTS: &'static [(&'static str, u32)] = &[("sent", 1), ("received", 2)];
    const SERVICES: &'static [&'static str] = &["ledger"];
}

/// A service, a view and a reactor with these constants.
struct Author<C>(PhantomData<fn() -> C>);

struct Good;

impl Constants for Good {}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "command", content = "data", rename_all = "snake_case")]
enum Command {
    Send {},
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    type Command = Command;
    type Event = Event;
    type Document = ();
    type Rejection = Never;

    fn documents(Command::Send {}: &Command) -> Vec<DocumentId> {
        vec![]
    }
    fn init(_: &DocumentId) {}
    fn decide(
        _: &Documents<'_, ()>,
        _: &Command,
        _: &Context,
    ) -> Result<Vec<(DocumentId, Event)>, Never> {
        Err(Never)
    }
    fn evolve((): &mut (), _: &Event) {}
}

/// A row that panics when it is read with a negative sum.
#[derive(Serialize, JsonSchema)]
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
        // Repeated, and not sorted.
        entry
            .events()
            .iter()
            .rev()
            .flat_map(|(id, _)| [id.into(), valid("all"), id.into()])
            .collect()
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

    /// For one event `sent`: `amount` commands, or, from 1,000 on, one command with `amount` bytes
    /// of data.
    fn react(entry: &Recorded<Event>) -> Vec<OutgoingCommand> {
        let [(_, Event::Sent { amount })] = entry.events() else { return vec![] };
        let amount = *amount as usize;
        let (commands, bytes) = if amount < 1_000 { (amount, 8) } else { (1, amount) };
        let command = OutgoingCommand {
            service: valid("ledger"),
            partition: valid("org:bank"),
            command: valid("deposit"),
            data: raw(format!(r#"{{"x":"{}"}}"#, "x".repeat(bytes - 8))),
        };
        vec![command; commands]
    }
}

fn sums() -> Arc<dyn AnyView> {
    Arc::clone(Views::new().with::<Author<Good>>().get("good").expect("just added"))
}

fn replies() -> Arc<dyn AnyReactor> {
    Arc::clone(Reactors::new().with::<Author<Good>>().get("good").expect("just added"))
}

/// Each declares one constant that breaks a rule.
macro_rules! wrong {
    ($($author:ident: $constant:ident $type:ty = $value:expr;)*) => {
        $(
            struct $author;
            impl Constants for $author {
                const $constant: $type = $value;
            }
        )*
    };
}

type Events = &'static [(&'static str, u32)];

wrong! {
    NoName: NAME &'static str = "";
    BadName: NAME &'static str = "Good";
    LongName: NAME &'static str = "a23456789-123456789-123456789-123";
    Reserved: NAME &'static str = "fanfold";
    BadKind: EVENTS Events = &[("sent/away", 1)];
    TwoOfAKind: EVENTS Events = &[("sent", 1), ("sent", 2)];
    NoVersion: EVENTS Events = &[("sent", 0)];
    ManyKinds: EVENTS Events = &[("sent", 1); 65];
    BadService: SERVICES &'static [&'static str] = &["Ledger"];
    NoService: SERVICES &'static [&'static str] = &[];
    OfGood: SERVICES &'static [&'static str] = &["good"];
    OtherName: NAME &'static str = "other";
}

/// All events in their first versions.
struct First;

impl Constants for First {
    const EVENTS: &'static [(&'static str, u32)] = &[("sent", 1), ("received", 1)];
}

/// A view of events that have older versions.
struct Alone;

impl Constants for Alone {}

/// A service with an older version of an event of `good`.
struct Behind;

impl Constants for Behind {
    const NAME: &'static str = "behind";
    const EVENTS: &'static [(&'static str, u32)] = &[("received", 1)];
}

/// A view of both.
struct OfBoth;

impl Constants for OfBoth {
    const SERVICES: &'static [&'static str] = &["good", "behind"];
}

/// A view of `good` that reads one of its two event types.
struct OnlySent;

impl Constants for OnlySent {
    const SERVICES: &'static [&'static str] = &["good"];
    const EVENTS: &'static [(&'static str, u32)] = &[("sent", 1)];
}

struct OlderKinds;

impl Constants for OlderKinds {
    const SERVICES: &'static [&'static str] = &["good"];
    const EVENTS: &'static [(&'static str, u32)] = &[("received", 1)];
}

/// A view of `good` that reads event types which `good` does not have.
struct OtherKinds;

impl Constants for OtherKinds {
    const SERVICES: &'static [&'static str] = &["good"];
    const EVENTS: &'static [(&'static str, u32)] = &[("sent", 1), ("received", 3), ("lost", 1)];
}

/// The panic of a host that starts with these constants.
fn said<C: Constants>() -> [Option<String>; 3] {
    fn panic_of(register: fn()) -> Option<String> {
        catch_unwind(register).err().map(|payload| *payload.downcast().expect("a formatted text"))
    }
    [
        panic_of(|| drop(Services::new().with::<Author<C>>())),
        panic_of(|| drop(Views::new().with::<Author<C>>())),
        panic_of(|| drop(Reactors::new().with::<Author<C>>())),
    ]
}

#[test]
fn a_host_with_wrong_constants_panics_at_start() {
    let all = |message: &str| {
        ["service", "view", "reactor"].map(|what| Some(message.replace("{}", what)))
    };
    let names = "[a-z][a-z0-9-]*";
    let kinds = "printable characters without `/ ? # % \\`";
    assert_eq!(said::<Good>(), [None, None, None]);
    assert_eq!(said::<NoName>(), all("the name of the {} `` must not be empty"));
    let bad = format!("the name of the {{}} `Good` contains 'G' (U+0047), allowed are {names}");
    assert_eq!(said::<BadName>(), all(&bad));
    let long = "the name of the {} `a23456789-123456789-123456789-123` is 33 bytes long, \
                at most 32 are allowed";
    assert_eq!(said::<LongName>(), all(long));
    let bad = format!(
        "the event type `sent/away` of the {{}} `good` contains '/' (U+002F), allowed are {kinds}"
    );
    assert_eq!(said::<BadKind>(), all(&bad));
    assert_eq!(said::<TwoOfAKind>(), all("the {} `good` lists the event type `sent` twice"));
    assert_eq!(said::<NoVersion>(), all("the event type `sent` of the {} `good` has version 0"));
    let many = "the {} `good` lists 65 event types, at most 64 are allowed";
    assert_eq!(said::<ManyKinds>(), all(many));
    // A service's event `fanfold.rejected` would be the same kind as Fanfold's own.
    let reserved = "a service must not be called `fanfold`: the kinds of that name are not its own";
    assert_eq!(said::<Reserved>(), [Some(reserved.to_owned()), None, None]);
    let bad = format!(
        "reads the service `Ledger`, whose name contains 'L' (U+004C), allowed are {names}"
    );
    let [service, view, _] = said::<BadService>();
    assert_eq!((service, view), (None, Some(format!("the view `good` {bad}"))));
}

#[test]
fn a_second_service_view_or_reactor_of_a_name_panics() {
    let services = || Services::new().with::<Author<Good>>().with::<Author<Good>>();
    let views = || Views::new().with::<Author<Good>>().with::<Author<Good>>();
    let reactors = || Reactors::new().with::<Author<Good>>().with::<Author<Good>>();
    assert!(catch_unwind(services).is_err());
    assert!(catch_unwind(views).is_err());
    assert!(catch_unwind(reactors).is_err());
}

fn log() -> LogId {
    valid("ledger/org:acme")
}

fn sent(seq: u64, amount: u64) -> Entry {
    let data = json!({ "amount": amount });
    entry(seq, Outcome::Accepted(vec![event("sent", 1, "cash", &data)]))
}

#[test]
fn views_receive_no_repeats_and_no_unknown_events() {
    let view = sums();
    let seen = |entry: &Entry| view.read(&log(), entry).unwrap().is_some();
    let mut entries = entries_of_all_kinds(1);
    let unheard_of = event("closed", 1, "cash", &json!({}));
    entries.push(entry(8, Outcome::Accepted(vec![unheard_of])));
    let seen: Vec<bool> = entries.iter().map(seen).collect();
    //                accepted, empty, rejected, duplicate, stale, faulted, lost, not understood
    assert_eq!(seen, [true, false, true, false, false, true, true, false]);
    assert_eq!(
        view.kinds(),
        ["ledger.sent", "ledger.received", "fanfold.rejected", "fanfold.faulted", "fanfold.lost"]
    );
}

#[test]
fn only_accepted_entries_have_events() {
    let recorded = |outcome| Recorded {
        log: log(),
        seq: Seq(1),
        time: Time(2),
        origin: user("ann"),
        id: id(3),
        outcome,
    };
    let sent = vec![(valid("cash"), Event::Sent { amount: 1 })];
    assert_eq!(recorded(view::Outcome::Accepted(sent.clone())).events(), sent);
    let text = String::new;
    for outcome in [
        view::Outcome::Rejected { code: text(), message: text() },
        view::Outcome::Faulted { message: text() },
        view::Outcome::Lost { reason: text() },
        view::Outcome::Accepted(vec![]),
    ] {
        assert_eq!(recorded(outcome).events(), []);
    }
}

#[test]
fn an_event_that_cannot_be_read_is_a_fault_of_the_view() {
    for (kind, version, data, said) in [
        ("sent", 2, json!({"amount": 1}), "this build knows versions up to 1"),
        (
            "sent",
            1,
            json!({"amount": -1}),
            "`data.amount`: invalid value: integer `-1`, expected u64",
        ),
        ("sent", 1, json!(null), "`data`: invalid type: null, expected struct variant Event::Sent"),
        (
            "received",
            2,
            json!([0]),
            "`data`: invalid type: sequence, expected struct variant Event::Received",
        ),
    ] {
        let entry = entry(1, Outcome::Accepted(vec![event(kind, version, "cash", &data)]));
        let fault = sums().read(&log(), &entry).map(drop).unwrap_err();
        let said = format!("the event `{kind}` version {version} cannot be read: {said}");
        assert_eq!(fault.message(), said);
    }
}

#[test]
fn rows_are_listed_without_repetition_and_folded() {
    let view = sums();
    let entry = view.read(&log(), &sent(7, 1)).unwrap().expect("it is understood");
    assert_eq!(view.rows(&entry).unwrap(), ["all", "cash"].map(valid::<RowKey>));
    let key: RowKey = valid("all");
    let fold = |row: Option<&str>| {
        let folded = view.fold(&key, row.map(str::as_bytes), &[&entry, &entry]);
        folded.map(|row| String::from_utf8(row.expect("there is a row")).expect("JSON"))
    };
    assert_eq!(fold(None).unwrap(), "2");
    assert_eq!(fold(Some("40")).unwrap(), "42");
    for (row, said) in [
        ("-1", "`Row` panicked: below zero"),
        ("x", "the row `all` cannot be read: expected value at line 1 column 1"),
    ] {
        let parked = fold(Some(row)).unwrap_err();
        assert_eq!((parked.at, parked.fault.message()), (Seq(7), said));
    }
}

#[test]
fn reactors_answer_within_their_limits() {
    let react = |entry: &Entry| replies().react(&log(), entry);
    let most = REACTIONS_MAX as u64;
    let ids: Vec<u64> =
        react(&sent(100, most)).unwrap().iter().map(|(_, command)| command.id.get()).collect();
    assert_eq!(ids, (6_400..6_464).collect::<Vec<_>>());
    let (target, command) = react(&sent(1, 1)).unwrap().remove(0);
    assert_eq!(target.as_str(), "ledger/org:bank");
    assert_eq!(command.origin.as_str(), "reactor:good@ledger/org:acme");
    let most_bytes = COMMAND_BYTES_MAX as u64;
    assert_eq!(react(&sent(1, most_bytes)).unwrap().len(), 1);
    for (entry, said) in [
        (sent(1, most + 1), "`react` answers with 65 commands, at most 64 are allowed".to_owned()),
        (
            sent(1, most_bytes + 1),
            "the command `deposit` has 65537 bytes of data, at most 65536 are allowed".to_owned(),
        ),
        (sent(1 << 47, 1), "seq 140737488355328 is too high".to_owned()),
    ] {
        assert_eq!(react(&entry).unwrap_err().message(), said);
    }
}

/// The problems of an app, or none.
fn problems(builder: AppBuilder) -> Vec<String> {
    builder.build().err().map_or(vec![], |error| error.problems)
}

#[test]
fn an_app_reports_everything_that_is_wrong_at_once() {
    let good = || App::named("books").service::<Author<Good>>();
    assert_eq!(problems(good().view::<Author<OfGood>>()), [] as [&str; 0]);
    assert_eq!(problems(App::named("books")), ["it has neither a service nor a view"]);
    // The app of a team that has only a view does not know the services.
    assert_eq!(problems(App::named("books").view::<Author<First>>()), [] as [&str; 0]);
    let unknown = "the view `good` reads the service `ledger`, which the app does not have";
    assert_eq!(problems(good().view::<Author<Good>>()), [unknown]);
    for app in [good(), App::named("books")] {
        let problems = problems(app.view::<Author<NoService>>());
        assert_eq!(problems, ["the view `good` reads no service"]);
    }
    let kinds = [
        "the view `good` reads version 3 of the event type `received`, and its services have \
         version 2",
        "the view `good` reads the event type `lost`, which none of its services has",
    ];
    assert_eq!(problems(good().view::<Author<OtherKinds>>()), kinds);
    // Without the services, a view must upcast older events itself.
    let alone = "the view `good` must define `upcast` for older versions of the event type \
                 `received`, since the app does not have its services";
    assert_eq!(problems(App::named("books").view::<Author<Alone>>()), [alone]);
    // Neither can it leave the events of a service to it that has another version.
    let behind = "the view `good` must define `upcast` for the event type `received`, since the \
                  service `behind` has only version 1 of it";
    let app = good().service::<Author<Behind>>().view::<Author<OfBoth>>();
    assert_eq!(problems(app), [behind]);
    // A view of an older version would be parked at the first newer event.
    let older = "the view `good` reads version 1 of the event type `received`, and its services \
                 have version 2";
    assert_eq!(problems(good().view::<Author<OlderKinds>>()), [older]);

    let example =
        |command, view| good().view::<Author<OfGood>>().example(Example { command, view });
    let sent = r#"{"type":"good","command":"send","id":1,"user":"ann","data":{}}"#;
    assert_eq!(problems(example(sent, "good")), [] as [&str; 0]);
    assert_eq!(problems(example(sent, "bad")), ["the view `bad` of the example is not in the app"]);
    assert_eq!(
        problems(example(r#"{"type":"good"}"#, "good")),
        ["the command of the example is wrong: `command`: is required"]
    );
    let other = good().service::<Author<OtherName>>().view::<Author<OfGood>>();
    let sent_to_other = sent.replace("good", "other").leak();
    let other = other.example(Example { command: sent_to_other, view: "good" });
    assert_eq!(problems(other), ["the view `good` of the example does not read `other`"]);
    let filtered =
        good().view::<Author<OnlySent>>().example(Example { command: sent, view: "good" });
    let expected = "the view `good` of the example cannot be waited for: it is filtered";
    assert_eq!(problems(filtered), [expected]);

    let app = App::named("Books").service::<Author<NoVersion>>().service::<Author<Good>>();
    let app = app.service::<Author<OtherName>>().view::<Author<OtherKinds>>();
    let error = app.view::<Author<BadService>>().build().err().expect("much is wrong");
    assert_eq!(
        error.to_string(),
        "the app `Books` cannot be hosted: the name of the app `Books` contains 'B' (U+0042), \
         allowed are [a-z][a-z0-9-]*; the event type `sent` of the service `good` has version 0; \
         two services are called `good`; the view `good` reads the service `Ledger`, whose name \
         contains 'L' (U+004C), allowed are [a-z][a-z0-9-]*; two views are called `good`; the view \
         `good` reads the service `Ledger`, which the app does not have"
    );
}

/// A service whose commands are not an enum, and whose events lack one of `EVENTS`.
struct Shapeless<C>(PhantomData<fn() -> C>);

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema is of interest")]
struct NoEnum {
    amount: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum OneEvent {
    Sent,
}

/// Commands whose schema an author has written, badly.
#[derive(Deserialize)]
struct Panics;

impl JsonSchema for Panics {
    fn schema_name() -> Cow<'static, str> {
        "Panics".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        panic!("no schema")
    }
}

impl<C: DeserializeOwned + JsonSchema + Send + Sync + 'static> Service for Shapeless<C> {
    const NAME: &'static str = "shapeless";
    const DOCUMENT_VERSION: u32 = 1;
    const EVENTS: &'static [(&'static str, u32)] = &[("sent", 1), ("received", 1)];
    type Command = C;
    type Event = OneEvent;
    type Document = ();
    type Rejection = Never;

    fn documents(_: &C) -> Vec<DocumentId> {
        vec![]
    }
    fn init(_: &DocumentId) {}
    fn decide(
        _: &Documents<'_, ()>,
        _: &C,
        _: &Context,
    ) -> Result<Vec<(DocumentId, OneEvent)>, Never> {
        Err(Never)
    }
    fn evolve((): &mut (), _: &OneEvent) {}
}

#[test]
fn an_app_reports_what_its_description_would_lack() {
    let app = App::named("books");
    assert_eq!(
        problems(app.service::<Shapeless<NoEnum>>()),
        [
            "the commands of the service `shapeless` have no schema of an enum with `#[serde(tag = \
             \"command\", content = \"data\")]`: derive `JsonSchema` on one",
            "the event type `received` of the service `shapeless` is not a variant in the schema \
             of its events: derive `JsonSchema` on an enum with `#[serde(tag = \"type\", content = \
             \"data\")]` that has it",
        ]
    );
    let app = App::named("books");
    assert_eq!(
        problems(app.service::<Shapeless<Panics>>()),
        ["the schemas cannot be made: `JsonSchema` panicked: no schema"]
    );
}
