//! The command line, with `up`, which hosts the app on one machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfold_cli::main(my_app::app())
}
