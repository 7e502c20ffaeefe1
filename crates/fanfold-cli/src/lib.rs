//! The `fanfold` command line: [`up`] hosts the example service in one process; [`send`], [`log`]
//! and [`view`] talk over HTTP to that or to any other host of the API; [`shards`] to `up` alone,
//! whose API has the routes of [`admin`], too.
//!
//! It guarantees that results go to standard output, one JSON document a line, and everything
//! else to standard error; that an error is one line that says what to do; and that the exit code
//! is 0 only if all went well, 1 if something did not, 2 if the arguments are wrong.
//!
//! It knows nothing of stages and storage: [`host`] puts an engine and the router together.

#![warn(clippy::print_stderr, clippy::print_stdout)] // They panic: see `console`.

pub mod admin;
pub mod batches;
pub mod client;
pub mod console;
mod gauges;
pub mod host;
pub mod ids;
pub mod log;
mod logging;
pub mod outcomes;
pub mod output;
pub mod post;
pub mod retry;
pub mod send;
pub mod server;
pub mod shards;
pub mod up;
pub mod view;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
pub use fanfold_pipeline::panics;

/// Event sourcing for high-volume multi-tenant systems.
#[derive(Debug, Parser)]
#[command(name = "fanfold", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in this process, with the ledger as the example service.
    Up(Box<up::Up>),
    /// Send commands: one from flags, or many from a file or standard input.
    Send(send::Send),
    /// Show the entries of a log.
    Log(log::Log),
    /// Show the rows of a view.
    View(view::View),
    /// List, split or merge the shards of a running `up`.
    Shards(shards::Shards),
}

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Up(up) => up.run(),
            Command::Send(send) => send.run(),
            Command::Log(log) => log.run(),
            Command::View(view) => view.run(),
            Command::Shards(shards) => shards.run(),
        }
    }
}
