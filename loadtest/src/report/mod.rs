//! The report of a run: on the terminal, as JSON, and as a page.

mod axis;
mod charts;
mod figures;
mod findings;
mod html;
mod plot;
#[cfg(test)]
mod samples;
mod terminal;

pub use terminal::verdict_table;
#[cfg(test)]
mod tests;

use serde::Serialize;

use auditor::Verdict;

pub use crate::workload::Partition;

/// The report of a run. `--json` writes it; the table and the page show the same.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// When the load began, RFC 3339.
    pub started: String,
    /// The version of the generator.
    pub version: String,
    /// The target's URL.
    pub target: String,
    /// What the options asked for.
    pub workload: Workload,
    /// The machine of the generator.
    pub machine: Machine,
    /// The counts; in a search, over all its steps.
    pub counts: Counts,
    /// `accept`, `entry`, `view`, and `send` (how late requests were sent), each from when a
    /// request was due. Commands that were given up or never sent are in `accept` with the time
    /// that they waited. In a search: those of the highest rate that held.
    pub latencies: Vec<Latency>,
    /// The intervals of the run, in order.
    pub timeline: Vec<Interval>,
    /// The search for the highest rate, if there was one.
    pub search: Option<Search>,
    /// Why the first command without a receipt has none.
    pub refusal: Option<String>,
    /// Whether Ctrl-C ended the load.
    pub interrupted: bool,
    /// What the auditor found; `None`: there was no audit.
    pub audit: Option<Verdict>,
}

/// What the options asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Workload {
    /// The service of all commands.
    pub service: String,
    /// The workload file; `None`: the commands are the ledger's.
    pub file: Option<String>,
    /// What a tenant is.
    pub partition: Partition,
    /// The rate over time, in words: `constant 2000/s for 20s`.
    pub arrivals: String,
    /// The highest rate, in commands per second.
    pub rate: f64,
    /// The duration of the load, in seconds.
    pub duration_s: f64,
    /// The number of tenants.
    pub tenants: u32,
    /// The exponent of Zipf's law; 0: all tenants are equal.
    pub zipf: f64,
    /// The number of users of each organisation, or of clients of each user that is a tenant.
    pub users: u32,
    /// The number of clients of each user; 0: users name no client.
    pub clients: u32,
    /// Commands in a request.
    pub batch: usize,
    /// Whether all commands of a request are of one tenant.
    pub batch_of_one_tenant: bool,
    /// Bytes of each command, about; `None`: the file says.
    pub payload: Option<usize>,
    /// Share of commands that are sent again.
    pub duplicates: f64,
    /// Share of commands that have the id of another command.
    pub reused: f64,
    /// Share of commands with a lower id than their user has sent.
    pub out_of_order: f64,
    /// Share of commands that the ledger will reject; `None`: the file says.
    pub rejected: Option<f64>,
    /// The seed of all random choices.
    pub seed: u64,
    /// The number of threads of the generator.
    pub threads: usize,
    /// The maximum number of requests under way.
    pub connections: usize,
}

/// The machine of the generator.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// The number of logical processors.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The operating system.
    pub os: String,
    /// Whether the target is on it, too.
    pub shared_with_target: bool,
}

/// The counts of a load.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Commands that were due.
    pub due: u64,
    /// Commands that got a 202.
    pub accepted: u64,
    /// Commands that were refused with a status that a retry would get again.
    pub refused: u64,
    /// Commands that never got a final answer.
    pub unanswered: u64,
    /// Commands that were due and never sent, since no connection was free or the load was stopped.
    pub unsent: u64,
    /// Requests that got an answer.
    pub requests: u64,
    /// Retries, by what came instead of a 202: `503`, `429`, `connection`, `timeout`.
    pub retries: std::collections::BTreeMap<String, u64>,
    /// Samples that were not taken, since too many waited.
    pub samples_dropped: u64,
    /// Samples that were given up.
    pub samples_unseen: u64,
    /// Seconds from the first request to the last answer.
    pub elapsed_s: f64,
    /// `accepted` divided by `elapsed_s`.
    pub accepted_per_s: f64,
    /// `requests` divided by `elapsed_s`.
    pub requests_per_s: f64,
}

/// The distribution of a time.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// `accept`, `entry`, `view` or `send`.
    pub of: String,
    /// The number of measurements.
    pub count: u64,
    /// Milliseconds.
    pub mean_ms: f64,
    /// Milliseconds.
    pub p50_ms: f64,
    /// Milliseconds.
    pub p90_ms: f64,
    /// Milliseconds.
    pub p99_ms: f64,
    /// Milliseconds.
    pub p999_ms: f64,
    /// Milliseconds.
    pub max_ms: f64,
    /// (percent, milliseconds), ascending from 0 to 100.
    pub percentiles: Vec<(f64, f64)>,
}

/// An interval of the run.
#[derive(Debug, Clone, Serialize)]
pub struct Interval {
    /// Its beginning, in seconds.
    pub at_s: f64,
    /// Its length, in seconds.
    pub seconds: f64,
    /// Commands per second that were due in it.
    pub due_per_s: f64,
    /// Commands per second that got their 202 in it.
    pub accepted_per_s: f64,
    /// Requests that failed in it, whether sent again or not.
    pub errors: u64,
    /// Milliseconds, of the requests that were due in it; `None`: there were none.
    pub accept_p50_ms: Option<f64>,
    /// Milliseconds.
    pub accept_p99_ms: Option<f64>,
    /// Milliseconds.
    pub entry_p99_ms: Option<f64>,
    /// Milliseconds.
    pub view_p50_ms: Option<f64>,
    /// Milliseconds.
    pub view_p99_ms: Option<f64>,
}

/// A search for the highest rate.
#[derive(Debug, Clone, Serialize)]
pub struct Search {
    /// The SLO, in words: `view p99 < 100 ms`.
    pub slo: String,
    /// The limit of the SLO in milliseconds, for the chart.
    pub slo_ms: f64,
    /// The tried rates, in order.
    pub steps: Vec<Step>,
    /// The highest rate that held, in commands per second; `None`: none held.
    pub highest: Option<f64>,
}

/// A tried rate.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Commands per second.
    pub rate: f64,
    /// Commands per second that got their 202.
    pub accepted_per_s: f64,
    /// Milliseconds.
    pub accept_p99_ms: f64,
    /// Milliseconds.
    pub view_p99_ms: f64,
    /// How late requests were sent, in milliseconds.
    pub send_p99_ms: f64,
    /// Whether the rate failed and requests were sent so late that the generator may be the limit.
    pub may_be_the_generator: bool,
    /// Why the rate failed; `None`: it held.
    pub failed: Option<String>,
}
