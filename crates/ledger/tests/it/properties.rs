//! Properties that hold after any commands.

use std::collections::BTreeMap;

use fanfold::entry::Outcome;
use fanfold::testing::{self, ServiceKit};
use ledger::views::{Balance, Balances, Line, Statement, Total, Totals};
use ledger::{Account, Ledger, Movement};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Few accounts and mostly small amounts, so that many commands touch the same accounts.
fn command() -> impl Strategy<Value = (&'static str, Value)> {
    let account = || prop::sample::select(vec!["a", "b", "c"]);
    let amount = || prop_oneof![8 => -1..50_i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    prop_oneof![
        2 => account().prop_map(|account| ("open", json!({ "account": account }))),
        3 => (account(), amount())
            .prop_map(|(account, amount)| ("deposit", json!({ "account": account, "amount": amount }))),
        2 => (account(), amount())
            .prop_map(|(account, amount)| ("withdraw", json!({ "account": account, "amount": amount }))),
        3 => (account(), account(), amount()).prop_map(|(from, to, amount)| {
            ("transfer", json!({ "from": from, "to": to, "amount": amount }))
        }),
        1 => account().prop_map(|account| ("close", json!({ "account": account }))),
        1 => account().prop_map(|account| {
            ("withdraw", json!({ "account": account, "amount": 1, "currency": "EUR" }))
        }),
    ]
}

fn ledger_after(commands: &[(&'static str, Value)]) -> ServiceKit<Ledger> {
    let ledger = testing::service::<Ledger>();
    commands.iter().fold(ledger, |ledger, (command, data)| ledger.when(command, data))
}

/// The balances of the open accounts.
fn balances(ledger: &ServiceKit<Ledger>) -> BTreeMap<String, i64> {
    let open = ledger.documents().into_iter().filter_map(|(id, account)| match account {
        Account::Open { balance } => Some((id.to_string(), balance)),
        Account::Closed => None,
    });
    open.collect()
}

/// The money that came into the ledger, minus the money that left it.
fn net_deposits(ledger: &ServiceKit<Ledger>) -> i128 {
    let mut net = 0;
    for entry in ledger.entries() {
        let Outcome::Accepted(events) = &entry.outcome else { continue };
        for event in events {
            let amount = || {
                let movement: Movement = serde_json::from_str(event.data.get()).unwrap();
                i128::from(movement.amount)
            };
            match event.kind.as_str() {
                "deposited" => net += amount(),
                "withdrawn" => net -= amount(),
                _ => {}
            }
        }
    }
    net
}

proptest! {
    #[test]
    fn balances_sum_to_the_net_deposits(commands in prop::collection::vec(command(), 0..60)) {
        let ledger = ledger_after(&commands);
        for entry in ledger.entries() {
            prop_assert!(["accepted", "rejected"].contains(&entry.outcome.status()), "{:?}", entry);
        }
        let balances = balances(&ledger);
        prop_assert!(balances.values().all(|balance| *balance >= 0), "{:?}", balances);
        let sum: i128 = balances.values().copied().map(i128::from).sum();
        prop_assert_eq!(sum, net_deposits(&ledger));
    }

    #[test]
    fn views_agree_with_the_documents(commands in prop::collection::vec(command(), 0..60)) {
        let ledger = ledger_after(&commands);
        let open = balances(&ledger);

        let rows = testing::view::<Balances>().given(ledger.entries()).rows::<Balance>();
        let shown: BTreeMap<_, _> = rows.iter().map(|(key, row)| (key.clone(), row.balance)).collect();
        prop_assert_eq!(&shown, &open);

        let lines = testing::view::<Statement>().given(ledger.entries()).rows::<Line>();
        // Rows are in the order of keys, so the last line of each account remains.
        let last: BTreeMap<_, _> =
            lines.values().map(|line| (line.account.to_string(), line.balance)).collect();
        for (account, balance) in &last {
            prop_assert_eq!(balance, open.get(account).unwrap_or(&0), "{}", account);
        }

        let rejected =
            ledger.entries().iter().filter(|entry| entry.outcome.status() == "rejected").count();
        let total = Total {
            accounts: open.len() as u64,
            balance: open.values().copied().map(i128::from).sum(),
            movements: lines.len() as u64,
            rejected: rejected as u64,
        };
        let mut rows = testing::view::<Totals>().given(ledger.entries()).rows::<Total>();
        prop_assert_eq!(rows.remove("total").unwrap_or_default(), total);
    }

    #[test]
    fn lines_add_up_to_their_balances(commands in prop::collection::vec(command(), 0..60)) {
        let ledger = ledger_after(&commands);
        let lines = testing::view::<Statement>().given(ledger.entries()).rows::<Line>();
        let mut balances = BTreeMap::new();
        for line in lines.into_values() {
            let balance = balances.entry(line.account.to_string()).or_insert(0_i64);
            *balance += match line.kind.as_str() {
                "deposited" | "received" => line.amount,
                _ => -line.amount,
            };
            prop_assert_eq!(*balance, line.balance, "{:?}", line);
        }
    }
}
