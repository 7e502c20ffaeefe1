//! `fanfold doctor`: compares what is stored, and mends what can be mended safely.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, value_parser};
use fanfold::LogId;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, Server, Target};
use crate::output::{Output, ignore_closed_output};
use crate::repair::Repair;
use crate::retry::Backoff;
use crate::{console, doctor_host};

/// Logs that are examined in a second, unless the caller says otherwise. Source: our choice. Each takes some ten reads,
/// which should be few beside those of the clients.
const RATE: u32 = 20;
/// The most logs of one request. Source: one second of the default rate, so that the pace is even.
const PAGE: u32 = 20;
/// How long to ask again while the server does not answer. Source: our choice; a restart takes less.
const PATIENCE: Duration = Duration::from_secs(60);

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Compares slots, commits, heads, documents, cursors and rows. Documents and rows are compared in logs of \
up to 1,000 entries. What was not compared is counted. It changes nothing, unless --raise-slots or --repair is given. \
Without a log it first compares the settings of the host: on AWS those of the stream and the tables, on one machine the \
folder.\n\nPrints one line per finding. Exit codes: 0, everything fits, or was mended; 1, something does not, or the server \
does not answer; 2, the arguments are wrong."
)]
pub(crate) struct Doctor {
    #[command(flatten)]
    server: Server,
    /// Only this log: the service, and `org:` or `user:` with a name, as `orders/org:acme`.
    #[arg(value_name = "SERVICE/PARTITION")]
    log: Option<LogId>,
    /// Read all entries of each log. Without it, only the last 100 of a log with more than 1,000.
    #[arg(long)]
    all: bool,
    /// Print one line of JSON per log, after one of the host's settings.
    #[arg(long)]
    json: bool,
    /// Take the logs from the journal, instead of the catalogue. After a restore of the commands table this also finds
    /// logs that only the journal has. On AWS each log costs a scan of its first commit.
    #[arg(long, conflicts_with = "log")]
    journal: bool,
    /// Raise each slot that is behind its log's last entry, as after a restore of the commands table. New commands then
    /// get positions behind it.
    #[arg(long)]
    raise_slots: bool,
    /// Mend what can be mended safely: raise slots, as --raise-slots, and rebuild views in logs of which rows are wrong or
    /// their cursors are ahead of the journal. It says what it leaves, and why. What is rebuilt is compared by the next run.
    #[arg(long)]
    repair: bool,
    /// At most so many logs a second.
    #[arg(long, default_value_t = RATE, value_parser = value_parser!(u32).range(1..=10_000), conflicts_with = "log")]
    rate: u32,
    /// Go on behind this position, which an earlier run has printed.
    #[arg(long, value_name = "POSITION", conflicts_with = "log")]
    from: Option<String>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    logs: Vec<&'a RawValue>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Examined {
    log: LogId,
    entries: u64,
    rows: u64,
    uncompared: u64,
    is_incomplete: bool,
    #[serde(default)]
    formats: BTreeMap<String, u64>,
    findings: Vec<Finding>,
}

#[derive(Deserialize)]
pub(crate) struct Finding {
    pub(crate) what: String,
    pub(crate) view: Option<String>,
    detail: String,
}

/// What an operator's action came to.
#[derive(Deserialize)]
pub(crate) struct Done {
    pub(crate) seq: Option<u64>,
}

/// What was examined so far.
#[derive(Default)]
struct Sum {
    logs: u64,
    entries: u64,
    rows: u64,
    uncompared: u64,
    incomplete: u64,
    findings: u64,
    /// Findings that are mended, or will be when the view has applied the journal again.
    mended: u64,
    /// Bodies by the version of their format.
    formats: BTreeMap<String, u64>,
}

