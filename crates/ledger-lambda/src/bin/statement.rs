//! The ledger's view `statement`.

use std::process::ExitCode;

use ledger::views::Statement;

fn main() -> ExitCode {
    fanfold_lambda::view::<Statement>()
}
