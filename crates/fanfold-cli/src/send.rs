//! `fanfold send`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Cursor, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use fanfold::host::limits::REQUEST_COMMANDS_MAX;
use fanfold::{LogId, Name};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;
use serde_json::value::RawValue;

use crate::Cli;
use crate::batches::{Batches, Item};
use crate::client::{Client, Server};
use crate::console;
use crate::ids::{Filling, Ids, now_ms, random_client};
use crate::outcomes;
use crate::output::Output;
use crate::post::{CommandResult, Post};

/// The default of --give-up. Source: our choice; longer than a restart or a deployment takes.
const GIVE_UP: Duration = Duration::from_secs(60);
/// The most receipts whose outcomes are not checked yet. Source: our choice; it bounds the memory.
const UNCHECKED_MAX: usize = 10_000;

/// The arguments. Without a file or flags for one command, commands come from standard input.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints one line of JSON per command, in their order: its receipt, its entry with --wait, or its \
problem with the line that it begins in.

If the server cannot take a command now (429, 503, no answer), the command is sent again with the \
same id, and later commands wait: so the commands of a user keep their order. After --give-up the \
rest is not sent. It is then safe to send the same file again: no command is done twice. A command \
that the server refuses for good is reported, and later commands are sent.

A receipt says that a command was accepted, not whether it was done. So in the end the entries are \
read, unless --no-check is given.

Exit codes: 0, every command has a receipt and was done (`accepted`, `rejected` by its service, or \
`duplicate`: it was done before); 1, some commands were refused, were not sent, have no entry in \
time, or are `stale`, `faulted`, `lost` or `id_reused`; 2, the arguments are wrong.

Processes that send for the same user to the same log must not use the same ids: give each its own \
--client. With --id auto each process uses a random client's name. A log keeps some data of each \
client for ever, so name the clients of jobs that run often.")]
pub(crate) struct Send {
    #[command(flatten)]
    server: Server,
    /// A file of commands: NDJSON, or one JSON array.
    #[arg(long, conflicts_with = "service")]
    file: Option<PathBuf>,
    /// Wait for the outcomes, and print the entries instead of the receipts.
    #[arg(long)]
    wait: bool,
    /// Do not read the entries in the end. The exit code 0 then means only that all commands have
    /// receipts.
    #[arg(long, conflicts_with = "wait")]
    no_check: bool,
    /// How long to retry a command, and to wait for its outcome. The default is 60s; without this
    /// flag, a server that has never answered is an error at once.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    give_up: Option<Duration>,
    /// Send one command after another, and stop after the first that is refused.
    #[arg(long)]
    stop_at_error: bool,
    /// Print the commands as they would be sent, and send nothing. With --id auto this makes a file
    /// that can safely be sent again.
    #[arg(long)]
    dry_run: bool,
    /// The client of commands that name none. Each client of a user numbers its own commands.
    #[arg(long, value_name = "NAME")]
    client: Option<Name>,
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
    /// The service.
    #[arg(long = "type", value_name = "SERVICE", requires_all = ["command", "id", "user"])]
    #[serde(rename = "type")]
    service: Option<String>,
    /// The command's name.
    #[arg(long, requires = "service")]
    command: Option<String>,
    /// The command's id. It grows with each command of the user; a retry uses the same id. With
    /// `auto`, which also fills in the ids that a file lacks, it is milliseconds × 1,024 + a random
    /// number of this process, and each line of output shows the command under `sent`.
    #[arg(long, value_name = "ID|auto")]
    #[serde(skip_serializing_if = "Id::is_not_number")]
    id: Option<Id>,
    /// The client's time, in milliseconds.
    #[arg(long, requires = "service", value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
    /// The user on whose behalf the command is sent.
    #[arg(long, requires = "service")]
    user: Option<String>,
    /// The organisation; without it, the command is for the user alone.
    #[arg(long, requires = "service")]
    #[serde(skip_serializing_if = "Option::is_none")]
    org: Option<String>,
    /// The command's data, a JSON object.
    #[arg(long, requires = "service", value_name = "JSON", value_parser = json)]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Id {
    Auto,
    Number(u64),
}

impl Id {
    fn is_not_number(id: &Option<Self>) -> bool {
        !matches!(id, Some(Self::Number(_)))
    }
}

impl FromStr for Id {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            text => text.parse().map(Self::Number).map_err(|_| "it must be a number or `auto`"),
        }
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => to.serialize_none(),
            Self::Number(id) => to.serialize_u64(*id),
        }
    }
}

fn json(text: &str) -> Result<Box<RawValue>, serde_json::Error> {
    serde_json::from_str(text)
}

#[derive(Deserialize)]
struct Detail {
    detail: String,
}

