//! What a host runs, as a file says it (JSON). Names are of functions unless said otherwise.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// All of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where AWS answers.
    pub endpoint: String,
    /// The region that requests and ARNs name.
    pub region: String,
    /// The account that ARNs name.
    pub account: String,
    /// A folder for what functions print, a file each.
    pub logs: PathBuf,
    /// Where [`control`](crate::control) listens.
    pub control: SocketAddr,
    /// The HTTP API.
    pub front: Option<Front>,
    /// By name.
    pub functions: BTreeMap<String, Function>,
    /// Event source mappings of streams, by the names of their functions.
    #[serde(default)]
    pub streams: BTreeMap<String, Stream>,
    /// Event source mappings of queues, by the names of their functions.
    #[serde(default)]
    pub queues: BTreeMap<String, Queue>,
    /// What SNS invokes functions with.
    #[serde(default)]
    pub subscriptions: BTreeMap<String, Subscription>,
    /// How often functions are invoked by the clock, in milliseconds.
    #[serde(default)]
    pub schedules: BTreeMap<String, u64>,
}

/// An HTTP API: every request goes to one function.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Front {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it invokes.
    pub function: String,
}

/// A Lambda.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// Its program.
    pub bootstrap: PathBuf,
    /// Its environment, beside what Lambda sets.
    pub env: BTreeMap<String, String>,
    /// Invocations at the same time, each in a process of its own.
    pub workers: usize,
    /// What an invocation may take, in milliseconds.
    pub timeout_ms: u64,
    /// What Lambda says to it of its memory, in MB. Nothing is bounded by it.
    pub memory_mb: u64,
    /// What becomes of asynchronous invocations that fail.
    #[serde(default)]
    pub on_error: OnError,
}

/// Asynchronous invocations.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnError {
    /// Tries after the first one.
    pub retries: u32,
    /// The pause before the first of them, in milliseconds; before the second it is twice as long.
    /// (Lambda waits one minute and two.)
    pub retry_ms: u64,
    /// An event that is older is not tried any more, in milliseconds.
    pub age_ms_max: u64,
    /// The URL of the queue for what was given up.
    pub destination: Option<String>,
}

impl Default for OnError {
    fn default() -> Self {
        // Lambda's own: two retries, six hours.
        Self { retries: 2, retry_ms: 1_000, age_ms_max: 6 * 3_600_000, destination: None }
    }
}

/// What a stream's mapping reads.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Source {
    /// The stream of the table with this name.
    #[serde(rename = "table")]
    Table(String),
    /// The Kinesis stream with this name.
    #[serde(rename = "kinesis")]
    Kinesis(String),
}

/// A mapping of a stream. It begins at the oldest record, and tries for ever.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// What it reads.
    pub source: Source,
    /// Records a batch.
    pub batch_size: usize,
    /// How long a batch that is not full waits, in milliseconds.
    pub window_ms: u64,
    /// Lanes a shard.
    pub parallelization: usize,
    /// Whether a batch that failed comes again in halves.
    pub bisect: bool,
    /// Whether the function reports what failed.
    pub report_failures: bool,
    /// How often a shard is asked for records, in milliseconds.
    pub poll_ms: u64,
}

/// A mapping of a queue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// The queue.
    pub url: String,
    /// Messages a batch.
    pub batch_size: usize,
    /// How long a batch that is not full waits, in milliseconds.
    pub window_ms: u64,
    /// Invocations at the same time.
    pub concurrency: usize,
    /// Whether the function reports what failed.
    pub report_failures: bool,
    /// How often the queue is asked for messages, in milliseconds.
    pub poll_ms: u64,
}

/// A function that SNS invokes: the messages come by a queue that is subscribed to the topic,
/// without raw delivery.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// The queue.
    pub url: String,
    /// How often the queue is asked for messages, in milliseconds.
    pub poll_ms: u64,
}
