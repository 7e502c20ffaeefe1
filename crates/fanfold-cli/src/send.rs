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
use fanfold::limits::REQUEST_COMMANDS_MAX;
use fanfold::{LogId, Name};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;
use serde_json::value::RawValue;

use crate::Cli;
use crate::batches::{Batches, Item};
use crate::client::{Client, Server};
use crate::console;
use crate::ids::{Filling, Ids, any_client, now_ms};
use crate::outcomes;
use crate::output::Output;
use crate::post::{Post, Said};

/// How long a command is tried again, unless something else is asked for: longer than a restart or
/// a deployment takes.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Receipts whose outcomes are not looked at yet, at most.
const UNCHECKED_MAX: usize = 10_000;

/// The arguments. Without flags for one command, and without a file, standard input is read.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints one line of JSON per command, in their order: its receipt, its entry with --wait, or its \
problem with the line that it begins in.

A command that the server cannot take now (429, 503, no answer) is sent again, with the same id, \
and what follows it waits: so the commands of a user keep their order. After --give-up the rest is \
not sent; to send the same file again is safe then: what was done is not done twice. What the \
server refuses for good is reported, and what follows it is sent.

A receipt does not say what became of a command. So in the end the entries are read, unless \
--no-check is given.

Exit codes: 0, every command has its receipt, and was done (`accepted`, `rejected` by its service, \
or `duplicate`: it was done before); 1, some were refused, not sent, have no entry in time, or are \
`stale`, `faulted`, `lost` or `id_reused`; 2, the arguments are wrong.

Processes that send for the same user to the same log need ids of their own: give each another \
--client. With --id auto each process makes up a client's name; a log remembers something of each \
client for ever, so name the clients of jobs that run often.")]
pub struct Send {
    #[command(flatten)]
    server: Server,
    /// A file of commands: NDJSON, or one JSON array.
    #[arg(long, conflicts_with = "service")]
    file: Option<PathBuf>,
    /// Wait for the outcomes, and print the entries instead of the receipts.
    #[arg(long)]
    wait: bool,
    /// Do not look in the end what became of the commands: 0 then says that all have receipts.
    #[arg(long, conflicts_with = "wait")]
    no_check: bool,
    /// How long a command is tried again, and its outcome waited for. By default 60s, and a server
    /// that was never there is an error at once.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    give_up: Option<Duration>,
    /// Send one command after another, and none after one that is refused.
    #[arg(long)]
    stop_at_error: bool,
    /// Print the commands as they would be sent, and send nothing: with --id auto, a file that can
    /// be sent again after whatever happens.
    #[arg(long)]
    dry_run: bool,
    /// The client of commands that name none: a user's ids are counted for each client.
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
    /// The service, as `ledger`.
    #[arg(long = "type", value_name = "SERVICE", requires_all = ["command", "id", "user"])]
    #[serde(rename = "type")]
    service: Option<String>,
    /// What to do, as `deposit`.
    #[arg(long, requires = "service")]
    command: Option<String>,
    /// Grows with each command of the user; the same again for the same command. `auto`, also for
    /// a file's commands without an id: milliseconds × 1,024 + a random number of this process,
    /// and each line of output shows under `sent` what was sent.
    #[arg(long, value_name = "ID|auto")]
    #[serde(skip_serializing_if = "Id::is_no_number")]
    id: Option<Id>,
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

#[derive(Debug, Clone, Copy, PartialEq)]
enum Id {
    Auto,
    Number(u64),
}

impl Id {
    fn is_no_number(id: &Option<Self>) -> bool {
        !matches!(id, Some(Self::Number(_)))
    }
}

impl FromStr for Id {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            text => text.parse().map(Self::Number).map_err(|_| "it is neither a number nor `auto`"),
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
    /// Sends, batch by batch.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let is_auto = self.one.id == Some(Id::Auto);
        if self.one.service.is_none() && self.one.id.is_some() && !is_auto {
            let what = "--id with a number is for one command, given with --type";
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
                    console::tell("reading commands, one a line; Ctrl-D ends");
                }
                ("standard input".to_owned(), Box::new(io::stdin()))
            }
        };
        let client = self.client.as_ref().map(|client| client.as_str().to_owned());
        let filling = Filling {
            ids: is_auto.then(Ids::of_any_worker),
            client_of_filled: is_auto.then(any_client),
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
            sum: Sum::default(),
            args: self,
        };
        let sent = sender.send_all(input).and_then(|()| sender.check());
        let sent = if sender.has_lines { sent.with_context(|| name.clone()) } else { sent };
        sender.finish(&name, sent)
    }
}

/// A command that has its receipt.
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
    sum: Sum,
}

