//! Audits a service from outside: compares its logs and views with the answers to its clients.
//!
//! The input is a file of [receipts] and a URL. The auditor reads the logs that the file names, and
//! their views. It knows the rules of one service, the ledger: it folds its entries by rules of its
//! own, and compares all rows. Of other services it checks everything that needs no rules
//! ([`Model`]). It links no crate of Fanfold, so that a bug cannot hide by being in both. What it
//! checks, by [`Invariant`]:
//!
//! - **F1** Seqs are 1, 2, 3 … without a hole. Every accepted command has its entry in time. No two
//!   receipts have the same seq.
//! - **F3** The entry at a receipt's seq has that user, id and command, and the digest of the data
//!   that was sent, if the file has it (the ledger's model compares events instead). An entry names the log and
//!   the seq that were asked for, and never changes. A page begins where the one before it ended. A
//!   user of this run has no entry of a command that was never sent. An entry has no field of
//!   another status.
//! - **F4** An id of a user, or of a user's client, is decided once. A repetition is a `duplicate`
//!   that names the first entry; another command with the id is `id_reused`, and names the first
//!   entry. An entry is `stale` if the window has lost its id, and only then. A lookup of an id
//!   returns its first entry, 404 if the id was never sent, or 410 if the window has lost it.
//! - **F5** Views reach the tail in time, and are not parked.
//! - **F6** With the ledger's model: a command has the result that the ledger's rules demand. Rows are the fold of the
//!   entries: all of them, and no others. The sum of all balances is what was deposited less what
//!   was withdrawn. What readers saw during the run was the fold at its seq. With any model: no
//!   later reader saw a lower cursor, and no cursor is beyond the end of its log.
//! - **F8** Every receipt has its entry.
//! - **time** No entry is earlier than the one before it.
//! - **outcome** The entry of a new id is accepted, or rejected with a code, as the file expects.
//!
//! `faulted` entries change no balance. Neither do `lost` ones, which an operator has given up; a
//! note counts those that had a receipt.

use std::collections::BTreeMap;
use std::path::Path;
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
mod digest;
mod exact;
mod findings;
mod invariant;
mod ledger;
mod log;
mod reader;
mod rows;
mod seen;
mod views;
mod window;

pub use claims::{AuditError, LineError};
use claims::{Group, Index};
use findings::Findings;
pub use findings::{BREACHES_MAX, Breach};
use http::Target;
pub use invariant::Invariant;
use log::{LogVerdict, OwnUsers, Task, audit_log, until_stopped};
use reader::{ReadError, Reader};
pub use receipts::Model;

/// Logs that are audited at the same time, unless the options say otherwise.
pub const CONCURRENCY: usize = 16;

/// Receipts in memory, unless the options say otherwise: about 140 MB.
pub const RECEIPTS_MAX: usize = 2_000_000;

/// Movements of one log that wait for their comparison, unless the options say otherwise: about 2
/// MB.
pub const LINES_MAX: usize = 16 * 1_024;

/// The views of each log have at least this time, also if the audit reaches the log late.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// How to audit.
#[derive(Debug, Clone)]
pub struct Options {
    /// The number of logs to audit, drawn at random; `None`: all of them.
    pub sample: Option<usize>,
    /// The seed of all random choices: which logs are drawn, and which entries are read twice.
    pub seed: u64,
    /// The time that entries and views have, from the start of the audit, to contain all accepted
    /// commands.
    pub patience: Duration,
    /// The number of logs that are audited at the same time.
    pub concurrency: usize,
    /// The maximum number of receipts in memory. If the logs have more, they are audited in groups,
    /// and the file is read once more for each group. The receipts of one log are always held
    /// together.
    pub receipts_max: usize,
    /// The rules by which outcomes and rows are judged; `None`: as the file says.
    pub model: Option<Model>,
    /// The maximum number of movements of one log in memory that are folded and not yet compared
    /// with their rows.
    pub lines_max: usize,
    /// Ends the audit when it turns true. The verdict then holds what was found so far.
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
            model: None,
            lines_max: LINES_MAX,
            stop: None,
        }
    }
}

