//! The auditor: whether what a target says agrees with what it said before.
//!
//! It is given a file of [receipts](crate::receipts) and a URL, reads the logs that the file names
//! and all rows of their views, and folds the ledger by rules of its own. What it checks, by the
//! invariant that is broken otherwise:
//!
//! - **F1** Seqs are 1, 2, 3 … without a hole; what is accepted has its entry in time; no place is
//!   promised twice.
//! - **F3** The entry at a receipt's place is of that user, id and command; it is in the log and at
//!   the seq that was asked for; it never changes; pages go on where they end; none of our users
//!   has an entry of a command that was never sent.
//! - **F4** An id is decided upon once: what comes again is a `duplicate` that names the first, or
//!   `stale` if the window has lost it, and nothing else is.
//! - **F5** Views reach the tail in time, and are not parked.
//! - **F6** A command leads to what the ledger's rules say, or is refused as they say; rows are the
//!   fold of the entries, all of them and no others; money is neither made nor lost; what readers
//!   saw meanwhile was the fold at its seq, and nobody saw less than somebody before him.
//! - **F8** Every receipt has its entry.
//!
//! `faulted` entries change nothing, and neither do `lost` ones, which an operator has given up: if
//! they had a receipt, a note says so.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::Serialize;
use tokio::time::Instant;

use crate::http::Target;

mod claims;
mod findings;
mod ledger;
mod log;
mod reader;
mod rows;
mod seen;
mod views;
mod window;

pub use claims::LineError;
use claims::{Group, Index};
use findings::Findings;
use log::{Audited, Task, audit_log};
use reader::{Reader, Trouble};

/// Breaches that are kept; the others are counted.
pub const BREACHES_MAX: usize = 10;

/// Logs that are audited at the same time, by default.
pub const CONCURRENCY: usize = 16;

/// Receipts that are held in memory, by default: about 100 MB.
pub const RECEIPTS_MAX: usize = 2_000_000;

/// Movements of a log that wait to be compared, by default: about 2 MB.
pub const LINES_MAX: usize = 16 * 1_024;

/// A log that is come to late gives its views this long nevertheless.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

const F1: &str = "F1";
const F3: &str = "F3";
const F4: &str = "F4";
const F5: &str = "F5";
const F6: &str = "F6";
const F8: &str = "F8";

/// How to audit.
#[derive(Debug, Clone)]
pub struct Options {
    /// So many logs, drawn by lot; `None`: all of them.
    pub sample: Option<usize>,
    /// Of everything random.
    pub seed: u64,
    /// How long entries and views may take, from the start, until they have what was accepted.
    pub patience: Duration,
    /// Logs at the same time.
    pub concurrency: usize,
    /// Receipts in memory: logs that have more together are audited one group after the other, each
    /// with one more pass over the file. One log's receipts are always held together.
    pub receipts_max: usize,
    /// Movements in memory, per log, that were folded and whose rows are not compared yet.
    pub lines_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sample: None,
            seed: 0,
            patience: Duration::from_secs(60),
            concurrency: CONCURRENCY,
            receipts_max: RECEIPTS_MAX,
            lines_max: LINES_MAX,
        }
    }
}

/// How far an audit is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Logs that are done.
    pub logs: u64,
    /// Logs that are to be done.
    pub logs_total: u64,
    /// Entries that were folded.
    pub entries: u64,
    /// Breaches in the logs that are done.
    pub breaches: u64,
}

/// Why there is no verdict: it is the file's fault. The target's are in the [`Verdict`].
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum AuditError {
    #[error("cannot read the receipts in {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("line {number} of the receipts {error}")]
    Line { number: u64, error: LineError },
}

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// Logs that were read, of so many that the receipts name.
    pub logs: u64,
    /// Logs that the receipts name.
    pub logs_named: u64,
    /// Entries that were read and folded.
    pub entries: u64,
    /// Of them, by status: `accepted`, `rejected`, `duplicate`, …
    pub outcomes: BTreeMap<String, u64>,
    /// Receipts that were looked up in their log.
    pub receipts: u64,
    /// Rows that were compared with the fold.
    pub rows: u64,
    /// What readers had seen during the run, entries and rows, and that was compared.
    pub seen: u64,
    /// Money in all accounts of these logs, in minor units, as a string of digits would be in a
    /// bank's books: it may be more than 64 bits hold.
    pub balance: i128,
    /// Whether it came to its end; if not, why.
    pub unfinished: Option<String>,
    /// How many breaches there are.
    pub breaches: u64,
    /// Of them, by invariant.
    pub broken: BTreeMap<&'static str, u64>,
    /// The first of them, by log and seq.
    pub examples: Vec<Breach>,
    /// What is no breach, and worth to be known.
    pub notes: Vec<String>,
    /// Seconds that it took.
    pub seconds: f64,
}

impl Verdict {
    /// Whether everything was looked at, and is as it should be.
    pub fn is_clean(&self) -> bool {
        self.breaches == 0 && self.unfinished.is_none()
    }
}

/// A counter-example.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Breach {
    /// `F1` … `F8`: which invariant is broken.
    pub invariant: &'static str,
    /// The log.
    pub log: String,
    /// Where in it.
    pub seq: Option<u64>,
    /// What was found, and what should be there.
    pub what: String,
}

