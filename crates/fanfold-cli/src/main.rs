//! The `fanfold` binary: the command line with the example service.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfold_cli::main(ledger::app())
}