/// The progress of an audit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Logs that are done.
    pub logs: u64,
    /// Logs to audit.
    pub logs_total: u64,
}

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// Logs that were read.
    pub logs: u64,
    /// Logs that the receipts name.
    pub logs_named: u64,
    /// The seed: it decides which logs are drawn and which entries are read twice.
    pub seed: u64,
    /// Entries that were read and folded.
    pub entries: u64,
    /// Entries by status: `accepted`, `rejected`, `duplicate`, …
    pub outcomes: BTreeMap<String, u64>,
    /// Receipts that were compared with their log.
    pub receipts: u64,
    /// Rows that were compared with the fold.
    pub rows: u64,
    /// Entries and rows that readers saw during the run, and that were compared.
    pub seen: u64,
    /// Ids that were looked up.
    pub lookups: u64,
    /// The service of the receipts.
    pub service: String,
    /// The rules by which outcomes and rows were judged.
    pub model: Model,
    /// Whether the receipts say which outcomes are expected.
    pub expects: bool,
    /// Whether views were read.
    pub has_views: bool,
    /// The sum of all balances of these logs, in minor units, if the model is the ledger's. It may
    /// exceed 64 bits.
    pub balance: Option<i128>,
    /// Why the audit did not finish; `None`: it did.
    pub unfinished: Option<String>,
    /// The number of breaches.
    pub breaches: u64,
    /// The number of breaches of each invariant.
    pub broken: BTreeMap<Invariant, u64>,
    /// The first breaches, by log and seq: at most [`BREACHES_MAX`].
    pub examples: Vec<Breach>,
    /// What a reader of the verdict should know, and is no breach.
    pub notes: Vec<String>,
    /// Seconds that the audit took.
    pub seconds: f64,
}

impl Verdict {
    /// Whether the audit finished without a breach. An audit without any receipt is not clean.
    pub fn is_clean(&self) -> bool {
        self.breaches == 0 && self.unfinished.is_none() && self.receipts > 0
    }
}

