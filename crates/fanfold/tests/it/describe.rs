//! Descriptions of apps, and their comparison.

use std::collections::BTreeMap;

use fanfold::entry::Raw;
use fanfold::host::describe::Description;
use fanfold::{
    App, Code, Context, DocumentId, Documents, Recorded, Rfc3339, RowKey, Service, Services, Time,
    View,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A service that reads and writes the same types.
struct Rooms;

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only the schemas are of interest")]
#[serde(tag = "command", content = "data", rename_all = "kebab-case")]
enum Command {
    /// Adds a room.
    AddRoom {
        room: DocumentId,
        layout: Layout,
    },
    CloseAll,
    Full(Full),
    Map(BTreeMap<String, u8>),
    Maybe(Option<Full>),
    Partly(Partly),
    Text(String),
    Time(#[schemars(with = "Rfc3339")] Time),
    Unit(()),
    Wide(u32),
    Wing(Wing),
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only the schema is of interest")]
struct Full {
    note: String,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only the schema is of interest")]
struct Partly {
    note: Option<String>,
    #[serde(default)]
    full: Option<Full>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
enum Event {
    /// A room is there.
    Added(Layout),
    Closed,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Layout {
    #[serde(default)]
    seats: u8,
    wing: Option<Wing>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
enum Wing {
    East,
    West,
}

#[derive(Debug, thiserror::Error)]
#[error("no")]
struct No;

impl Code for No {
    fn code(&self) -> &'static str {
        "no"
    }
}

impl Service for Rooms {
    const NAME: &'static str = "rooms";
    const DOCUMENT_VERSION: u32 = 1;
    const EVENTS: &'static [(&'static str, u32)] = &[("added", 2), ("closed", 1)];
    type Command = Command;
    type Event = Event;
    type Document = u8;
    type Rejection = No;

    fn documents(_: &Command) -> Vec<DocumentId> {
        vec![]
    }

    fn init(_: &DocumentId) -> u8 {
        0
    }

    fn decide(
        _: &Documents<'_, u8>,
        _: &Command,
        _: &Context,
    ) -> Result<Vec<(DocumentId, Event)>, No> {
        Err(No)
    }

    fn evolve(_: &mut u8, _: &Event) {}
}

struct Plan;

impl View for Plan {
    const NAME: &'static str = "plan";
    const VERSION: u32 = 3;
    const SERVICES: &'static [&'static str] = &["rooms"];
    const EVENTS: &'static [(&'static str, u32)] = &[("added", 2)];
    type Event = Event;
    type Row = Layout;

    fn rows(_: &Recorded<Event>) -> Vec<RowKey> {
        vec![]
    }

    fn apply(_: Option<Layout>, _: &RowKey, _: &Recorded<Event>) -> Option<Layout> {
        None
    }
}

fn rooms() -> Description {
    App::named("rooms").service::<Rooms>().view::<Plan>().build().expect("it is right").describe()
}

/// Whether the value is valid by a schema of the description.
pub(crate) fn is_valid(of: &Description, schema: &Value, value: &Value) -> bool {
    let mut schema = match schema {
        Value::Bool(_) => json!({ "allOf": [schema] }),
        schema => schema.clone(),
    };
    schema["$defs"] = json!(of.definitions);
    jsonschema::validator_for(&schema).expect("it is a schema").is_valid(value)
}

#[test]
fn commands_events_and_rows_are_described() {
    let described = rooms();
    let service = &described.services["rooms"];
    let commands = [
        "add-room",
        "close-all",
        "full",
        "map",
        "maybe",
        "partly",
        "text",
        "time",
        "unit",
        "wide",
        "wing",
    ];
    assert_eq!(service.commands.keys().collect::<Vec<_>>(), commands);
    assert_eq!(service.commands["add-room"].description.as_deref(), Some("Adds a room."));
    assert_eq!(service.commands["close-all"].data, None);
    let versions: Vec<_> = service.events.iter().map(|(kind, e)| (&**kind, e.version)).collect();
    assert_eq!(versions, [("added", 2), ("closed", 1)]);
    assert_eq!(service.events["added"].description.as_deref(), Some("A room is there."));
    let plan = &described.views["plan"];
    assert_eq!((plan.version, plan.can_be_awaited), (3, false));
    assert_eq!(plan.services, ["rooms"]);
    assert_eq!(plan.events.iter().collect::<Vec<_>>(), [(&"added".to_owned(), &2)]);
    // What reads back is the same.
    let text = serde_json::to_string(&described).expect("it can be written");
    assert_eq!(serde_json::from_str::<Description>(&text).expect("it can be read"), described);
}

#[test]
fn what_is_read_and_what_is_written_have_schemas_of_their_own() {
    let described = rooms();
    let service = &described.services["rooms"];
    let command = service.commands["add-room"].data.as_ref().expect("it has data");
    let (event, row) = (&service.events["added"].data, &described.views["plan"].row);
    let stored = described.views["plan"].stored();
    // A field with a default may be left out of a command and of a stored row, and is in every event and new row.
    for (layout, in_command, in_event) in [
        (json!({}), true, false),
        (json!({ "seats": 1 }), true, false),
        (json!({ "seats": 1, "wing": "East" }), true, true),
        (json!({ "seats": 1, "wing": null }), true, true),
        (json!({ "seats": 1, "wing": "North" }), false, false),
        (json!({ "seats": 300, "wing": null }), false, false),
    ] {
        let data = json!({ "room": "r", "layout": layout });
        assert_eq!(is_valid(&described, command, &data), in_command, "{layout}");
        assert_eq!(is_valid(&described, event, &layout), in_event, "{layout}");
        assert_eq!(is_valid(&described, row, &layout), in_event, "{layout}");
        assert_eq!(is_valid(&described, stored, &layout), in_command, "{layout}");
    }
    assert!(!is_valid(&described, command, &json!({ "room": "a/b", "layout": {} })));
    let closed = &service.events["closed"].data;
    assert!(is_valid(&described, closed, &json!({})));
    assert!(!is_valid(&described, closed, &json!({ "x": 1 })));
    assert_eq!(
        described.definitions.keys().collect::<Vec<_>>(),
        ["Full", "Layout", "LayoutWritten", "Partly", "Wing"]
    );
    let of_event: Vec<_> = described.referred([event]).into_keys().collect();
    assert_eq!(of_event, ["LayoutWritten", "Wing"], "also through others");
}

#[test]
fn numbers_and_times_have_the_bounds_of_their_types() {
    let described = rooms();
    let is_valid = |command: &str, value: Value| {
        let data = described.services["rooms"].commands[command].data.as_ref();
        is_valid(&described, data.expect("it has data"), &value)
    };
    assert!(is_valid("wide", json!(u32::MAX)) && !is_valid("wide", json!(u64::from(u32::MAX) + 1)));
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", true),
        ("2026-02-28t23:59:59.123456789012-05:30", true),
        ("1969-12-31T23:59:59Z", false),
        ("2026-02-28T23:59Z", false),
        ("2026-02-28T23:59:59+24:00", false),
        ("20260228T235959Z", false),
    ] {
        assert_eq!(is_valid("time", json!(text)), expected, "{text}");
        assert_eq!(text.parse::<Time>().is_ok(), expected, "{text}");
    }
}

#[test]
fn a_command_takes_no_data_where_its_schema_says_so() {
    let (described, empty) = (rooms(), Raw::empty());
    let services = Services::new().with::<Rooms>();
    let service = services.get("rooms").expect("it is there");
    for (name, command) in &described.services["rooms"].commands {
        let said = command.data.as_ref().is_none_or(|data| described.takes_no_data(data));
        let name = name.parse().expect("it is a name");
        assert_eq!(service.parse(&name, &empty.0).is_ok(), said, "{name}");
        let expected = ["close-all", "map", "maybe", "partly", "unit"].contains(&name.as_str());
        assert_eq!(said, expected, "{name}");
    }
}

#[test]
fn the_ledger_is_described_and_differs_from_itself_in_nothing() {
    let ledger = ledger::app().expect("it is right").describe();
    let names: Vec<_> = ledger.services["ledger"].commands.keys().collect();
    assert_eq!(names, ["close", "deposit", "open", "transfer", "withdraw"]);
    assert!(ledger.views.values().all(|view| view.can_be_awaited));
    assert_eq!(ledger.compare(&ledger), []);
    assert_eq!(rooms().compare(&rooms()), []);
}
