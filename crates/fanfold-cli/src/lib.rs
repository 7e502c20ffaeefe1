//! The command line of an [`App`]. `up` hosts the app in one process. `send`, `log`, `logs`
//! and `view` are clients of any host of the HTTP API. `timeline` lists what operators did. `schema` describes the app. `shards` and `backup` are clients of `up` alone,
//! which has routes for its shards and its folder. `restore` makes a folder from a backup. The program `fanfold` also has `new`, which makes a project.
//!
//! All commands keep these rules:
//!
//! - Results go to standard output, one JSON document a line; everything else to standard error.
//! - An error is one line that says what to do.
//! - The exit code is 0 for success, 1 if something failed, 2 if the arguments are wrong.
//!
//! [`host`] serves a router on a TCP port.

#![warn(clippy::print_stderr, clippy::print_stdout)] // These macros panic: see `console`.

mod admin;
mod backup;
mod batches;
mod chaos;
mod client;
mod console;
mod doctor;
mod doctor_host;
mod gauges;
pub mod host;
mod ids;
mod log;
mod logging;
mod logs;
mod new;
mod outcomes;
mod output;
mod parked;
mod post;
mod readiness;
mod rebuild;
mod repair;
mod retry;
mod schema;
mod send;
mod server;
mod shards;
mod signing;
mod timeline;
mod up;
mod view;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use fanfold::{App, AppError};
pub use fanfold_pipeline::panics;

/// A command makes some dozens of small allocations, and frees most of them in another thread,
/// which mimalloc does faster than the system's allocator.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command line of an app.
#[derive(Debug, Parser)]
#[command(long_about = None, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The command line of the program `fanfold`.
#[derive(Debug, Parser)]
#[command(long_about = None, arg_required_else_help = true)]
struct OwnCli {
    #[command(subcommand)]
    command: OwnCommand,
}

#[derive(Debug, Subcommand)]
enum OwnCommand {
    /// Make a project: a service with views, tests, templates for AWS and a CI file.
    New(new::New),
    #[command(flatten)]
    OfApp(Box<Command>),
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Host the services and views in this process.
    Up(Box<up::Up>),
    /// Send commands: one from flags, or many from a file or standard input.
    Send(send::Send),
    /// Show the entries of a log.
    Log(log::Log),
    /// List the logs.
    Logs(logs::Logs),
    /// Show the rows of a view, or all views.
    View(view::View),
    /// Print the schemas of commands, events and rows, or compare them with earlier ones.
    Schema(schema::Schema),
    /// List what waits, and cannot go on by itself.
    Parked(parked::Parked),
    /// Let what waits go on.
    Resume(parked::Resume),
    /// Give up a command, or an entry of a view.
    Skip(parked::Skip),
    /// Send a faulted command again.
    Resend(parked::Resend),
    /// Make the rows of one log of a view again.
    Rebuild(rebuild::Rebuild),
    /// Compare what is stored: slots, commits, documents, cursors and rows.
    Doctor(doctor::Doctor),
    /// List who did what: the actions of operators, newest first.
    Timeline(timeline::Timeline),
    /// List, split or merge the shards of a running `up`.
    Shards(shards::Shards),
    /// Break a running `up --chaos` on purpose, to see how it heals.
    Chaos(chaos::Chaos),
    /// Copy the folder of a running `up`.
    Backup(backup::Backup),
    /// Make a data folder from a backup.
    Restore(backup::Restore),
}

/// Runs the command that the process's arguments name; returns the exit code. A `main` of one line
/// calls it.
pub fn main(app: Result<App, AppError>) -> ExitCode {
    let app = match app {
        Ok(app) => app,
        Err(error) => return exit_code(Err(error.into())),
    };
    let about = format!("The services and views of {}, on Fanfold", app.name());
    // An app has no version of its own that it could be asked for.
    let version = concat!("on Fanfold ", env!("CARGO_PKG_VERSION"));
    match parsed::<Cli>(app.name(), version, about) {
        Ok(cli) => exit_code(cli.command.run(app)),
        Err(error) => usage(&error),
    }
}

