//! Each test breaks rules for authors, and checks that the kit reports them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use expect_test::expect;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::*;
use crate::names::{DocumentId, Name, Partition, RowKey, ServiceName};
use crate::reactor::OutgoingCommand;
use crate::service::{Code, Documents};
use crate::view::Recorded;

static CALLS: AtomicU32 = AtomicU32::new(0);

/// A service with a command for each way to break a rule.
struct Careless;

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "command", content = "data", rename_all = "snake_case")]
enum Do {
    Count {
        id: DocumentId,
    },
    Grow {
        id: DocumentId,
    },
    Refuse,
    Forget {
        id: DocumentId,
    },
    Lose {
        id: DocumentId,
    },
    Undeclared {
        id: DocumentId,
    },
    Panic,
    Moody {
        id: DocumentId,
    },
    /// Asks for so many documents, one after the other.
    Ask {
        n: u32,
    },
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Done {
    Counted {
        by: u32,
    },
    Forgotten,
    Grown,
    Lost {
        #[serde(rename(serialize = "kept"), default)]
        lost: u32,
    },
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Sum {
    sum: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    text: String,
    #[serde(default, skip_deserializing)]
    forgetful: u32,
}

#[derive(Debug, thiserror::Error)]
#[error("not today")]
struct NotToday;

impl Code for NotToday {
    fn code(&self) -> &'static str {
        "not_today"
    }
}

fn asked(n: u32) -> Vec<DocumentId> {
    (0..n).map(|n| DocumentId::new(format!("asked-{n}")).unwrap()).collect()
}

impl Service for Careless {
    const NAME: &'static str = "careless";
    const DOCUMENT_VERSION: u32 = 1;
    const EVENTS: &'static [(&'static str, u32)] =
        &[("counted", 2), ("forgotten", 1), ("grown", 1), ("lost", 1)];
    type Command = Do;
    type Event = Done;
    type Document = Sum;
    type Rejection = NotToday;

    fn documents(command: &Do) -> Vec<DocumentId> {
        match command {
            Do::Count { id }
            | Do::Grow { id }
            | Do::Forget { id }
            | Do::Lose { id }
            | Do::Moody { id } => {
                vec![id.clone()]
            }
            Do::Refuse | Do::Undeclared { .. } | Do::Panic | Do::Ask { .. } => vec![],
        }
    }

    fn more(command: &Do, docs: &Documents<'_, Sum>) -> Vec<DocumentId> {
        let Do::Ask { n } = command else { return vec![] };
        let mut asked = asked(*n);
        let there = asked.iter().take_while(|id| docs.get(id).is_some()).count();
        asked.truncate(there + 1);
        asked
    }

    fn init(_: &DocumentId) -> Sum {
        Sum::default()
    }

    fn decide(
        _: &Documents<'_, Sum>,
        command: &Do,
        _: &Context,
    ) -> Result<Vec<(DocumentId, Done)>, NotToday> {
        match command {
            Do::Count { id } | Do::Undeclared { id } => {
                Ok(vec![(id.clone(), Done::Counted { by: 1 })])
            }
            Do::Grow { id } => Ok(vec![(id.clone(), Done::Grown)]),
            Do::Refuse => Err(NotToday),
            Do::Forget { id } => Ok(vec![(id.clone(), Done::Forgotten)]),
            Do::Lose { id } => Ok(vec![(id.clone(), Done::Lost { lost: 7 })]),
            Do::Panic => panic!("out of paper"),
            Do::Ask { n } => {
                Ok(asked(*n).into_iter().map(|id| (id, Done::Counted { by: 1 })).collect())
            }
            Do::Moody { id } => {
                Ok(vec![(id.clone(), Done::Counted { by: CALLS.fetch_add(1, Relaxed) })])
            }
        }
    }

    fn evolve(doc: &mut Sum, event: &Done) {
        match event {
            Done::Counted { by } => doc.sum += by,
            Done::Forgotten => doc.forgetful = 1,
            Done::Grown => doc.text = "x".repeat(crate::host::limits::DOCUMENT_BYTES_MAX.get()),
            Done::Lost { .. } => {}
        }
    }

    fn upcast(_: &str, _: u32, data: Raw) -> Raw {
        data.change(|fields| {
            if let Some(n) = fields.remove("n") {
                fields.insert("by".to_owned(), n);
            }
        })
    }
}

