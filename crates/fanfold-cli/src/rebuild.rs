//! `fanfold rebuild`: makes the rows of one log of a view again.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use fanfold::LogId;
use serde::Deserialize;
use serde_json::json;

use crate::client::{Client, Server, Target};
use crate::console;
use crate::output::{Output, ignore_closed_output};
use crate::retry::Backoff;

/// How long to ask again while the server does not answer. Source: our choice; a restart takes less.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest pause before the server is asked again. Source: our choice; another operator may have gone on meanwhile.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A pause that is said to the caller. Source: our choice; shorter ones are not noticed.
const SAID: Duration = Duration::from_secs(2);

/// The arguments.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Parks the view for the log, waits until calls that may still write its rows have ended (on AWS a quarter \
of an hour), removes the rows, and sets the cursor to zero. Then the view applies the journal again. Until then readers find \
rows missing, and the view parked. If this ends half-way, the view stays parked: run it again.\n\nPrints one line of JSON \
when the view goes on. Exit codes: 0, it does; 1, it does not; 2, the arguments are wrong."
)]
pub(crate) struct Rebuild {
    #[command(flatten)]
    server: Server,
    /// The log: the service, and `org:` or `user:` with a name, as `orders/org:acme`.
    #[arg(value_name = "SERVICE/PARTITION")]
    log: LogId,
    /// The view.
    #[arg(long)]
    view: String,
}

/// The rebuild of a view's log, as far as it is known.
pub(crate) struct Rebuilding {
    pub(crate) view: String,
    pub(crate) log: LogId,
    begun: Option<u64>,
    /// How many rows were removed.
    pub(crate) removed: u64,
}

#[derive(Deserialize)]
struct Answered {
    done: String,
    begun: Option<u64>,
    #[serde(default)]
    wait_ms: u64,
    #[serde(default)]
    rows: u64,
}

impl Rebuilding {
    pub(crate) fn new(view: String, log: LogId) -> Self {
        Self { view, log, begun: None, removed: 0 }
    }

    /// Asks once. Returns how long to wait before asking again; `None`: the view goes on.
    pub(crate) fn ask(&mut self, client: &Client) -> anyhow::Result<Option<Duration>> {
        let body = json!({ "view": self.view, "log": self.log, "begun": self.begun }).to_string();
        let target = Target::path(&["ops", "rebuild"]);
        let mut backoff = Backoff::within(PATIENCE);
        let answer = client.post_with_retries(&target, body.as_bytes(), &mut backoff)?;
        let Answered { done, begun, wait_ms, rows } = answer.read()?;
        self.begun = begun.or(self.begun);
        self.removed += rows;
        Ok((done == "rebuilding").then(|| Duration::from_millis(wait_ms)))
    }
}

/// Rebuilds all of these, side by side, so that the waiting is done once. Calls `ended` for each, with an error if it did
/// not end well.
pub(crate) fn rebuild_all(
    client: &Client,
    mut all: Vec<Rebuilding>,
    mut ended: impl FnMut(&Rebuilding, anyhow::Result<()>),
) {
    let mut has_said = false;
    while !all.is_empty() {
        let (mut left, mut pause) = (Vec::new(), Duration::MAX);
        for mut rebuilding in all {
            match rebuilding.ask(client) {
                Ok(None) => ended(&rebuilding, Ok(())),
                Ok(Some(wait)) => {
                    pause = pause.min(wait);
                    left.push(rebuilding);
                }
                Err(error) => {
                    let Rebuilding { log, view, begun, .. } = &rebuilding;
                    let again = format!(
                        "the view may stay parked until `fanfold rebuild {log} --view {view}` has run"
                    );
                    let is_begun = begun.is_some();
                    ended(
                        &rebuilding,
                        if is_begun { Err(error.context(again)) } else { Err(error) },
                    );
                }
            }
        }
        all = left;
        if !all.is_empty() {
            if pause >= SAID && !has_said {
                has_said = true;
                console::print(format_args!(
                    "calls that may still write rows have ended in {} s: waiting for that",
                    pause.as_secs()
                ));
            }
            sleep(pause.min(PAUSE_MAX));
        }
    }
}

impl Rebuild {
    /// Rebuilds the log.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.server)?;
        let mut result = Ok((0, self.view.clone(), self.log.clone()));
        rebuild_all(&client, vec![Rebuilding::new(self.view, self.log)], |rebuilt, ended| {
            result = ended.map(|()| (rebuilt.removed, rebuilt.view.clone(), rebuilt.log.clone()));
        });
        let (removed, view, log) = result?;
        let line = json!({ "log": log, "view": view, "done": "begun", "removed": removed });
        ignore_closed_output(print(&line.to_string()).context("the view goes on"))
    }
}

fn print(line: &str) -> anyhow::Result<ExitCode> {
    let mut output = Output::default();
    output.bytes(line.as_bytes())?;
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}
