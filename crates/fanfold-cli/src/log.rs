//! `fanfold log`.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use fanfold::LogId;
use fanfold_http::limits::{PAGE_MAX, WAIT_MS_MAX};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Answer, Client, Server, Target};
use crate::console;
use crate::output::{Output, ignore_closed_output};
use crate::retry::Backoff;

/// How often `--follow` asks while there is nothing new, if the server lets no request wait. Source: our
/// choice; people hardly notice such a delay.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Prints one line of JSON per entry.")]
pub(crate) struct Log {
    #[command(flatten)]
    server: Server,
    /// The log: the service, and `org:` or `user:` with a name, as `orders/org:acme`.
    #[arg(value_name = "SERVICE/PARTITION")]
    log: LogId,
    /// The seq to begin at.
    #[arg(long, default_value_t = 1, value_name = "SEQ")]
    from: u64,
    /// Continue with new entries as they come. Waits if the log does not exist yet, or the server does
    /// not answer.
    #[arg(long)]
    follow: bool,
}

#[derive(Deserialize)]
struct Page<'a> {
    tail: u64,
    #[serde(borrow)]
    entries: Vec<&'a RawValue>,
    next: Option<u64>,
}

impl Log {
    /// Prints the entries.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        ignore_closed_output(self.print())
    }

    fn print(&self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.server)?;
        let mut output = Output::default();
        let mut from = self.from;
        let mut wait_ms = if self.follow { WAIT_MS_MAX } else { 0 };
        loop {
            let answer = self.page(&client, from, wait_ms)?;
            if let Some(most_ms) = longest_wait(&answer, wait_ms) {
                wait_ms = most_ms;
                continue;
            }
            let page: Page<'_> = answer.read()?;
            if from > self.from && page.tail < from - 1 {
                bail!(
                    "{} entries of {} were printed, and {} now has only {}: it is not the same log any more",
                    from - 1,
                    self.log,
                    client.url(),
                    page.tail
                );
            }
            for entry in &page.entries {
                output.line(entry)?;
            }
            output.flush()?;
            // Entries are dense from `from` on.
            from += page.entries.len() as u64;
            match page.next {
                Some(next) => from = next,
                None if !self.follow => return Ok(ExitCode::SUCCESS),
                None if wait_ms == 0 => sleep(FOLLOW_EVERY),
                // The next request waits.
                None => {}
            }
        }
    }

    fn page(&self, client: &Client, from: u64, wait_ms: u64) -> anyhow::Result<Answer> {
        let target = &Target::path(&["logs", self.log.service(), self.log.partition()])
            .query("from", from)
            .query("limit", PAGE_MAX)
            .query_if("wait", (wait_ms > 0).then_some(wait_ms));
        if !self.follow {
            return Ok(client.get(target)?);
        }
        let mut backoff = Backoff::without_limit();
        let mut is_reported = false;
        let answer = client.get_with_retries(target, &mut backoff, |why| {
            if !is_reported {
                console::print(format!("waiting: {why}"));
            }
            is_reported = true;
        });
        Ok(answer?)
    }
}

/// The longest wait that the server allows, if it refuses this one because it is longer; 0 if it lets
/// no request wait for a page.
fn longest_wait(answer: &Answer, wait_ms: u64) -> Option<u64> {
    let detail = answer.refusal().filter(|_| wait_ms > 0)?;
    let of_wait = detail.strip_prefix("`wait`: ")?;
    let most = of_wait.rsplit(' ').next().and_then(|most| most.parse().ok());
    Some(most.filter(|most| *most < wait_ms).unwrap_or(0))
}
