//! The service of these tests: counters that detect a missing or repeated event, and that tests can
//! make fail. Two views read them.

use fanfold::view::Outcome;
use fanfold::{Code, Context, DocumentId, Documents, Recorded, RowKey, Service, View};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::crash::crash;

/// `DOCUMENT`: the version of its documents; `ADDED`: the version of its event `added`.
pub(crate) struct Tally<const DOCUMENT: u32 = 1, const ADDED: u32 = 1>;

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "command", content = "data", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Command {
    /// `pad`: bytes that enlarge the event.
    Add {
        counter: DocumentId,
        by: u64,
        #[serde(default)]
        pad: String,
    },
    /// Adds one to two counters.
    Share {
        one: DocumentId,
        other: DocumentId,
    },
    Reset {
        counter: DocumentId,
    },
    /// Makes the document `bytes` large.
    Grow {
        counter: DocumentId,
        bytes: usize,
    },
    /// Says a text. Some texts make a view panic.
    Say {
        counter: DocumentId,
        text: String,
    },
    Fail {
        counter: DocumentId,
        #[serde(deserialize_with = "how")]
        how: How,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    PanicInDecide,
    PanicInEvolve,
    Undeclared,
    LongEntry,
    DieInParse,
    DieInDocuments,
    DieInDecide,
    DieInEvolve,
}

fn how<'de, D: Deserializer<'de>>(deserializer: D) -> Result<How, D::Error> {
    let how = How::deserialize(deserializer)?;
    if how == How::DieInParse {
        crash();
    }
    Ok(how)
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub(crate) enum Event {
    Added {
        by: u64,
        total: u64,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pad: String,
    },
    Cleared,
    Grown {
        bytes: usize,
    },
    Said {
        text: String,
    },
    Broken,
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Counter {
    total: u64,
    pad: String,
}

#[derive(Debug, thiserror::Error)]
#[error("there is nothing to add")]
pub(crate) struct Nothing;

impl Code for Nothing {
    fn code(&self) -> &'static str {
        "nothing"
    }
}

impl<const DOCUMENT: u32, const ADDED: u32> Service for Tally<DOCUMENT, ADDED> {
    const NAME: &'static str = "tally";
    const DOCUMENT_VERSION: u32 = DOCUMENT;
    const EVENTS: &'static [(&'static str, u32)] =
        &[("added", ADDED), ("cleared", 1), ("grown", 1), ("said", 1), ("broken", 1)];
    type Command = Command;
    type Event = Event;
    type Document = Counter;
    type Rejection = Nothing;

    fn documents(command: &Command) -> Vec<DocumentId> {
        match command {
            Command::Share { one, other } => vec![one.clone(), other.clone()],
            Command::Fail { how: How::Undeclared, .. } => vec![],
            Command::Fail { counter, how: How::DieInDocuments } => {
                crash();
                vec![counter.clone()]
            }
            Command::Add { counter, .. }
            | Command::Reset { counter }
            | Command::Grow { counter, .. }
            | Command::Say { counter, .. }
            | Command::Fail { counter, .. } => vec![counter.clone()],
        }
    }

    fn init(_: &DocumentId) -> Counter {
        Counter::default()
    }

    fn decide(
        counters: &Documents<'_, Counter>,
        command: &Command,
        _: &Context,
    ) -> Result<Vec<(DocumentId, Event)>, Nothing> {
        let added = |counter: &DocumentId, by: u64, pad: &str| {
            let total = counters[counter].total + by;
            (counter.clone(), Event::Added { by, total, pad: pad.to_owned() })
        };
        Ok(match command {
            Command::Add { by: 0, .. } => return Err(Nothing),
            Command::Add { counter, by, pad } => vec![added(counter, *by, pad)],
            Command::Share { one, other } => vec![added(one, 1, ""), added(other, 1, "")],
            Command::Reset { counter } => vec![(counter.clone(), Event::Cleared)],
            Command::Grow { counter, bytes } => {
                vec![(counter.clone(), Event::Grown { bytes: *bytes })]
            }
            Command::Say { counter, text } => {
                vec![(counter.clone(), Event::Said { text: text.clone() })]
            }
            Command::Fail { counter, how } => match how {
                How::PanicInDecide => panic!("a test of decide"),
                How::PanicInEvolve => vec![(counter.clone(), Event::Broken)],
                How::Undeclared => vec![(counter.clone(), Event::Cleared)],
                How::DieInEvolve => {
                    vec![(counter.clone(), Event::Said { text: "die".to_owned() })]
                }
                How::DieInParse | How::DieInDocuments => vec![],
                How::DieInDecide => {
                    crash();
                    vec![]
                }
                How::LongEntry => {
                    vec![(counter.clone(), Event::Said { text: "!".repeat(400_000) })]
                }
            },
        })
    }

    fn evolve(counter: &mut Counter, event: &Event) {
        match event {
            Event::Added { by, total, .. } => {
                counter.total += by;
                assert_eq!(counter.total, *total, "an event is missing, or folded twice");
            }
            Event::Cleared => counter.total = 0,
            Event::Grown { bytes } => counter.pad = noise(*bytes),
            Event::Said { text } if text == "die" => crash(),
            Event::Said { .. } => {}
            Event::Broken => panic!("a test of evolve"),
        }
    }
}

