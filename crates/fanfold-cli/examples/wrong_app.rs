//! The command line of an app that cannot be hosted, for a test.

use std::process::ExitCode;

use fanfold::App;

fn main() -> ExitCode {
    fanfold_cli::main(App::named("Books").build())
}