/// Audits `target` against the file at `receipts`. `progress` is called each time entries have been
/// folded, or a log is done.
pub async fn audit(
    target: &Target,
    receipts: &Path,
    options: &Options,
    progress: impl Fn(Progress) + Sync,
) -> Result<Verdict, AuditError> {
    let began = Instant::now();
    let path = receipts.to_owned();
    let mut index = read(move || Index::read(&path)).await?;
    let logs_named = index.logs.len() as u64;
    if let Some(sample) = options.sample.filter(|sample| *sample < index.logs.len()) {
        let mut rng = SmallRng::seed_from_u64(options.seed);
        let mut drawn = rand::seq::index::sample(&mut rng, index.logs.len(), sample).into_vec();
        drawn.sort_unstable();
        index.logs = drawn.into_iter().map(|at| std::mem::take(&mut index.logs[at])).collect();
    }
    let mut sum = Sum { logs_total: index.logs.len() as u64, ..Sum::default() };
    let far = Mutex::new(Progress { logs_total: sum.logs_total, ..Progress::default() });
    let tell = |change: &dyn Fn(&mut Progress)| {
        let mut far = far.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut far);
        progress(*far);
    };
    let folded = |more: u64| tell(&|far| far.entries += more);
    for range in index.groups(options.receipts_max) {
        let first = range.start as u64;
        let names: Vec<String> = index.logs[range].iter().map(|(log, _)| log.clone()).collect();
        let path = receipts.to_owned();
        let group = read(move || Group::read(&path, names.iter().map(String::as_str))).await?;
        let Group { names, logs } = group;
        let audits = logs.into_iter().zip(first..).map(|((log, claims), at)| {
            let (names, folded, users) = (&names, &folded, &index.run.users);
            async move {
                let patience = Instant::now() + options.patience.min(PATIENCE_MIN);
                let until = (began + options.patience).max(patience);
                let seed = options.seed ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let reader = Reader { target };
                let lines_max = options.lines_max;
                let task = Task { reader, log: &log, names, users, until, lines_max, seed, folded };
                let audited = audit_log(task, claims).await;
                (log, audited)
            }
        });
        let mut audits = stream::iter(audits).buffer_unordered(options.concurrency.max(1));
        while let Some((log, audited)) = audits.next().await {
            sum.add(&log, audited);
            tell(&|far| (far.logs, far.breaches) = (sum.verdict.logs, sum.findings.count()));
            if sum.unreachable {
                break;
            }
        }
        if sum.unreachable {
            break;
        }
    }
    let mut verdict = sum.finish(logs_named);
    if index.broke_off {
        verdict.notes.push("the last line of the receipts broke off, and was left out".to_owned());
    }
    verdict.seconds = began.elapsed().as_secs_f64();
    Ok(verdict)
}

/// Reads the file, on a thread of its own.
async fn read<T: Send + 'static>(
    pass: impl FnOnce() -> Result<T, AuditError> + Send + 'static,
) -> Result<T, AuditError> {
    match tokio::task::spawn_blocking(pass).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// What the logs come to.
#[derive(Default)]
struct Sum {
    verdict: Verdict,
    findings: Findings,
    logs_total: u64,
    given_up: u64,
    moving: Troubled,
    troubled: Troubled,
    /// Nobody answers: the other logs are not tried.
    unreachable: bool,
}

/// Logs that were not looked at to their end: how many, and the first by name, with the reason.
#[derive(Default)]
struct Troubled {
    count: u64,
    first: Option<(String, String)>,
}

impl Troubled {
    fn add(&mut self, log: &str, why: String) {
        self.count += 1;
        if self.first.as_ref().is_none_or(|(first, _)| log < first.as_str()) {
            self.first = Some((log.to_owned(), why));
        }
    }

    fn say(&self) -> Option<String> {
        let (log, why) = self.first.as_ref()?;
        Some(match self.count {
            1 => format!("{log}: {why}"),
            n => format!("{log}: {why}; and {} more logs like it", n - 1),
        })
    }
}

impl Sum {
    fn add(&mut self, log: &str, audited: Audited) {
        let verdict = &mut self.verdict;
        verdict.logs += 1;
        verdict.entries += audited.entries;
        verdict.receipts += audited.receipts;
        verdict.rows += audited.rows;
        verdict.seen += audited.seen;
        verdict.balance += audited.balance;
        for (status, count) in audited.outcomes {
            *verdict.outcomes.entry(status).or_default() += count;
        }
        self.findings.merge(audited.findings);
        self.given_up += audited.given_up;
        if audited.moving {
            self.moving.add(log, "it grew faster than it could be followed".to_owned());
        }
        if let Some(trouble) = audited.trouble {
            self.unreachable |= matches!(trouble, Trouble::Unreachable { .. });
            self.troubled.add(log, trouble.to_string());
        }
    }

    fn finish(self, logs_named: u64) -> Verdict {
        let mut verdict = self.verdict;
        let why: Vec<String> =
            [self.troubled.say(), self.moving.say()].into_iter().flatten().collect();
        verdict.unfinished = (!why.is_empty()).then(|| why.join("; "));
        verdict.logs_named = logs_named;
        verdict.breaches = self.findings.count();
        (verdict.broken, verdict.examples) = self.findings.finish();
        if self.given_up > 0 {
            let what = format!(
                "{} commands with a receipt are `lost`: an operator has given them up",
                self.given_up
            );
            verdict.notes.push(what);
        }
        verdict
    }
}
