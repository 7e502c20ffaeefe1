use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use bytes::Bytes;
use fanfold::Time;

use super::Unavailable;

/// Digits of the time in an id. Source: milliseconds have 13 digits until the year 2286, and one more keeps the order.
const DIGITS: usize = 14;

/// The id of an operator's action, and its place in the timeline: first its time, then random bits. Its text sorts as
/// the id does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId {
    /// When the action began.
    pub at: Time,
    /// Tells apart the actions of one millisecond.
    pub random: u64,
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$}-{:016x}", self.at.0, self.random)
    }
}

/// The text is no id of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no id of an action")]
pub struct NoActionId;

impl FromStr for ActionId {
    type Err = NoActionId;

    fn from_str(text: &str) -> Result<Self, NoActionId> {
        let (at, random) = text.split_once('-').ok_or(NoActionId)?;
        let (at, random) = match (at.parse(), u64::from_str_radix(random, 16)) {
            (Ok(at), Ok(random)) => (Time(at), random),
            _ => return Err(NoActionId),
        };
        // Only the text that `Display` writes, so that one id has one text.
        let id = Self { at, random };
        if id.to_string() == text { Ok(id) } else { Err(NoActionId) }
    }
}

/// A page of the timeline.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TimelinePage {
    /// Bodies of records by id, the highest id first.
    pub records: Vec<(ActionId, Bytes)>,
    /// Whether there are records below these.
    pub more: bool,
}

/// The records of what operators did. A provider keeps a bounded number, or those of a bounded time, and drops the
/// oldest.
#[async_trait]
pub trait OperatorTimeline: Send + Sync {
    /// Stores the record of an action that begins, unless there is a record of this id. `Ok` means that there is one.
    async fn begin(&self, id: ActionId, body: &Bytes) -> Result<(), Unavailable>;

    /// Replaces the record of an action, or stores it. A crash MAY bring back the record before.
    async fn end(&self, id: ActionId, body: &Bytes) -> Result<(), Unavailable>;

    /// The records with ids below `before`, or all: the `limit` with the highest ids, or fewer while `more` is set.
    async fn list(
        &self,
        before: Option<ActionId>,
        limit: usize,
    ) -> Result<TimelinePage, Unavailable>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_sort_as_ids_do() {
        let ids = [(0, 0), (0, 1), (9, u64::MAX), (10, 0), (1_790_000_000_000, 7)];
        let ids = ids.map(|(at, random)| ActionId { at: Time(at), random });
        let texts = ids.map(|id| id.to_string());
        assert!(texts.is_sorted(), "{texts:?}");
        for (id, text) in ids.iter().zip(&texts) {
            assert_eq!(text.parse(), Ok(*id));
        }
        assert_eq!(texts[4], "01790000000000-0000000000000007");
        for wrong in ["", "-", "1-2", "01790000000000", "01790000000000-000000000000000G", "x-y"] {
            assert_eq!(wrong.parse::<ActionId>(), Err(NoActionId), "{wrong}");
        }
    }
}
