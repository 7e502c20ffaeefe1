//! `fanfold view`.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use fanfold::{LogId, RowKey};
use fanfold_http::limits::PAGE_MAX;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Answer, Client, Server, Target};
use crate::console;
use crate::output::{Output, ignore_closed_output};

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Prints one line of JSON per row, or per view.")]
pub(crate) struct View {
    #[command(flatten)]
    server: Server,
    /// The view's name. Without it, show all views that are served.
    #[arg(requires = "log")]
    view: Option<String>,
    /// The log: the service, and `org:` or `user:` with a name, as `orders/org:acme`.
    #[arg(value_name = "SERVICE/PARTITION")]
    log: Option<LogId>,
    /// Show only the row with this key.
    row: Option<RowKey>,
    /// Read only after the view has reached this seq, as a receipt has it: read your own writes.
    #[arg(long, requires = "view")]
    seq: Option<u64>,
    /// Wait at most this many milliseconds for the seq.
    #[arg(
        long,
        value_name = "MS",
        requires = "seq",
        default_value_if("seq", clap::builder::ArgPredicate::IsPresent, "5000")
    )]
    wait: Option<u64>,
    /// Show only rows whose keys begin with this.
    #[arg(long, requires = "view", conflicts_with = "row")]
    prefix: Option<String>,
    /// Show at most this many rows.
    #[arg(long, requires = "view", conflicts_with = "row", value_name = "ROWS")]
    limit: Option<u64>,
    /// Show the rows from the last key to the first.
    #[arg(long, requires = "view", conflicts_with = "row")]
    desc: bool,
}

#[derive(Deserialize)]
struct Served<'a> {
    #[serde(borrow)]
    views: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    parked: Option<&'a RawValue>,
    #[serde(borrow)]
    rows: Vec<&'a RawValue>,
    next: Option<RowKey>,
}

#[derive(Deserialize)]
struct Pending<'a> {
    seq: u64,
    #[serde(borrow)]
    parked: Option<&'a RawValue>,
}

impl View {
    /// Prints the rows.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        ignore_closed_output(self.print())
    }

    fn print(&self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.server)?;
        let mut output = Output::default();
        match (&self.view, &self.log) {
            (Some(view), Some(log)) => self.print_rows(&client, &mut output, view, log)?,
            _ => {
                let answer = client.get(&Target::path(&["views"]))?;
                let served: Served<'_> = answer.read()?;
                served.views.iter().try_for_each(|view| output.line(view))?;
            }
        }
        output.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    fn print_rows(
        &self,
        client: &Client,
        output: &mut Output,
        view: &str,
        log: &LogId,
    ) -> anyhow::Result<()> {
        let of_log = ["views", view, log.service(), log.partition()];
        match &self.row {
            Some(row) => {
                let target = self.target(&[&of_log[..], &[row.as_str()]].concat());
                output.line(self.get(client, target)?.read()?)
            }
            None => self.print_pages(client, output, &of_log),
        }
    }

    fn print_pages(
        &self,
        client: &Client,
        output: &mut Output,
        of_log: &[&str],
    ) -> anyhow::Result<()> {
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut after: Option<RowKey> = None;
        loop {
            let target = self
                .target(of_log)
                .query_if("prefix", self.prefix.as_ref())
                .query_if("order", self.desc.then_some("desc"))
                .query_if("after", after.as_ref())
                .query("limit", left.min(PAGE_MAX));
            let answer = self.get(client, target)?;
            let page: Page<'_> = answer.read()?;
            if let (None, Some(parked)) = (&after, page.parked) {
                console::print(format_args!("the view is parked for this log: {}", parked.get()));
            }
            for row in &page.rows {
                output.line(row)?;
            }
            output.flush()?;
            left = left.saturating_sub(page.rows.len() as u64);
            match page.next {
                Some(next) if left > 0 => after = Some(next),
                _ => return Ok(()),
            }
        }
    }

    fn target(&self, path: &[&str]) -> Target {
        Target::path(path).query_if("seq", self.seq).query_if("wait", self.wait)
    }

    fn get(&self, client: &Client, target: Target) -> anyhow::Result<Answer> {
        let answer = client.get(&target)?;
        if !answer.is_pending() {
            return Ok(answer);
        }
        let pending: Pending<'_> = answer.read()?;
        match pending.parked {
            Some(parked) => bail!("the view is parked at seq {}: {}", pending.seq, parked.get()),
            None => bail!("the view has only reached seq {}: wait longer (--wait)", pending.seq),
        }
    }
}