impl Send {
    /// Sends the commands in batches, and prints their results.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let is_auto = self.one.id == Some(Id::Auto);
        if self.one.service.is_none() && self.one.id.is_some() && !is_auto {
            let what = "--id with a number is only for one command, given with --type";
            Cli::command().error(ErrorKind::ArgumentConflict, what).exit();
        }
        let (name, input): (String, Box<dyn Read>) = match (&self.one.service, &self.file) {
            (Some(_), _) => {
                ("the command".to_owned(), Box::new(Cursor::new(serde_json::to_vec(&self.one)?)))
            }
            (None, Some(path)) => {
                let file = File::open(path);
                let file = file.with_context(|| format!("cannot read {}", path.display()))?;
                (path.display().to_string(), Box::new(file))
            }
            (None, None) => {
                if io::stdin().is_terminal() {
                    console::print("reading commands, one a line; Ctrl-D ends");
                }
                ("standard input".to_owned(), Box::new(io::stdin()))
            }
        };
        let client = self.client.as_ref().map(|client| client.as_str().to_owned());
        let filling = Filling {
            ids: is_auto.then(Ids::with_random_worker),
            client_if_id_filled: is_auto.then(random_client),
            client,
        };
        let mut sender = Sender {
            post: Post::new(
                Client::new(&self.server)?,
                self.give_up.unwrap_or(GIVE_UP),
                self.give_up.is_some(),
            ),
            printer: Printer::default(),
            shows_sent: is_auto || self.client.is_some(),
            has_lines: self.one.service.is_none(),
            filling,
            unchecked: Vec::new(),
            summary: Summary::default(),
            args: self,
        };
        let sent = sender.send_all(input).and_then(|()| sender.check());
        let sent = if sender.has_lines { sent.with_context(|| name.clone()) } else { sent };
        sender.finish(&name, sent)
    }
}

/// A command that has a receipt.
struct Accepted {
    line: u64,
    log: LogId,
    seq: u64,
}

struct Sender {
    args: Send,
    post: Post,
    printer: Printer,
    shows_sent: bool,
    has_lines: bool,
    filling: Filling,
    unchecked: Vec<Accepted>,
    summary: Summary,
}

/// The number of commands, and those that failed.
#[derive(Default)]
struct Summary {
    commands: u64,
    refused: Failures,
    not_done: Failures,
    pending: Failures,
}

/// How many commands failed in one way, and the first of them with its line.
#[derive(Default)]
struct Failures {
    count: u64,
    first: Option<(u64, String)>,
}

impl Failures {
    fn add(&mut self, line: u64, why: impl Into<String>) {
        self.count += 1;
        self.first.get_or_insert_with(|| (line, why.into()));
    }
}

impl Sender {
    fn send_all(&mut self, input: Box<dyn Read>) -> anyhow::Result<()> {
        let at_once = if self.args.stop_at_error { 1 } else { REQUEST_COMMANDS_MAX };
        let mut batches = Batches::new(input, at_once)?;
        while let Some(mut items) = batches.next_batch()? {
            let now_ms = now_ms();
            items.iter_mut().for_each(|item| self.filling.fill(&mut item.json, now_ms));
            if self.args.dry_run {
                items.iter().for_each(|item| self.printer.bytes(&item.json));
            } else {
                self.summary.commands += items.len() as u64;
                self.send(&items)?;
            }
            self.printer.flush();
            if self.args.stop_at_error && self.summary.refused.count > 0 {
                break;
            }
        }
        Ok(())
    }

    /// Sends a batch until each command has its result, and prints the results.
    fn send(&mut self, items: &[Item]) -> anyhow::Result<()> {
        let mut answers: Vec<Option<CommandResult>> = items.iter().map(|_| None).collect();
        let posted = self.post.batch(items, &mut answers);
        // If the server did not take all commands, the entries of the others are not waited for.
        let until = if posted.is_ok() { self.post.until() } else { Instant::now() };
        let entries = match self.args.wait {
            true => self.entries(&answers, until),
            false => Ok(HashMap::new()),
        };
        let why = posted.as_ref().err().map(ToString::to_string).unwrap_or_default();
        for (item, answer) in items.iter().zip(answers) {
            let line = item.line;
            match answer {
                Some(CommandResult::Receipt { log, seq, raw }) => {
                    let entry =
                        entries.as_ref().ok().and_then(|found| found.get(&(log.clone(), seq)));
                    match entry {
                        Some(entry) => self.check_entry(line, &log, seq, entry),
                        None if self.args.wait => {
                            self.summary.pending.add(line, format!("seq {seq} of {log}"));
                        }
                        None if !self.args.no_check => {
                            self.unchecked.push(Accepted { line, log, seq });
                        }
                        None => {}
                    }
                    let shown: &RawValue = entry.unwrap_or(&raw);
                    self.print(shown.get().to_owned(), item);
                }
                Some(CommandResult::Refused(problem)) => {
                    let detail: Result<Detail, _> = serde_json::from_str(problem.get());
                    self.summary
                        .refused
                        .add(line, detail.map_or_else(|_| problem.to_string(), |d| d.detail));
                    let mut shown = json!({});
                    self.add_line(&mut shown, line);
                    let separator = if self.has_lines { "," } else { "" };
                    let shown = shown.to_string();
                    let shown = &shown[..shown.len() - 1];
                    self.print(format!("{shown}{separator}\"problem\":{problem}}}"), item);
                }
                None => {
                    let mut shown = json!({"unanswered": why});
                    self.add_line(&mut shown, line);
                    self.print(shown.to_string(), item);
                }
            }
        }
        posted?;
        entries?;
        if self.unchecked.len() >= UNCHECKED_MAX {
            self.check()?;
        }
        Ok(())
    }

