//! The rules of the ledger, written a second time: what a command must lead to, and what events
//! make of accounts and sums.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// What a user asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Asked<'a> {
    Open(&'a str),
    Deposit(&'a str, i64),
    Withdraw(&'a str, i64),
    Transfer(&'a str, &'a str, i64),
    Close(&'a str),
}

impl Asked<'_> {
    /// As an entry calls it.
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

/// What can happen to an account.
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
    /// As events and statements call it.
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

/// An event, as an entry shows it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    /// The account.
    pub(crate) document: String,
    pub(crate) data: Data,
}

/// What an event holds: nothing, or money that moved.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Data {
    amount: Option<i64>,
    /// What is left in the account.
    balance: Option<i64>,
    /// What the client wrote on it.
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

/// An event, in words.
pub(crate) fn shown((kind, account, moved): &Expected<'_>) -> String {
    match moved {
        Some((amount, balance)) => format!("{} {account} {amount}, leaving {balance}", kind.name()),
        None => format!("{} {account}", kind.name()),
    }
}

/// An event that a decision leads to: what, on which account, and the movement as amount and
/// balance.
pub(crate) type Expected<'a> = (Kind, &'a str, Option<(i64, i64)>);

/// An open account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) balance: i64,
    /// Since it was opened.
    pub(crate) movements: u64,
    /// The last entry that touched it.
    pub(crate) seq: u64,
}

/// All accounts of a log, and their sums.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The open ones.
    pub(crate) accounts: BTreeMap<String, Account>,
    /// As the view counts them.
    pub(crate) opened: i64,
    /// As the view sums it up, from amounts.
    pub(crate) balance: i128,
    pub(crate) movements: u64,
    pub(crate) rejected: u64,
    /// The last entry that the sums changed with; zero: they have no row.
    pub(crate) totals_seq: u64,
    deposited: i128,
    withdrawn: i128,
}

