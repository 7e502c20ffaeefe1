//! The example service: the accounts of an organisation.
//!
//! A service says four things, and this file says them in order: what one may ask of it (its
//! **commands**), what can come of that (its **events**), or why nothing does (its **refusals**),
//! and what it remembers between two commands (its **documents**). Then it gives them life with two
//! pure functions: [`decide`](Service::decide) makes events from a command and documents,
//! [`evolve`](Service::evolve) makes the next document from an event. There is no storage, no
//! network and no clock here: the same crate runs in a Lambda, in one process and in a test.
//!
//! What people look at is folded from the same events by the [`views`].

use fanfold::{Code, Context, DocumentId, Documents, Service};
use serde::{Deserialize, Serialize};

pub mod views;

/// The accounts of an organisation, each with a balance that never goes below zero.
pub struct Ledger;

/// What one may ask. Amounts are in minor units (cents), and signed, so that zero and less reach
/// [`decide`](Service::decide) and are refused with a code of ours.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "command", content = "data", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields say it")]
pub enum Command {
    Open { account: DocumentId },
    Deposit { account: DocumentId, amount: i64, memo: Option<String> },
    Withdraw { account: DocumentId, amount: i64, memo: Option<String> },
    Transfer { from: DocumentId, to: DocumentId, amount: i64, memo: Option<String> },
    Close { account: DocumentId },
}

/// What happened to an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum Event {
    /// It exists from now on, empty.
    Opened,
    /// Money came from outside the ledger.
    Deposited(Movement),
    /// Money left the ledger.
    Withdrawn(Movement),
    /// Money went to another account.
    Sent(Movement),
    /// Money came from another account.
    Received(Movement),
    /// It exists no longer. It may be opened again.
    Closed,
}

/// How much money moved, and what it left in the account: a reader of events, a line of a statement
/// say, need not add them up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Movement {
    /// More than zero; the event's type says which way it went.
    pub amount: i64,
    /// The account's balance after it.
    pub balance: i64,
    /// What the user wrote on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memo: Option<String>,
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Refusal {
    #[error("the account `{account}` is already open")]
    AlreadyOpen { account: DocumentId },
    #[error("there is no account `{account}`")]
    NoSuchAccount { account: DocumentId },
    #[error("the account holds {balance}, less than {amount}")]
    Overdrawn { balance: i64, amount: i64 },
    #[error("the account `{account}` still holds {balance}")]
    NotEmpty { account: DocumentId, balance: i64 },
    #[error("the amount {amount} is not above zero, or more than an account can hold")]
    InvalidAmount { amount: i64 },
}

impl Code for Refusal {
    fn code(&self) -> &'static str {
        match self {
            Self::AlreadyOpen { .. } => "already_open",
            Self::NoSuchAccount { .. } => "no_such_account",
            Self::Overdrawn { .. } => "overdrawn",
            Self::NotEmpty { .. } => "not_empty",
            Self::InvalidAmount { .. } => "invalid_amount",
        }
    }
}

/// What the service remembers of an account: no more than its decisions need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Account {
    Closed,
    Open { balance: i64 },
}

impl Service for Ledger {
    const NAME: &'static str = "ledger";
    const DOCUMENT_VERSION: u32 = 1;
    const EVENTS: &'static [(&'static str, u32)] = &[
        ("opened", 1),
        ("deposited", 1),
        ("withdrawn", 1),
        ("sent", 1),
        ("received", 1),
        ("closed", 1),
    ];
    type Command = Command;
    type Event = Event;
    type Document = Account;
    type Rejection = Refusal;

    fn documents(command: &Command) -> Vec<DocumentId> {
        match command {
            Command::Open { account }
            | Command::Deposit { account, .. }
            | Command::Withdraw { account, .. }
            | Command::Close { account } => vec![account.clone()],
            Command::Transfer { from, to, .. } => vec![from.clone(), to.clone()],
        }
    }

    fn init(_: &DocumentId) -> Account {
        Account::Closed
    }

    fn decide(
        accounts: &Documents<'_, Account>,
        command: &Command,
        _: &Context,
    ) -> Result<Vec<(DocumentId, Event)>, Refusal> {
        let balance = |account: &DocumentId| match accounts[account] {
            Account::Open { balance } => Ok(balance),
            Account::Closed => Err(Refusal::NoSuchAccount { account: account.clone() }),
        };
        let one = |account: &DocumentId, event| Ok(vec![(account.clone(), event)]);
        match command {
            Command::Open { account } => match accounts[account] {
                Account::Open { .. } => Err(Refusal::AlreadyOpen { account: account.clone() }),
                Account::Closed => one(account, Event::Opened),
            },
            Command::Deposit { account, amount, memo } => {
                one(account, Event::Deposited(add(balance(account)?, *amount, memo)?))
            }
            Command::Withdraw { account, amount, memo } => {
                one(account, Event::Withdrawn(take(balance(account)?, *amount, memo)?))
            }
            // Two accounts and one decision: either both change, or neither.
            Command::Transfer { from, to, amount, memo } => {
                let (source, target) = (balance(from)?, balance(to)?);
                let sent = take(source, *amount, memo)?;
                if from == to {
                    // It is allowed, and nothing happens: no money moves.
                    return Ok(vec![]);
                }
                let received = add(target, *amount, memo)?;
                Ok(vec![(from.clone(), Event::Sent(sent)), (to.clone(), Event::Received(received))])
            }
            Command::Close { account } => match balance(account)? {
                0 => one(account, Event::Closed),
                balance => Err(Refusal::NotEmpty { account: account.clone(), balance }),
            },
        }
    }

    fn evolve(account: &mut Account, event: &Event) {
        *account = match event {
            Event::Opened => Account::Open { balance: 0 },
            Event::Deposited(Movement { balance, .. })
            | Event::Withdrawn(Movement { balance, .. })
            | Event::Sent(Movement { balance, .. })
            | Event::Received(Movement { balance, .. }) => Account::Open { balance: *balance },
            Event::Closed => Account::Closed,
        };
    }
}

fn add(balance: i64, amount: i64, memo: &Option<String>) -> Result<Movement, Refusal> {
    match balance.checked_add(amount) {
        Some(balance) if amount > 0 => Ok(Movement { amount, balance, memo: memo.clone() }),
        _ => Err(Refusal::InvalidAmount { amount }),
    }
}

fn take(balance: i64, amount: i64, memo: &Option<String>) -> Result<Movement, Refusal> {
    match amount {
        ..=0 => Err(Refusal::InvalidAmount { amount }),
        _ if amount > balance => Err(Refusal::Overdrawn { balance, amount }),
        _ => Ok(Movement { amount, balance: balance - amount, memo: memo.clone() }),
    }
}
