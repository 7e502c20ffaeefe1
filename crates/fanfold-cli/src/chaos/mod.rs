//! `fanfold chaos`.

mod routes;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use fanfold::LogId;
use fanfold_embedded::ShardId;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

pub(crate) use self::routes::{ChaosRoutes, routes};
use crate::client::{Client, Server, Target};
use crate::output::{ignore_closed_output, print};

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Only for an `up` that was started with --chaos. Prints a line of JSON for each fault; `met` is the \
number of calls that it has broken so far. Each fault ends by itself."
)]
pub(crate) struct Chaos {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List what is broken.
    List {
        #[command(flatten)]
        server: Server,
    },
    /// Let a port answer no calls of the stages.
    Fail {
        /// `stream`, `journal`, `state` or `topic`.
        port: String,
        #[command(flatten)]
        about: About,
    },
    /// Let the topic refuse commits for good, so that they are parked as `unpublished`.
    Refuse {
        #[command(flatten)]
        about: About,
    },
    /// Deliver records of the command stream only when the fault ends, out of their order.
    Hold {
        #[command(flatten)]
        about: About,
    },
    /// Deliver records that no build can read, so that they are parked as `undecodable`.
    Damage {
        #[command(flatten)]
        about: About,
    },
    /// Let the invocations of a stage panic.
    Kill {
        /// `relay`, `process`, or `view:` with a view's name.
        stage: String,
        #[command(flatten)]
        about: About,
    },
    /// Let the invocations of a stage begin late.
    Delay {
        /// `relay`, `process`, or `view:` with a view's name.
        stage: String,
        /// How late, such as `500ms`; at most 30s.
        #[arg(value_parser = humantime::parse_duration)]
        by: Duration,
        #[command(flatten)]
        about: About,
    },
    /// End all faults, or one.
    Heal {
        #[command(flatten)]
        server: Server,
        /// The number of a fault.
        id: Option<u64>,
    },
}

/// What a fault is for, and how long it lasts.
#[derive(Debug, Args)]
struct About {
    #[command(flatten)]
    server: Server,
    /// Only this log.
    #[arg(long, conflicts_with = "shard")]
    log: Option<LogId>,
    /// Only the logs whose hash keys are in the range of this shard.
    #[arg(long)]
    shard: Option<ShardId>,
    /// Only so many calls; by default all of them.
    #[arg(long, value_name = "CALLS")]
    times: Option<u64>,
    /// How long, such as `30s`; at most 10min.
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    lasts: Duration,
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    faults: Vec<&'a RawValue>,
}

impl Chaos {
    /// Breaks, lists or heals, and prints what the host answers.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let (about, fault, at, delay) = match self.action {
            Action::List { server } => return ignore_closed_output(list(&server)),
            Action::Heal { server, id } => return ignore_closed_output(heal(&server, id)),
            Action::Fail { port, about } => (about, "fail", Some(port), None),
            Action::Refuse { about } => (about, "refuse", None, None),
            Action::Hold { about } => (about, "hold", None, None),
            Action::Damage { about } => (about, "damage", None, None),
            Action::Kill { stage, about } => (about, "kill", Some(stage), None),
            Action::Delay { stage, by, about } => (about, "delay", Some(stage), Some(by)),
        };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let body = json!({
            "fault": fault,
            "at": at,
            "delay_ms": delay.map(ms),
            "log": about.log,
            "shard": about.shard,
            "times": about.times,
            "for_ms": ms(about.lasts),
        });
        let server = &about.server;
        ignore_closed_output(post(server, &["ops", "chaos"], &body))
    }
}

fn list(server: &Server) -> anyhow::Result<ExitCode> {
    let answer = Client::new(server)?.get(&Target::path(&["ops", "chaos"]))?;
    print(&answer.read::<Listed<'_>>()?.faults)
}

fn heal(server: &Server, id: Option<u64>) -> anyhow::Result<ExitCode> {
    post(server, &["ops", "chaos", "heal"], &json!({ "id": id }))
}

fn post(server: &Server, path: &[&str], body: &serde_json::Value) -> anyhow::Result<ExitCode> {
    let answer = Client::new(server)?.post(&Target::path(path), body.to_string().as_bytes())?;
    print(&[answer.read()?])
}
