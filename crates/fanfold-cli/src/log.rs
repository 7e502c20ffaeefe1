//! `fanfold log`.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use fanfold::LogId;
use fanfold_http::limits::PAGE_MAX;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, Server, Target};
use crate::output::{Output, unless_closed};

/// How often `--follow` looks, when there is nothing new: as often as people notice.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Prints one line of JSON per entry.")]
pub struct Log {
    #[command(flatten)]
    server: Server,
    /// The log, as `ledger/org:acme`.
    #[arg(value_name = "SERVICE/PARTITION")]
    log: LogId,
    /// The seq to begin at.
    #[arg(long, default_value_t = 1, value_name = "SEQ")]
    from: u64,
    /// Go on with new entries as they come.
    #[arg(long)]
    follow: bool,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    entries: Vec<&'a RawValue>,
    next: Option<u64>,
}

impl Log {
    /// Prints the entries.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        unless_closed(self.print())
    }

    fn print(&self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.server);
        let mut output = Output::default();
        let mut from = self.from;
        loop {
            let target = Target::path(&["logs", self.log.service(), self.log.partition()])
                .query("from", from)
                .query("limit", PAGE_MAX);
            let answer = client.get(&target)?;
            let page: Page<'_> = answer.read()?;
            for entry in &page.entries {
                output.line(entry)?;
            }
            output.flush()?;
            // Entries are dense from `from` on.
            from += page.entries.len() as u64;
            match page.next {
                Some(next) => from = next,
                None if self.follow => sleep(FOLLOW_EVERY),
                None => return Ok(ExitCode::SUCCESS),
            }
        }
    }
}
