//! The file of receipts: what a target answered to its clients. It is JSON, one object a line, and
//! with the URL the auditor's only input. Any client may write one.
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
//! If a client of the user numbers its own commands, `"client":"…"` is beside `user`. If a command
//! has a memo, `"memo":"<16 hex digits>"` is beside `command`: FNV-1a, 64 bits, of the memo's
//! bytes. A file without `end` is from a client that was stopped: it may have sent commands that it
//! does not name.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The format of the file.
pub const FORMAT: u32 = 1;

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first line.
    Run(Run),
    /// A command got a 202.
    Receipt(Receipt),
    /// A command was sent and never got a 202. It may have an entry.
    Unanswered(Sent),
    /// Every answer to a command refused it, so it has no entry.
    Refused(Sent),
    /// A reader saw an entry during the run.
    Entry(SeenEntry),
    /// A reader saw rows during the run.
    Rows(SeenRows),
    /// The last line: the file names everything that was sent.
    End(End),
}

/// The end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct End {}

/// The run that wrote the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`FORMAT`].
    pub format: u32,
    /// How the names of all users of this run begin, and no other users' names. If the file has an
    /// [`End`], it names every command of these users.
    pub users: String,
}

/// A command that was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// `ledger/org:…`.
    pub log: String,
    /// The user.
    pub user: String,
    /// The client of the user, if it numbers its own commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The id, from the user or its client.
    pub id: u64,
    /// The command.
    pub command: Command,
    /// The digest of its memo; `None`: the memo is not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memo: Option<Digest>,
}

/// A command with its receipt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// `ledger/org:…`.
    pub log: String,
    /// The seq that the receipt promised.
    pub seq: u64,
    /// The user.
    pub user: String,
    /// The client of the user, if it numbers its own commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The id, from the user or its client.
    pub id: u64,
    /// The command.
    pub command: Command,
    /// The digest of its memo; `None`: the memo is not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memo: Option<Digest>,
}

impl Sent {
    /// The receipt of this command, with its seq.
    pub fn promised(self, seq: u64) -> Receipt {
        let Self { log, user, client, id, command, memo } = self;
        Receipt { log, seq, user, client, id, command, memo }
    }
}

/// A digest by which two texts are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u64);

impl Digest {
    /// FNV-1a, 64 bits. It is short and portable, and need not withstand forgery.
    pub fn of(text: &str) -> Self {
        // The offset basis and the prime of FNV (draft-eastlake-fnv).
        let (basis, prime) = (0xcbf2_9ce4_8422_2325_u64, 0x0000_0100_0000_01b3);
        Self(text.bytes().fold(basis, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(prime)))
    }

    /// The number, which serves as a seed.
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

/// An entry as a reader saw it. It never changes.
#[derive(Debug, Serialize, Deserialize)]
pub struct SeenEntry {
    /// `ledger/org:…`.
    pub log: String,
    /// Its seq.
    pub seq: u64,
    /// The answer to `GET /logs/…/{seq}`.
    pub entry: Box<RawValue>,
}

/// Rows as a reader saw them. The target reads the cursor before the rows, so a row may be newer
/// than the cursor.
#[derive(Debug, Serialize, Deserialize)]
pub struct SeenRows {
    /// The view, and which rows: `balances`, all; `statement`, the ten highest keys; `totals`, its
    /// one row.
    pub view: String,
    /// `ledger/org:…`.
    pub log: String,
    /// The view's cursor.
    pub seq: u64,
    /// When the request was sent, in µs of a clock of the run.
    pub began_us: u64,
    /// When its answer arrived, by the same clock.
    pub ended_us: u64,
    /// The rows.
    pub rows: Vec<SeenRow>,
}

/// A row as a reader saw it.
#[derive(Debug, Serialize, Deserialize)]
pub struct SeenRow {
    /// Its key.
    pub key: String,
    /// The seq of the last entry that changed it.
    pub seq: u64,
    /// Its content.
    pub row: Box<RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_fnv_1a_of_the_text() {
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
