//! The relay: changes of the commands table go on to the command stream.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfold_lambda::relay()
}
