//! The rows of the views.

use fanfold::testing::{self, ServiceKit};
use ledger::Ledger;
use ledger::views::{Balances, Statement, Total, Totals};
use serde_json::{Value, json};

/// Seven commands: two accounts, a deposit, two transfers, a refused withdrawal, and a withdrawal.
fn ledger() -> ServiceKit<Ledger> {
    testing::service::<Ledger>()
        .when("open", json!({ "account": "cash" }))
        .when("open", json!({ "account": "bank" }))
        .when("deposit", json!({ "account": "cash", "amount": 100 }))
        .when("transfer", json!({ "from": "cash", "to": "bank", "amount": 40 }))
        .when("transfer", json!({ "from": "cash", "to": "cash", "amount": 60 }))
        .when("withdraw", json!({ "account": "cash", "amount": 61 }))
        .when("withdraw", json!({ "account": "cash", "amount": 60 }))
}

#[test]
fn balances_hold_the_open_accounts() {
    let ledger = ledger();
    testing::view::<Balances>().given(ledger.entries()).then_rows([
        ("bank", json!({ "balance": 40, "movements": 1 })),
        ("cash", json!({ "balance": 0, "movements": 3 })),
    ]);
    let ledger = ledger.when("close", json!({ "account": "cash" }));
    testing::view::<Balances>().given(ledger.entries()).then_no_row("cash");
    let ledger = ledger.when("open", json!({ "account": "cash" }));
    let opened_again = json!({ "balance": 0, "movements": 0 });
    testing::view::<Balances>().given(ledger.entries()).then_row("cash", opened_again);
}

#[test]
fn a_statement_has_a_line_for_every_movement() {
    let line = |account, kind, amount, balance, at| json!({ "account": account, "kind": kind, "amount": amount, "balance": balance, "at": at });
    testing::view::<Statement>().given(ledger().entries()).then_rows([
        ("bank/00000000000000000004", line("bank", "received", 40, 40, 4_000)),
        ("cash/00000000000000000003", line("cash", "deposited", 100, 100, 3_000)),
        ("cash/00000000000000000004", line("cash", "sent", 40, 60, 4_000)),
        ("cash/00000000000000000007", line("cash", "withdrawn", 60, 0, 7_000)),
    ]);
}

#[test]
fn a_line_shows_its_memo() {
    let entries = testing::service::<Ledger>()
        .when("open", json!({ "account": "cash" }))
        .when("deposit", json!({ "account": "cash", "amount": 1, "memo": "rent" }));
    let rows = testing::view::<Statement>().given(entries.entries()).rows::<Value>();
    let memos: Vec<Value> = rows.into_values().map(|row| row["memo"].clone()).collect();
    assert_eq!(memos, ["rent"]);
}

#[test]
fn totals_are_the_sums_over_the_organisation() {
    let totals = testing::view::<Totals>().given(ledger().entries()).then_rows([(
        "total",
        json!({ "accounts": 2, "balance": 40, "movements": 4, "rejected": 1 }),
    )]);
    let before = totals.rows::<Value>();
    let after = totals.given_faulted("a bug").given_lost("a test").rows::<Value>();
    assert_eq!(before, after);
}

#[test]
fn totals_exceed_the_range_of_one_balance() {
    let full = |kit: ServiceKit<Ledger>, account| {
        kit.when("open", json!({ "account": account }))
            .when("deposit", json!({ "account": account, "amount": i64::MAX }))
    };
    let ledger = full(full(full(testing::service(), "a"), "b"), "c");
    let rows = testing::view::<Totals>().given(ledger.entries()).rows::<Total>();
    assert_eq!(rows["total"].balance, 3 * i128::from(i64::MAX));
}