    fn add_line(&self, shown: &mut serde_json::Value, line: u64) {
        if self.has_lines {
            shown["line"] = line.into();
        }
    }

    /// Prints an object, with the command under `sent` if fields of it were filled in.
    fn print(&mut self, mut object: String, item: &Item) {
        let sent = serde_json::from_slice::<&RawValue>(&item.json).ok();
        if let Some(sent) = sent.filter(|_| self.shows_sent) {
            object.truncate(object.trim_end().len() - 1);
            object += &format!(",\"sent\":{sent}}}");
        }
        self.printer.bytes(object.as_bytes());
    }

    fn check_entry(&mut self, line: u64, log: &LogId, seq: u64, entry: &RawValue) {
        if let Some(why) = outcomes::failure(entry) {
            self.summary.not_done.add(line, format!("seq {seq} of {log} is {why}"));
        }
    }

    /// The entries of the commands that have receipts, without those that do not exist by `until`.
    fn entries(
        &self,
        answers: &[Option<CommandResult>],
        until: Instant,
    ) -> anyhow::Result<HashMap<(LogId, u64), Box<RawValue>>> {
        let mut seqs: BTreeMap<LogId, Vec<u64>> = BTreeMap::new();
        for answer in answers.iter().flatten() {
            if let CommandResult::Receipt { log, seq, .. } = answer {
                seqs.entry(log.clone()).or_default().push(*seq);
            }
        }
        let mut all = HashMap::new();
        for (log, mut seqs) in seqs {
            seqs.sort_unstable();
            let entries = outcomes::entries(self.post.client(), &log, &seqs, until)?;
            all.extend(seqs.into_iter().map(|seq| (log.clone(), seq)).zip(entries));
        }
        Ok(all)
    }

    /// Reads the entries of the commands whose receipts were printed, and checks them.
    fn check(&mut self) -> anyhow::Result<()> {
        let mut logs: BTreeMap<LogId, Vec<(u64, u64)>> = BTreeMap::new();
        for Accepted { line, log, seq } in std::mem::take(&mut self.unchecked) {
            logs.entry(log).or_default().push((seq, line));
        }
        let until: Instant = self.post.until();
        for (log, mut accepted) in logs {
            accepted.sort_unstable();
            let seqs: Vec<u64> = accepted.iter().map(|(seq, _)| *seq).collect();
            let entries = outcomes::entries(self.post.client(), &log, &seqs, until);
            let entries =
                entries.context("all commands have receipts, but their entries cannot be read")?;
            for (entry, (seq, line)) in entries.iter().zip(&accepted) {
                self.check_entry(*line, &log, *seq, entry);
            }
            for (seq, line) in &accepted[entries.len()..] {
                self.summary.pending.add(*line, format!("seq {seq} of {log}"));
            }
        }
        Ok(())
    }

    /// Reports the failures, and returns the exit code.
    fn finish(mut self, name: &str, sent: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
        let commands = self.summary.commands;
        let mut is_well = true;
        let mut report = |failures: &Failures, what: &str| {
            let Some((line, why)) = &failures.first else { return };
            is_well = false;
            let place = if self.has_lines { format!("line {line}: ") } else { String::new() };
            console::print(format!(
                "error: {name}: {} of {commands} commands {what}; the first: {place}{why}",
                failures.count
            ));
        };
        report(&self.summary.refused, "were refused");
        report(&self.summary.not_done, "have receipts, and were not done");
        report(
            &self.summary.pending,
            "have receipts, but no entries in time (read them later with `fanfold log`)",
        );
        self.printer.finish()?;
        sent?;
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Standard output. An error of it does not stop the sending: `finish` returns it.
#[derive(Default)]
struct Printer {
    output: Output,
    failed: Option<anyhow::Error>,
}

impl Printer {
    fn bytes(&mut self, line: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.output.bytes(line).err();
        }
    }

    fn flush(&mut self) {
        if self.failed.is_none() {
            self.failed = self.output.flush().err();
        }
    }

    /// Returns the first error of writing, unless the reader has closed the pipe.
    fn finish(&mut self) -> anyhow::Result<()> {
        self.flush();
        match self.failed.take() {
            Some(error) if !crate::output::is_closed(&error) => {
                Err(error.context("cannot print the results"))
            }
            _ => Ok(()),
        }
    }
}