/// What did not go well, and the first of each with its line.
#[derive(Default)]
struct Sum {
    commands: u64,
    refused: Several,
    undone: Several,
    pending: Several,
}

#[derive(Default)]
struct Several {
    count: u64,
    first: Option<(u64, String)>,
}

impl Several {
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
                self.sum.commands += items.len() as u64;
                self.send(&items)?;
            }
            self.printer.flush();
            if self.args.stop_at_error && self.sum.refused.count > 0 {
                break;
            }
        }
        Ok(())
    }

    /// Sends a batch until each has its answer, and prints the answers.
    fn send(&mut self, items: &[Item]) -> anyhow::Result<()> {
        let mut answers: Vec<Option<Said>> = items.iter().map(|_| None).collect();
        let posted = self.post.batch(items, &mut answers);
        // A server that takes nothing is not asked for long what became of the rest.
        let until = if posted.is_ok() { self.post.until() } else { Instant::now() };
        let entries = match self.args.wait {
            true => self.entries(&answers, until),
            false => Ok(HashMap::new()),
        };
        let why = posted.as_ref().err().map(ToString::to_string).unwrap_or_default();
        for (item, answer) in items.iter().zip(answers) {
            let line = item.line;
            match answer {
                Some(Said::Receipt { log, seq, raw }) => {
                    let entry =
                        entries.as_ref().ok().and_then(|found| found.get(&(log.clone(), seq)));
                    match entry {
                        Some(entry) => self.judge(line, &log, seq, entry),
                        None if self.args.wait => {
                            self.sum.pending.add(line, format!("seq {seq} of {log}"));
                        }
                        None if !self.args.no_check => {
                            self.unchecked.push(Accepted { line, log, seq });
                        }
                        None => {}
                    }
                    let shown: &RawValue = entry.unwrap_or(&raw);
                    self.print(shown.get().to_owned(), item);
                }
                Some(Said::Refused(problem)) => {
                    let detail: Result<Detail, _> = serde_json::from_str(problem.get());
                    self.sum
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

    /// Prints an object, with what was sent if it was filled in.
    fn print(&mut self, mut object: String, item: &Item) {
        let sent = serde_json::from_slice::<&RawValue>(&item.json).ok();
        if let Some(sent) = sent.filter(|_| self.shows_sent) {
            object.truncate(object.trim_end().len() - 1);
            object += &format!(",\"sent\":{sent}}}");
        }
        self.printer.bytes(object.as_bytes());
    }

    fn judge(&mut self, line: u64, log: &LogId, seq: u64, entry: &RawValue) {
        if let Some(why) = outcomes::undone(entry) {
            self.sum.undone.add(line, format!("seq {seq} of {log} is {why}"));
        }
    }

    /// The entries of those that have receipts, as far as they are there in time.
    fn entries(
        &self,
        answers: &[Option<Said>],
        until: Instant,
    ) -> anyhow::Result<HashMap<(LogId, u64), Box<RawValue>>> {
        let mut seqs: BTreeMap<LogId, Vec<u64>> = BTreeMap::new();
        for answer in answers.iter().flatten() {
            if let Said::Receipt { log, seq, .. } = answer {
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

    /// Looks what became of those whose receipts were printed.
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
                entries.context("all have receipts, and what became of them cannot be read")?;
            for (entry, (seq, line)) in entries.iter().zip(&accepted) {
                self.judge(*line, &log, *seq, entry);
            }
            for (seq, line) in &accepted[entries.len()..] {
                self.sum.pending.add(*line, format!("seq {seq} of {log}"));
            }
        }
        Ok(())
    }

    /// Says what did not go well.
    fn finish(mut self, name: &str, sent: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
        let commands = self.sum.commands;
        let mut is_well = true;
        let mut say = |several: &Several, what: &str| {
            let Some((line, why)) = &several.first else { return };
            is_well = false;
            let place = if self.has_lines { format!("line {line}: ") } else { String::new() };
            console::tell(format!(
                "error: {name}: {} of {commands} commands {what}; the first: {place}{why}",
                several.count
            ));
        };
        say(&self.sum.refused, "were refused");
        say(&self.sum.undone, "have receipts, and were not done");
        say(
            &self.sum.pending,
            "have receipts, and no entries in time (ask again with `fanfold log`)",
        );
        self.printer.finish()?;
        sent?;
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Standard output. Commands are sent also when its reader has gone.
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

    /// What could not be written is an error, unless the reader has gone.
    fn finish(&mut self) -> anyhow::Result<()> {
        self.flush();
        match self.failed.take() {
            Some(error) if !crate::output::is_closed(&error) => {
                Err(error.context("the answers cannot be printed"))
            }
            _ => Ok(()),
        }
    }
}
