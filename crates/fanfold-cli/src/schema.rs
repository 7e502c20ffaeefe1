//! `fanfold schema`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use fanfold::App;
use fanfold::host::describe::Description;
use fanfold_http::describe::{asyncapi, openapi};
use fanfold_http::limits::WAIT_MS_EVERYWHERE;
use serde::Serialize;
use serde_json::Value;

use crate::output::{Output, ignore_closed_output};

/// The arguments.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Prints one JSON document: `services` with the JSON Schemas of commands and events, `views` with those \
                  of rows, `$defs`, `openapi` (also at /openapi.json) and `asyncapi` (at /asyncapi.json). Each event \
                  type has its current version only, since the types of earlier ones are no longer in the code: commit \
                  the output with each release, and the history of that file has them. Documents have no schema."
)]
pub(crate) struct Schema {
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Compare with an earlier output of `schema`, one line a change. Lines with `breaks` are changes that old clients,
    /// stored events or rows, other apps' views or readers of rows cannot take, or that hosts refuse: then it fails.
    /// Lines with `notice` name what others must know. It does not compare documents, `upcast`, or what code means.
    Check {
        /// The earlier output.
        old: PathBuf,
    },
}

#[derive(Serialize)]
struct Printed {
    #[serde(flatten)]
    description: Description,
    openapi: Value,
    asyncapi: Value,
}

impl Schema {
    /// Prints the app's schemas, or compares them.
    pub(crate) fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let description = app.describe();
        ignore_closed_output(match self.task {
            None => print(description),
            Some(Task::Check { old }) => check(&description, &old),
        })
    }
}

fn print(description: Description) -> anyhow::Result<ExitCode> {
    let (openapi, asyncapi) = (openapi(&description, WAIT_MS_EVERYWHERE), asyncapi(&description));
    let printed = Printed { description, openapi, asyncapi };
    let mut output = Output::default();
    output.bytes(&serde_json::to_vec_pretty(&printed)?)?;
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn check(description: &Description, path: &Path) -> anyhow::Result<ExitCode> {
    let shown = path.display();
    let old = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    let old: Description = serde_json::from_slice(&old)
        .with_context(|| format!("{shown} is not an output of this version of `schema`"))?;
    if old.app != description.app {
        bail!("{shown} describes the app `{}`, and this is `{}`", old.app, description.app);
    }
    let changes = description.compare(&old);
    let mut output = Output::default();
    for change in &changes {
        let kind = if change.breaks { "breaks" } else { "notice" };
        output.bytes(format!("{kind}: {change}").as_bytes())?;
    }
    output.flush()?;
    let breaks = changes.iter().filter(|change| change.breaks).count();
    match breaks {
        0 => Ok(ExitCode::SUCCESS),
        n => bail!("{n} of {} changes break what relies on {shown}", changes.len()),
    }
}
