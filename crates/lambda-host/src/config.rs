//! The configuration of a host, a JSON file. Names are those of functions unless stated otherwise.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// The configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The endpoint of AWS.
    pub endpoint: String,
    /// The region in requests and ARNs.
    pub region: String,
    /// The account in ARNs.
    pub account: String,
    /// The folder for the output of functions, a file each.
    pub logs: PathBuf,
    /// Where [`control`](crate::control) listens.
    pub control: SocketAddr,
    /// The HTTP API.
    pub front: Option<Front>,
    /// The functions, by name.
    pub functions: BTreeMap<String, Function>,
    /// Event source mappings of streams, by the names of their functions.
    #[serde(default)]
    pub streams: BTreeMap<String, Stream>,
    /// Event source mappings of queues, by the names of their functions.
    #[serde(default)]
    pub queues: BTreeMap<String, Queue>,
    /// Subscriptions by which SNS invokes functions, by the names of the functions.
    #[serde(default)]
    pub subscriptions: BTreeMap<String, Subscription>,
    /// The period at which a schedule invokes each function, in milliseconds.
    #[serde(default)]
    pub schedules: BTreeMap<String, u64>,
}

/// An HTTP API. A request goes to the function of the longest path that its own begins with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Front {
    /// The address that it listens on.
    pub listen: SocketAddr,
    /// The functions, by the beginnings of paths: `/` for all others.
    pub functions: BTreeMap<String, String>,
}

/// A Lambda.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// Its program.
    pub bootstrap: PathBuf,
    /// Its environment variables, beside those that Lambda sets.
    pub env: BTreeMap<String, String>,
    /// Parallel invocations, each in a process of its own.
    pub workers: usize,
    /// The timeout of an invocation, in milliseconds.
    pub timeout_ms: u64,
    /// The memory size in its environment, in MB. The host does not enforce it.
    pub memory_mb: u64,
    /// How failed asynchronous invocations are handled.
    #[serde(default)]
    pub on_error: OnError,
}

/// How failed asynchronous invocations are handled.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnError {
    /// Retries after the first attempt.
    pub retries: u32,
    /// The pause before the first retry, in milliseconds. It doubles with each. (Lambda waits one
    /// minute, then two.)
    pub retry_ms: u64,
    /// The age from which an event is not tried any more, in milliseconds.
    pub age_ms_max: u64,
    /// The URL of the queue for events that were given up.
    pub destination: Option<String>,
}

impl Default for OnError {
    fn default() -> Self {
        // Lambda's defaults: two retries, six hours.
        Self { retries: 2, retry_ms: 1_000, age_ms_max: 6 * 3_600_000, destination: None }
    }
}

/// The stream that a mapping reads.
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

/// A mapping of a stream. It begins at the oldest record, and retries without end.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// The stream.
    pub source: Source,
    /// The most records of a batch.
    pub batch_size: usize,
    /// How long a batch that is not full waits, in milliseconds.
    pub window_ms: u64,
    /// Lanes per shard.
    pub parallelization: usize,
    /// Whether a batch that failed is retried in halves.
    pub bisect: bool,
    /// Whether the function reports what failed.
    pub report_failures: bool,
    /// How often it polls a shard, in milliseconds.
    pub poll_ms: u64,
}

/// A mapping of a queue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// The queue.
    pub url: String,
    /// The most messages of a batch.
    pub batch_size: usize,
    /// How long a batch that is not full waits, in milliseconds.
    pub window_ms: u64,
    /// Parallel invocations.
    pub concurrency: usize,
    /// Whether the function reports what failed.
    pub report_failures: bool,
    /// How often the queue is asked for messages, in milliseconds.
    pub poll_ms: u64,
}

/// A function that SNS invokes. The messages arrive through a queue that is subscribed to the topic
/// without raw delivery.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// The queue.
    pub url: String,
    /// How often the queue is asked for messages, in milliseconds.
    pub poll_ms: u64,
}
