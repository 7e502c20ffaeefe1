//! `fanfold timeline`: who did what.

use std::process::ExitCode;

use clap::{Args, value_parser};
use fanfold::Time;
use fanfold_http::limits::PAGE_MAX;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, Server, Target};
use crate::output::{Output, ignore_closed_output};

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints one line per action of an operator, the newest first: when, by whom, what, on what, and what it came \
to. On one machine a name is what the client said, by default $USER, so it is marked with `?`. `begun` means that no outcome \
was recorded: the action may be under way, or its host has ended meanwhile."
)]
pub(crate) struct Timeline {
    #[command(flatten)]
    server: Server,
    /// At most so many actions.
    #[arg(long, default_value_t = 50, value_parser = value_parser!(u32).range(1..))]
    limit: u32,
    /// Print one line of JSON per action.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    at: Time,
    by: Option<String>,
    is_claimed: bool,
    action: String,
    log: Option<String>,
    view: Option<String>,
    seq: Option<u64>,
    target: Option<String>,
    reason: Option<String>,
    state: String,
    result: Option<String>,
}

impl Timeline {
    /// Prints the actions.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        ignore_closed_output(self.print())
    }

    fn print(&self) -> anyhow::Result<ExitCode> {
        let (client, mut output) = (Client::new(&self.server)?, Output::default());
        let (mut before, mut left): (Option<String>, _) = (None, u64::from(self.limit));
        loop {
            let target = Target::path(&["ops", "timeline"]).query("limit", PAGE_MAX.min(left));
            let answer = client.get(&target.query_if("before", before.as_ref()))?;
            let page: Page<'_> = answer.read()?;
            for item in &page.items {
                match self.json {
                    true => output.line(item)?,
                    false => output.bytes(line(&serde_json::from_str(item.get())?).as_bytes())?,
                }
            }
            output.flush()?;
            left = left.saturating_sub(page.items.len() as u64);
            before = page.next;
            if left == 0 || before.is_none() {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

fn line(item: &Item) -> String {
    let Item { at, by, is_claimed, action, log, view, seq, target, reason, state, result } = item;
    let by = by.as_deref().unwrap_or("-");
    let mark = if *is_claimed { "?" } else { "" };
    let mut line = format!("{at} {by}{mark} {action}");
    let view = view.as_ref().map(|view| format!("view {view}"));
    let place = log.as_ref().map(|log| match seq {
        Some(seq) => format!("{log}/{seq}"),
        None => log.clone(),
    });
    for part in [view, place, target.clone()].into_iter().flatten() {
        line.push(' ');
        line.push_str(&part);
    }
    if let Some(reason) = reason {
        line.push_str(&format!(" ({reason})"));
    }
    line.push_str(&format!(": {state}"));
    if let Some(result) = result {
        line.push_str(&format!(", {result}"));
    }
    // A line each, whatever a client has sent.
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
