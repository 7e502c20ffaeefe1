//! `fanfold shards`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use fanfold_embedded::HashKey;
use fanfold_embedded::ShardId;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::client::{Client, Server, Target};
use crate::output::{ignore_closed_output, print};

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints one line of JSON per shard: all shards, or those that the split or merge \
created. A closed shard leaves the list after everything in it is processed; only then its children \
are processed."
)]
pub(crate) struct Shards {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List all shards, with the number of records that wait in each.
    List {
        #[command(flatten)]
        server: Server,
    },
    /// Split a shard in two, so that more batches are processed in parallel.
    Split {
        #[command(flatten)]
        server: Server,
        /// The shard, such as `shardId-000000000004`.
        shard: ShardId,
        /// The first hash key of the upper shard, in decimal; by default the middle.
        #[arg(long, value_name = "KEY")]
        at: Option<HashKey>,
    },
    /// Merge two shards into one. Their ranges must be adjacent.
    Merge {
        #[command(flatten)]
        server: Server,
        /// The first shard.
        #[arg(value_name = "SHARD")]
        one: ShardId,
        /// The second shard.
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
    /// Lists, splits or merges, and prints the shards.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let answer = match self.action {
            Action::List { server } => {
                Client::new(&server)?.get(&Target::path(&["ops", "shards"]))?
            }
            Action::Split { server, shard, at } => {
                let body = json!({ "shard": shard, "at": at }).to_string();
                Client::new(&server)?
                    .post(&Target::path(&["ops", "shards", "split"]), body.as_bytes())?
            }
            Action::Merge { server, one, other } => {
                let body = json!({ "shards": [one, other] }).to_string();
                Client::new(&server)?
                    .post(&Target::path(&["ops", "shards", "merge"]), body.as_bytes())?
            }
        };
        ignore_closed_output(print(&answer.read::<Listed<'_>>()?.shards))
    }
}
