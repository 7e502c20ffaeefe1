//! The HTTP API of the ledger.

use std::process::ExitCode;

use fanfold::{Services, Views};
use ledger::Ledger;
use ledger::views::{Balances, Statement, Totals};

fn main() -> ExitCode {
    let views = Views::new().with::<Balances>().with::<Statement>().with::<Totals>();
    fanfold_lambda::api(Services::new().with::<Ledger>(), views)
}
