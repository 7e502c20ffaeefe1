//! The outcome of one command in its log.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::host::digest::Digest;
use crate::host::position::{CommandId, Seq};
use crate::names::{DocumentId, Name, Origin};
use crate::time::Time;
use crate::trace::TraceParent;

/// One entry of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its position.
    pub seq: Seq,
    /// max(previous entry's time, min(accept time, time of the decision)).
    pub time: Time,
    /// The command's origin; [`Origin::nobody`] for lost entries.
    pub origin: Origin,
    /// The command's id; none for lost entries.
    pub id: CommandId,
    /// The command's name; `None` for lost entries.
    pub command: Option<Name>,
    /// The digest of the command's data, if the entry uses up the command's id. Entries of a notification have none.
    pub digest: Option<Digest>,
    /// The trace of the command's request, if that is recorded.
    pub trace: Option<TraceParent>,
    /// The outcome.
    pub outcome: Outcome,
}

/// The outcome of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The service accepted it, with these events (perhaps none).
    Accepted(Vec<Event>),
    /// The service refused it.
    Rejected {
        /// Stable and machine-readable.
        code: String,
        /// For people.
        message: String,
        /// The seq of the first command with this id, if the command was refused because it is another one.
        of: Option<Seq>,
    },
    /// A repeat of the command at `of`.
    Duplicate {
        /// The seq of the first entry of this (origin, id).
        of: Seq,
    },
    /// The id is below the window, so it is unknown whether it was used before.
    Stale,
    /// The service could not decide: it panicked, or broke its contract.
    Faulted {
        /// The panic, or the breach of the contract.
        message: String,
        /// The command's data, so that it can be sent again.
        data: Raw,
        /// The client's own time, for the same reason.
        timestamp: Option<u64>,
    },
    /// An operator gave the command up.
    Lost {
        /// The operator's reason.
        reason: String,
    },
}

/// An event of a service, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its type, as `deposited`.
    #[serde(rename = "k")]
    pub kind: Name,
    /// The version of its type.
    #[serde(rename = "v")]
    pub version: u32,
    /// The document that it changes.
    #[serde(rename = "d")]
    pub document: DocumentId,
    /// Its content; `{}` if it has none.
    #[serde(rename = "x", default = "Raw::empty")]
    pub data: Raw,
}

/// JSON text that is carried as it was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Raw(pub Box<RawValue>);

impl Raw {
    /// `{}`.
    pub fn empty() -> Self {
        Self(RawValue::from_string("{}".to_owned()).expect("it is JSON"))
    }

    /// The text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// Writes a value. Panics if it cannot be written as JSON.
    pub fn of(value: &(impl Serialize + ?Sized)) -> Self {
        match to_raw_value(value) {
            Ok(raw) => Self(raw),
            Err(error) => panic!("a value cannot be written as JSON: {error}"),
        }
    }

    /// Reads the text. A [`Value`](serde_json::Value) holds numbers of 64 bits only, so longer ones lose digits there.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.get())
    }

    /// Changes the fields of an object. All others stay as they are written, with all digits. Panics if the text is not
    /// an object.
    #[must_use]
    pub fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Self>)) -> Self {
        match self.read() {
            Ok(mut fields) => {
                change(&mut fields);
                Self::of(&fields)
            }
            Err(error) => panic!("it is not an object: {error}"),
        }
    }
}

impl PartialEq for Raw {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl From<&RawValue> for Raw {
    fn from(raw: &RawValue) -> Self {
        Self(raw.to_owned())
    }
}

impl Outcome {
    /// A refusal with this code and message.
    pub fn rejected(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Rejected { code: code.into(), message: message.into(), of: None }
    }

    /// Whether this entry uses up the command's id, as every entry does unless the id was used before.
    pub fn uses_id(&self) -> bool {
        match self {
            Self::Accepted(_) | Self::Faulted { .. } => true,
            Self::Rejected { of, .. } => of.is_none(),
            Self::Duplicate { .. } | Self::Stale | Self::Lost { .. } => false,
        }
    }

    /// As in `"status":"accepted"`.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Rejected { .. } => "rejected",
            Self::Duplicate { .. } => "duplicate",
            Self::Stale => "stale",
            Self::Faulted { .. } => "faulted",
            Self::Lost { .. } => "lost",
        }
    }
}

/// The kinds of entries that every service has, beside its own events.
pub mod kinds {
    /// The word before the dot, where other kinds have their service. No service can have this name.
    pub const NAMESPACE: &str = "fanfold";
    /// A rejected entry.
    pub const REJECTED: &str = "fanfold.rejected";
    /// A faulted entry.
    pub const FAULTED: &str = "fanfold.faulted";
    /// A lost entry.
    pub const LOST: &str = "fanfold.lost";
}
