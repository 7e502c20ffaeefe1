//! Numbers that 64 bits cannot hold keep all their digits, and are compared digit by digit.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fanfold::entry::{Event, Outcome, Raw};
use fanfold::host::body::commit;
use fanfold::host::body::notification::{decode, pack};
use fanfold::{
    Code, Context, DocumentId, Documents, Recorded, RowKey, Seq, Service, View, testing,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::samples::{commit, commit_body, entry, raw, valid};

const NUMBERS: [&str; 7] = [
    "340282366920938463463374607431768211455",
    "340282366920938463463374607430768211455",
    "-170141183460469231731687303715884105728",
    "1e400",
    "-0.0",
    "0.100000000000000000000000000001",
    "12345678901234567890123456789.10",
];

/// A service whose event has two versions: the second renames one field of the first.
struct Measures;

#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "command", content = "data", rename_all = "snake_case")]
enum Command {
    Measure { atoms: u128 },
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Happened {
    Measured { atoms: u128 },
    Noted { text: Raw },
    Renamed { atoms: u128, by: String },
}

#[derive(Debug, thiserror::Error)]
enum Never {}

impl Code for Never {
    fn code(&self) -> &'static str {
        match *self {}
    }
}

impl Service for Measures {
    const NAME: &'static str = "measures";
    const DOCUMENT_VERSION: u32 = 1;
    const EVENTS: &'static [(&'static str, u32)] = &[("measured", 2), ("noted", 2), ("renamed", 2)];
    type Command = Command;
    type Event = Happened;
    type Document = Raw;
    type Rejection = Never;

    fn documents(_: &Command) -> Vec<DocumentId> {
        vec![valid("star")]
    }

    fn init(_: &DocumentId) -> Raw {
        Raw::of("nothing")
    }

    fn decide(
        _: &Documents<'_, Raw>,
        Command::Measure { atoms }: &Command,
        _: &Context,
    ) -> Result<Vec<(DocumentId, Happened)>, Never> {
        Ok(vec![(valid("star"), Happened::Measured { atoms: *atoms })])
    }

    fn evolve(doc: &mut Raw, event: &Happened) {
        *doc = match event {
            Happened::Measured { atoms } => Raw::of(atoms),
            Happened::Noted { text } => text.clone(),
            Happened::Renamed { atoms, by } => Raw::of(&(atoms, by)),
        };
    }

    fn upcast(kind: &str, _: u32, data: Raw) -> Raw {
        match kind {
            "renamed" => data.change(|fields| {
                if let Some(who) = fields.remove("who") {
                    fields.insert("by".to_owned(), who);
                }
            }),
            _ => data,
        }
    }
}

/// A view of the readings, with the default `upcast`.
struct Notes;

impl View for Notes {
    const NAME: &'static str = "notes";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &["measures"];
    const EVENTS: &'static [(&'static str, u32)] = &[("measured", 2), ("noted", 2)];
    type Event = Happened;
    type Row = Raw;

    fn rows(_: &Recorded<Happened>) -> Vec<RowKey> {
        vec![RowKey::new("last").expect("it is a key")]
    }

    fn apply(_: Option<Raw>, _: &RowKey, entry: &Recorded<Happened>) -> Option<Raw> {
        entry.events().last().map(|(_, event)| match event {
            Happened::Noted { text } => text.clone(),
            Happened::Measured { atoms } | Happened::Renamed { atoms, .. } => Raw::of(atoms),
        })
    }
}

fn noted(number: &str) -> Raw {
    Raw(raw(format!(r#"{{"text":{number}}}"#)))
}

#[test]
fn an_old_event_reaches_documents_and_rows_with_all_digits() {
    for number in NUMBERS {
        let text = Raw(raw(number));
        testing::service::<Measures>()
            .given_stored("star", "noted", 1, noted(number))
            .then_document("star", &text);
        let kit = testing::view::<Notes>().beside::<Measures>().given_stored(
            "star",
            "noted",
            1,
            noted(number),
        );
        assert_eq!(kit.rows::<Raw>()["last"].get(), number);
        kit.then_row("last", &text);
    }
    for atoms in [u128::MAX, u128::MAX - 1_000_000_000] {
        let old = Raw(raw(format!(r#"{{"atoms":{atoms}}}"#)));
        testing::service::<Measures>()
            .given_stored("star", "measured", 1, &old)
            .then_document("star", Raw::of(&atoms))
            .when("measure", &old)
            .then([("star", Happened::Measured { atoms })])
            .given_stored(
                "star",
                "renamed",
                1,
                old.change(|f| drop(f.insert("who".into(), Raw::of("ann")))),
            )
            .then_document("star", Raw::of(&(atoms, "ann")));
        testing::view::<Notes>()
            .beside::<Measures>()
            .given_stored("star", "measured", 1, &old)
            .then_row("last", Raw::of(&atoms));
    }
}

#[test]
fn an_event_is_stored_and_published_with_all_digits() {
    for number in NUMBERS {
        let event = Event {
            kind: valid("noted"),
            version: 1,
            document: valid("star"),
            data: noted(number),
        };
        let entries = vec![entry(1, Outcome::Accepted(vec![event]))];
        let (read, _) = commit::decode(Seq(1), &commit_body(&entries)).expect("a commit");
        assert_eq!(read, entries);
        let packed = pack([&commit("measures/org:acme", read, &[])]).expect("JSON");
        let received = decode(&packed[0].message.body).expect("a notification");
        let Outcome::Accepted(events) = &received[0].entries.as_deref().expect("inline")[0].outcome
        else {
            panic!("it was accepted")
        };
        assert_eq!(events[0].data.get(), noted(number).get());
    }
}

#[test]
fn the_kit_compares_numbers_beyond_64_bits() {
    let atoms = u128::MAX - 1_000_000_000;
    let measured = || testing::service::<Measures>().when("measure", Raw::of(&Atoms { atoms }));
    let fails = |test: &dyn Fn()| catch_unwind(AssertUnwindSafe(test)).is_err();
    measured().then([("star", Happened::Measured { atoms })]);
    assert!(fails(&|| drop(measured().then([("star", Happened::Measured { atoms: u128::MAX })]))));
    assert!(fails(&|| drop(measured().then_document("star", Raw::of(&u128::MAX)))));
    let row = || testing::view::<Notes>().beside::<Measures>().given(measured().entries());
    row().then_row("last", Raw::of(&atoms));
    assert!(fails(&|| drop(row().then_row("last", Raw::of(&u128::MAX)))));
    let zero = || {
        testing::view::<Notes>().beside::<Measures>().given_stored(
            "star",
            "noted",
            1,
            noted("-0.0"),
        )
    };
    assert!(fails(&|| drop(zero().then_row("last", json!(0.0)))));
}

#[derive(Serialize)]
struct Atoms {
    atoms: u128,
}
