//! The `fanfold` binary: see the library.

use std::process::ExitCode;

use clap::Parser;
use fanfold_cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