impl Doctor {
    /// Examines the logs.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        ignore_closed_output(self.print())
    }

    fn print(&self) -> anyhow::Result<ExitCode> {
        let (client, mut output) = (Client::new(&self.server)?, Output::default());
        let (mut sum, depth) = (Sum::default(), if self.all { "all" } else { "sample" });
        if self.log.is_none() {
            sum.findings = doctor_host::show(&client, self.json, &mut output)?;
        }
        if let Some(log) = &self.log {
            let path = Target::path(&["ops", "doctor", log.service(), log.partition()]);
            let answer = client.get(&path.query("depth", depth))?;
            let mut repair = Repair::default();
            self.show(&client, answer.read()?, &mut sum, &mut repair, &mut output)?;
            self.end(repair, &client, &mut sum, &mut output)?;
        } else {
            self.walk(&client, depth, &mut sum, &mut output)?;
        }
        output.flush()?;
        let Sum { logs, entries, rows, uncompared, incomplete, findings, formats, mended } = sum;
        let mut said = format!("{logs} logs, {entries} entries, {rows} rows: {findings} findings");
        if !formats.is_empty() {
            let formats = formats.iter().map(|(format, n)| format!("{format} {n}"));
            said.push_str(&format!("; formats: {}", formats.collect::<Vec<_>>().join(", ")));
        }
        if mended > 0 {
            said.push_str(&format!("; {mended} of them are mended"));
        }
        if uncompared > 0 {
            said.push_str(&format!(
                "; not compared: {uncompared} views of a log with too many rows or entries"
            ));
        }
        if incomplete > 0 {
            said.push_str(&format!("; {incomplete} logs could not be read to their end in time"));
        }
        console::print(said);
        Ok(if findings == mended { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn walk(
        &self,
        client: &Client,
        depth: &str,
        sum: &mut Sum,
        output: &mut Output,
    ) -> anyhow::Result<()> {
        let mut after = self.from.clone();
        loop {
            let began = Instant::now();
            let target = Target::path(&["ops", "doctor"]).query("depth", depth);
            let target = target.query("limit", PAGE.min(self.rate));
            let target = target.query_if("source", self.journal.then_some("journal"));
            let target = target.query_if("after", after.as_ref());
            let mut backoff = Backoff::within(PATIENCE);
            let answer = client.get_with_retries(&target, &mut backoff, |_| {});
            let behind = || match &after {
                Some(after) => format!("go on with --from '{after}'"),
                None => "nothing was examined".to_owned(),
            };
            let answer = answer.with_context(behind)?;
            let page: Page<'_> = answer.read().with_context(behind)?;
            let logs = page.logs.len();
            let mut repair = Repair::default();
            for examined in page.logs {
                self.show(client, examined, sum, &mut repair, output)?;
            }
            self.end(repair, client, sum, output)?;
            output.flush()?;
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
            let due = Duration::from_secs_f64(logs as f64 / f64::from(self.rate));
            sleep(due.saturating_sub(began.elapsed()));
        }
    }

    fn show(
        &self,
        client: &Client,
        text: &RawValue,
        sum: &mut Sum,
        repair: &mut Repair,
        output: &mut Output,
    ) -> anyhow::Result<()> {
        let Examined { log, entries, rows, uncompared, is_incomplete, formats, findings } =
            serde_json::from_str(text.get()).context("an examined log")?;
        sum.logs += 1;
        sum.entries += entries;
        sum.rows += rows;
        sum.uncompared += uncompared;
        sum.incomplete += u64::from(is_incomplete);
        sum.findings += findings.len() as u64;
        for (format, n) in formats {
            *sum.formats.entry(format).or_default() += n;
        }
        if self.json {
            output.line(text)?;
        }
        if !self.json {
            for Finding { what, view, detail } in &findings {
                let view = view.as_ref().map_or_else(String::new, |view| format!(" {view}"));
                output.bytes(format!("{log} {what}{view}: {detail}").as_bytes())?;
            }
        }
        if self.raise_slots || self.repair {
            repair.log(client, &log, &findings, !self.repair);
        }
        Ok(())
    }

    /// Does what takes longer, for the logs of a page at once.
    fn end(
        &self,
        repair: Repair,
        client: &Client,
        sum: &mut Sum,
        output: &mut Output,
    ) -> anyhow::Result<()> {
        output.flush()?;
        sum.mended += repair.end(client, self.json, output)?;
        Ok(())
    }
}
