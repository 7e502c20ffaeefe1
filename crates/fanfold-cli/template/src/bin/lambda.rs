//! All functions on AWS. `FANFOLD_ROLE` says which one a process is.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfold_lambda::main(my_app::app())
}
