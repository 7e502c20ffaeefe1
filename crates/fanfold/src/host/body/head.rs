//! The head of a log: the last item of its snapshot, with its seq.

use std::collections::BTreeMap;

use compact_str::{CompactString, format_compact};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{DecodeError, envelope};
use crate::host::position::Seq;
use crate::host::window::Window;
use crate::names::Origin;
use crate::time::Time;

const FORMAT: u8 = 1;

/// For every kind that the log has had, the seq of its last entry. Written as a JSON object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prev(
    /// Sorted by kind. A log has few kinds, and they are copied with every commit, so a map would
    /// cost more.
    Vec<(CompactString, Seq)>,
);

impl Prev {
    /// The seq of the last entry of a kind.
    pub fn get(&self, kind: &str) -> Option<&Seq> {
        self.find(kind).ok().map(|at| &self.0[at].1)
    }

    /// Sets the seq of the last entry of a kind.
    pub fn insert(&mut self, kind: impl AsRef<str>, seq: Seq) {
        let kind = kind.as_ref();
        match self.find(kind) {
            Ok(at) => self.0[at].1 = seq,
            Err(at) => self.0.insert(at, (kind.into(), seq)),
        }
    }

    /// As [`Prev::insert`], of the kind `<service>.<event>`.
    pub(crate) fn insert_event(&mut self, service: &str, event: &str, seq: Seq) {
        let is_it = |kind: &str| {
            kind.strip_suffix(event).and_then(|kind| kind.strip_suffix('.')) == Some(service)
        };
        match self.0.iter_mut().find(|(kind, _)| is_it(kind)) {
            Some((_, last)) => *last = seq,
            None => self.insert(format_compact!("{service}.{event}"), seq),
        }
    }

    /// All, by kind.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Seq)> {
        self.0.iter().map(|(kind, seq)| (kind.as_str(), *seq))
    }

    /// Whether the log has had no kind yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, kind: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_str().cmp(kind))
    }
}

impl<K: AsRef<str>> FromIterator<(K, Seq)> for Prev {
    fn from_iter<I: IntoIterator<Item = (K, Seq)>>(kinds: I) -> Self {
        let mut prev = Self::default();
        prev.extend(kinds);
        prev
    }
}

impl<K: AsRef<str>> Extend<(K, Seq)> for Prev {
    fn extend<I: IntoIterator<Item = (K, Seq)>>(&mut self, kinds: I) {
        kinds.into_iter().for_each(|(kind, seq)| self.insert(kind, seq));
    }
}

impl std::ops::Index<&str> for Prev {
    type Output = Seq;

    /// Panics if the log has had no entry of the kind.
    fn index(&self, kind: &str) -> &Seq {
        self.get(kind).expect("an entry of this kind")
    }
}

impl Serialize for Prev {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Prev {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let kinds = BTreeMap::<CompactString, Seq>::deserialize(deserializer)?;
        Ok(Self(kinds.into_iter().collect()))
    }
}

/// The content of a head, beside its seq.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The time of the entry at the head.
    #[serde(rename = "t")]
    pub time: Time,
    /// The last seq of every kind, as of the head.
    #[serde(rename = "p")]
    pub prev: Prev,
    /// All windows, while they are small. `None` once they have items of their own.
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
