//! The sweep: finds logs that stand still, and sends canaries.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfold_lambda::sweep()
}
