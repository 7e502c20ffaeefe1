//! The `fanfold` binary: see the library.

use std::process::ExitCode;

use clap::Parser;
use fanfold_cli::Cli;

/// A command is many small things that one thread makes and another drops: what the system's
/// allocator costs there is a fifth of all.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
