//! The ledger's view `totals`.

use std::process::ExitCode;

use ledger::views::Totals;

fn main() -> ExitCode {
    fanfold_lambda::view::<Totals>()
}
