//! The ledger's decisions on each command.

use fanfold::testing::{self, ServiceKit};
use ledger::{Event, Ledger, Movement};
use serde_json::json;

fn moved(amount: i64, balance: i64) -> Movement {
    Movement { amount, balance, memo: None }
}

/// Accounts: `cash` with 100, `bank` with 0, `full` with the highest balance, and `gone`, which was closed.
fn ledger() -> ServiceKit<Ledger> {
    testing::service::<Ledger>()
        .given("cash", Event::Opened)
        .given("cash", Event::Deposited(moved(100, 100)))
        .given("bank", Event::Opened)
        .given("full", Event::Opened)
        .given("full", Event::Deposited(moved(i64::MAX, i64::MAX)))
        .given("gone", Event::Opened)
        .given("gone", Event::Closed)
}

#[test]
fn valid_commands_are_accepted_with_these_events() {
    let (cash, bank) = ("cash", "bank");
    for (command, data, events) in [
        ("open", json!({ "account": "new" }), vec![("new", Event::Opened)]),
        ("open", json!({ "account": "gone" }), vec![("gone", Event::Opened)]),
        (
            "deposit",
            json!({ "account": cash, "amount": 5 }),
            vec![(cash, Event::Deposited(moved(5, 105)))],
        ),
        (
            "deposit",
            json!({ "account": bank, "amount": i64::MAX }),
            vec![(bank, Event::Deposited(moved(i64::MAX, i64::MAX)))],
        ),
        (
            "withdraw",
            json!({ "account": cash, "amount": 100 }),
            vec![(cash, Event::Withdrawn(moved(100, 0)))],
        ),
        (
            "transfer",
            json!({ "from": cash, "to": bank, "amount": 30 }),
            vec![(cash, Event::Sent(moved(30, 70))), (bank, Event::Received(moved(30, 30)))],
        ),
        ("transfer", json!({ "from": cash, "to": cash, "amount": 100 }), vec![]),
        ("transfer", json!({ "from": "full", "to": "full", "amount": 1 }), vec![]),
        ("close", json!({ "account": bank }), vec![(bank, Event::Closed)]),
    ] {
        ledger().when(command, data).then(events);
    }
}

#[test]
fn a_memo_is_part_of_the_event() {
    let of_rent =
        |amount, balance| Movement { memo: Some("rent".into()), ..moved(amount, balance) };
    ledger()
        .when("transfer", json!({ "from": "cash", "to": "bank", "amount": 30, "memo": "rent" }))
        .then([("cash", Event::Sent(of_rent(30, 70))), ("bank", Event::Received(of_rent(30, 30)))]);
    ledger()
        .when("deposit", json!({ "account": "cash", "amount": 1, "memo": "rent" }))
        .then([("cash", Event::Deposited(of_rent(1, 101)))]);
    ledger()
        .when("withdraw", json!({ "account": "cash", "amount": 1, "memo": "rent" }))
        .then([("cash", Event::Withdrawn(of_rent(1, 99)))]);
}

#[test]
fn invalid_commands_are_rejected_with_these_codes() {
    for (command, data, code) in [
        ("open", json!({ "account": "cash" }), "already_open"),
        ("deposit", json!({ "account": "nowhere", "amount": 1 }), "no_such_account"),
        ("deposit", json!({ "account": "gone", "amount": 1 }), "no_such_account"),
        ("deposit", json!({ "account": "cash", "amount": 0 }), "invalid_amount"),
        ("deposit", json!({ "account": "cash", "amount": -1 }), "invalid_amount"),
        ("deposit", json!({ "account": "cash", "amount": i64::MAX }), "invalid_amount"),
        ("withdraw", json!({ "account": "nowhere", "amount": 1 }), "no_such_account"),
        ("withdraw", json!({ "account": "cash", "amount": 101 }), "overdrawn"),
        ("withdraw", json!({ "account": "cash", "amount": 0 }), "invalid_amount"),
        ("withdraw", json!({ "account": "cash", "amount": i64::MIN }), "invalid_amount"),
        ("transfer", json!({ "from": "cash", "to": "nowhere", "amount": 1 }), "no_such_account"),
        ("transfer", json!({ "from": "nowhere", "to": "cash", "amount": 1 }), "no_such_account"),
        ("transfer", json!({ "from": "cash", "to": "bank", "amount": 101 }), "overdrawn"),
        ("transfer", json!({ "from": "cash", "to": "bank", "amount": -1 }), "invalid_amount"),
        ("transfer", json!({ "from": "cash", "to": "full", "amount": 1 }), "invalid_amount"),
        ("transfer", json!({ "from": "cash", "to": "cash", "amount": 101 }), "overdrawn"),
        ("transfer", json!({ "from": "cash", "to": "cash", "amount": 0 }), "invalid_amount"),
        ("close", json!({ "account": "nowhere" }), "no_such_account"),
        ("close", json!({ "account": "cash" }), "not_empty"),
        ("burn", json!({ "account": "cash" }), "unknown_command"),
    ] {
        ledger().when(command, data).then_rejected(code);
    }
}

#[test]
fn data_that_does_not_fit_names_the_field() {
    for (command, data, field) in [
        ("open", json!({}), "`account`"),
        ("open", json!({ "acount": "cash" }), "`acount`"),
        ("open", json!({ "account": "petty/cash" }), "`data.account`"),
        ("open", json!({ "account": "" }), "`data.account`"),
        ("deposit", json!({ "account": "cash", "amount": 1, "currency": "EUR" }), "`currency`"),
        ("deposit", json!({ "account": "cash" }), "`amount`"),
        ("deposit", json!({ "account": "cash", "amount": "1" }), "`data.amount`"),
        ("deposit", json!({ "account": "cash", "amount": 1.5 }), "`data.amount`"),
        ("deposit", json!({ "account": "cash", "amount": 1_u64 << 63 }), "`data.amount`"),
        ("transfer", json!({ "from": "cash", "to": 7, "amount": 1 }), "`data.to`"),
    ] {
        ledger().when(command, data).then_rejected("invalid_data").then_message(field);
    }
}

#[test]
fn refusals_name_the_account_and_the_amount() {
    ledger()
        .when("transfer", json!({ "from": "cash", "to": "nowhere", "amount": 1 }))
        .then_message("there is no account `nowhere`")
        .when("withdraw", json!({ "account": "cash", "amount": 101 }))
        .then_message("holds 100, less than 101");
}

#[test]
fn documents_hold_only_what_decisions_need() {
    ledger()
        .then_document("cash", json!({ "open": { "balance": 100 } }))
        .then_document("gone", json!("closed"));
}

#[test]
fn events_are_stored_under_their_names() {
    for (event, stored) in [
        (Event::Opened, json!({ "type": "opened" })),
        (
            Event::Received(moved(1, 2)),
            json!({ "type": "received", "data": { "amount": 1, "balance": 2 } }),
        ),
        (Event::Closed, json!({ "type": "closed" })),
    ] {
        assert_eq!(serde_json::to_value(event).unwrap(), stored);
    }
}
