//! A command on its way from the edge to its log.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::names::{Name, Origin};
use crate::position::CommandId;

/// What one caller asks of one service. Its position in the log is kept beside it, not in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Command {
    /// Who numbers `id`.
    #[serde(rename = "o")]
    pub origin: Origin,
    /// Unique per (log, origin).
    #[serde(rename = "i")]
    pub id: CommandId,
    /// What to do, as `deposit`.
    #[serde(rename = "c")]
    pub name: Name,
    /// The client's own time in milliseconds, if it gave one; carried, never trusted.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// What to do it with: JSON, kept as it was sent.
    #[serde(rename = "d")]
    pub data: Box<RawValue>,
}

impl Command {
    /// Tells commands apart: `<origin>#<id>`.
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