impl Ledger {
    /// The events that a command must lead to now, or the code of its refusal.
    pub(crate) fn decide<'a>(&self, asked: &Asked<'a>) -> Result<Vec<Expected<'a>>, &'static str> {
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
        match *asked {
            Asked::Open(name) => match balance(name) {
                Ok(_) => Err("already_open"),
                Err(_) => Ok(vec![(Kind::Opened, name, None)]),
            },
            Asked::Deposit(name, amount) => {
                Ok(vec![(Kind::Deposited, name, Some(more(balance(name)?, amount)?))])
            }
            Asked::Withdraw(name, amount) => {
                Ok(vec![(Kind::Withdrawn, name, Some(less(balance(name)?, amount)?))])
            }
            Asked::Transfer(from, to, amount) => {
                let (source, target) = (balance(from)?, balance(to)?);
                let sent = less(source, amount)?;
                if from == to {
                    return Ok(vec![]);
                }
                let received = more(target, amount)?;
                Ok(vec![(Kind::Sent, from, Some(sent)), (Kind::Received, to, Some(received))])
            }
            Asked::Close(name) => match balance(name)? {
                0 => Ok(vec![(Kind::Closed, name, None)]),
                _ => Err("not_empty"),
            },
        }
    }

    /// Whether these events are the ones that were expected.
    pub(crate) fn are(events: &[Event], expected: &[Expected<'_>]) -> bool {
        let pairs = || events.iter().zip(expected);
        events.len() == expected.len()
            && pairs().all(|(event, (kind, account, moved))| event.is(*kind, account, *moved))
    }

    /// Whether a command that nobody told us of can have led to these events; if not, why.
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
                    return Err(format!("`{sent}` and `{received}` are no transfer"));
                }
            }
            _ => return Err(format!("no command leads to {} such events", events.len())),
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
            moved.map(|(amount, said)| (before + sign * i128::from(amount), i128::from(said)))
        };
        let fits = match event.kind {
            Kind::Opened => false,
            Kind::Closed => before == 0 && moved.is_none(),
            Kind::Deposited | Kind::Received => after(1).is_some_and(|(sum, said)| sum == said),
            Kind::Withdrawn | Kind::Sent => {
                after(-1).is_some_and(|(rest, said)| rest == said && rest >= 0)
            }
        };
        match fits {
            true => Ok(()),
            false => Err(format!("`{event}`, but the account is open and holds {before}")),
        }
    }

    /// Folds the events of an accepted entry, whatever they say: a view does so too.
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

    /// Folds a rejected entry.
    pub(crate) fn reject(&mut self, seq: u64) {
        self.rejected += 1;
        self.totals_seq = seq;
    }

    /// What came from outside, less what left: what all accounts must hold together.
    pub(crate) fn put_in(&self) -> i128 {
        self.deposited - self.withdrawn
    }

    /// What all accounts hold together.
    pub(crate) fn held(&self) -> i128 {
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

    fn asked() -> impl Strategy<Value = Asked<'static>> {
        let name = || prop::sample::select(&NAMES[..]);
        let amount = || prop_oneof![6 => -2..40i64, 1 => Just(i64::MAX)];
        prop_oneof![
            2 => name().prop_map(Asked::Open),
            4 => (name(), amount()).prop_map(|(name, amount)| Asked::Deposit(name, amount)),
            3 => (name(), amount()).prop_map(|(name, amount)| Asked::Withdraw(name, amount)),
            3 => (name(), name(), amount()).prop_map(|(from, to, n)| Asked::Transfer(from, to, n)),
            1 => name().prop_map(Asked::Close),
        ]
    }

    /// Keeps all that was asked for and granted, and adds it up each time.
    #[derive(Default)]
    struct Naive(Vec<Asked<'static>>);

    impl Naive {
        /// What the account holds; `None`: it is not open.
        fn holds(&self, name: &str) -> Option<i128> {
            self.0.iter().fold(None, |held, asked| match *asked {
                Asked::Open(account) if account == name => Some(0),
                Asked::Close(account) if account == name => None,
                Asked::Deposit(account, n) if account == name => {
                    held.map(|held| held + i128::from(n))
                }
                Asked::Withdraw(account, n) if account == name => {
                    held.map(|held| held - i128::from(n))
                }
                Asked::Transfer(from, to, n) => held.map(|held| {
                    let sign = i128::from(to == name) - i128::from(from == name);
                    held + sign * i128::from(n)
                }),
                _ => held,
            })
        }

        fn grants(&self, asked: &Asked<'_>) -> bool {
            let fits = |sum: i128| sum <= i128::from(i64::MAX);
            match *asked {
                Asked::Open(name) => self.holds(name).is_none(),
                Asked::Close(name) => self.holds(name) == Some(0),
                Asked::Deposit(name, n) => {
                    n > 0 && self.holds(name).is_some_and(|held| fits(held + i128::from(n)))
                }
                Asked::Withdraw(name, n) => {
                    n > 0 && self.holds(name).is_some_and(|held| held >= i128::from(n))
                }
                Asked::Transfer(from, to, n) => match (self.holds(from), self.holds(to)) {
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
        fn it_decides_and_folds_as_one_would_by_hand(all in prop::collection::vec(asked(), 1..60)) {
            let (mut ledger, mut naive) = (Ledger::default(), Naive::default());
            for (asked, seq) in all.into_iter().zip(1..) {
                let decided = ledger.decide(&asked);
                prop_assert_eq!(decided.is_ok(), naive.grants(&asked), "{:?}", asked);
                let Ok(expected) = decided else { continue };
                let events: Vec<Event> = expected.iter().map(event).collect();
                prop_assert_eq!(ledger.check(Some(asked.name()), &events), Ok(()));
                prop_assert!(Ledger::are(&events, &expected));
                for at in 0..events.len() {
                    let mut wrong = events.clone();
                    let data = &mut wrong[at].data;
                    let Some(amount) = &mut data.amount else { continue };
                    *amount -= 1;
                    prop_assert!(!Ledger::are(&wrong, &expected));
                    prop_assert!(ledger.check(None, &wrong).is_err());
                }
                ledger.apply(seq, &events);
                naive.0.push(asked);
                for name in NAMES {
                    let held = ledger.accounts.get(name).map(|account| i128::from(account.balance));
                    prop_assert_eq!(held, naive.holds(name), "{}", name);
                }
                prop_assert_eq!(ledger.put_in(), ledger.held());
                prop_assert_eq!(ledger.balance, ledger.held());
                prop_assert_eq!(ledger.opened, ledger.accounts.len() as i64);
            }
        }
    }
}
