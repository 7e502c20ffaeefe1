//! `fanfold shards`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use fanfold_embedded::hash_key::HashKey;
use fanfold_embedded::shards::ShardId;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::client::{Answer, Client, Server, Target};
use crate::output::{Output, unless_closed};

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints one line of JSON per shard: all there are, or those that came into being. \
A closed shard is gone from the list once everything in it is processed; only then its children \
are."
)]
pub struct Shards {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List them, with the records that wait in each.
    List {
        #[command(flatten)]
        server: Server,
    },
    /// Split one in two: more batches are worked on at the same time.
    Split {
        #[command(flatten)]
        server: Server,
        /// The shard, as `shardId-000000000004`.
        shard: ShardId,
        /// The first hash key of the upper one, in decimal; without it, the middle.
        #[arg(long, value_name = "KEY")]
        at: Option<HashKey>,
    },
    /// Merge two into one. Their ranges must meet.
    Merge {
        #[command(flatten)]
        server: Server,
        /// The one.
        #[arg(value_name = "SHARD")]
        one: ShardId,
        /// The other.
        #[arg(value_name = "SHARD")]
        other: ShardId,
    },
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    shards: Vec<&'a RawValue>,
}

impl Shards {
    /// Does it, and prints the shards.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let answer = match self.action {
            Action::List { server } => Client::new(&server)?.get(&Target::path(&["shards"]))?,
            Action::Split { server, shard, at } => {
                let body = json!({ "shard": shard, "at": at }).to_string();
                Client::new(&server)?.post(&Target::path(&["shards", "split"]), body.as_bytes())?
            }
            Action::Merge { server, one, other } => {
                let body = json!({ "shards": [one, other] }).to_string();
                Client::new(&server)?.post(&Target::path(&["shards", "merge"]), body.as_bytes())?
            }
        };
        unless_closed(print(&answer))
    }
}

fn print(answer: &Answer) -> anyhow::Result<ExitCode> {
    let listed: Listed<'_> = answer.read()?;
    let mut output = Output::default();
    for shard in &listed.shards {
        output.line(shard)?;
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}
