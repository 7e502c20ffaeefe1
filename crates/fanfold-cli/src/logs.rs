//! `fanfold logs`.

use std::process::ExitCode;

use clap::Args;
use fanfold_http::limits::PAGE_MAX;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, Server, Target};
use crate::output::{Output, ignore_closed_output};

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Prints one line of JSON per log, in no order of their names.")]
pub(crate) struct Logs {
    #[command(flatten)]
    server: Server,
    /// List only logs whose names begin with this, as `orders/`, or `orders/org:a`.
    #[arg(long)]
    prefix: Option<String>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    logs: Vec<&'a RawValue>,
    next: Option<String>,
}

impl Logs {
    /// Prints the logs.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        ignore_closed_output(self.print())
    }

    fn print(&self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.server)?;
        let mut output = Output::default();
        let mut after: Option<String> = None;
        loop {
            let target = Target::path(&["logs"])
                .query_if("prefix", self.prefix.as_ref())
                .query_if("after", after.as_ref())
                .query("limit", PAGE_MAX);
            let answer = client.get(&target)?;
            let page: Page<'_> = answer.read()?;
            page.logs.iter().try_for_each(|log| output.line(log))?;
            output.flush()?;
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(ExitCode::SUCCESS),
            }
        }
    }
}
