//! The `fanfold` binary: the command line with the example service, and `new`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfold_cli::main_with_new(ledger::app())
}
