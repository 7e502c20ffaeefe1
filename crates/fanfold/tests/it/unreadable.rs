//! A document that could be stored but not read would stop its log at the next cold load.

use fanfold::{Code, Context, DocumentId, Documents, Service, testing};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A service that multiplies a number until it overflows.
struct Scale;

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "command", content = "data", rename_all = "snake_case")]
enum Command {
    By { thing: DocumentId, factor: f64 },
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Event {
    Scaled { factor: f64 },
}

#[derive(Clone, Serialize, Deserialize)]
struct Size(f64);

#[derive(Debug, thiserror::Error)]
enum Never {}

impl Code for Never {
    fn code(&self) -> &'static str {
        match *self {}
    }
}

impl Service for Scale {
    const NAME: &'static str = "scale";
    const DOCUMENT_VERSION: u32 = 1;
    const EVENTS: &'static [(&'static str, u32)] = &[("scaled", 1)];
    type Command = Command;
    type Event = Event;
    type Document = Size;
    type Rejection = Never;

    fn documents(Command::By { thing, .. }: &Command) -> Vec<DocumentId> {
        vec![thing.clone()]
    }

    fn init(_: &DocumentId) -> Size {
        Size(1.0)
    }

    fn decide(
        _: &Documents<'_, Size>,
        Command::By { thing, factor }: &Command,
        _: &Context,
    ) -> Result<Vec<(DocumentId, Event)>, Never> {
        Ok(vec![(thing.clone(), Event::Scaled { factor: *factor })])
    }

    fn evolve(size: &mut Size, Event::Scaled { factor }: &Event) {
        size.0 *= factor;
    }
}

#[test]
fn a_document_that_could_not_be_read_again_makes_a_fault() {
    let by = |factor: f64| json!({"thing": "house", "factor": factor});
    // JSON has no infinity. It is written as `null`, which is no number.
    testing::service::<Scale>()
        .when("by", by(1e200))
        .then_document("house", json!(1e200))
        .when("by", by(1e200))
        .then_faulted("a stored document cannot be read")
        .when("by", by(2.0))
        .then_document("house", json!(2e200));
}
