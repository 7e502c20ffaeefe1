//! The service of these tests: counters of an organisation. Its documents show whether an event was folded twice, not at
//! all, or by another version. Its commands can break each rule for authors.

use fanfold::entry::Raw;
use fanfold::{Code, Context, DocumentId, Documents, Service};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The highest value of a counter.
const FULL: u64 = 1_000;

/// A document with this text cannot be copied.
const UNCOPIED: &str = "uncopied";
/// A document with this text cannot be written.
const UNWRITTEN: &str = "unwritten";

/// `V`: the version of its documents.
pub(crate) struct Counters<const V: u32>;

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "command", content = "data", rename_all = "snake_case")]
pub(crate) enum Command {
    /// The event has a note of `note` bytes, which the document does not store.
    Add {
        counter: DocumentId,
        by: u64,
        #[serde(default)]
        note: usize,
    },
    Move {
        from: DocumentId,
        to: DocumentId,
        by: u64,
    },
    Touch {
        counter: DocumentId,
    },
    Nothing,
    /// Stores this text in the document.
    Carry {
        counter: DocumentId,
        text: String,
    },
    /// The document stores `bytes` letters, and the event only their number.
    Grow {
        counter: DocumentId,
        bytes: usize,
    },
    Refuse {
        message: String,
    },
    /// Touches the last counter of a chain: the text of each is the name of the next.
    Chase {
        counter: DocumentId,
    },
    Fail {
        counter: DocumentId,
        how: How,
    },
}

/// The ways to break a rule.
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    PanicInDocuments,
    PanicInDecide,
    PanicInEvolve,
    PanicWritingAnEvent,
    PanicReadingAnEvent,
    ReadUndeclared,
    ChangeUndeclared,
    UnlistedEvent,
    UnwritableEvent,
    UnreadableEvent,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub(crate) enum Event {
    Added {
        by: u64,
        total: u64,
        note: String,
    },
    Taken {
        by: u64,
        total: u64,
    },
    Touched,
    Carried {
        text: String,
    },
    Grown {
        bytes: usize,
    },
    Failed {
        #[serde(with = "pen")]
        #[schemars(with = "String")]
        how: How,
    },
    Unlisted,
}

/// An event that breaks a rule of serialisation.
mod pen {
    use serde::de::{Deserialize, Deserializer};
    use serde::ser::{Error, Serialize, Serializer};

    use super::How;