/// As [`main`], with `new`: for the program `fanfold`.
#[doc(hidden)]
pub fn main_with_new(app: Result<App, AppError>) -> ExitCode {
    let about = "Event sourcing for high-volume multi-tenant systems".to_owned();
    match parsed::<OwnCli>("fanfold", env!("CARGO_PKG_VERSION"), about) {
        Ok(OwnCli { command: OwnCommand::New(new) }) => exit_code(new.run()),
        Ok(OwnCli { command: OwnCommand::OfApp(command) }) => {
            exit_code(app.map_err(Into::into).and_then(|app| command.run(app)))
        }
        Err(error) => usage(&error),
    }
}

/// The process's arguments, parsed for the program `name`.
fn parsed<C: Parser>(
    name: &'static str,
    version: &'static str,
    about: String,
) -> Result<C, clap::Error> {
    let command = C::command().name(name).bin_name(name).version(version).about(about);
    C::from_arg_matches(&command.try_get_matches()?)
}

/// Prints help as it is, and an error of the arguments in one line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A reader that has closed its end needs no help.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => drop(error.print()),
        _ => console::print(one_line(&error.render().to_string())),
    }
    ExitCode::from(2)
}

/// What is wrong with the arguments, and the tip, if there is one. Without the usage, which may be long.
fn one_line(rendered: &str) -> String {
    let paragraphs = rendered.trim_end().split("\n\n").map(str::trim);
    let paragraphs = paragraphs.filter(|text| !text.starts_with("Usage:"));
    let lines = paragraphs.map(|text| text.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    // clap's own end, as one more part of the line.
    let joined = lines.collect::<Vec<_>>().join("; ").replace("For more information, try", "see");
    joined.trim_end_matches('.').to_owned()
}

fn exit_code(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        console::print(format_args!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

impl Command {
    fn run(self, app: App) -> anyhow::Result<ExitCode> {
        match self {
            Self::Up(up) => up.run(app),
            Self::Send(send) => send.run(),
            Self::Log(log) => log.run(),
            Self::Logs(logs) => logs.run(),
            Self::View(view) => view.run(),
            Self::Schema(schema) => schema.run(&app),
            Self::Parked(parked) => parked.run(),
            Self::Resume(resume) => resume.run(),
            Self::Skip(skip) => skip.run(),
            Self::Resend(resend) => resend.run(),
            Self::Rebuild(rebuild) => rebuild.run(),
            Self::Doctor(doctor) => doctor.run(),
            Self::Timeline(timeline) => timeline.run(),
            Self::Shards(shards) => shards.run(),
            Self::Chaos(chaos) => chaos.run(),
            Self::Backup(backup) => backup.run(),
            Self::Restore(restore) => restore.run(&app),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use clap::CommandFactory;

    use super::*;

    /// The words of a line of a shell, up to a comment or a pipe. Only what the documents use: single quotes, and names in
    /// angle brackets.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
        for character in line.chars() {
            match character {
                '\'' => is_quoted = !is_quoted,
                '#' | '|' | '>' if !is_quoted && word.is_empty() => break,
                ' ' if !is_quoted => {
                    words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)))
                }
                _ => word.push(character),
            }
        }
        words.extend((!word.is_empty()).then_some(word));
        words
    }

    /// So a document names no command, flag or value that does not exist.
    #[test]
    fn the_commands_of_operators_in_the_documents_can_be_parsed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut parsed = 0;
        for page in ["docs/runbook.md", "docs/one-machine.md", "docs/http.md", "infra/operate.md"] {
            let text = fs::read_to_string(root.join(page)).expect(page);
            let shell = text.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
            let lines = shell.flat_map(str::lines).filter(|line| line.starts_with("fanfold "));
            for line in lines {
                let line = line.replace("<service>", "ledger");
                if let Err(error) = OwnCli::command().try_get_matches_from(words(&line)) {
                    panic!("{page}: {line}: {error}");
                }
                parsed += 1;
            }
        }
        assert!(parsed > 15, "only {parsed} commands were found");
    }
}
