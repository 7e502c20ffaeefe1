//! The example service: the accounts of an organisation.
//!
//! A service declares four things, and this file has them in this order: its **commands**, the **events** that follow from
//! them, the **refusals**, and the **documents**, which are its state between two commands. Two pure functions connect
//! them: [`decide`](Service::decide) makes events from a command and documents, and [`evolve`](Service::evolve) makes the
//! next document from an event. There is no storage, no network and no clock here: the same crate runs in a Lambda, in
//! one process and in a test.
//!
//! The [`views`] fold the same events into the rows that people read.

use fanfold::{App, AppError, Code, Context, DocumentId, Documents, Example, Service, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod views;

use self::views::{Balances, Statement, Totals};

/// The ledger and its views, for any host.
pub fn app() -> Result<App, AppError> {
    let app = App::named(Ledger::NAME).service::<Ledger>();
    let app = app.view::<Balances>().view::<Statement>().view::<Totals>();
    app.example(Example { command: EXAMPLE, view: Balances::NAME }).build()
}

const EXAMPLE: &str = r#"{"type":"ledger","command":"open","id":1,"timestamp":11178,"user":"ann","org":"acme","data":{"account":"cash"}}"#;

/// The accounts of an organisation, each with a balance that never goes below zero.
pub struct Ledger;

/// The commands. Amounts are in minor units (cents). They are signed, so that zero and negative amounts reach
/// [`decide`](Service::decide), which refuses them with a code of the ledger's.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "command", content = "data", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are enough")]
pub enum Command {
    Open { account: DocumentId },
    Deposit { account: DocumentId, amount: i64, memo: Option<String> },
    Withdraw { account: DocumentId, amount: i64, memo: Option<String> },
    Transfer { from: DocumentId, to: DocumentId, amount: i64, memo: Option<String> },
    Close { account: DocumentId },
}

/// The events of an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum Event {
    /// The account was opened, and is empty.
    Opened,
    /// Money came from outside the ledger.
    Deposited(Movement),
    /// Money left the ledger.
    Withdrawn(Movement),
    /// Money went to another account.
    Sent(Movement),
    /// Money came from another account.
    Received(Movement),
    /// The account was closed. It may be opened again.
    Closed,
}

/// The amount of money that moved, and the balance after it, so that a reader of events (for example a line of a
/// statement) need not add them up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Movement {
    /// More than zero. The event's type gives the direction.
    pub amount: i64,
    /// The account's balance after it.
    pub balance: i64,
    /// The user's memo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memo: Option<String>,
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are enough")]
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

/// The state of an account: only what decisions need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are enough")]
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
            // One decision changes two accounts: both or none.
            Command::Transfer { from, to, amount, memo } => {
                let (source, target) = (balance(from)?, balance(to)?);
                let sent = take(source, *amount, memo)?;
                if from == to {
                    // A transfer to the same account is accepted without events.
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
