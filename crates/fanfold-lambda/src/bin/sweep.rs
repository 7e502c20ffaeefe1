//! The sweep: finds what stands still, and sends canaries.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfold_lambda::sweep()
}
