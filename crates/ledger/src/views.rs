//! The read models, folded from the log's entries.
//!
//! A view defines which [rows](View::rows) an entry touches, and the [new state](View::apply) of each. All three views
//! read every event of the ledger, so their cursors keep up with its log, and the sender of a command can wait until a
//! view shows it.

use fanfold::view::Outcome;
use fanfold::{DocumentId, Recorded, RowKey, Service, Time, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Event, Ledger, Movement};

/// `balances`: a row per open account, under its name.
pub struct Balances;

/// An open account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Balance {
    /// The balance, in minor units.
    pub balance: i64,
    /// The number of movements since it was opened.
    pub movements: u64,
}

impl View for Balances {
    const NAME: &'static str = "balances";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &[Ledger::NAME];
    const EVENTS: &'static [(&'static str, u32)] = Ledger::EVENTS;
    type Event = Event;
    type Row = Balance;

    fn rows(entry: &Recorded<Event>) -> Vec<RowKey> {
        entry.events().iter().map(|(account, _)| account.into()).collect()
    }

    fn apply(row: Option<Balance>, key: &RowKey, entry: &Recorded<Event>) -> Option<Balance> {
        let of_row = entry.events().iter().filter(|(account, _)| RowKey::from(account) == *key);
        of_row.fold(row, |row, (_, event)| match event {
            Event::Opened => Some(Balance { balance: 0, movements: 0 }),
            Event::Closed => None,
            Event::Deposited(moved)
            | Event::Withdrawn(moved)
            | Event::Sent(moved)
            | Event::Received(moved) => {
                let before = row.map_or(0, |row| row.movements);
                Some(Balance { balance: moved.balance, movements: before + 1 })
            }
        })
    }
}

/// `statement`: a row per movement, under `<account>/<seq, 20 digits>`. So a range of keys is an account's statement in
/// the order of time, and a reverse range starts with the newest movement.
pub struct Statement;

/// A movement of money.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// The account.
    pub account: DocumentId,
    /// The event: `deposited`, `withdrawn`, `sent` or `received`.
    pub kind: String,
    /// The amount, in minor units.
    pub amount: i64,
    /// The account's balance after it.
    pub balance: i64,
    /// The time.
    pub at: Time,
    /// The user's memo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memo: Option<String>,
}

impl View for Statement {
    const NAME: &'static str = "statement";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &[Ledger::NAME];
    const EVENTS: &'static [(&'static str, u32)] = Ledger::EVENTS;
    type Event = Event;
    type Row = Line;

    fn rows(entry: &Recorded<Event>) -> Vec<RowKey> {
        movements(entry).map(|(account, ..)| line_key(account, entry)).collect()
    }

    fn apply(_: Option<Line>, key: &RowKey, entry: &Recorded<Event>) -> Option<Line> {
        // A command of the ledger has at most one event per account. With several, the row would have the last one, whose
        // balance is right.
        let of_row = movements(entry).filter(|(account, ..)| line_key(account, entry) == *key);
        of_row.last().map(|(account, kind, moved)| Line {
            account: account.clone(),
            kind: kind.to_owned(),
            amount: moved.amount,
            balance: moved.balance,
            at: entry.time,
            memo: moved.memo.clone(),
        })
    }
}

/// `totals`: one row, `total`, for the whole organisation.
pub struct Totals;

/// The sums over an organisation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Total {
    /// Open accounts.
    pub accounts: u64,
    /// The sum of their balances, in minor units. Each balance may be as large as an `i64`.
    pub balance: i128,
    /// The number of movements. A transfer counts as two.
    pub movements: u64,
    /// The number of refused commands.
    pub rejected: u64,
}

impl View for Totals {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &[Ledger::NAME];
    const EVENTS: &'static [(&'static str, u32)] = Ledger::EVENTS;
    type Event = Event;
    type Row = Total;

    fn rows(entry: &Recorded<Event>) -> Vec<RowKey> {
        match entry.outcome {
            Outcome::Accepted(_) | Outcome::Rejected { .. } => vec![total_key()],
            Outcome::Faulted { .. } | Outcome::Lost { .. } => vec![],
        }
    }

    fn apply(row: Option<Total>, _: &RowKey, entry: &Recorded<Event>) -> Option<Total> {
        let mut total = row.unwrap_or_default();
        if let Outcome::Rejected { .. } = entry.outcome {
            total.rejected += 1;
        }
        for (_, event) in entry.events() {
            match event {
                Event::Opened => total.accounts += 1,
                Event::Closed => total.accounts -= 1,
                Event::Deposited(moved) | Event::Received(moved) => {
                    total.balance += i128::from(moved.amount);
                }
                Event::Withdrawn(moved) | Event::Sent(moved) => {
                    total.balance -= i128::from(moved.amount);
                }
            }
        }
        total.movements += movements(entry).count() as u64;
        Some(total)
    }
}

/// The entry's movements, each with its account and its kind.
fn movements(
    entry: &Recorded<Event>,
) -> impl Iterator<Item = (&DocumentId, &'static str, &Movement)> {
    entry.events().iter().filter_map(|(account, event)| match event {
        Event::Deposited(moved) => Some((account, "deposited", moved)),
        Event::Withdrawn(moved) => Some((account, "withdrawn", moved)),
        Event::Sent(moved) => Some((account, "sent", moved)),
        Event::Received(moved) => Some((account, "received", moved)),
        Event::Opened | Event::Closed => None,
    })
}

/// The digits are padded with zeros, because rows are sorted by the bytes of their keys.
fn line_key(account: &DocumentId, entry: &Recorded<Event>) -> RowKey {
    RowKey::from(account).join(format_args!("{:020}", entry.seq))
}

fn total_key() -> RowKey {
    RowKey::new("total").expect("it is short and of letters")
}