/// A view whose fold depends on a field that the row does not store.
struct Forgetful;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Row {
    sum: u32,
    #[serde(skip)]
    unseen: u32,
}

impl View for Forgetful {
    const NAME: &'static str = "forgetful";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &["careless"];
    const EVENTS: &'static [(&'static str, u32)] = &[("counted", 2), ("forgotten", 1)];
    type Event = Done;
    type Row = Row;

    fn upcast(kind: &str, from: u32, data: &Raw) -> Option<Raw> {
        Some(Careless::upcast(kind, from, data.clone()))
    }

    fn rows(_: &Recorded<Done>) -> Vec<RowKey> {
        vec![RowKey::new("all").unwrap()]
    }

    fn apply(row: Option<Row>, _: &RowKey, entry: &Recorded<Done>) -> Option<Row> {
        let mut row = row.unwrap_or_default();
        match &entry.outcome {
            crate::view::Outcome::Accepted(events) => {
                for (_, event) in events {
                    match event {
                        Done::Counted { by } => row.sum += by + row.unseen,
                        Done::Forgotten => row.unseen += 1,
                        Done::Grown | Done::Lost { .. } => panic!("not listed"),
                    }
                }
                Some(row)
            }
            crate::view::Outcome::Rejected { .. } => None,
            crate::view::Outcome::Faulted { message } => panic!("{message}"),
            crate::view::Outcome::Lost { .. } => Some(row),
        }
    }
}

/// A reactor that answers a count with a count in another log, and a rejection with an invalid command.
struct Echo;

impl Reactor for Echo {
    const NAME: &'static str = "echo";
    const SERVICES: &'static [&'static str] = &["careless"];
    const EVENTS: &'static [(&'static str, u32)] = &[("counted", 2)];
    type Event = Done;

    fn react(entry: &Recorded<Done>) -> Vec<OutgoingCommand> {
        let data = match &entry.outcome {
            crate::view::Outcome::Accepted(_) => r#"{"id":"echo"}"#,
            crate::view::Outcome::Rejected { .. } => r#"{"idd":"echo"}"#,
            crate::view::Outcome::Faulted { message } => panic!("{message}"),
            crate::view::Outcome::Lost { .. } => return vec![],
        };
        vec![OutgoingCommand {
            service: ServiceName::new("careless").unwrap(),
            partition: Partition::user(&Name::new("bob").unwrap()),
            command: Name::new("count").unwrap(),
            data: RawValue::from_string(data.to_owned()).unwrap(),
        }]
    }
}

fn careless() -> ServiceKit<Careless> {
    service::<Careless>()
}

/// Runs code that must panic, and returns the message.
fn failure<T>(test: impl FnOnce() -> T) -> String {
    let Err(payload) = catch_unwind(AssertUnwindSafe(test)) else { panic!("it did not fail") };
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => (*payload.downcast::<&str>().expect("panics have a text")).to_owned(),
    }
}

#[test]
fn the_events_of_a_command_are_the_past_of_the_next() {
    let kit = careless()
        .given("a", Done::Counted { by: 2 })
        .given_stored("a", "counted", 1, json!({ "n": 3 }))
        .when("count", json!({ "id": "a" }))
        .then([("a", Done::Counted { by: 1 })])
        .then_document("a", json!({ "sum": 6, "forgetful": 0 }))
        .then_document("b", Value::Null)
        .at(Time(77))
        .by("bob")
        .when("refuse", json!({}))
        .then_rejected("not_today")
        .then_message("today");
    let last = &kit.entries()[3];
    assert_eq!((last.seq, last.time, last.origin.as_str()), (Seq(4), Time(77), "bob"));
    assert_eq!(kit.documents()["a"].sum, 6);
}

