//! All functions of the ledger on AWS. `FANFOLD_ROLE` says which one a process is.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfold_lambda::main(ledger::app())
}