    pub(super) fn serialize<S: Serializer>(how: &How, serializer: S) -> Result<S::Ok, S::Error> {
        match how {
            How::PanicWritingAnEvent => panic!("no ink"),
            How::UnwritableEvent => Err(S::Error::custom("no paper")),
            How::UnreadableEvent => serializer.serialize_str("illegible"),
            how => how.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<How, D::Error> {
        match How::deserialize(deserializer)? {
            How::PanicReadingAnEvent => panic!("no glasses"),
            how => Ok(how),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Counter {
    version: u32,
    total: u64,
    touched: u64,
    #[serde(default, skip_serializing_if = "is_nothing_to_write")]
    text: String,
}

fn is_nothing_to_write(text: &String) -> bool {
    assert_ne!(text, UNWRITTEN);
    text.is_empty()
}

impl Clone for Counter {
    fn clone(&self) -> Self {
        assert_ne!(self.text, UNCOPIED);
        Self { text: self.text.clone(), ..*self }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Rejection {
    #[error("the counter is full")]
    Full,
    #[error("the counter has only {0}")]
    TooFew(u64),
    #[error("{0}")]
    Refused(String),
}

impl Code for Rejection {
    fn code(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::TooFew(_) => "too_few",
            Self::Refused(_) => "refused",
        }
    }
}

/// The counters behind this one, as far as they are loaded, and one more.
fn chain(counters: &Documents<'_, Counter>, first: &DocumentId) -> Vec<DocumentId> {
    let (mut at, mut behind) = (first.clone(), vec![]);
    while let Some(counter) = counters.get(&at)
        && let Ok(next) = DocumentId::new(counter.text.as_str())
    {
        assert_ne!(next.as_str(), "off", "the chain is off");
        behind.push(next.clone());
        at = next;
    }
    behind
}

impl<const V: u32> Service for Counters<V> {
    const NAME: &'static str = "counters";
    const DOCUMENT_VERSION: u32 = V;
    const EVENTS: &'static [(&'static str, u32)] =
        &[("added", 1), ("taken", 1), ("touched", 2), ("carried", 1), ("grown", 1), ("failed", 1)];
    type Command = Command;
    type Event = Event;
    type Document = Counter;
    type Rejection = Rejection;

    fn documents(command: &Command) -> Vec<DocumentId> {
        match command {
            Command::Fail { how: How::PanicInDocuments, .. } => panic!("no list"),
            Command::Fail { how: How::ReadUndeclared | How::ChangeUndeclared, .. }
            | Command::Nothing
            | Command::Refuse { .. } => vec![],
            Command::Move { from, to, .. } => vec![from.clone(), to.clone()],
            Command::Add { counter, .. }
            | Command::Touch { counter }
            | Command::Carry { counter, .. }
            | Command::Grow { counter, .. }
            | Command::Chase { counter }
            | Command::Fail { counter, .. } => vec![counter.clone()],
        }
    }

    fn more(command: &Command, counters: &Documents<'_, Counter>) -> Vec<DocumentId> {
        match command {
            Command::Chase { counter } => chain(counters, counter),
            _ => vec![],
        }
    }

    fn init(_: &DocumentId) -> Counter {
        Counter { version: V, total: 0, touched: 0, text: String::new() }
    }

    fn decide(
        counters: &Documents<'_, Counter>,
        command: &Command,
        _: &Context,
    ) -> Result<Vec<(DocumentId, Event)>, Rejection> {
        let added = |counter: &DocumentId, by: u64, note: usize| {
            let total = counters[counter].total + by;
            let event = Event::Added { by, total, note: "n".repeat(note) };
            if total > FULL { Err(Rejection::Full) } else { Ok((counter.clone(), event)) }
        };
        Ok(match command {
            Command::Add { counter, by, note } => vec![added(counter, *by, *note)?],
            Command::Move { from, to, .. } if from == to => vec![],
            Command::Move { from, to, by } => {
                let holds = counters[from].total;
                let total = holds.checked_sub(*by).ok_or(Rejection::TooFew(holds))?;
                vec![(from.clone(), Event::Taken { by: *by, total }), added(to, *by, 0)?]
            }
            Command::Touch { counter } => vec![(counter.clone(), Event::Touched)],
            Command::Chase { counter } => {
                let last = chain(counters, counter).pop().unwrap_or_else(|| counter.clone());
                vec![(last, Event::Touched)]
            }
            Command::Nothing => vec![],
            Command::Carry { counter, text } => {
                vec![(counter.clone(), Event::Carried { text: text.clone() })]
            }
            Command::Grow { counter, bytes } => {
                vec![(counter.clone(), Event::Grown { bytes: *bytes })]
            }
            Command::Refuse { message } => return Err(Rejection::Refused(message.clone())),
            Command::Fail { counter, how } => match how {
                How::PanicInDecide => panic!("no idea"),
                How::ReadUndeclared => vec![added(counter, 1, 0)?],
                How::ChangeUndeclared => vec![(counter.clone(), Event::Touched)],
                How::UnlistedEvent => vec![(counter.clone(), Event::Unlisted)],
                how => vec![
                    (counter.clone(), Event::Touched),
                    (counter.clone(), Event::Failed { how: *how }),
                ],
            },
        })
    }

    fn evolve(counter: &mut Counter, event: &Event) {
        assert_eq!(counter.version, V, "a document of another version");
        let after = match event {
            Event::Added { by, total, .. } => (counter.total + by, *total),
            Event::Taken { by, total } => (counter.total - by, *total),
            _ => (counter.total, counter.total),
        };
        assert_eq!(after.0, after.1, "an event is missing, or folded twice");
        counter.total = after.1;
        match event {
            Event::Touched => counter.touched += 1,
            Event::Carried { text } => counter.text.clone_from(text),
            Event::Grown { bytes } => counter.text = "t".repeat(*bytes),
            Event::Failed { .. } => panic!("no hands"),
            Event::Added { .. } | Event::Taken { .. } | Event::Unlisted => {}
        }
    }

    fn upcast(_: &str, _: u32, _: Raw) -> Raw {
        Raw::of(&())
    }
}