#[test]
fn invalid_commands_have_the_outcomes_of_production() {
    careless()
        .when("cuont", json!({}))
        .then_rejected("unknown_command")
        .when("count", json!({ "di": "a" }))
        .then_rejected("invalid_data")
        .then_message("missing field `id`")
        .when("grow", json!({ "id": "a" }))
        .then_rejected("too_large")
        .then_document("a", Value::Null)
        .when("panic", json!({}))
        .then_faulted("out of paper")
        .when("undeclared", json!({ "id": "a" }))
        .then_faulted("neither `documents` nor `more` named");
}

#[test]
fn a_command_asks_for_documents_in_rounds() {
    let counted = |n: u32| asked(n).into_iter().map(|id| (id, Done::Counted { by: 1 }));
    for n in 0..=4 {
        let expected: Vec<_> = counted(n).collect();
        let expected = expected.iter().map(|(id, _)| (id.as_str(), Done::Counted { by: 1 }));
        careless().when("ask", json!({ "n": n })).then(expected);
    }
    let too_often = "`more` asks for new documents more than 4 times";
    careless().when("ask", json!({ "n": 5 })).then_faulted(too_often);
}

#[test]
fn a_failure_shows_a_diff() {
    let message = failure(|| {
        careless().when("count", json!({ "id": "a" })).then([("a", Done::Counted { by: 2 })])
    });
    expect![[r#"
        the outcome of the command:
        --- expected
        +++ actual
        @@ -1,12 +1,12 @@
         {
           "events": [
             {
               "data": {
        -        "by": 2
        +        "by": 1
               },
               "document": "a",
               "type": "counted"
             }
           ],
           "status": "accepted"
         }
    "#]]
    .assert_eq(&message);
}

#[test]
fn lost_values_and_impure_decisions_are_reported() {
    let id = json!({ "id": "a" });
    let lost = failure(|| careless().when("lose", &id));
    assert!(lost.starts_with("an event, written and read back"), "{lost}");
    let forgotten = failure(|| careless().when("forget", &id));
    assert!(forgotten.starts_with("the document `a`, written and read back"), "{forgotten}");
    let moody = failure(|| careless().when("moody", &id));
    assert!(moody.starts_with("the same command, decided twice"), "{moody}");
}

#[test]
fn rows_are_folded_from_the_events_of_services() {
    let count = || [("a", Done::Counted { by: 2 })];
    let written = careless().when("count", json!({ "id": "a" }));
    view::<Forgetful>()
        .then_no_row("all")
        .given(written.entries())
        .given_events(count())
        .given_stored("a", "counted", 1, json!({ "n": 4 }))
        .given_stored("a", "unheard-of", 9, json!({}))
        .given_lost("a test")
        .then_row("all", json!({ "sum": 7 }))
        .given_rejected("not_today")
        .then_rows([])
        .given_events(count())
        .then_rows([("all", json!({ "sum": 2 }))])
        .given_faulted("out of paper")
        .then_parked("out of paper");
}

#[test]
fn a_row_that_depends_on_how_deliveries_are_split_is_reported() {
    let kit = view::<Forgetful>()
        .given_events([("a", json!({ "type": "forgotten" }))])
        .given_events([("a", json!({ "type": "counted", "data": { "by": 1 } }))]);
    let message = failure(|| kit.rows::<Value>());
    assert!(message.starts_with("the row `all`, folded one by one and at once"), "{message}");
}

#[test]
fn reactors_answer_the_last_entry() {
    let kit = reactor::<Echo>()
        .given_lost("a test")
        .then([])
        .given_events([("a", Done::Counted { by: 2 })])
        .then([("careless/user:bob", "count", json!({ "id": "echo" }))])
        .then_valid_for::<Careless>()
        .given_faulted("out of paper")
        .then_parked("out of paper")
        .given_rejected("not_today");
    let message = failure(|| kit.then_valid_for::<Careless>());
    assert!(message.contains("missing field `id`"), "{message}");
}
