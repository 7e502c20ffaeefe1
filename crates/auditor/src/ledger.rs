//! The rules of the ledger, written a second time: the events that a command leads to, and the fold
//! of events into accounts and sums.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// A command of the ledger.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum CommandRef<'a> {
    Open(&'a str),
    Deposit(&'a str, i64),
    Withdraw(&'a str, i64),
    Transfer(&'a str, &'a str, i64),
    Close(&'a str),
}

impl CommandRef<'_> {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Deposit(..) => "deposit",
            Self::Withdraw(..) => "withdraw",
            Self::Transfer(..) => "transfer",
            Self::Close(_) => "close",
        }
    }
}

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Opened,
    Deposited,
    Withdrawn,
    Sent,
    Received,
    Closed,
}

impl Kind {
    /// Its name in events and statements.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Deposited => "deposited",
            Self::Withdrawn => "withdrawn",
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Closed => "closed",
        }
    }

    fn is_of(self, command: &str) -> bool {
        match self {
            Self::Opened => command == "open",
            Self::Deposited => command == "deposit",
            Self::Withdrawn => command == "withdraw",
            Self::Sent | Self::Received => command == "transfer",
            Self::Closed => command == "close",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    /// The account.
    pub(crate) document: String,
    pub(crate) data: Data,
}

/// The data of an event: empty, or a movement of money.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Data {
    amount: Option<i64>,
    /// The balance after the movement.
    balance: Option<i64>,
    /// The client's text.
    pub(crate) memo: Option<Box<str>>,
}

impl Event {
    /// Amount and balance, if it is a movement.
    pub(crate) fn moved(&self) -> Option<(i64, i64)> {
        self.data.amount.zip(self.data.balance)
    }

    fn is(&self, kind: Kind, account: &str, moved: Option<(i64, i64)>) -> bool {
        self.kind == kind && self.document == account && self.moved() == moved
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", shown(&(self.kind, &self.document, self.moved())))
    }
}

pub(crate) fn shown((kind, account, moved): &Expected<'_>) -> String {
    match moved {
        Some((amount, balance)) => format!("{} {account} {amount}, balance {balance}", kind.name()),
        None => format!("{} {account}", kind.name()),
    }
}

/// An event that a decision should lead to: its type, its account, and the movement as amount and
/// balance.
pub(crate) type Expected<'a> = (Kind, &'a str, Option<(i64, i64)>);

/// An open account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) balance: i64,
    /// Movements since it was opened.
    pub(crate) movements: u64,
    /// The seq of the last entry that changed it.
    pub(crate) seq: u64,
}

/// The accounts of a log, and their sums.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The open accounts.
    pub(crate) accounts: BTreeMap<String, Account>,
    /// The number of open accounts, counted as the view counts them.
    pub(crate) opened: i64,
    /// The sum of all balances, added up from amounts as the view does.
    pub(crate) balance: i128,
    pub(crate) movements: u64,
    pub(crate) rejected: u64,
    /// The seq of the last entry that changed the sums; zero: none did, so they have no row.
    pub(crate) totals_seq: u64,
    deposited: i128,
    withdrawn: i128,
}

