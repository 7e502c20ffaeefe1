//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::arrivals::Shape;
use crate::init::Init;
use crate::search::Slo;
use crate::workload::{AFTER_NAME, Program};
use auditor::Model;

#[cfg(test)]
mod tests;

/// Commands of a request, by the API.
const REQUEST_COMMANDS_MAX: usize = 500;
/// Bytes of a request, by the API.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a command, by the API.
const COMMAND_BYTES_MAX: usize = 64 * 1024;
/// The maximum number of ids of one user under way: half of the 2,048 ids of a window, since the
/// largest organisation may exceed its share.
const IDS_UNDER_WAY_MAX: f64 = 1_024.0;
/// Commands under way, about, by default: 64 requests of 100.
const COMMANDS_UNDER_WAY: u32 = 6_400;
/// The maximum number of commands that are under way or wait: about 20 MB.
const COMMANDS_OPEN_MAX: usize = 1 << 18;
/// Bytes of the longest command without a memo, with the longest names of these options.
const PLAIN_COMMAND_BYTES_MAX: usize = 400;
/// The beginning of the organisations' names by default.
pub(crate) const ORG_PREFIX: &str = "load-";
/// Bytes of a prefix of names. Numbers follow it, and a name has at most 128 bytes.
const PREFIX_BYTES_MAX: usize = 64;
/// The maximum number of users of all organisations times their clients. Each thread keeps an id of
/// 8 bytes for each.
const USERS_MAX: u64 = 20_000_000;

/// Drives a service over HTTP at a rate, and audits the result from outside.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
pub struct Options {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Sends commands at a rate, measures, audits, reports.
    Run(Box<Run>),
    /// Audits a target by the receipts of an earlier run.
    Audit(Audit),
    /// Writes a first workload file for a service, from the target's OpenAPI document.
    Init(Init),
}

#[derive(Debug, Args)]
pub(crate) struct TargetOptions {
    /// The URL before the API's paths, for example http://127.0.0.1:8080.
    #[arg(long = "target", value_name = "URL")]
    pub(crate) url: String,
    /// How long the target may take to start: until then, an answer to `GET /readyz` is awaited.
    /// 0s: it must answer at once.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) ready_within: Duration,
    /// The bearer token of every request. Prefer the environment: others can see flags.
    #[arg(long, env = "FANFOLD_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) target: TargetOptions,
    /// The file that `run --receipts` wrote.
    #[arg(long, value_name = "FILE")]
    pub(crate) receipts: PathBuf,
    #[command(flatten)]
    pub(crate) audit: AuditOptions,
    /// Writes the verdict as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct AuditOptions {
    /// Audits this many logs, drawn at random, instead of all.
    #[arg(long, value_name = "LOGS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) audit_sample: Option<u32>,
    /// The seed that draws the logs; random by default.
    #[arg(long, value_name = "SEED")]
    pub(crate) audit_seed: Option<u64>,
    /// The rules by which outcomes and rows are judged; by default those of the service, if the
    /// auditor has them.
    #[arg(long, value_enum)]
    pub(crate) model: Option<AuditModel>,
    /// How long views may take to reach the ends of their logs.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) audit_patience: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum AuditModel {
    /// The ledger's: outcomes and rows are compared with a fold of the entries.
    Ledger,
    /// None: checks everything that needs no rules of a service.
    None,
}

