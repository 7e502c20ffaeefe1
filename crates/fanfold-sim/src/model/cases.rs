//! The cases that runs must cover. A check proves nothing about a case that never occurs, so a test
//! requires each of them.

use std::collections::BTreeMap;

use fanfold::LogId;
use fanfold::entry::{Entry, Outcome};
use serde_json::Value;

use super::Model;
use super::decide::TOO_LARGE;

/// A case that a run can cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Case {
    /// An entry has several events of one document.
    SeveralEvents,
    /// A removed document is made again.
    MadeAgain,
    /// A command was accepted without events.
    NoEvents,
    /// An event is of a version before the newest.
    OlderVersion,
    /// A service refused a command after it read a document.
    Refused,
    /// A decision asked for more documents, and changed one of these.
    Followed,
    /// A repeated command was recognised.
    Duplicate,
    /// A client used an id for another command.
    IdReused,
    /// The window of the client had forgotten the id.
    Stale,
    /// `decide` panicked.
    Faulted,
    /// A document would have been too large.
    DocumentTooLarge,
    /// An entry would have been too large.
    EntryTooLarge,
    /// A row would have been too large, so its view parked.
    RowTooLarge,
    /// One command alone is larger than a slot should be.
    LargeSlot,
    /// A commit was closed because the next entry would not have fitted.
    FullCommit,
    /// A head has its windows in items of their own.
    WindowsOutside,
    /// A message has commits of several logs.
    MessageOfLogs,
    /// A message has a commit without its entries.
    MessageWithoutEntries,
    /// A read of the journal ended before the log did.
    PagedJournal,
    /// An operator gave a command up.
    GivenUp,
    /// An operator had one log of a view rebuilt.
    Rebuilt,
}

impl Case {
    /// Every case.
    pub const ALL: [Self; 21] = [
        Self::SeveralEvents,
        Self::MadeAgain,
        Self::NoEvents,
        Self::OlderVersion,
        Self::Refused,
        Self::Followed,
        Self::Duplicate,
        Self::IdReused,
        Self::Stale,
        Self::Faulted,
        Self::DocumentTooLarge,
        Self::EntryTooLarge,
        Self::RowTooLarge,
        Self::LargeSlot,
        Self::FullCommit,
        Self::WindowsOutside,
        Self::MessageOfLogs,
        Self::MessageWithoutEntries,
        Self::PagedJournal,
        Self::GivenUp,
        Self::Rebuilt,
    ];
}

/// How often each case came up.
pub type Cases = BTreeMap<Case, u64>;

impl Model {
    pub(crate) fn came_upon(&mut self, case: Case) {
        *self.cases.entry(case).or_default() += 1;
    }

    /// Whether the command `follow` changed another document than the one that it declares.
    fn has_followed(&self, log: &LogId, entry: &Entry) -> bool {
        let Outcome::Accepted(events) = &entry.outcome else { return false };
        let accepted = self.logs.get(log).map_or(&[][..], |model| &model.accepted);
        let command = accepted.get((entry.seq.0 as usize).saturating_sub(1));
        let Some((_, command)) = command.filter(|(_, c)| c.name.as_str() == "follow") else {
            return false;
        };
        let data: Value = serde_json::from_str(command.data.get()).unwrap_or_default();
        let declared = format!("n{}", data["note"]);
        events.iter().any(|event| event.document.as_str() != declared)
    }

    /// Counts the case that an entry shows.
    pub(super) fn count(&mut self, log: &LogId, entry: &Entry) {
        if self.has_followed(log, entry) {
            self.came_upon(Case::Followed);
        }
        match &entry.outcome {
            Outcome::Accepted(events) if events.is_empty() => self.came_upon(Case::NoEvents),
            Outcome::Accepted(events) => {
                let mut documents: Vec<_> = events.iter().map(|event| &event.document).collect();
                documents.sort_unstable();
                if documents.windows(2).any(|two| two[0] == two[1]) {
                    self.came_upon(Case::SeveralEvents);
                }
                let newest = self.versions(log).first().map_or(&[][..], |newest| newest.events());
                let is_older = events.iter().any(|event| {
                    newest.iter().any(|(kind, version)| {
                        *kind == event.kind.as_str() && event.version < *version
                    })
                });
                if is_older {
                    self.came_upon(Case::OlderVersion);
                }
            }
            Outcome::Duplicate { .. } => self.came_upon(Case::Duplicate),
            Outcome::Rejected { of: Some(_), .. } => self.came_upon(Case::IdReused),
            Outcome::Rejected { code, message, .. } if code == TOO_LARGE => {
                self.came_upon(match message.starts_with("the document") {
                    true => Case::DocumentTooLarge,
                    false => Case::EntryTooLarge,
                });
            }
            Outcome::Rejected { code, .. } if code == "refused" => self.came_upon(Case::Refused),
            Outcome::Stale => self.came_upon(Case::Stale),
            Outcome::Faulted { .. } => self.came_upon(Case::Faulted),
            Outcome::Rejected { .. } | Outcome::Lost { .. } => {}
        }
    }
}
