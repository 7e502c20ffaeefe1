//! `loadtest`: the load generator and its auditor.

use std::process::ExitCode;

use clap::Parser;
use loadtest::options::Options;

fn main() -> ExitCode {
    loadtest::main(&Options::parse())
}