impl From<AuditModel> for Model {
    fn from(model: AuditModel) -> Self {
        match model {
            AuditModel::Ledger => Self::Ledger,
            AuditModel::None => Self::None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Profile {
    /// A constant rate.
    Constant,
    /// From --ramp-from to --rate.
    Ramp,
    /// --rate, with --spike-rate in the middle third.
    Spike,
    /// Searches the highest rate that holds --slo. It begins with --rate, and tries each rate for
    /// --duration.
    Search,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) target: TargetOptions,
    /// Commands per second. With --batch there are fewer requests.
    #[arg(long, value_parser = rate)]
    pub(crate) rate: f64,
    /// How long the load lasts; in a search, each step.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// The rate over time.
    #[arg(long, value_enum, default_value_t = Profile::Constant)]
    pub(crate) arrivals: Profile,
    /// Commands per second at the beginning of a ramp.
    #[arg(long, default_value = "0", value_parser = rate)]
    pub(crate) ramp_from: f64,
    /// Commands per second in the middle third of a spike; by default ten times --rate.
    #[arg(long, value_parser = rate)]
    pub(crate) spike_rate: Option<f64>,
    /// The SLO of a search: accept, entry or view; p50, p90, p99 or p999; a time.
    #[arg(long, default_value = "view p99 100ms", value_parser = Slo::from_str)]
    pub(crate) slo: Slo,
    /// Requests are due at random, as from independent users, instead of evenly.
    #[arg(long)]
    pub(crate) poisson: bool,

    /// The number of organisations.
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) tenants: u32,
    /// The exponent of Zipf's law, which gives each organisation its share. 0: all are equal. 1:
    /// the second has half of the first's.
    #[arg(long, default_value = "1.0", value_parser = exponent)]
    pub(crate) zipf: f64,
    /// The number of users of each organisation (and thread).
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) users: u32,
    /// The number of clients of each user. Each client numbers its own commands by the clock
    /// (milliseconds × 1,024 + the client's number). 0: each user numbers its commands 1, 2, 3 …
    #[arg(long, default_value = "0", value_parser = clap::value_parser!(u32).range(..=1_024))]
    pub(crate) clients: u32,
    /// Commands in a request.
    #[arg(long, default_value_t = 1)]
    pub(crate) batch: usize,
    /// All commands of a request are of one organisation, apart from repetitions and late ones.
    #[arg(long)]
    pub(crate) batch_of_one_tenant: bool,
    /// Sends the commands of this file instead of the ledger's. See the README for its format.
    #[arg(long, value_name = "FILE")]
    pub(crate) workload: Option<PathBuf>,
    /// Of the ledger: bytes of each command; shorter ones are filled up with a memo. [default: 0]
    #[arg(long)]
    payload: Option<usize>,
    /// Share of commands that are sent again, whatever the answer was.
    #[arg(long, default_value = "0.01", value_parser = share)]
    pub(crate) duplicates: f64,
    /// Share of commands that have the id of another command. Each must be rejected.
    #[arg(long, default_value = "0", value_parser = share)]
    pub(crate) reused: f64,
    /// Share of commands with a lower id than their user has sent.
    #[arg(long, default_value = "0.01", value_parser = share)]
    pub(crate) out_of_order: f64,
    /// Of the ledger: share of commands that it will reject. [default: 0.01]
    #[arg(long, value_parser = share)]
    rejected: Option<f64>,
    /// Of the ledger: share of the other commands that move money between two accounts. [default:
    /// 0.1]
    #[arg(long, value_parser = share)]
    transfers: Option<f64>,

    /// The seed of all random choices.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The prefix of the users' names; by default from the clock, so that no earlier run has used
    /// it. The same name and seed send the same commands.
    #[arg(long, value_parser = name)]
    pub(crate) name: Option<String>,
    /// The prefix of the organisations' names. [default: load-, and with --workload load-<name>-, so
    /// that the organisations of each run are new]
    #[arg(long, value_parser = prefix)]
    pub(crate) org_prefix: Option<String>,

    /// The number of threads that send, each with its share of the rate.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
    /// The maximum number of requests under way; by default 256, and fewer if they are large.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    connections: Option<u32>,
    /// Commands per second that are sampled in the log and in views.
    #[arg(long, default_value = "200", value_parser = rate)]
    pub(crate) samples: f64,
    /// The timeout of one answer.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// When a request or a sample is given up, from when it was due.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) give_up: Duration,

    /// Keeps the receipts in this file, for `loadtest audit`. By default they are kept only if
    /// something is wrong.
    #[arg(long, value_name = "FILE")]
    pub(crate) receipts: Option<PathBuf>,
    /// Writes the report as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Writes the report as an HTML page.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Reports without an audit.
    #[arg(long)]
    pub(crate) no_audit: bool,
    #[command(flatten)]
    pub(crate) audit: AuditOptions,
}

