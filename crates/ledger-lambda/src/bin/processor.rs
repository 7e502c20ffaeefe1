//! The ledger's processor.

use std::process::ExitCode;

use fanfold::Services;
use ledger::Ledger;

fn main() -> ExitCode {
    fanfold_lambda::processor(Services::new().with::<Ledger>())
}
