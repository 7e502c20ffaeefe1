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
//! - **F4** An id of a user, or of a user's client, is decided upon once: what comes again is a
//!   `duplicate` that names the first; another command with it is `id_reused`, and names the first;
//!   `stale` is what the window has lost, and nothing else is. So no id is swallowed. Who looks up an
//!   id is shown its first entry, 404 if it was never sent, 410 if the window has lost it.
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
use std::time::Duration;

use futures::{StreamExt, stream};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

pub mod http;
pub mod limits;
pub mod receipts;

mod claims;
mod exact;
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
use http::Target;
use log::{Audited, Task, Whose, audit_log};
use reader::{Reader, Trouble};

/// Breaches that are kept; the others are counted.
pub const BREACHES_MAX: usize = 10;

/// Logs that are audited at the same time, by default.
pub const CONCURRENCY: usize = 16;

/// Receipts that are held in memory, by default: about 140 MB.
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
    /// Of everything random: which logs are drawn, and which entries are read twice.
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
    /// Ends the audit once it is true: the verdict has what was found until then.
    pub stop: Option<watch::Receiver<bool>>,
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
            stop: None,
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
    /// Which logs were drawn, if not all are read, and which entries were read twice.
    pub seed: u64,
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
    /// Ids that were looked up.
    pub lookups: u64,
    /// Money in all accounts of these logs, in minor units: it may be more than 64 bits hold.
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
    /// Whether everything was looked at, and is as it should be. To have looked at nothing is no
    /// success.
    pub fn is_clean(&self) -> bool {
        self.breaches == 0 && self.unfinished.is_none() && self.receipts > 0
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

/// Audits `target` against the file at `receipts`. `progress` is called each time a log is done.
pub async fn audit(
    target: &Target,
    receipts: &Path,
    options: &Options,
    progress: impl Fn(Progress),
) -> Result<Verdict, AuditError> {
    let began = Instant::now();
    let path = receipts.to_owned();
    let Some(index) = unless(stopped(options), read(move || Index::read(&path))).await else {
        return Ok(Sum { stopped: true, ..Sum::default() }.finish());
    };
    let mut index = index?;
    let (named, drawn) = (index.logs.len() as u64, draw(&mut index, options));
    let mut sum = Sum::default();
    (sum.verdict.logs_named, sum.verdict.seed) = (named, options.seed);
    sum.verdict.notes.extend(drawn.into_iter().chain(index.notes()));
    let logs_total = index.logs.len() as u64;
    let whose = Whose { users: index.run.users.clone(), is_whole: index.has_end };
    for range in index.groups(options.receipts_max) {
        let first = range.start as u64;
        let names: Vec<String> = index.logs[range].iter().map(|(log, _)| log.clone()).collect();
        let path = receipts.to_owned();
        let group = read(move || Group::read(&path, names.iter().map(String::as_str)));
        let Some(group) = unless(stopped(options), group).await else {
            sum.stopped = true;
            break;
        };
        let Group { names, logs } = group?;
        let audits = logs.into_iter().zip(first..).map(|((log, claims), at)| {
            let (names, run) = (&names, &whose);
            async move {
                let patience = Instant::now() + options.patience.min(PATIENCE_MIN);
                let until = (began + options.patience).max(patience);
                let seed = options.seed ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let reader = Reader { target, until };
                let lines_max = options.lines_max;
                let task = Task { reader, log: &log, names, run, until, lines_max, seed };
                let audited = audit_log(task, claims, stopped(options)).await;
                (log, audited)
            }
        });
        let mut audits = stream::iter(audits).buffer_unordered(options.concurrency.max(1));
        while let Some((log, audited)) = audits.next().await {
            sum.add(&log, audited);
            progress(Progress { logs: sum.verdict.logs, logs_total });
            if sum.unreachable {
                break;
            }
        }
        if sum.unreachable || sum.stopped {
            break;
        }
    }
    let mut verdict = sum.finish();
    verdict.seconds = began.elapsed().as_secs_f64();
    Ok(verdict)
}

/// Leaves so many logs as are to be audited, drawn by lot, and says so if it is not all of them.
fn draw(index: &mut Index, options: &Options) -> Option<String> {
    let of = index.logs.len();
    let sample = options.sample.filter(|sample| *sample < of)?;
    let mut rng = SmallRng::seed_from_u64(options.seed);
    let mut drawn = rand::seq::index::sample(&mut rng, of, sample).into_vec();
    drawn.sort_unstable();
    index.logs = drawn.into_iter().map(|at| std::mem::take(&mut index.logs[at])).collect();
    let seed = options.seed;
    Some(format!(
        "{sample} of {of} logs were drawn by lot: the same again with --audit-seed {seed}"
    ))
}

/// Returns once the audit is to end; never, if nobody can say so any more.
async fn stopped(options: &Options) {
    if let Some(mut stop) = options.stop.clone()
        && stop.wait_for(|stopped| *stopped).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// What comes of `work`; `None`: it was stopped before.
async fn unless<T>(stopped: impl Future<Output = ()>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stopped => None,
        done = work => Some(done),
    }
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
    given_up: u64,
    moving: Troubled,
    troubled: Troubled,
    /// Nobody answers: the other logs are not tried.
    unreachable: bool,
    /// It was told to end.
    stopped: bool,
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
        verdict.logs += u64::from(!audited.stopped);
        self.stopped |= audited.stopped;
        verdict.entries += audited.entries;
        verdict.receipts += audited.receipts;
        verdict.rows += audited.rows;
        verdict.seen += audited.seen;
        verdict.lookups += audited.lookups;
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

    fn finish(self) -> Verdict {
        let mut verdict = self.verdict;
        let stopped = self.stopped.then(|| "ended by Ctrl-C".to_owned());
        let why: Vec<String> =
            [stopped, self.troubled.say(), self.moving.say()].into_iter().flatten().collect();
        verdict.unfinished = (!why.is_empty()).then(|| why.join("; "));
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
