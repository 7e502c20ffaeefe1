//! `fanfold send`.

use std::fs::File;
use std::io::{self, Cursor, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use fanfold::{LogId, Seq};
use fanfold_http::limits::WAIT_MS_MAX;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::batches::{Batch, Batches};
use crate::client::{Client, Server, Target};
use crate::console;
use crate::output::{Output, unless_closed};

/// The arguments. Without flags for one command, and without a file, standard input is read.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints one line of JSON per command: its receipt, its outcome with --wait, \
or its problem. The exit code is 1 if there was a problem."
)]
pub struct Send {
    #[command(flatten)]
    server: Server,
    /// A file of commands: NDJSON, or one JSON array.
    #[arg(long, conflicts_with = "service")]
    file: Option<PathBuf>,
    /// Wait for the outcomes, and print them instead of the receipts.
    #[arg(long)]
    wait: bool,
    /// Read commands from standard input: NDJSON, or one JSON array.
    #[arg(value_name = "-", value_parser = ["-"], conflicts_with_all = ["service", "file"])]
    stdin: Option<String>,
    #[command(flatten)]
    one: One,
}

#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "lowercase")]
#[command(next_help_heading = "One command")]
struct One {
    /// The service, as `ledger`.
    #[arg(long = "type", value_name = "SERVICE", requires_all = ["command", "id", "user"])]
    #[serde(rename = "type")]
    service: Option<String>,
    /// What to do, as `deposit`.
    #[arg(long, requires = "service")]
    command: Option<String>,
    /// Grows with each command of the user; the same again for the same command.
    #[arg(long, requires = "service")]
    id: Option<u64>,
    /// Your own time, in milliseconds.
    #[arg(long, requires = "service", value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
    /// Who asks.
    #[arg(long, requires = "service")]
    user: Option<String>,
    /// For which organisation; none: for the user alone.
    #[arg(long, requires = "service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    org: Option<String>,
    /// What to do it with, as `{"account":"cash","amount":100}`.
    #[arg(long, requires = "service", value_name = "JSON", value_parser = json)]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
}

fn json(text: &str) -> Result<Box<RawValue>, serde_json::Error> {
    serde_json::from_str(text)
}

/// The answer to a batch.
#[derive(Deserialize)]
struct Answers<'a> {
    #[serde(borrow)]
    results: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Receipt {
    log: LogId,
    seq: Seq,
}

#[derive(Serialize)]
struct Refused<'a> {
    problem: &'a RawValue,
}

impl Send {
    /// Sends, batch by batch.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let input: Box<dyn Read> = match (&self.one.service, &self.file) {
            (Some(_), _) => Box::new(Cursor::new(serde_json::to_vec(&self.one)?)),
            (None, Some(path)) => {
                let file = File::open(path);
                Box::new(file.with_context(|| format!("cannot read {}", path.display()))?)
            }
            (None, None) => {
                if io::stdin().is_terminal() {
                    console::tell("reading commands, one a line; Ctrl-D ends");
                }
                Box::new(io::stdin())
            }
        };
        let mut sender = Sender {
            client: Client::new(&self.server),
            output: Output::default(),
            wait: self.wait,
            all_well: true,
        };
        unless_closed(sender.send_all(input))
    }
}

struct Sender {
    client: Client,
    output: Output,
    wait: bool,
    all_well: bool,
}

impl Sender {
    fn send_all(&mut self, input: Box<dyn Read>) -> anyhow::Result<ExitCode> {
        let mut batches = Batches::new(input)?;
        while let Some(batch) = batches.next_batch()? {
            self.send(&batch)?;
            self.output.flush()?;
        }
        Ok(if self.all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn send(&mut self, batch: &Batch) -> anyhow::Result<()> {
        let answer = self.client.post(&Target::path(&["commands"]), &batch.body)?;
        if !answer.is_success() {
            // The whole batch was refused: so was each of its commands.
            let problem = serde_json::from_slice(&answer.body).map_err(|_| answer.error())?;
            let line = to_raw_value(&Refused { problem })?;
            self.all_well = false;
            return (0..batch.commands).try_for_each(|_| self.output.line(&line));
        }
        let answers: Answers<'_> = answer.read()?;
        if answers.results.len() != batch.commands {
            bail!("{} commands got {} answers", batch.commands, answers.results.len());
        }
        for result in answers.results {
            match serde_json::from_str::<Receipt>(result.get()) {
                Ok(receipt) if self.wait => self.print_outcome(&receipt)?,
                Ok(_) => self.output.line(result)?,
                Err(_) => {
                    self.all_well = false;
                    self.output.line(result)?;
                }
            }
        }
        Ok(())
    }

    fn print_outcome(&mut self, receipt: &Receipt) -> anyhow::Result<()> {
        let (service, partition) = (receipt.log.service(), receipt.log.partition());
        let target = Target::path(&["logs", service, partition, &receipt.seq.to_string()]);
        let answer = self.client.get(&target.query("wait", WAIT_MS_MAX))?;
        self.all_well &= !answer.is_pending();
        self.output.line(answer.read()?)
    }
}
