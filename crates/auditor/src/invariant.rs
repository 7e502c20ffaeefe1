//! The invariants that an audit checks. The table is the auditor's own, since it links no crate of
//! Fanfold; a test compares it with the design.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::Verdict;
use crate::receipts::Model;

/// An invariant of Fanfold that can be checked over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum Invariant {
    F1,
    F3,
    F4,
    F5,
    F6,
    F8,
    /// It has no number: it follows from the design's definition of an entry's time.
    Time,
    /// It has no number: the author of a workload says what to expect.
    Outcome,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::F1, Self::F3, Self::F4, Self::F5, Self::F6, Self::F8, Self::Time, Self::Outcome];

    /// `F1` … `F8`, `time` or `outcome`: what reports call it.
    pub fn id(self) -> &'static str {
        match self {
            Self::F1 => "F1",
            Self::F3 => "F3",
            Self::F4 => "F4",
            Self::F5 => "F5",
            Self::F6 => "F6",
            Self::F8 => "F8",
            Self::Time => "time",
            Self::Outcome => "outcome",
        }
    }

    /// What it says, in the words of the design.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::F1 => "The seqs accepted for a log are 1, 2, 3 … without holes.",
            Self::F3 => {
                "The commits of a log form one unbroken chain from 1. An entry's seq is its \
                 command's seq."
            }
            Self::F4 => {
                "An id of an origin is used in a log at most once, however often and at whichever \
                 hop it is repeated."
            }
            Self::F5 => {
                "A stage acknowledges a batch of the command stream only when every commit that it \
                 caused is published, or is parked because the topic refuses it."
            }
            Self::F6 => {
                "A row equals the fold of all entries up to its seq. A cursor never passes an \
                 entry whose rows are not written. No reader goes backwards."
            }
            Self::F8 => {
                "An acknowledged command becomes an entry. If it cannot, it is parked and \
                 reported, never dropped."
            }
            Self::Time => "No entry of a log is earlier than the entry before it.",
            Self::Outcome => "A command is accepted or rejected as the workload expects.",
        }
    }
}

impl Invariant {
    /// What an audit checks of it; `None`: nothing. A publication that is missing shows in a view,
    /// and the receipts say whether there are expectations.
    pub fn checked(self, verdict: &Verdict) -> Option<&'static str> {
        match (self, verdict.model) {
            (Self::F5, _) if !verdict.has_views => None,
            (Self::F6, Model::None) => Some("No reader goes backwards."),
            (Self::Outcome, _) if !verdict.expects => None,
            _ => Some(self.sentence()),
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

impl Serialize for Invariant {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_read_counts_as_checked() {
        let checked = |verdict: &Verdict| -> Vec<Invariant> {
            Invariant::ALL.into_iter().filter(|one| one.checked(verdict).is_some()).collect()
        };
        let all = Verdict { has_views: true, expects: true, ..Verdict::default() };
        assert_eq!(checked(&all), Invariant::ALL);
        let no_views = checked(&Verdict { has_views: false, ..all.clone() });
        assert!(!no_views.contains(&Invariant::F5) && no_views.len() == Invariant::ALL.len() - 1);
        let no_expectations = checked(&Verdict { expects: false, ..all });
        assert!(!no_expectations.contains(&Invariant::Outcome));
    }
}
