//! The auditor: whether what a target says agrees with what it said before.

use serde::Serialize;

/// Breaches that are kept; the others are counted.
pub const BREACHES_MAX: usize = 10;

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// Logs that were read, of so many that the receipts name.
    pub logs: u64,
    /// Logs that the receipts name.
    pub logs_named: u64,
    /// Entries that were read and folded.
    pub entries: u64,
    /// Of them, by status: `accepted`, `rejected`, `duplicate`, …
    pub outcomes: std::collections::BTreeMap<String, u64>,
    /// Receipts that were looked up in their log.
    pub receipts: u64,
    /// Rows that were compared with the fold.
    pub rows: u64,
    /// What readers had seen during the run, entries and rows, and that was compared.
    pub seen: u64,
    /// Money in all accounts of these logs, in minor units, as a string of digits would be in a
    /// bank's books: it may be more than 64 bits hold.
    pub balance: i128,
    /// Whether it came to its end; if not, why.
    pub unfinished: Option<String>,
    /// How many breaches there are.
    pub breaches: u64,
    /// The first of them.
    pub examples: Vec<Breach>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// A counter-example.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Breach {
    /// `F1` … `F8`: which invariant is broken.
    pub invariant: &'static str,
    /// The log.
    pub log: String,
    /// Where in it.
    pub seq: Option<u64>,
    /// What was found, and what should be there.
    pub what: String,
}
