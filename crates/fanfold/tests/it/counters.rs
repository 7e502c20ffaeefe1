//! The service of these tests: counters of an organisation. Its documents notice when they are
//! folded twice, not at all, or by another version; and it can be wrong in every way there is.

use fanfold::{Code, Context, DocumentId, Documents, Service};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What no counter goes above.
const FULL: u64 = 1_000;

/// `V`: the version of its documents.
pub(crate) struct Counters<const V: u32>;

#[derive(Deserialize)]
#[serde(tag = "command", content = "data", rename_all = "snake_case")]
pub(crate) enum Command {
    /// `note`: bytes that the event carries, and the document does not.
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
    /// Makes the document carry this text.
    Carry {
        counter: DocumentId,
        text: String,
    },
    /// As [`Command::Carry`], but of a short command: `bytes` times the letter a.
    Grow {
        counter: DocumentId,
        bytes: usize,
    },
    Refuse {
        message: String,
    },
    Fail {
        counter: DocumentId,
        how: How,
    },
}

/// What a service must not do.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    PanicInDocuments,
    PanicInDecide,
    PanicInEvolve,
    PanicWritingAnEvent,
    PanicReadingAnEvent,
    PanicCloningADocument,
    PanicWritingADocument,
    ReadUndeclared,
    ChangeUndeclared,
    UnlistedEvent,
    UnwritableEvent,
    UnreadableEvent,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub(crate) enum Event {
    Added { by: u64, total: u64, note: String },
    Taken { by: u64, total: u64 },
    Touched,
    Carried { text: String },
    Grown { bytes: usize },
    Failed(Failed),
    Unlisted,
}

pub(crate) struct Failed(How);

impl Serialize for Failed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            How::PanicWritingAnEvent => panic!("no ink"),
            How::UnwritableEvent => Err(S::Error::custom("no paper")),
            How::PanicInEvolve => serializer.serialize_str("panic_in_evolve"),
            How::PanicReadingAnEvent => serializer.serialize_str("panic_reading_an_event"),
            How::PanicCloningADocument => serializer.serialize_str("panic_cloning_a_document"),
            How::PanicWritingADocument => serializer.serialize_str("panic_writing_a_document"),
            _ => serializer.serialize_str("illegible"),
        }
    }
}

impl<'de> Deserialize<'de> for Failed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match How::deserialize(deserializer)? {
            How::PanicReadingAnEvent => panic!("no glasses"),
            how => Ok(Self(how)),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Counter {
    version: u32,
    total: u64,
    touched: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    text: String,
    #[serde(skip)]
    how: Option<Unwritable>,
}

#[derive(Debug, Clone)]
struct Unwritable;

impl Clone for Counter {
    fn clone(&self) -> Self {
        assert!(self.text != "do not clone", "no copies");
        let how = self.how.clone();
        Self { version: self.version, total: self.total, touched: self.touched, text: self.text.clone(), how }
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
