//! A command between the edge and its log.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::entry::Raw;
use crate::host::position::CommandId;
use crate::names::{Name, Origin};
use crate::trace::TraceParent;

/// A request to one service. Its position in the log is kept beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Command {
    /// The numberer of `id`: a user, a client of a user, or one of Fanfold's own origins.
    #[serde(rename = "o")]
    pub origin: Origin,
    /// Unique per (log, origin).
    #[serde(rename = "i")]
    pub id: CommandId,
    /// Its name, as `deposit`.
    #[serde(rename = "c")]
    pub name: Name,
    /// The client's own time in milliseconds, if it sent one. Nothing depends on it.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// Its data: JSON, kept as it was sent.
    #[serde(rename = "d")]
    pub data: Box<RawValue>,
    /// The trace of its request, if that is recorded. Two commands that differ in it alone are the same.
    #[serde(
        rename = "p",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "TraceParent::stored"
    )]
    pub trace: Option<TraceParent>,
}

impl Command {
    /// Stands for a command that an operator gives up and of which only the seq is known.
    pub fn unknown() -> Self {
        // No command of a client has this origin, so the id says nothing.
        let (origin, id) = (Origin::nobody(), CommandId::new(1).expect("it is an id"));
        let name = Name::new("unknown").expect("it is a name");
        Self { origin, id, name, timestamp: None, data: Raw::empty().0, trace: None }
    }

    /// `<origin>#<id>`, which tells commands apart.
    pub fn identity(&self) -> String {
        format!("{}#{}", self.origin, self.id)
    }

    /// Whether both are the same request, sent twice.
    pub fn is_repeat_of(&self, other: &Self) -> bool {
        self.origin == other.origin && self.id == other.id
    }
}

impl PartialEq for Command {
    fn eq(&self, other: &Self) -> bool {
        self.is_repeat_of(other)
            && self.name == other.name
            && self.timestamp == other.timestamp
            && self.data.get() == other.data.get()
    }
}
