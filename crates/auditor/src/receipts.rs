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
//! A run of another service than the ledger says so in its first line, and names the command, the
//! digest of the data and what is expected:
//!
//! ```json
//! {"run":{"format":1,"users":"r7+","service":"booking","views":["agenda"],"model":"none"}}
//! {"receipt":{"log":"booking/org:load-r7-4","seq":17,"user":"r7+0","id":3,"command":{"named":{"name":"book","data":"<16 hex digits>","expect":{"rejected":["full"]}}}}}
//! {"cursor":{"view":"agenda","log":"booking/org:load-r7-4","wanted":17,"seq":18,"began_us":1000,"ended_us":2000}}
//! ```
//!
//! If a client of the user numbers its own commands, `"client":"…"` is beside `user`. If a command
//! has a memo, `"memo":"<16 hex digits>"` is beside `command`: FNV-1a, 64 bits, of the memo's
//! bytes. The digest of data is that of the design. A file without `end` is from a client that was stopped: it may have sent commands that it
//! does not name.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use crate::digest::Digest;

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
    /// A reader saw how far a view was during the run.
    Cursor(SeenCursor),
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
    /// The service of all commands; `ledger` if the file does not say.
    #[serde(default = "ledger")]
    pub service: String,
    /// The views that must reach the ends of their logs; the ledger's if the file does not say. The
    /// model of the ledger compares all its views in any case.
    #[serde(default = "ledger_views")]
    pub views: Vec<String>,
    /// The model by which outcomes and rows are judged; by default `ledger` for the ledger, else
    /// `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
}

impl Run {
    /// A run of the ledger by users whose names begin with `users`.
    pub fn of_ledger(users: &str) -> Self {
        let (service, views) = (ledger(), ledger_views());
        Self { format: FORMAT, users: users.to_owned(), service, views, model: None }
    }
}

/// The service whose rules the auditor knows.
pub const LEDGER: &str = "ledger";

fn ledger() -> String {
    LEDGER.to_owned()
}

/// The views of the ledger.
pub fn ledger_views() -> Vec<String> {
    ["balances", "statement", "totals"].map(str::to_owned).into()
}

/// The rules of a service that the auditor knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// The ledger's: outcomes and rows are compared with a fold of the entries.
    Ledger,
    /// None: everything is checked that needs no rules of a service.
    #[default]
    None,
}

impl Model {
    /// The model for a service: its own, if the auditor has one.
    pub fn of(service: &str) -> Self {
        if service == LEDGER { Self::Ledger } else { Self::None }
    }
}

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ledger => LEDGER,
            Self::None => "none",
        })
    }
}

/// A command that was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// `<service>/<partition>`.
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
    /// `<service>/<partition>`.
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

/// A command: of the ledger, without its memo, amounts in minor units; or of any service, by its
/// name and the digest of its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields say it")]
pub enum Command {
    Open {
        account: String,
    },
    Deposit {
        account: String,
        amount: i64,
    },
    Withdraw {
        account: String,
        amount: i64,
    },
    Transfer {
        from: String,
        to: String,
        amount: i64,
    },
    Close {
        account: String,
    },
    Named {
        name: String,
        data: Digest,
        #[serde(default, skip_serializing_if = "Expect::is_either")]
        expect: Expect,
    },
}

/// The outcome that a command shall have, unless it repeats an id or is stale.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Any outcome.
    #[default]
    Either,
    /// The service accepts it.
    Accepted,
    /// The service rejects it with one of these codes.
    Rejected(Vec<String>),
}

impl Expect {
    fn is_either(&self) -> bool {
        *self == Self::Either
    }

    /// Whether an entry with this status and code is as expected.
    pub fn allows(&self, status: &str, code: Option<&str>) -> bool {
        match self {
            Self::Either => true,
            Self::Accepted => status == "accepted",
            Self::Rejected(codes) => {
                status == "rejected" && codes.iter().any(|one| Some(one.as_str()) == code)
            }
        }
    }
}

impl std::fmt::Display for Expect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Either => f.write_str("accepted or rejected"),
            Self::Accepted => f.write_str("accepted"),
            Self::Rejected(codes) => write!(f, "rejected with {}", codes.join(" or ")),
        }
    }
}

/// An entry as a reader saw it. It never changes.
#[derive(Debug, Serialize, Deserialize)]
pub struct SeenEntry {
    /// `<service>/<partition>`.
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
    /// `<service>/<partition>`.
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

/// The cursor of a view as a reader saw it.
#[derive(Debug, Serialize, Deserialize)]
pub struct SeenCursor {
    /// The view.
    pub view: String,
    /// `<service>/<partition>`.
    pub log: String,
    /// The seq that the reader waited for; zero: none.
    pub wanted: u64,
    /// The view's cursor.
    pub seq: u64,
    /// When the request was sent, in µs of a clock of the run.
    pub began_us: u64,
    /// When its answer arrived, by the same clock.
    pub ended_us: u64,
}
