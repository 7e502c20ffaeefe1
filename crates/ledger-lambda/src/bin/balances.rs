//! The ledger's view `balances`.

use std::process::ExitCode;

use ledger::views::Balances;

fn main() -> ExitCode {
    fanfold_lambda::view::<Balances>()
}
