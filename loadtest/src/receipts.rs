//! What the target said while it was driven: a file of JSON, one object a line, which is all that
//! the auditor is given. Any client may write one.
//!
//! ```json
//! {"run":{"format":1,"users":"r7-"}}
//! {"receipt":{"log":"ledger/org:load-4","seq":17,"user":"r7-0","id":3,"command":{"deposit":{"account":"cash","amount":100}}}}
//! {"unanswered":{"log":"ledger/org:load-4","user":"r7-0","id":4,"command":{"open":{"account":"cash"}}}}
//! {"entry":{"log":"ledger/org:load-4","seq":17,"entry":{"log":"ledger/org:load-4","seq":17,"status":"accepted", …}}}
//! {"rows":{"view":"balances","log":"ledger/org:load-4","seq":17,"began_us":1000,"ended_us":2000,"rows":[{"key":"cash","seq":17,"row":{…}}]}}
//! ```

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Of the file.
pub const FORMAT: u32 = 1;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first line.
    Run(Run),
    /// A command got a 202.
    Receipt(Receipt),
    /// A command was sent, at least once, and never got a 202: it may have its entry, or not.
    Unanswered(Sent),
    /// An entry was read while the target was driven.
    Entry(SeenEntry),
    /// Rows were read while the target was driven.
    Rows(SeenRows),
}

/// Whose file it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`FORMAT`].
    pub format: u32,
    /// How the names of all users of this run begin, and of nobody else: whatever such a user has
    /// in a log, the file holds.
    pub users: String,
}

/// What a user asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// `ledger/org:…`.
    pub log: String,
    /// The user.
    pub user: String,
    /// Numbered by the user, per log.
    pub id: u64,
    /// What was asked.
    pub command: Command,
}

/// What a user asked for, and the place in the log that the target has promised for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// `ledger/org:…`.
    pub log: String,
    /// The place.
    pub seq: u64,
    /// The user.
    pub user: String,
    /// Numbered by the user, per log.
    pub id: u64,
    /// What was asked.
    pub command: Command,
}

/// A command of the ledger, without its memo. Amounts are in minor units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields say it")]
pub enum Command {
    Open { account: String },
    Deposit { account: String, amount: i64 },
    Withdraw { account: String, amount: i64 },
    Transfer { from: String, to: String, amount: i64 },
    Close { account: String },
}

/// An entry as it was read: it never changes.
#[derive(Debug, Serialize, Deserialize)]
pub struct SeenEntry {
    /// `ledger/org:…`.
    pub log: String,
    /// Its place.
    pub seq: u64,
    /// As `GET /logs/…/{seq}` showed it.
    pub entry: Box<RawValue>,
}

/// Rows as they were read. The cursor is read before the rows, so a row may be newer than it.
#[derive(Debug, Serialize, Deserialize)]
pub struct SeenRows {
    /// `balances`: all rows. `statement`: the last ten keys. `totals`: its one row.
    pub view: String,
    /// `ledger/org:…`.
    pub log: String,
    /// The cursor: how far the view said that it was.
    pub seq: u64,
    /// When the request was sent, in µs of a clock of the run.
    pub began_us: u64,
    /// When its answer had come, by the same clock.
    pub ended_us: u64,
    /// Each with its key and the entry that it was last touched by.
    pub rows: Vec<SeenRow>,
}

/// One of them.
#[derive(Debug, Serialize, Deserialize)]
pub struct SeenRow {
    /// Its key.
    pub key: String,
    /// The last entry that touched it.
    pub seq: u64,
    /// What it holds.
    pub row: Box<RawValue>,
}
