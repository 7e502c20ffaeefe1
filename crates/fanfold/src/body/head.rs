//! The head of a log: the marker of its snapshot.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DecodeError, envelope};
use crate::names::Origin;
use crate::position::{Seq, Time};
use crate::window::Window;

const FORMAT: u8 = 1;

/// For every kind that the log has had, the seq of its last entry.
pub type Prev = BTreeMap<String, Seq>;

/// What the head says beside its seq.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The time of the entry at the head.
    #[serde(rename = "t")]
    pub time: Time,
    /// As of the head.
    #[serde(rename = "p")]
    pub prev: Prev,
    /// All windows, while they are small; `None` once they have items of their own.
    #[serde(rename = "w")]
    pub windows: Option<BTreeMap<Origin, Window>>,
}

impl Head {
    /// The bytes to store.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        Ok(envelope::seal(FORMAT, &serde_json::to_vec(self)?))
    }

    /// Reads what [`Head::encode`] wrote.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        Ok(serde_json::from_slice(&envelope::open(FORMAT, body)?)?)
    }
}

/// The bytes to store for a window that has an item of its own.
pub fn encode_window(window: &Window) -> Result<Vec<u8>, serde_json::Error> {
    Ok(envelope::seal(FORMAT, &serde_json::to_vec(window)?))
}

/// Reads what [`encode_window`] wrote.
pub fn decode_window(body: &[u8]) -> Result<Window, DecodeError> {
    Ok(serde_json::from_slice(&envelope::open(FORMAT, body)?)?)
}

/// The bytes to store for a document's JSON.
pub fn encode_document(json: &[u8]) -> Vec<u8> {
    envelope::seal(FORMAT, json)
}

/// A document's JSON.
pub fn decode_document(body: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>, DecodeError> {
    envelope::open(FORMAT, body)
}