/// Why options are refused.
#[derive(Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum OptionsError {
    #[error("--batch {0} is more than the {REQUEST_COMMANDS_MAX} commands of a request")]
    Batch(usize),
    #[error("--payload {0} is more than the {COMMAND_BYTES_MAX} bytes of a command")]
    Payload(usize),
    #[error(
        "--batch {batch} of --payload {payload} is more than the {REQUEST_BYTES_MAX} bytes of a \
         request"
    )]
    Request { batch: usize, payload: usize },
    #[error("--tenants times --users times --clients is {0}, and at most {USERS_MAX} are possible")]
    Users(u64),
    #[error(
        "about {ids:.0} ids of one user would be under way, and a window holds 2,048: raise --users \
         to {users}, or lower --connections"
    )]
    UnderWay { ids: f64, users: u64 },
    #[error("--threads {threads} need as many --connections, not {connections}")]
    Connections { threads: u16, connections: u32 },
    #[error("--duration must be above zero, and at most a day")]
    Duration,
    #[error("--rate must be above zero")]
    Rate,
    #[error("--slo `{0}` needs samples, and --samples is 0")]
    Unsampled(String),
    #[error("--slo `{0}` needs a view, and the workload names none: add one to its `views`")]
    NoView(String),
    #[error(
        "{option} is of the load on the ledger, and --workload has commands of its own: leave \
         {option} out, and {instead} in the file"
    )]
    OfLedger { option: &'static str, instead: &'static str },
    #[error(
        "--batch {batch} of commands with data of {bytes} bytes is more than the {REQUEST_BYTES_MAX} \
         bytes of a request"
    )]
    Rendered { batch: usize, bytes: usize },
    #[error(
        "--model ledger folds the service `ledger`, and the workload is of `{0}`: use --model none, \
         or leave it out"
    )]
    Model(String),
}

impl Run {
    /// Checks the options that depend on each other.
    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        if !(1..=REQUEST_COMMANDS_MAX).contains(&self.batch) {
            return Err(OptionsError::Batch(self.batch));
        }
        let payload = self.payload();
        if payload > COMMAND_BYTES_MAX {
            return Err(OptionsError::Payload(payload));
        }
        if self.batch * (payload + 1) + 1 > REQUEST_BYTES_MAX {
            return Err(OptionsError::Request { batch: self.batch, payload });
        }
        let of_ledger = [
            (self.payload.is_some(), "--payload", "use text(count)"),
            (self.rejected.is_some(), "--rejected", "put such commands into `mix`"),
            (self.transfers.is_some(), "--transfers", "give commands a `weight`"),
        ];
        for (_, option, instead) in of_ledger.into_iter().filter(|(is, ..)| *is) {
            if self.workload.is_some() {
                return Err(OptionsError::OfLedger { option, instead });
            }
        }
        let clients = u64::from(self.clients.max(1));
        let users = u64::from(self.tenants) * u64::from(self.users) * clients;
        if users > USERS_MAX {
            return Err(OptionsError::Users(users));
        }
        let (threads, connections) = (self.threads, self.connections());
        if u32::from(threads) > connections {
            return Err(OptionsError::Connections { threads, connections });
        }
        if self.duration.is_zero() || self.duration > Duration::from_secs(86_400) {
            return Err(OptionsError::Duration);
        }
        if self.rate == 0.0 {
            return Err(OptionsError::Rate);
        }
        if self.arrivals == Profile::Search && self.samples == 0.0 && self.slo.is_of_samples() {
            return Err(OptionsError::Unsampled(self.slo.to_string()));
        }
        let ids = self.ids_open(self.batch * self.connections() as usize);
        if ids > IDS_UNDER_WAY_MAX {
            let users = (f64::from(self.users) * ids / IDS_UNDER_WAY_MAX).ceil() as u64;
            return Err(OptionsError::UnderWay { ids, users });
        }
        Ok(())
    }

    /// Checks the options that depend on the workload file.
    pub(crate) fn check_with(&self, program: &Program) -> Result<(), OptionsError> {
        let bytes = program.longest();
        if self.batch * (bytes + PLAIN_COMMAND_BYTES_MAX) > REQUEST_BYTES_MAX {
            return Err(OptionsError::Rendered { batch: self.batch, bytes });
        }
        if self.arrivals == Profile::Search && self.slo.is_of_views() && program.views.is_empty() {
            return Err(OptionsError::NoView(self.slo.to_string()));
        }
        let is_ledger = Model::of(&program.service) == Model::Ledger;
        if self.audit.model == Some(AuditModel::Ledger) && !is_ledger {
            return Err(OptionsError::Model(program.service.clone()));
        }
        Ok(())
    }

    /// Bytes of each command of the ledger.
    pub(crate) fn payload(&self) -> usize {
        self.payload.unwrap_or(0)
    }

    /// Share of the ledger's commands that it will reject.
    pub(crate) fn rejected(&self) -> f64 {
        self.rejected.unwrap_or(0.01)
    }

    /// Share of the ledger's other commands that move money between two accounts.
    pub(crate) fn transfers(&self) -> f64 {
        self.transfers.unwrap_or(0.1)
    }

    /// The maximum number of commands that are under way or wait: so few that each user's ids stay
    /// in its window.
    pub(crate) fn commands_open(&self) -> usize {
        let remembered = IDS_UNDER_WAY_MAX / self.ids_open(1);
        (remembered as usize).min(COMMANDS_OPEN_MAX).max(self.batch * self.connections() as usize)
    }

    /// About how many ids of one user of the largest organisation are under way, if this many
    /// commands are.
    fn ids_open(&self, commands: usize) -> f64 {
        let origins = f64::from(self.users) * f64::from(self.clients.max(1));
        self.hottest_share() * commands as f64 / origins
    }

    /// The maximum number of requests under way.
    pub(crate) fn connections(&self) -> u32 {
        let few_commands = (COMMANDS_UNDER_WAY / self.batch as u32).clamp(16, 256);
        self.connections.unwrap_or(few_commands)
    }

    /// The share of the largest organisation, by Zipf's law.
    fn hottest_share(&self) -> f64 {
        1.0 / (1..=self.tenants).map(|n| f64::from(n).powf(-self.zipf)).sum::<f64>()
    }

    /// Requests per second over time. Each step of a search has one.
    pub(crate) fn shape(&self, rate: f64) -> Shape {
        let seconds = self.duration.as_secs_f64();
        let commands = match self.arrivals {
            Profile::Constant | Profile::Search => Shape::constant(rate, seconds),
            Profile::Ramp => Shape::ramp(self.ramp_from, rate, seconds),
            Profile::Spike => Shape::spike(rate, self.spike_rate(), seconds),
        };
        commands.times(1.0 / self.batch as f64)
    }

    fn spike_rate(&self) -> f64 {
        self.spike_rate.unwrap_or(10.0 * self.rate)
    }

    /// The highest rate, in commands per second.
    pub(crate) fn highest_rate(&self) -> f64 {
        match self.arrivals {
            Profile::Constant | Profile::Search => self.rate,
            Profile::Ramp => self.rate.max(self.ramp_from),
            Profile::Spike => self.rate.max(self.spike_rate()),
        }
    }

    /// The rate over time, in words.
    pub(crate) fn arrivals_in_words(&self) -> String {
        let (rate, time) = (self.rate, humantime::format_duration(self.duration));
        let how = if self.poisson { ", at random (Poisson)" } else { "" };
        match self.arrivals {
            Profile::Constant => format!("constant {rate}/s for {time}{how}"),
            Profile::Ramp => format!("from {}/s to {rate}/s in {time}{how}", self.ramp_from),
            Profile::Spike => {
                format!("{rate}/s, and {}/s in the middle third of {time}{how}", self.spike_rate())
            }
            Profile::Search => format!("search for the highest rate, {time} a step{how}"),
        }
    }

    /// Commands of a request that sets tenants up.
    pub(crate) fn openings_per_request(&self, program: Option<&Program>) -> usize {
        let bytes = match program {
            // The data of other tenants may be longer than those that the check has rendered.
            Some(program) => 2 * program.longest() + PLAIN_COMMAND_BYTES_MAX + 1,
            None => self.payload().max(PLAIN_COMMAND_BYTES_MAX) + 1,
        };
        ((REQUEST_BYTES_MAX - 2) / bytes).clamp(1, REQUEST_COMMANDS_MAX)
    }
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, 10_000_000.0)
}

