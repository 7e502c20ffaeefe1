//! The invariants of the contract: one list for the checks in production, the simulator and the documents. A test
//! compares it with the table of `docs/design.md#invariants`.

use std::fmt;

/// An invariant of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Dense.
    F1,
    /// Go-back-n.
    F2,
    /// Chain.
    F3,
    /// Once.
    F4,
    /// Published.
    F5,
    /// Fold.
    F6,
    /// Isolation.
    F7,
    /// Nothing lost.
    F8,
    /// Deterministic.
    F9,
    /// The promise of a snapshot's head.
    Head,
}

impl Invariant {
    /// All of them, in the order of the documents.
    pub const ALL: [Self; 10] = [
        Self::F1,
        Self::F2,
        Self::F3,
        Self::F4,
        Self::F5,
        Self::F6,
        Self::F7,
        Self::F8,
        Self::F9,
        Self::Head,
    ];

    /// How documents, logs and reports cite it: `F3`.
    pub fn id(self) -> &'static str {
        match self {
            Self::F1 => "F1",
            Self::F2 => "F2",
            Self::F3 => "F3",
            Self::F4 => "F4",
            Self::F5 => "F5",
            Self::F6 => "F6",
            Self::F7 => "F7",
            Self::F8 => "F8",
            Self::F9 => "F9",
            Self::Head => "Head",
        }
    }

    /// The statement that always holds.
    pub fn text(self) -> &'static str {
        match self {
            Self::F1 => "The seqs accepted for a log are 1, 2, 3 … without holes.",
            Self::F2 => {
                "The relay has at most one unacknowledged record per log; after a failure it sends again from the \
                 first unacknowledged command. The stream may hold duplicates and small reorderings, never a loss."
            }
            Self::F3 => {
                "The commits of a log form one unbroken chain from 1. An entry's seq is its command's seq."
            }
            Self::F4 => {
                "An id of an origin is used in a log at most once, however often and at whichever hop it is repeated."
            }
            Self::F5 => {
                "A stage acknowledges a batch of the command stream only when every commit that it caused is \
                 published, or is parked because the topic refuses it."
            }
            Self::F6 => {
                "A row equals the fold of all entries up to its seq. A cursor never passes an entry whose rows are \
                 not written. No reader goes backwards."
            }
            Self::F7 => {
                "A command, event or tenant that cannot be processed stops no other log. One that ends its process \
                 delays its lane by minutes, once."
            }
            Self::F8 => {
                "An acknowledged command becomes an entry. If it cannot, it is parked and reported, never dropped."
            }
            Self::F9 => {
                "Folding a log again gives the same documents and rows, on every provider and in every build of the \
                 same version."
            }
            Self::Head => {
                "Every entry up to a snapshot's head is in the journal, is folded into the stored documents and \
                 windows, and is published or parked."
            }
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// An invariant does not hold: stored data is wrong, or Fanfold is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invariant {invariant} does not hold: {what}")]
pub struct Breach {
    /// Which one.
    pub invariant: Invariant,
    /// What contradicts it.
    pub what: String,
}

/// Checks an invariant: `invariant!(F3, first == expected, "a commit from {first}")?`. Gives a [`Breach`] if the
/// condition does not hold.
#[macro_export]
macro_rules! invariant {
    ($invariant:ident, $holds:expr, $($what:tt)+) => {
        match $holds {
            true => Ok(()),
            false => Err($crate::host::invariant::Breach {
                invariant: $crate::host::invariant::Invariant::$invariant,
                what: format!($($what)+),
            }),
        }
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_breach_names_its_invariant() {
        let check = |first: u64| invariant!(F3, first == 1, "it begins at {first}");
        assert_eq!(check(1), Ok(()));
        let breach = check(2).expect_err("it is one").to_string();
        assert_eq!(breach, "invariant F3 does not hold: it begins at 2");
    }
}