impl Ledger {
    /// The events that a command must lead to now, or the code of its rejection.
    pub(crate) fn decide<'a>(
        &self,
        command: &CommandRef<'a>,
    ) -> Result<Vec<Expected<'a>>, &'static str> {
        let balance = |name: &str| match self.accounts.get(name) {
            Some(account) => Ok(account.balance),
            None => Err("no_such_account"),
        };
        let more = |balance: i64, amount: i64| match balance.checked_add(amount) {
            Some(sum) if amount > 0 => Ok((amount, sum)),
            _ => Err("invalid_amount"),
        };
        let less = |balance: i64, amount: i64| match amount {
            ..=0 => Err("invalid_amount"),
            _ if amount > balance => Err("overdrawn"),
            _ => Ok((amount, balance - amount)),
        };
        match *command {
            CommandRef::Open(name) => match balance(name) {
                Ok(_) => Err("already_open"),
                Err(_) => Ok(vec![(Kind::Opened, name, None)]),
            },
            CommandRef::Deposit(name, amount) => {
                Ok(vec![(Kind::Deposited, name, Some(more(balance(name)?, amount)?))])
            }
            CommandRef::Withdraw(name, amount) => {
                Ok(vec![(Kind::Withdrawn, name, Some(less(balance(name)?, amount)?))])
            }
            CommandRef::Transfer(from, to, amount) => {
                let (source, target) = (balance(from)?, balance(to)?);
                let sent = less(source, amount)?;
                if from == to {
                    return Ok(vec![]);
                }
                let received = more(target, amount)?;
                Ok(vec![(Kind::Sent, from, Some(sent)), (Kind::Received, to, Some(received))])
            }
            CommandRef::Close(name) => match balance(name)? {
                0 => Ok(vec![(Kind::Closed, name, None)]),
                _ => Err("not_empty"),
            },
        }
    }

    /// Whether the events equal the expected ones.
    pub(crate) fn are_expected(events: &[Event], expected: &[Expected<'_>]) -> bool {
        let pairs = || events.iter().zip(expected);
        events.len() == expected.len()
            && pairs().all(|(event, (kind, account, moved))| event.is(*kind, account, *moved))
    }

    /// Checks that some command can have led to these events, for entries whose command is unknown
    /// here.
    pub(crate) fn check(&self, command: Option<&str>, events: &[Event]) -> Result<(), String> {
        if let Some(command) = command
            && let Some(event) = events.iter().find(|event| !event.kind.is_of(command))
        {
            return Err(format!("`{command}` cannot lead to `{event}`"));
        }
        match events {
            [] if command.is_none_or(|command| command == "transfer") => {}
            [only] if !matches!(only.kind, Kind::Sent | Kind::Received) => {}
            [sent, received] => {
                let amount = |event: &Event| event.data.amount;
                let kinds = (sent.kind, received.kind) == (Kind::Sent, Kind::Received);
                let agree = amount(sent) == amount(received) && sent.document != received.document;
                if !kinds || !agree {
                    return Err(format!("`{sent}` and `{received}` are not a transfer"));
                }
            }
            _ => return Err(format!("no command leads to these {} events", events.len())),
        }
        events.iter().try_for_each(|event| self.check_one(event))
    }

    fn check_one(&self, event: &Event) -> Result<(), String> {
        let account = self.accounts.get(&event.document);
        let Some(account) = account else {
            return match (event.kind, event.moved()) {
                (Kind::Opened, None) => Ok(()),
                _ => Err(format!("`{event}`, but the account is not open")),
            };
        };
        let (before, moved) = (i128::from(account.balance), event.moved());
        let after = |sign: i128| {
            let moved = moved.filter(|(amount, _)| *amount > 0);
            moved.map(|(amount, shown)| (before + sign * i128::from(amount), i128::from(shown)))
        };
        let fits = match event.kind {
            Kind::Opened => false,
            Kind::Closed => before == 0 && moved.is_none(),
            Kind::Deposited | Kind::Received => after(1).is_some_and(|(sum, shown)| sum == shown),
            Kind::Withdrawn | Kind::Sent => {
                after(-1).is_some_and(|(rest, shown)| rest == shown && rest >= 0)
            }
        };
        match fits {
            true => Ok(()),
            false => Err(format!("`{event}`, but the account is open and its balance is {before}")),
        }
    }

    /// Folds the events of an accepted entry, also if they are wrong: a view does the same.
    pub(crate) fn apply(&mut self, seq: u64, events: &[Event]) {
        for event in events {
            self.totals_seq = seq;
            let name = &event.document;
            let (amount, balance) = event.moved().unwrap_or_default();
            let sum = i128::from(amount);
            match event.kind {
                Kind::Opened => {
                    self.opened += 1;
                    self.accounts.insert(name.clone(), Account { seq, ..Account::default() });
                    continue;
                }
                Kind::Closed => {
                    self.opened -= 1;
                    self.accounts.remove(name);
                    continue;
                }
                Kind::Deposited => self.deposited += sum,
                Kind::Withdrawn => self.withdrawn += sum,
                Kind::Sent | Kind::Received => {}
            }
            match event.kind {
                Kind::Deposited | Kind::Received => self.balance += sum,
                _ => self.balance -= sum,
            }
            self.movements += 1;
            let account = match self.accounts.get_mut(name) {
                Some(account) => account,
                None => self.accounts.entry(name.clone()).or_default(),
            };
            *account = Account { balance, movements: account.movements + 1, seq };
        }
    }

    pub(crate) fn reject(&mut self, seq: u64) {
        self.rejected += 1;
        self.totals_seq = seq;
    }

    pub(crate) fn deposited_net(&self) -> i128 {
        self.deposited - self.withdrawn
    }

    pub(crate) fn balances(&self) -> i128 {
        self.accounts.values().map(|account| i128::from(account.balance)).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 3] = ["a", "b", "c"];

    fn event((kind, account, moved): &Expected<'_>) -> Event {
        let (amount, balance) = moved.unzip();
        Event {
            kind: *kind,
            document: (*account).to_owned(),
            data: Data { amount, balance, memo: None },
        }
    }

    fn command() -> impl Strategy<Value = CommandRef<'static>> {
        let name = || prop::sample::select(&NAMES[..]);
        let amount = || prop_oneof![6 => -2..40i64, 1 => Just(i64::MAX)];
        prop_oneof![
            2 => name().prop_map(CommandRef::Open),
            4 => (name(), amount()).prop_map(|(name, amount)| CommandRef::Deposit(name, amount)),
            3 => (name(), amount()).prop_map(|(name, amount)| CommandRef::Withdraw(name, amount)),
            3 => (name(), name(), amount()).prop_map(|(from, to, n)| CommandRef::Transfer(from, to, n)),
            1 => name().prop_map(CommandRef::Close),
        ]
    }

    /// Keeps all accepted commands, and adds them up for each question.
    #[derive(Default)]
    struct Naive(Vec<CommandRef<'static>>);

    impl Naive {
        /// The balance of an account; `None`: it is not open.
        fn balance(&self, name: &str) -> Option<i128> {
            self.0.iter().fold(None, |held, command| match *command {
                CommandRef::Open(account) if account == name => Some(0),
                CommandRef::Close(account) if account == name => None,
                CommandRef::Deposit(account, n) if account == name => {
                    held.map(|held| held + i128::from(n))
                }
                CommandRef::Withdraw(account, n) if account == name => {
                    held.map(|held| held - i128::from(n))
                }
                CommandRef::Transfer(from, to, n) => held.map(|held| {
                    let sign = i128::from(to == name) - i128::from(from == name);
                    held + sign * i128::from(n)
                }),
                _ => held,
            })
        }

        fn accepts(&self, command: &CommandRef<'_>) -> bool {
            let fits = |sum: i128| sum <= i128::from(i64::MAX);
            match *command {
                CommandRef::Open(name) => self.balance(name).is_none(),
                CommandRef::Close(name) => self.balance(name) == Some(0),
                CommandRef::Deposit(name, n) => {
                    n > 0 && self.balance(name).is_some_and(|held| fits(held + i128::from(n)))
                }
                CommandRef::Withdraw(name, n) => {
                    n > 0 && self.balance(name).is_some_and(|held| held >= i128::from(n))
                }
                CommandRef::Transfer(from, to, n) => match (self.balance(from), self.balance(to)) {
                    (Some(source), Some(target)) => {
                        let n = i128::from(n);
                        n > 0 && source >= n && (from == to || fits(target + n))
                    }
                    _ => false,
                },
            }
        }
    }

    proptest! {
        // A failure prints the case that it is shrunk to, and keeps its seed.
        #[test]
        fn decisions_and_folds_equal_a_naive_model(all in prop::collection::vec(command(), 1..60)) {
            let (mut ledger, mut naive) = (Ledger::default(), Naive::default());
            for (command, seq) in all.into_iter().zip(1..) {
                let decided = ledger.decide(&command);
                prop_assert_eq!(decided.is_ok(), naive.accepts(&command), "{:?}", command);
                let Ok(expected) = decided else { continue };
                let events: Vec<Event> = expected.iter().map(event).collect();
                prop_assert_eq!(ledger.check(Some(command.name()), &events), Ok(()));
                prop_assert!(Ledger::are_expected(&events, &expected));
                for at in 0..events.len() {
                    let mut wrong = events.clone();
                    let data = &mut wrong[at].data;
                    let Some(amount) = &mut data.amount else { continue };
                    *amount -= 1;
                    prop_assert!(!Ledger::are_expected(&wrong, &expected));
                    prop_assert!(ledger.check(None, &wrong).is_err());
                }
                ledger.apply(seq, &events);
                naive.0.push(command);
                for name in NAMES {
                    let held = ledger.accounts.get(name).map(|account| i128::from(account.balance));
                    prop_assert_eq!(held, naive.balance(name), "{}", name);
                }
                prop_assert_eq!(ledger.deposited_net(), ledger.balances());
                prop_assert_eq!(ledger.balance, ledger.balances());
                prop_assert_eq!(ledger.opened, ledger.accounts.len() as i64);
            }
        }
    }
}