/// Deterministic letters that hardly compress.
fn noise(bytes: usize) -> String {
    let mut state = 1u32;
    let letter = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // JSON escapes none of these 40 letters.
        char::from(b'0' + (state >> 16) as u8 % 40)
    };
    (0..bytes).map(letter).collect()
}

/// `sums`: a row per counter, removed when the counter is reset. Reads all events.
pub(crate) struct Sums;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Sum {
    pub(crate) total: u64,
    /// The texts said, and the growth of the counter.
    pub(crate) said: String,
}

impl View for Sums {
    const NAME: &'static str = "sums";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &["tally"];
    const EVENTS: &'static [(&'static str, u32)] = Tally::<1, 1>::EVENTS;
    type Event = Event;
    type Row = Sum;

    fn rows(entry: &Recorded<Event>) -> Vec<RowKey> {
        entry.events().iter().map(|(counter, _)| counter.into()).collect()
    }

    fn apply(row: Option<Sum>, key: &RowKey, entry: &Recorded<Event>) -> Option<Sum> {
        let of_row = entry.events().iter().filter(|(counter, _)| RowKey::from(counter) == *key);
        of_row.fold(row, |row, (_, event)| {
            let mut sum = row.unwrap_or_default();
            match event {
                Event::Added { by, .. } => sum.total += by,
                Event::Cleared => return None,
                Event::Grown { bytes } => sum.said.push_str(&"g".repeat(*bytes)),
                Event::Said { text } if text == "boo" => panic!("a test of views"),
                Event::Said { text } if text == "doom" => {
                    crash();
                    sum.said.push_str(text);
                }
                Event::Said { text } => sum.said.push_str(text),
                Event::Broken => {}
            }
            Some(sum)
        })
    }
}

/// `resets`: how often each counter was reset, and how many commands were rejected. A filtered
/// view: it reads few kinds.
pub(crate) struct Resets;

impl View for Resets {
    const NAME: &'static str = "resets";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &["tally"];
    const EVENTS: &'static [(&'static str, u32)] = &[("cleared", 1)];
    type Event = Event;
    type Row = u64;

    fn rows(entry: &Recorded<Event>) -> Vec<RowKey> {
        match &entry.outcome {
            Outcome::Accepted(events) => events.iter().map(|(counter, _)| counter.into()).collect(),
            _ => vec![RowKey::new("refused").expect("a key")],
        }
    }

    fn apply(row: Option<u64>, _: &RowKey, _: &Recorded<Event>) -> Option<u64> {
        Some(row.unwrap_or(0) + 1)
    }
}
