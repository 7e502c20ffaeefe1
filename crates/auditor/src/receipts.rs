//! What the target said while it was driven: a file of JSON, one object a line, which is all that
//! the auditor is given. Any client may write one.
//!
//! ```json
//! {"run":{"format":1,"users":"r7-"}}
//! {"receipt":{"log":"ledger/org:load-4","seq":17,"user":"r7-0","id":3,"command":{"deposit":{"account":"cash","amount":100}}}}
//! {"unanswered":{"log":"ledger/org:load-4","user":"r7-0","id":4,"command":{"open":{"account":"cash"}}}}
//! {"refused":{"log":"ledger/org:load-4","user":"r7-0","id":5,"command":{"open":{"account":"bank"}}}}
//! {"entry":{"log":"ledger/org:load-4","seq":17,"entry":{"log":"ledger/org:load-4","seq":17,"status":"accepted", …}}}
//! {"rows":{"view":"balances","log":"ledger/org:load-4","seq":17,"began_us":1000,"ended_us":2000,"rows":[{"key":"cash","seq":17,"row":{…}}]}}
//! {"end":{}}
//! ```
//!
//! A command of a user's client that numbers for itself has `"client":"…"` beside its `user`.
//! A command with a memo has `"memo":"<16 hex digits>"` beside its `command`: FNV-1a, 64 bits, of the
//! memo's bytes. A file without its `end` is that of a client which was stopped: it may have sent more
//! than it could write down.

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
    /// Every answer to a command was a status that refuses it: it has no entry.
    Refused(Sent),
    /// An entry was read while the target was driven.
    Entry(SeenEntry),
    /// Rows were read while the target was driven.
    Rows(SeenRows),
    /// The last line: the file holds whatever was sent.
    End(End),
}

/// Says nothing more than that it is there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct End {}

/// Whose file it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`FORMAT`].
    pub format: u32,
    /// How the names of all users of this run begin, and of nobody else: whatever such a user has
    /// in a log, the file holds, if it has an [`End`].
    pub users: String,
}

/// What a user asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// `ledger/org:…`.
    pub log: String,
    /// The user.
    pub user: String,
    /// The client of the user, if it numbers its commands for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Numbered by the user, or its client, per log.
    pub id: u64,
    /// What was asked.
    pub command: Command,
    /// Of the memo; `None`: whatever it is, it is not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memo: Option<Digest>,
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
    /// The client of the user, if it numbers its commands for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Numbered by the user, or its client, per log.
    pub id: u64,
    /// What was asked.
    pub command: Command,
    /// Of the memo; `None`: whatever it is, it is not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memo: Option<Digest>,
}

impl Sent {
    /// With the place that was promised for it.
    pub fn promised(self, seq: u64) -> Receipt {
        let Self { log, user, client, id, command, memo } = self;
        Receipt { log, seq, user, client, id, command, memo }
    }
}

/// What is kept of a text: enough to see that another was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u64);

impl Digest {
    /// FNV-1a, 64 bits: short, the same everywhere, and of nobody's making who would forge it.
    pub fn of(text: &str) -> Self {
        // The offset basis and the prime of FNV (draft-eastlake-fnv).
        let (basis, prime) = (0xcbf2_9ce4_8422_2325_u64, 0x0000_0100_0000_01b3);
        Self(text.bytes().fold(basis, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(prime)))
    }

    /// From which whatever is to be as various as texts can be derived.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(from)?;
        let digits = text.len() == 16 && text.bytes().all(|c| c.is_ascii_hexdigit());
        let number = u64::from_str_radix(&text, 16).ok().filter(|_| digits);
        number.map(Self).ok_or_else(|| serde::de::Error::custom("a digest is 16 hex digits"))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_the_standard() {
        // From the test vectors of the FNV draft.
        for (text, hex) in
            [("", "cbf29ce484222325"), ("a", "af63dc4c8601ec8c"), ("foobar", "85944171f73967e8")]
        {
            let json = format!("\"{hex}\"");
            assert_eq!(serde_json::to_string(&Digest::of(text)).expect("it is JSON"), json);
            assert_eq!(serde_json::from_str::<Digest>(&json).expect(hex), Digest::of(text));
        }
        for wrong in ["\"\"", "\"+f63dc4c8601ec8c\"", "\"af63dc4c8601ec8c0\"", "7"] {
            assert!(serde_json::from_str::<Digest>(wrong).is_err(), "{wrong}");
        }
    }
}
