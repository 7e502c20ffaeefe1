//! The `fanfold` binary: see the library.

use std::process::ExitCode;

use clap::Parser;
use fanfold_cli::{Cli, console};
use mimalloc::MiMalloc;

/// A command makes some dozens of small allocations, and frees most of them in another thread.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run().unwrap_or_else(|error| {
        console::tell(format_args!("error: {error:#}"));
        ExitCode::FAILURE
    })
}
