//! What a run is reported as: on the terminal, as JSON, and as a page.

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

/// Everything that is known after a run. This is what `--json` writes; the table and the page show
/// the same.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// When the load began, RFC 3339.
    pub started: String,
    /// The version of the generator.
    pub version: String,
    /// Its URL.
    pub target: String,
    /// What was asked for.
    pub workload: Workload,
    /// Where the generator ran.
    pub machine: Machine,
    /// What came of it, counted. In a search: over all its steps.
    pub counts: Counts,
    /// Each from the intended start of a request: `accept`, `entry`, `view`; and `send`, how late
    /// requests left. What was given up, or never sent, is in `accept` with the time that it had
    /// waited until then. In a search: those of the highest rate that held.
    pub latencies: Vec<Latency>,
    /// In the order of time.
    pub timeline: Vec<Interval>,
    /// The steps of a search for the highest rate.
    pub search: Option<Search>,
    /// Why the first command without a receipt has none.
    pub refusal: Option<String>,
    /// Whether the load was ended by Ctrl-C.
    pub interrupted: bool,
    /// What the auditor found; `None`: it was told not to look.
    pub audit: Option<Verdict>,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Workload {
    /// In words: `constant 2000/s for 20s`.
    pub arrivals: String,
    /// Commands per second at the highest.
    pub rate: f64,
    /// Seconds that it was to last.
    pub duration_s: f64,
    /// Organisations.
    pub tenants: u32,
    /// The exponent of Zipf's law; 0: all alike.
    pub zipf: f64,
    /// Users of each organisation.
    pub users: u32,
    /// Clients of each user; 0: none is named.
    pub clients: u32,
    /// Commands in a request.
    pub batch: usize,
    /// Whether all commands of a request are of one organisation.
    pub batch_of_one_tenant: bool,
    /// Bytes of each command, about.
    pub payload: usize,
    /// Share of commands that are sent again, whatever became of them.
    pub duplicates: f64,
    /// Share of commands that have the id of another one.
    pub reused: f64,
    /// Share of commands whose id is below one that their user has sent.
    pub out_of_order: f64,
    /// Share of commands that the ledger will refuse.
    pub rejected: f64,
    /// Of everything random.
    pub seed: u64,
    /// Threads of the generator.
    pub threads: usize,
    /// Requests under way at the same time, at most.
    pub connections: usize,
}

/// Where the generator ran.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The processor, as it calls itself.
    pub cpu: String,
    /// Logical processors.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The operating system.
    pub os: String,
    /// Whether the target is on it too.
    pub shared_with_target: bool,
}

/// What came of the commands.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Commands that were due.
    pub due: u64,
    /// Commands that got a 202.
    pub accepted: u64,
    /// Commands that were refused with a status that no repetition changes.
    pub refused: u64,
    /// Commands that never got an answer, however often they were sent.
    pub unanswered: u64,
    /// Commands that were due and never sent, since all connections were busy until the end, or the
    /// load was stopped.
    pub unsent: u64,
    /// Requests that got any answer.
    pub requests: u64,
    /// Requests that were sent again, by what had come instead of a 202: `503`, `429`, `connection`,
    /// `timeout`.
    pub retries: std::collections::BTreeMap<String, u64>,
    /// Samples that could not be taken, since too many were waiting.
    pub samples_dropped: u64,
    /// Samples that were given up.
    pub samples_unseen: u64,
    /// Seconds from the first request to the last answer.
    pub elapsed_s: f64,
    /// `accepted` by `elapsed_s`.
    pub accepted_per_s: f64,
    /// `requests` by `elapsed_s`.
    pub requests_per_s: f64,
}

/// How long something took.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// `accept`, `entry`, `view` or `send`.
    pub of: String,
    /// How many were measured.
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
    /// (percent, milliseconds), rising: 0 to 100.
    pub percentiles: Vec<(f64, f64)>,
}

/// A stretch of the run.
#[derive(Debug, Clone, Serialize)]
pub struct Interval {
    /// Where it begins, in seconds.
    pub at_s: f64,
    /// How long it is, in seconds.
    pub seconds: f64,
    /// Commands per second that were due in it.
    pub due_per_s: f64,
    /// Commands per second that got their 202 in it.
    pub accepted_per_s: f64,
    /// Requests that failed in it, sent again or not.
    pub errors: u64,
    /// Of the requests that were due in it; `None`: there were none. Likewise below.
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

/// How the highest rate was found.
#[derive(Debug, Clone, Serialize)]
pub struct Search {
    /// In words: `view p99 < 100 ms`.
    pub slo: String,
    /// Milliseconds that `slo` allows: where the chart draws its line.
    pub slo_ms: f64,
    /// In the order they were tried.
    pub steps: Vec<Step>,
    /// The highest rate that held, in commands per second; `None`: none did.
    pub highest: Option<f64>,
}

/// A rate that was tried.
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
    /// Milliseconds that requests left late.
    pub send_p99_ms: f64,
    /// It did not hold, and requests left so late that this may be the generator's limit.
    pub may_be_the_generator: bool,
    /// Why it did not hold; `None`: it did.
    pub failed: Option<String>,
}