fn exponent(text: &str) -> Result<f64, String> {
    number(text, 10.0)
}

fn share(text: &str) -> Result<f64, String> {
    number(text, 1.0)
}

fn number(text: &str, highest: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it is not a number".to_owned())?;
    if !(0.0..=highest).contains(&number) {
        return Err(format!("it must be from 0 to {highest}"));
    }
    Ok(number)
}

/// Reads a prefix of names: `[A-Za-z0-9._:@=+-]`.
fn prefix(text: &str) -> Result<String, String> {
    let is_known = |c: char| c.is_ascii_alphanumeric() || "._:@=+-".contains(c);
    if let Some(c) = text.chars().find(|c| !is_known(*c)) {
        return Err(format!("names cannot have `{c}`, only letters, digits and ._:@=+-"));
    }
    if text.is_empty() || text.len() > PREFIX_BYTES_MAX {
        return Err(format!("it must have 1 to {PREFIX_BYTES_MAX} characters"));
    }
    Ok(text.to_owned())
}

/// Reads the name of a run: a prefix without the separator that follows it.
fn name(text: &str) -> Result<String, String> {
    match text.contains(AFTER_NAME) {
        true => Err(format!(
            "the name of a run cannot have `{AFTER_NAME}`, which separates it from what follows"
        )),
        false => prefix(text),
    }
}
