//! The relay: puts changes of the commands table on the command stream.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfold_lambda::relay()
}