/// Audits `target` against the file at `receipts`, and calls `progress` after each log.
pub async fn audit(
    target: &Target,
    receipts: &Path,
    options: &Options,
    progress: impl Fn(Progress),
) -> Result<Verdict, AuditError> {
    let began = Instant::now();
    let path = receipts.to_owned();
    let Some(index) = until_stopped(stopped(options), read(move || Index::read(&path))).await
    else {
        return Ok(VerdictBuilder { stopped: true, ..VerdictBuilder::default() }.finish());
    };
    let mut index = index?;
    let service = index.run.service.clone();
    let model = options.model.or(index.run.model).unwrap_or(Model::of(&service));
    if model == Model::Ledger && Model::of(&service) != Model::Ledger {
        return Err(AuditError::Model { service });
    }
    let (named, drawn) = (index.logs.len() as u64, draw(&mut index, options));
    let mut sum = VerdictBuilder::default();
    (sum.verdict.logs_named, sum.verdict.seed) = (named, options.seed);
    sum.verdict.notes.extend(drawn.into_iter().chain(index.notes()));
    sum.verdict.expects = index.has_expectations;
    (sum.verdict.service, sum.verdict.model) = (service, model);
    let views = index.run.views.clone();
    sum.verdict.has_views = model == Model::Ledger || !views.is_empty();
    let logs_total = index.logs.len() as u64;
    let own = OwnUsers { prefix: index.run.users.clone(), is_complete: index.has_end };
    for range in index.groups(options.receipts_max) {
        let first = range.start as u64;
        let names: Vec<String> = index.logs[range].iter().map(|(log, _)| log.clone()).collect();
        let path = receipts.to_owned();
        let group = read(move || Group::read(&path, names.iter().map(String::as_str)));
        let Some(group) = until_stopped(stopped(options), group).await else {
            sum.stopped = true;
            break;
        };
        let Group { names, logs } = group?;
        let audits = logs.into_iter().zip(first..).map(|((log, claims), at)| {
            let (names, own, views) = (&names, &own, &views[..]);
            async move {
                let patience = Instant::now() + options.patience.min(PATIENCE_MIN);
                let until = (began + options.patience).max(patience);
                let seed = options.seed ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let reader = Reader { target, until };
                let lines_max = options.lines_max;
                let log_name = &log;
                let task = Task {
                    reader,
                    log: log_name,
                    names,
                    own,
                    model,
                    views,
                    until,
                    lines_max,
                    seed,
                };
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

/// Keeps only the sample of logs to audit, if the options ask for one. Returns a note that says so.
fn draw(index: &mut Index, options: &Options) -> Option<String> {
    let of = index.logs.len();
    let sample = options.sample.filter(|sample| *sample < of)?;
    let mut rng = SmallRng::seed_from_u64(options.seed);
    let mut drawn = rand::seq::index::sample(&mut rng, of, sample).into_vec();
    drawn.sort_unstable();
    index.logs = drawn.into_iter().map(|at| std::mem::take(&mut index.logs[at])).collect();
    let seed = options.seed;
    Some(format!(
        "{sample} of {of} logs were drawn at random: --audit-seed {seed} draws them again"
    ))
}

/// Returns when the audit shall end; never, if the sender was dropped.
async fn stopped(options: &Options) {
    if let Some(mut stop) = options.stop.clone()
        && stop.wait_for(|stopped| *stopped).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Reads the file on a thread for blocking work.
async fn read<T: Send + 'static>(
    pass: impl FnOnce() -> Result<T, AuditError> + Send + 'static,
) -> Result<T, AuditError> {
    match tokio::task::spawn_blocking(pass).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Adds up the verdicts of the logs.
#[derive(Default)]
struct VerdictBuilder {
    verdict: Verdict,
    findings: Findings,
    given_up: u64,
    growing: Unfinished,
    unreadable: Unfinished,
    /// The target does not answer, so the other logs are not tried.
    unreachable: bool,
    /// The options ended the audit.
    stopped: bool,
}

/// Logs whose audit did not finish: their number, and the first by name with the reason.
#[derive(Default)]
struct Unfinished {
    count: u64,
    first: Option<(String, String)>,
}

impl Unfinished {
    fn add(&mut self, log: &str, why: String) {
        self.count += 1;
        if self.first.as_ref().is_none_or(|(first, _)| log < first.as_str()) {
            self.first = Some((log.to_owned(), why));
        }
    }

    fn text(&self) -> Option<String> {
        let (log, why) = self.first.as_ref()?;
        Some(match self.count {
            1 => format!("{log}: {why}"),
            n => format!("{log}: {why}; and {} more logs", n - 1),
        })
    }
}

impl VerdictBuilder {
    fn add(&mut self, log: &str, audited: LogVerdict) {
        let verdict = &mut self.verdict;
        verdict.logs += u64::from(!audited.stopped);
        self.stopped |= audited.stopped;
        verdict.entries += audited.entries;
        verdict.receipts += audited.receipts;
        verdict.rows += audited.rows;
        verdict.seen += audited.seen;
        verdict.lookups += audited.lookups;
        if let Some(balance) = audited.balance {
            *verdict.balance.get_or_insert_default() += balance;
        }
        for (status, count) in audited.outcomes {
            *verdict.outcomes.entry(status).or_default() += count;
        }
        self.findings.merge(audited.findings);
        self.given_up += audited.given_up;
        if audited.is_growing {
            self.growing.add(log, "it grew faster than the audit could read it".to_owned());
        }
        if let Some(error) = audited.error {
            self.unreachable |= matches!(error, ReadError::Unreachable { .. });
            self.unreadable.add(log, error.to_string());
        }
    }

    fn finish(self) -> Verdict {
        let mut verdict = self.verdict;
        let stopped = self.stopped.then(|| "ended by Ctrl-C".to_owned());
        let why: Vec<String> =
            [stopped, self.unreadable.text(), self.growing.text()].into_iter().flatten().collect();
        verdict.unfinished = (!why.is_empty()).then(|| why.join("; "));
        verdict.breaches = self.findings.count();
        (verdict.broken, verdict.examples) = self.findings.finish();
        if self.given_up > 0 {
            let what = format!(
                "{} commands with a receipt are `lost`: an operator gave them up",
                self.given_up
            );
            verdict.notes.push(what);
        }
        verdict
    }
}
